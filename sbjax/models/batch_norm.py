"""Batch normalisation that is fast on XLA:CPU, and keeps little for the backward pass on accelerators.

XLA:CPU reduces [rows, channels] with few channels one narrow row at a time; here several rows are first viewed as one
wide row. Together with the closed-form gradient, forward and backward pass of a 128x28x28x32 map take 6 ms instead of
34 ms with `flax.linen.BatchNorm` (2 x86-64 cores, `jax` 0.10.1). On other devices wide rows would be a copy in another
layout: sums are plain there, and what is kept for the backward pass is the input in its own dtype, two bytes of
bfloat16 instead of four.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from sbjax import trees

_WIDE = 512  # entries in a wide row; 256 to 1024 are equally fast


class BatchNorm(nn.Module):
    """`flax.linen.BatchNorm` over all axes except the last, with the same parameters and statistics.

    Training: y = scale (x - mean) / sqrt(var + epsilon) + bias with mean and (biased) variance of the batch, and
    running statistics s <- momentum s + (1 - momentum) batch. Evaluation: with the running statistics. Sums are
    computed in float32 or wider.

    Training mode has a reverse-mode derivative only: for Hessian products use reverse over reverse, or evaluation mode.

    Attributes:
        train: training or evaluation mode.
        momentum: decay of the running statistics.
        epsilon: added to the variance.
        use_scale: multiply by a trained scale.
        dtype: dtype of the result.
    """

    train: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    use_scale: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        channels = (x.shape[-1],)
        param_dtype = trees.wide_dtype(self.dtype)
        ones = nn.initializers.ones
        scale = self.param("scale", ones, channels, param_dtype) if self.use_scale else jnp.ones(channels, param_dtype)
        bias = self.param("bias", nn.initializers.zeros, channels, param_dtype)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, param_dtype)
        var = self.variable("batch_stats", "var", jnp.ones, channels, param_dtype)
        if jax.default_backend() == "cpu" or not self.train or self.is_initializing():
            x = x.astype(param_dtype)
        if not self.train or self.is_initializing():
            factor = scale * lax.rsqrt(var.value + self.epsilon)
            y = (x - trees.along(mean.value, x)) * trees.along(factor, x) + trees.along(bias, x)
        else:
            y, batch_mean, batch_var = normalise_batch(x, scale, bias, self.epsilon)
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * batch_var
        return y.astype(self.dtype)


def channel_sum(x: Float[Array, "*batch c"]) -> Float[Array, " c"]:
    """Sum over all axes except the last, on CPU over wide rows first."""
    if jax.default_backend() != "cpu":
        return x.sum(tuple(range(x.ndim - 1)))
    channels = x.shape[-1]
    rows, together = x.size // channels, 1
    while together * channels < _WIDE and rows % (2 * together) == 0:
        together *= 2
    return x.reshape(rows // together, together * channels).sum(0).reshape(together, channels).sum(0)


@jax.custom_vjp
def normalise_batch(
    x: Float[Array, "*batch c"], scale: Float[Array, " c"], bias: Float[Array, " c"], epsilon: float | Float[Array, ""]
) -> tuple[Float[Array, "*batch c"], Float[Array, " c"], Float[Array, " c"]]:
    """Normalised batch, mean and variance; no gradient flows through the latter two, which update statistics only.

    In the dtype of `scale`, whatever that of x is.
    """
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon):
    given, x, rows = x, x.astype(scale.dtype), x.size // x.shape[-1]
    mean = channel_sum(x) / rows
    var = jnp.maximum(channel_sum(x * x) / rows - mean * mean, 0.0)
    inverse = lax.rsqrt(var + epsilon)
    y = (x - trees.along(mean, x)) * trees.along(scale * inverse, x) + trees.along(bias, x)
    return (y, mean, var), (given, mean, inverse, scale)


def _backward(residuals, cotangents):
    """dbias = sum dy, dscale = sum dy z, dx = scale / sigma (dy - (dbias + z dscale) / rows), z = normalised x."""
    given, mean, inverse, scale = residuals
    x, dy = given.astype(scale.dtype), cotangents[0]
    along = lambda vector: trees.along(vector, x)  # noqa: E731
    z = (x - along(mean)) * along(inverse)
    dbias, dscale = channel_sum(dy), channel_sum(dy * z)
    dx = along(scale * inverse) * (dy - (along(dbias) + z * along(dscale)) / (x.size // x.shape[-1]))
    return dx.astype(given.dtype), dscale, dbias, None


normalise_batch.defvjp(_forward, _backward)
