"""Noise of a layer's weights, drawn for each example at its outputs (local reparametrisation, arXiv 1506.02557)."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from sbjax import trees
from sbjax.models.layers import Conv


class LayerNoise(NamedTuple):
    """Covariance of the weights of one layer; leaves 'kernel' and, where the layer has one, 'bias'.

    Attributes:
        variance: D of each leaf, an array with zeros where there is no noise, or a number: the same for all entries.
        factors: V of each leaf, [K, *leaf], with zeros where there is no noise.
        mean: of each leaf; used where several examples share a draw.
    """

    variance: Mapping[str, Float[Array, "..."] | float]
    factors: Mapping[str, Float[Array, "rank ..."]]
    mean: Mapping[str, Float[Array, "..."]]


def is_layer(module: nn.Module) -> bool:
    """Whether it is a layer whose weights can be random: dense, or a convolution."""
    return isinstance(module, nn.Dense | nn.Conv | Conv)


def add_noise(
    module: nn.Module, x: Float[Array, "batch ..."], noise: LayerNoise, *, key: Key[Array, ""], group: int = 1
) -> Array:
    """What random weights add to the outputs of a layer, independently for each example.

    sqrt(x^2 * D) e_0 + 1/sqrt(K) sum_k e_k (x * V_k), where * is what the layer computes and the e are standard normal.
    e_k is one number an example, e_0 one an output. For a dense layer of vectors this has the law of weights drawn anew
    for each example. Where an example gives a layer several vectors, or a convolution several places, the diagonal's
    noise is drawn for each place: right at every place, without its correlations between places, as in the published
    program.

    Args:
        module: the layer, as in the network.
        x: its inputs; the first axis is of examples.
        group: so many examples in a row share the e_k.
    """
    rank = len(noise.factors["kernel"])
    diagonal_key, factor_key = jax.random.split(key)
    diagonal = _diagonal(module, x, noise, diagonal_key)
    return diagonal + _low_rank(module, x, noise.factors, factor_key, rank, group) if rank else diagonal


def grouped_dense(
    module: nn.Dense, x: Float[Array, "batch d"], noise: LayerNoise, *, key: Key[Array, ""], group: int
) -> Float[Array, "batch features"]:
    """Outputs of a dense layer whose low rank draws are shared by `group` examples in a row, the mean among them.

    The weights of a group are made and multiplied with: instead of 1 + K products of a batch with a matrix, one, and
    K / group for making weights. Of the same law, and the same numbers, as the layer with `add_noise`.
    """
    rank = len(noise.factors["kernel"])
    diagonal_key, factor_key = jax.random.split(key)
    groups = -(-len(x) // group)
    shared = _shared(factor_key, groups, rank, x.dtype)
    kernel = noise.mean["kernel"][None] + jnp.tensordot(shared, noise.factors["kernel"], 1)
    padded = jnp.concatenate([x, jnp.zeros((groups * group - len(x), x.shape[1]), x.dtype)])
    y = padded.reshape(groups, group, -1) @ kernel.astype(x.dtype)
    if "bias" in noise.mean:
        y = y + (noise.mean["bias"][None] + shared @ noise.factors["bias"]).astype(y.dtype)[:, None]
    return y.reshape(-1, y.shape[-1])[: len(x)] + _diagonal(module, x, noise, diagonal_key)


def _shared(key: Key[Array, ""], groups: int, rank: int, dtype: Any) -> Float[Array, "groups rank"]:
    return jax.random.normal(key, (groups, rank), dtype) / rank**0.5


def _diagonal(module, x, noise, key) -> Array:
    variance = _variance(module, x, noise.variance)
    # A square root has no derivative at 0, where a layer sees zeros or has no noise.
    positive = variance > 0
    deviation = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)
    return deviation * jax.random.normal(key, (*deviation.shape[:-1], module.features), deviation.dtype)


def _variance(module, x, variance) -> Array:
    """The diagonal's variance at the outputs; one output stands for all where all entries have one variance."""
    kernel, square = variance["kernel"], jnp.square(x)
    if jnp.ndim(kernel) == 0 and getattr(module, "groups", 1) == 1 and getattr(module, "feature_group_count", 1) == 1:
        # Numbers: sum of squares times the variance, without a product of matrices.
        if isinstance(module, nn.Dense):
            found = kernel * square.sum(-1, keepdims=True)
        else:
            size = module.kernel_size
            window = (size, size) if isinstance(module, Conv) else (size,) if isinstance(size, int) else tuple(size)
            found = kernel * _linear(module, square.sum(-1, keepdims=True), jnp.ones((*window, 1, 1), x.dtype), 1)
        return found + _bias(variance, found)
    fields = {"kernel": jnp.broadcast_to(kernel, _kernel_shape(module, x)).astype(x.dtype)}
    found = _linear(module, square, fields["kernel"], module.features)
    return found + _bias(variance, found).astype(found.dtype)


def _bias(variance, found) -> Array:
    bias = jnp.asarray(variance.get("bias", 0.0))
    return trees.along(bias, found) if bias.ndim else bias


def _low_rank(module, x, factors, key, rank, group) -> Array:
    kernel, bias = factors["kernel"], factors.get("bias")
    groups = getattr(module, "groups", getattr(module, "feature_group_count", 1))
    if groups == 1:
        wide = jnp.moveaxis(kernel, 0, -2)  # [*window, in, K, out]
        found = _linear(module, x, wide.reshape(*wide.shape[:-2], -1), rank * module.features)
        found = found.reshape(*found.shape[:-1], rank, module.features)
    else:  # outputs of a group lie together: one factor after another
        found = jnp.stack([_linear(module, x, one, module.features) for one in kernel], -2)
    if bias is not None:
        found = found + trees.along(bias.astype(found.dtype), found)
    shared = jnp.repeat(_shared(key, -(-len(x) // group), rank, found.dtype), group, 0)[: len(x)]
    return jnp.einsum("b...kf,bk->b...f", found, shared)


def _linear(module: Any, x: Array, kernel: Array, features: int) -> Array:
    """What a layer with this kernel, and without a bias, makes of x."""
    other = module.clone(parent=None, name=None, features=features, use_bias=False)
    return other.apply({"params": {"kernel": kernel}}, x)


def _kernel_shape(module, x) -> tuple[int, ...]:
    other = module.clone(parent=None, name=None, use_bias=False)
    return jax.eval_shape(other.init, jax.random.key(0), x)["params"]["kernel"].shape


def interceptor(
    noises: Mapping[str, LayerNoise], keys: Callable[[str], Key[Array, ""]], *, group: int = 1
) -> Callable[..., Any]:
    """For `flax.linen.intercept_methods`: adds noise to the outputs of the layers of these names.

    Args:
        noises: by the name of the layer, 'stage_0_block_0/conv_0'.
        keys: key of a layer by its name.
        group: so many examples in a row share the draws of low rank.
    """
    inside = False  # layers that are called to compute the noise itself

    def intercept(call, args, kwargs, context):
        nonlocal inside
        module = context.module
        if inside or context.method_name != "__call__" or not is_layer(module):
            return call(*args, **kwargs)
        if (name := "/".join(module.path)) not in noises:
            return call(*args, **kwargs)
        x, noise = args[0], noises[name]
        shares = group > 1 and isinstance(module, nn.Dense) and x.ndim == 2 and len(noise.factors["kernel"]) > 0
        if not shares:
            y = call(*args, **kwargs)
        inside = True
        try:
            if shares:
                dtype = module.dtype or trees.promoted(x, noise.mean["kernel"])
                return grouped_dense(module, x.astype(dtype), noise, key=keys(name), group=group)
            return y + add_noise(module, x, noise, key=keys(name), group=group).astype(y.dtype)
        finally:
            inside = False

    return intercept
