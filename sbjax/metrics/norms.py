"""Means of powers that neither overflow nor vanish: the largest entry is divided out first."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_HALFWAY = 2.0**64  # between one and the largest float32: sums of entries below its square stay finite


def power_mean(
    x: Float[Array, "*rows n"], p: float, weights: Float[Array, " n"] | None = None
) -> Float[Array, "*rows"]:
    """(sum_i w_i |x_i|^p)^(1/p) over the last axis, u (sum_i w_i (|x_i| / u)^p)^(1/p) with u = max |x_i|.

    Right for every finite p >= 1 and every scale of the entries; differentiable, with gradient zero where all entries
    are. numpy arrays are taken by numpy, in float64.

    Args:
        x: any sign.
        p: order, 1 <= p < inf.
        weights: non-negative, with sum 1; None = equal ones.

    >>> f'{power_mean(jnp.array([3e-30, 4e-30, 0.0, 0.0]), 2.0):.4g}'
    '2.5e-30'
    >>> f'{power_mean(jnp.array([0.01, 0.02]), 538.0):.4g}'
    '0.01997'
    """
    library = np if isinstance(x, np.ndarray) else jnp
    if weights is not None:  # entries without mass count for nothing, unless they are NaN or infinite
        weights = weights.reshape((1,) * (x.ndim - weights.ndim) + weights.shape)
        x = library.where((weights > 0) | ~library.isfinite(x), x, 0)
    if library is np:
        return _by_numpy(np.abs(x.astype(np.float64, copy=False)), p, weights)
    if p == 1:
        return _weighted(x * jnp.sign(x), weights)
    unit = jnp.max(jax.lax.stop_gradient(jnp.abs(x)), -1, keepdims=True)
    unit = jnp.where(unit == 0, 1, _power_of_two(unit) if p == 2 else unit)
    return root(_weighted(power(x / unit, p), weights), p) * unit[..., 0]


def power(x: Float[Array, "..."], p: float) -> Float[Array, "..."]:
    """|x|^p with gradient zero at zero; `jnp.abs` has gradient one there."""
    return x * jnp.sign(x) if p == 1 else jnp.square(x) if p == 2 else jnp.abs(x) ** p


def root(x: Float[Array, "..."], p: float) -> Float[Array, "..."]:
    """x^(1/p) with gradient zero, instead of infinity, at zero."""
    if p == 1:
        return x
    return jnp.where(x == 0, 0, jnp.where(x == 0, 1, x) ** (1 / p))


def tame(*arrays: Float[Array, "..."]) -> Float[Array, ""]:
    """What to divide arrays by so that sums and differences of entries stay finite: 1 unless entries are huge."""
    largest = [jnp.max(jnp.abs(jax.lax.stop_gradient(x)), initial=0.0) for x in arrays]
    most = jnp.max(jnp.stack(largest))
    return jnp.where(most > _HALFWAY, jnp.asarray(_HALFWAY, most.dtype), 1)


def moments(x: Float[Array, "..."]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean and standard deviation of all entries; the latter is exactly 0, not 1e-7 by rounding, for equal entries.

    >>> [f'{y:.4g}' for y in moments(jnp.array([1e-30, 3e-30]))]
    ['2e-30', '1e-30']
    """
    library = np if isinstance(x, np.ndarray) else jnp
    if library is np:
        x = x.astype(np.float64, copy=False)
    unit = library.abs(x if library is np else jax.lax.stop_gradient(x)).max()
    unit = library.where(unit > 0, unit, 1)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite entries give NaN
        x = x / unit
        mean = x.mean()
        spread = power_mean((x - mean).reshape(-1), 2.0)
        return unit * mean, unit * library.where(x.max() == x.min(), 0, spread)


def _weighted(powers, weights):
    return powers.mean(-1) if weights is None else (powers * weights).sum(-1)


def _by_numpy(size, p, weights):
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if p == 1 and np.isfinite(mean := _weighted(size, weights)).all():
            return mean
        unit = size.max(-1, keepdims=True)
        unit = np.where(unit == 0, 1, unit)
        return unit[..., 0] * _weighted((size / unit) ** p, weights) ** (1 / p)


def _power_of_two(x):
    """The power of two below, by which division is exact: squares then round as they would without it."""
    bits, exponent = (jnp.uint32, 0x7F800000) if x.dtype.itemsize == 4 else (jnp.uint64, 0x7FF0000000000000)
    return jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(x, bits) & bits(exponent), x.dtype)
