"""Folding: an MLP trained on expanded input becomes an MLP on raw input with the same outputs."""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sbjax import trees
from sbjax.expansion.transform import (
    Expansion,
    ImageExpansion,
    SequenceExpansion,
    VectorExpansion,
    expand,
    expanded_shape,
)


def fold(
    expansion: Expansion | None,
    params: Mapping[str, Any],
    *,
    layer: str | None = None,
    input_shape: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Parameters of an MLP on expanded input -> parameters of the MLP on raw input with the same outputs.

    With e(x) = A x + c of the flattened input and a first layer e(x) W + b, the raw layer is W' = A^T W and
    b' = b + c W. Exact, so an expanded MLP costs nothing once it is trained. Stacked replicas: `jax.vmap` it.

    After `prepare` with order='before' the network saw (e(x) - mean) / std: fold with the expansion in these
    units, that is with the fill (v - mean) / std for a fill v, and as it is for 'nearest' and 'bilinear'.

    Args:
      expansion: what was applied to the input of the network; None changes nothing.
      params: the parameters by name, with or without a 'params' above them (other collections are kept).
      layer: the first Dense layer, {'kernel': [n, h], 'bias': [h]}: 'dense_0', 'params/block/dense_0'. By
        default the first in natural order of the names ('dense_2' before 'dense_10') with a kernel [n, h].
      input_shape: shape of one raw example, whose expansion is flattened into the n entries; derived from the
        kernel for a `VectorExpansion`.

    Returns:
      A copy with the layer replaced. A layer without a bias gets one: the raw module needs `use_bias=True`.

    Raises:
      TypeError: `expansion` is a tree, or one of your own, of which nothing says that it is affine.
      ValueError: there is no such layer, or its kernel does not fit the expanded input.

    >>> import jax.numpy as jnp
    >>> from sbjax.expansion.transform import VectorExpansion
    >>> params = {'dense_0': {'kernel': jnp.array([[2.0], [3.0]]), 'bias': jnp.zeros(1)}}
    >>> folded = fold(VectorExpansion(0, 1, 10.0), params)['dense_0']
    >>> folded['kernel'].tolist(), folded['bias'].tolist()
    ([[2.0]], [30.0])
    """
    if expansion is None:
        return cast(dict[str, Any], params)
    if not isinstance(expansion, Expansion):
        raise TypeError(f"expansion={expansion!r} is not one expansion: fold the layers of a tree one after another.")
    if not isinstance(expansion, ImageExpansion | VectorExpansion | SequenceExpansion):
        raise TypeError(
            f"expansion={expansion!r} cannot be folded: nothing says that {type(expansion).__name__} is affine. Train "
            "with it unfolded."
        )
    path = _dense_path(params, layer)
    dense = functools.reduce(lambda node, name: node[name], path, params)
    kernel = jnp.asarray(dense["kernel"])
    rows = kernel.shape[0]
    if input_shape is None:
        if not isinstance(expansion, VectorExpansion):
            raise ValueError(f"input_shape=None does not tell how {type(expansion).__name__} acts: give one example's.")
        input_shape = (rows - len(expansion.constants),)
    entries = math.prod(expanded_shape(expansion, input_shape)) if min(input_shape) > 0 else 0
    if entries != rows:
        raise ValueError(
            f"layer '{'/'.join(path)}' has a kernel of shape {kernel.shape}, but {expansion} of "
            f"input_shape={tuple(input_shape)} has {entries} entries: name the layer that reads the "
            "input, or give the shape of one raw example."
        )

    # Half-precision sums would lose the identity; the result goes back to the parameters' own dtype.
    dtype = jnp.float64 if kernel.dtype == jnp.float64 else jnp.float32
    wide = kernel.astype(dtype)
    constants, pull = jax.vjp(
        lambda x: expand(expansion, x.reshape(input_shape)).ravel(), jnp.zeros(math.prod(input_shape), dtype)
    )
    raw_kernel = jax.vmap(lambda column: pull(column)[0], in_axes=1, out_axes=1)(wide)
    shift = jnp.matmul(constants, wide, precision=lax.Precision.HIGHEST)
    bias = jnp.asarray(dense.get("bias", jnp.zeros(kernel.shape[1:], kernel.dtype)))
    raw_bias = bias.astype(dtype) + shift
    folded = {**dense, "kernel": raw_kernel.astype(kernel.dtype), "bias": raw_bias.astype(bias.dtype)}
    return _replace(params, path, folded)


def _dense_path(params: Mapping[str, Any], layer: str | None) -> tuple[str, ...]:
    """Names down to the Dense layer `layer`, or to the first one."""
    top = ("params",) if "params" in params else ()
    kernels = trees.flatten(params["params"] if top else params)
    names = [
        name.removesuffix("kernel").removesuffix("/")
        for name, leaf in kernels.items()
        if name.split("/")[-1] == "kernel" and np.ndim(leaf) == 2
    ]
    names.sort(key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])
    if layer is not None:
        layer = layer.removeprefix("params/")
    if not names or (layer is not None and layer not in names):
        raise ValueError(
            f"layer={layer!r}: the Dense layers (kernel of two axes) in params are {names}; name one of "
            "them, and fold stacked replicas under `jax.vmap`."
        )
    name = names[0] if layer is None else layer
    return (*top, *(name.split("/") if name else ()))


def _replace(tree: Mapping[str, Any], path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    return {**tree, path[0]: _replace(tree[path[0]], path[1:], value)}
