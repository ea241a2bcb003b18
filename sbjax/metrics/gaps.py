"""Power means of the gaps between two samples, sorted or entry by entry, by numpy and by jax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sbjax import trees
from sbjax.metrics.norms import power_mean, tame
from sbjax.metrics.sorting import LITTLE, argsort, sort


@functools.partial(jax.jit, static_argnames="p")
def pairs(rows: Float[Array, "replica n"], p: float) -> Float[Array, "replica replica"]:
    """(mean |a - b|^p)^(1/p) between all pairs of rows, entry by entry, by jax."""
    rows = rows.astype(trees.wide_dtype(rows))
    unit = tame(rows)
    rows = rows / unit
    return jax.lax.map(lambda row: power_mean(rows - row[None], p), rows) * unit


def pairs_of_arrays(rows: Float[np.ndarray, "replica n"], p: float) -> Float[np.ndarray, "replica replica"]:
    """As `pairs`, by numpy."""
    matrix = np.zeros((len(rows), len(rows)))
    for r, row in enumerate(rows[:-1]):
        # In blocks that stay in the cache; long rows one by one.
        step = max(1, LITTLE // max(1, rows.shape[1]))
        for first in range(r + 1, len(rows), step):
            some = slice(first, first + step)
            matrix[r, some] = matrix[some, r] = power_mean(rows[some] - row, p)
    return matrix


def between_arrays(
    a: Float[np.ndarray, " n"],
    b: Float[np.ndarray, " m"],
    weights_a: Float[np.ndarray, " n"] | None,
    weights_b: Float[np.ndarray, " m"] | None,
    p: float,
) -> float:
    """W_p of two samples by numpy. Large ones of equal size in place, since allocating memory costs as much as the
    arithmetic."""
    if weights_a is not None or weights_b is not None:
        (a, weights_a), (b, weights_b) = (_numpy_by_value(*side) for side in ((a, weights_a), (b, weights_b)))
        return _weighted_gaps(a, b, weights_a, weights_b, p)
    if len(a) != len(b) or len(a) < LITTLE // 64 or p != 1 or a.dtype != np.float32 or b.dtype != np.float32:
        a, b = (np.sort(x.astype(np.float64)) for x in (a, b))
        return power_mean(a - b, p) if len(a) == len(b) else _uneven_gaps(a, b, p)
    gap = np.sort(a)
    with np.errstate(over="ignore", invalid="ignore"):
        gap -= np.sort(b)
        np.abs(gap, out=gap)
        mean = gap.mean()
    return mean if np.isfinite(mean) else power_mean(np.sort(a.astype(np.float64)) - np.sort(b), p)


def _numpy_by_value(x, weights):
    order = np.argsort(x := x.astype(np.float64))
    return x[order], None if weights is None else weights.astype(np.float64)[order]


@functools.partial(jax.jit, static_argnames="p")
def between_sorted(a: Float[Array, " n"], b: Float[Array, " m"], p: float) -> Float[Array, ""]:
    """W_p of two sorted samples, by jax."""
    unit = tame(a, b)
    a, b = a / unit, b / unit
    return (power_mean(a - b, p) if len(a) == len(b) else _uneven_gaps(a, b, p)) * unit


def _uneven_gaps(a, b, p):
    rows_a, rows_b, widths = _quantile_grid(len(a), len(b))
    return power_mean(a[rows_a] - b[rows_b], p, widths.astype(a.dtype))


def by_value(
    x: Float[Array, " n"], weights: Float[Array, " n"] | None
) -> tuple[Float[Array, " n"], Float[Array, " n"] | None]:
    """A sample with its masses, sorted."""
    if weights is None:
        return sort(x), None
    order = argsort(x)
    return x[order], jnp.asarray(weights, x.dtype)[order]


@functools.partial(jax.jit, static_argnames="p")
def between_weighted(
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    weights_a: Float[Array, " n"] | None,
    weights_b: Float[Array, " m"] | None,
    p: float,
) -> Float[Array, ""]:
    """W_p of two sorted samples with masses, None = equal ones, by jax."""
    unit = tame(a, b)
    return _weighted_gaps(a / unit, b / unit, weights_a, weights_b, p) * unit


def _weighted_gaps(a, b, weights_a, weights_b, p):
    """Of sorted samples with masses, by numpy or jax."""
    library = np if isinstance(a, np.ndarray) else jnp
    constant = (lambda x: x) if library is np else jax.lax.stop_gradient

    def masses(x, weights):
        if weights is None:  # arange instead of cumsum of ones, which XLA would constant-fold for half a minute
            return library.arange(1, len(x) + 1, dtype=x.dtype) / len(x)
        unit = weights.max() if library is np else tame(weights)  # sums of huge masses overflow
        total = library.cumsum(weights / unit)
        return total / total[-1]

    mass_a, mass_b = masses(a, weights_a), masses(b, weights_b)
    edges = library.sort(library.concatenate([mass_a, mass_b]))
    widths = library.diff(edges, prepend=library.zeros(1, edges.dtype))
    middles = constant(edges - widths / 2)
    rows_a, rows_b = (
        library.minimum(library.searchsorted(mass, middles, side="right"), len(mass) - 1) for mass in (mass_a, mass_b)
    )
    return power_mean(a[rows_a] - b[rows_b], p, widths)


@functools.lru_cache(maxsize=16)
def _quantile_grid(n: int, m: int):
    """Common intervals of two step functions with n and m equal steps: step index of each and width, exactly."""
    edges = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)  # in units of 1 / (n m)
    left = edges[:-1]
    return (left // m).astype(np.int32), (left // n).astype(np.int32), np.diff(edges) / (n * m)
