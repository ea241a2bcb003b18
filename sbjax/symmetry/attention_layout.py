"""Where the parts of a pre-norm transformer stand in its tree, and what its norms let pass."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import PyTree

from sbjax import trees
from sbjax.common.names import check_choice

NORMS = ("rms", "layer")
ACTIVATIONS = ("gelu", "relu", "tanh")  # of a gelu no scale or sign is free


class Attention(NamedTuple):
    """`path`/{query, key, value}/{kernel [d, heads, k], bias}, `path`/out/{kernel [heads, k, d], bias}, as in Flax."""

    norm: str
    path: str


class Dense(NamedTuple):
    """Two dense layers with an activation between: `into`/{kernel [d, m], bias}, `out`/{kernel [m, d], bias}."""

    norm: str
    into: str
    out: str


class Layout(NamedTuple):
    """Where the parts of a pre-norm transformer stand in its tree, by flat names.

    Attributes:
        written: leaves whose last axis is the stream: embeddings, positions.
        layers: what reads from the stream through a norm and adds to it.
        head_norm: the norm before the head.
        head: path of the last dense layer. Means over tokens may stand between the two.
        norm: 'rms' or 'layer': x s / rms(x), or (x - mean) s / std(x) + b.
        activation: between dense layers.
        rope: frequencies of the planes (2p, 2p + 1) of queries and keys; () = no RoPE.
    """

    written: tuple[str, ...]
    layers: tuple[Attention | Dense, ...]
    head_norm: str
    head: str
    norm: str
    activation: str
    rope: tuple[float, ...] = ()


def layout_of(
    params: Mapping[str, Any], *, norm: str = "layer", activation: str = "gelu", rope: Sequence[float] = ()
) -> Layout:
    """The layout of a network with the names of `sbjax.models.text.TextTransformer` and
    `sbjax.models.transformer.Transformer`: norm_0, attention_0, norm_1, dense_0, dense_1, norm_2, .., norm_last, head.

    Every other leaf is one that writes into the stream.

    Raises:
        ValueError: an unknown norm or activation, a layer that is missing or of another shape than its neighbours say,
            complex numbers, a leaf of which the last axis is not the stream; frequencies that are not finite or not one
            for each plane.

    >>> from sbjax.models.text import TextTransformer
    >>> import jax
    >>> x = jnp.ones((1, 5), jnp.int32)
    >>> params = TextTransformer(classes=2, vocabulary=9, width=8, depth=1).init(jax.random.key(0), x)['params']
    >>> layout_of(params).written
    ('embedding', 'positions_table')
    """
    check_choice(norm, NORMS, what="norm")
    check_choice(activation, ACTIVATIONS, what="activation")
    leaves = trees.flatten(params)
    depth = len({name.split("/")[0] for name in leaves if re.match(r"attention_\d+/", name)})
    layers: list[Attention | Dense] = []
    for i in range(depth):
        layers.append(Attention(f"norm_{2 * i}", f"attention_{i}"))
        layers.append(Dense(f"norm_{2 * i + 1}", f"dense_{2 * i}", f"dense_{2 * i + 1}"))
    known = re.compile(r"(attention|norm|dense)_\w+/|head/")
    layout = Layout(
        tuple(name for name in leaves if not known.match(name)),
        tuple(layers),
        "norm_last",
        "head",
        norm,
        activation,
        tuple(float(frequency) for frequency in rope),
    )
    check_layout(layout, params)
    return layout


def check_layout(layout: Layout, params: PyTree) -> None:
    """Refuse a layout that does not fit a tree; see `layout_of`."""
    leaves = trees.flatten(params)
    needed = [*layout.written, f"{layout.head}/kernel", f"{layout.head_norm}/scale"]
    for layer in layout.layers:
        needed.append(f"{layer.norm}/scale")
        kernels = QKVO if isinstance(layer, Attention) else ()
        needed += [f"{layer.path}/{part}/kernel" for part in kernels]
        needed += [] if isinstance(layer, Attention) else [f"{layer.into}/kernel", f"{layer.out}/kernel"]
    for name in needed:
        if name not in leaves:
            raise ValueError(f"the layout has a leaf {name!r} that the tree lacks; the tree has {', '.join(leaves)}")
    shapes = {name: jnp.shape(leaf) for name, leaf in leaves.items()}
    if len(head := shapes[f"{layout.head}/kernel"]) != 2:
        raise ValueError(
            f"leaf '{layout.head}/kernel' has shape {head}, not [d, classes]; give the tree of one network"
        )
    d = width(layout, params)
    for name in layout.written:
        if shapes[name][-1:] != (d,):
            raise ValueError(
                f"leaf {name!r} of shape {shapes[name]} does not end with the stream of width {d}; give a "
                "Layout of your own in which `written` leaves it out"
            )
    for name, expected in _expected(layout, shapes, d).items():
        if shapes.get(name, expected) != expected:
            raise ValueError(f"leaf {name!r} has shape {shapes[name]} where its neighbours have it be {expected}")
    for name, leaf in leaves.items():
        if jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
            raise ValueError(f"leaf {name!r} is complex; the gauge group here is that of real networks")
    if not all(math.isfinite(frequency) for frequency in layout.rope):
        raise ValueError(f"rope={layout.rope} must be finite frequencies")
    for layer in layout.layers:
        if layout.rope and isinstance(layer, Attention):
            size = shapes[f"{layer.path}/query/kernel"][-1]
            if 2 * len(layout.rope) != size:
                raise ValueError(
                    f"rope has {len(layout.rope)} frequencies for heads of size {size}; give one for each of the "
                    f"{size // 2} planes"
                )


QKVO = ("query", "key", "value", "out")


def _expected(layout, shapes, d):
    """Shapes by leaf, from the width and from the heads and units that queries, values and dense layers have."""
    found = {f"{norm}/{part}": (d,) for norm in (layout.head_norm, *(layer.norm for layer in layout.layers))
             for part in ("scale", "bias")}  # fmt: skip
    for layer in layout.layers:
        if isinstance(layer, Attention):
            _, heads, size = (*shapes[f"{layer.path}/query/kernel"], 0, 0, 0)[:3]
            inner = shapes[f"{layer.path}/value/kernel"][-1]
            for name, k in (("query", size), ("key", size), ("value", inner)):
                found |= {f"{layer.path}/{name}/kernel": (d, heads, k), f"{layer.path}/{name}/bias": (heads, k)}
            out, before = f"{layer.path}/out", (heads, inner)
        else:
            before = shapes[f"{layer.into}/kernel"][1:]
            found |= {f"{layer.into}/kernel": (d, *before[:1]), f"{layer.into}/bias": before}
            out = layer.out
        found |= {f"{out}/kernel": (*before, d), f"{out}/bias": (d,)}
    return found


def width(layout: Layout, params: PyTree) -> int:
    """Width d of the stream."""
    return int(jnp.shape(trees.flatten(params)[f"{layout.head}/kernel"])[0])


def stream_groups(norm: str, *, folded: bool) -> tuple[str, ...]:
    """Groups that act on the stream: those that commute with the norm.

    With the gain s of a norm kept, RMSNorm admits signed permutations and LayerNorm permutations (and one sign for
    all). Once gains are folded into what reads from the norm, x -> x / rms(x) commutes with O(d), and x -> (x - mean) /
    std with the O(d-1) that fixes the direction of the mean.

    >>> stream_groups('layer', folded=False), stream_groups('rms', folded=True)
    (('identity', 'permutation'), ('identity', 'permutation', 'signed', 'orthogonal'))
    """
    check_choice(norm, NORMS, what="norm")
    signed = ("signed",) if norm == "rms" else ()
    return ("identity", "permutation", *signed, *(("orthogonal",) if folded else ()))
