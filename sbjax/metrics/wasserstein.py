"""Wasserstein distances between the entries of pytrees: exact, jitted, differentiable.

In one dimension, W_p = (int_0^1 |F^-1(u) - G^-1(u)|^p du)^(1/p) with the quantile functions F^-1 and G^-1 of two
samples; for equal sizes this compares sorted entries. Every array is sorted once, for any number of pairs.

Limitation: the distance ignores positions. It is invariant under permutations of hidden units and any other permutation
within an array; `sbjax.metrics.replica` has distances that are not.
"""

import functools
import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from sbjax import trees
from sbjax.metrics.norms import power_mean, tame
from sbjax.metrics.sorting import LITTLE, argsort, on_host, sort, to_host


class Distances(NamedTuple):
    """Distances by flat leaf name, and between all entries of all leaves as one sample (None if `pooled=False`)."""

    leaves: dict[str, Array]
    pooled: Array | None


def wasserstein(
    tree_a: PyTree,
    tree_b: PyTree,
    p: float = 1.0,
    *,
    where: trees.Where = None,
    weights_a: PyTree | None = None,
    weights_b: PyTree | None = None,
    pooled: bool = True,
) -> Distances:
    """W_p between the entries of two trees, leaf by leaf and pooled.

    Works under `jit`, `vmap`, `grad` and `jvp`. At distance zero the gradient is zero (a subgradient).

    Args:
        tree_a: dicts, tuples, Flax Linen or NNX state, numpy or jax arrays of any shape and float dtype. Sums are
            computed in float32 or wider; numpy arrays of float64 in float64, whatever the precision of jax. Which
            leaves count, see `trees.floating`: no counters, keys, functions or running statistics.
        tree_b: tree with the same leaf names; leaves may differ in size.
        p: order, 1 <= p < inf.
        where: selection of leaves: one or several globs ('*/kernel', 'layer_2/*'), or a function of the flat name;
            None = all.
        weights_a: tree of non-negative masses with the shapes of `tree_a`; None = equal masses. Normalised per leaf,
            and over all leaves for `pooled`. Integers and booleans are cast to the leaf's dtype, float32 at least.
        weights_b: masses of `tree_b`.
        pooled: also compare all entries as one sample.

    Returns:
        `Distances` of scalars: jax arrays, numpy's where the leaf is a numpy array of float64 that jax would cut.

    Raises:
        ValueError: an invalid p, structure or weight; an empty leaf; a NaN or infinite entry (inside `jit` the result
            is NaN instead); `where` selects nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> distances = wasserstein({'w': jnp.array([0.0, 1.0])}, {'w': jnp.array([3.0, 2.0])})
        >>> float(distances.leaves['w']), float(distances.pooled)
        (2.0, 2.0)

    Source: Peyre and Cuturi, Computational Optimal Transport, arXiv 1803.00567, section 2.6.
    """
    check_order(p)
    a: dict[str, Any]
    b: dict[str, Any]
    a, b = (trees.floating(t, where, what=what) for t, what in ((tree_a, "tree_a"), (tree_b, "tree_b")))
    _check_names(a, b, "tree_a", "tree_b", (tree_a, tree_b))
    sides = [
        None if weights is None else _masses(leaves, weights, what)
        for leaves, weights, what in ((a, weights_a, "weights_a"), (b, weights_b, "weights_b"))
    ]
    a, b = ({name: to_host(leaf).reshape(-1) for name, leaf in side.items()} for side in (a, b))

    def distance(name):
        return wasserstein_1d(a[name], b[name], p, *(None if side is None else side[name] for side in sides))

    leaves = {name: distance(name) for name in a}
    explain_nonfinite(leaves, {"tree_a": a, "tree_b": b})
    if not pooled:
        return Distances(leaves, None)
    if len(a) == 1:
        return Distances(leaves, *leaves.values())
    every: list[Any] = [None if side is None else _join(side) for side in (a, b, *sides)]
    return Distances(leaves, wasserstein_1d(every[0], every[1], p, *every[2:]))


def wasserstein_1d(
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    p: float = 1.0,
    weights_a: Float[Array, " n"] | None = None,
    weights_b: Float[Array, " m"] | None = None,
) -> Float[Array, ""]:
    """Exact W_p between two samples of real numbers, of any sizes.

    With weights, breakpoints are cumulative sums in the working precision: inside `jit` in float32 the relative error
    is about 1e-5 for 1e5 entries and more, and masses below 1.2e-38 may count as zero, so that nothing else gives NaN
    (multiply them all by one number first). Without weights, they are exact. Concrete values on the CPU are compared by
    numpy: in float64 but for two large samples of the same size.

    >>> float(wasserstein_1d(jnp.array([0.0, 2.0]), jnp.array([0.0, 1.0, 2.0])))
    0.3333333432674408
    """
    dtype = trees.wide_dtype(a, b)
    given = (a, b, weights_a, weights_b)
    if on_host(*(x for x in given if x is not None)):
        x, y, mass_x, mass_y = (None if x is None else np.asarray(x) for x in given)
        return _as_given(_on_host(x, y, mass_x, mass_y, p), a, b)
    a, b = jnp.asarray(a, dtype), jnp.asarray(b, dtype)
    if weights_a is not None or weights_b is not None:
        (a, weights_a), (b, weights_b) = _by_value(a, weights_a), _by_value(b, weights_b)
        return _between_weighted(a, b, weights_a, weights_b, p)
    return _between_sorted(sort(a), sort(b), p)


def pairwise_wasserstein(
    stacked: PyTree, p: float = 1.0, *, where: trees.Where = None, pooled: bool = True
) -> Distances:
    """W_p between all pairs of replicas, leaf by leaf and pooled.

    Args:
        stacked: tree with a leading replica axis in every leaf, or a list of the trees of replicas, see
            `trees.replicas`.
        p: order, 1 <= p < inf.
        where: as in `wasserstein`.
        pooled: as in `wasserstein`.

    Returns:
        `Distances` of symmetric [replica, replica] matrices with zero diagonal.

    Raises:
        ValueError: as `wasserstein`; leaves without a common replica axis.

    Example:
        >>> import jax.numpy as jnp
        >>> pairwise_wasserstein({'w': jnp.array([[0.0, 1.0], [3.0, 2.0], [0.0, 1.0]])}).leaves['w'].tolist()
        [[0.0, 2.0, 0.0], [2.0, 0.0, 2.0], [0.0, 2.0, 0.0]]
    """
    check_order(p)
    rows = trees.replica_rows(trees.replicas(stacked), where)
    rows = {name: to_host(leaf, pair_work(leaf)) for name, leaf in rows.items()}
    leaves = {name: pairwise_1d(leaf, p) for name, leaf in rows.items()}
    explain_nonfinite(leaves, {"stacked": rows})
    if not pooled:
        return Distances(leaves, None)
    return Distances(leaves, *leaves.values()) if len(rows) == 1 else Distances(leaves, pairwise_1d(_join(rows), p))


def pairwise_1d(rows: Float[Array, "replica n"], p: float = 1.0) -> Float[Array, "replica replica"]:
    """W_p between all pairs of rows; each row is sorted once."""
    rows = to_host(rows, pair_work(rows))
    if isinstance(rows, np.ndarray):
        return _as_given(_pairs_on_host(np.sort(rows.astype(np.float64), -1), p), rows)
    return _pairwise_lp(sort(rows.astype(trees.wide_dtype(rows))), p)


def pairwise_lp(rows: Float[Array, "replica n"], p: float = 2.0) -> Float[Array, "replica replica"]:
    """(mean_i |a_i - b_i|^p)^(1/p) between all pairs of rows, entry by entry."""
    rows = to_host(rows, pair_work(rows))
    if isinstance(rows, np.ndarray):
        return _as_given(_pairs_on_host(rows.astype(np.float64), p), rows)
    return _pairwise_lp(rows, p)


def _as_given(value, *given):
    """In float64 where that was given, else as a jax array."""
    if any(map(trees.is_cut, given)):
        return value
    with np.errstate(over="ignore", under="ignore"):  # a distance may lie outside of float32, as its entries do not
        return jnp.asarray(value, trees.wide_dtype(*given))


def pair_work(rows: Float[Array, "replica ..."]) -> float:
    """Steps that comparing all pairs of rows takes, see `to_host`."""
    return len(rows) * rows.size / 2


@functools.partial(jax.jit, static_argnames="p")
def _pairwise_lp(rows, p):
    rows = rows.astype(trees.wide_dtype(rows))
    unit = tame(rows)
    rows = rows / unit
    return jax.lax.map(lambda row: power_mean(rows - row, p), rows) * unit


def _pairs_on_host(rows, p):
    matrix = np.zeros((len(rows), len(rows)))
    for r, row in enumerate(rows[:-1]):
        # In blocks that stay in the cache; long rows one by one.
        step = max(1, LITTLE // max(1, rows.shape[1]))
        for first in range(r + 1, len(rows), step):
            some = slice(first, first + step)
            matrix[r, some] = matrix[some, r] = power_mean(rows[some] - row, p)
    return matrix


def _on_host(a, b, weights_a, weights_b, p):
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
def _between_sorted(a, b, p):
    unit = tame(a, b)
    a, b = a / unit, b / unit
    return (power_mean(a - b, p) if len(a) == len(b) else _uneven_gaps(a, b, p)) * unit


def _uneven_gaps(a, b, p):
    rows_a, rows_b, widths = _quantile_grid(len(a), len(b))
    return power_mean(a[rows_a] - b[rows_b], p, widths.astype(a.dtype))


def _by_value(x, weights):
    if weights is None:
        return sort(x), None
    order = argsort(x)
    return x[order], jnp.asarray(weights, x.dtype)[order]


@functools.partial(jax.jit, static_argnames="p")
def _between_weighted(a, b, weights_a, weights_b, p):
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


def _join(side):
    """Concatenate all leaves along the last axis, in one dtype."""
    if all(isinstance(leaf, np.ndarray) for leaf in side.values()):
        return np.concatenate([leaf.astype(np.result_type(leaf, np.float32)) for leaf in side.values()], -1)
    if any(map(trees.is_cut, side.values())):
        return np.concatenate([np.asarray(leaf, np.float64) for leaf in side.values()], -1)
    dtype = trees.wide_dtype(*side.values())
    return jnp.concatenate([leaf.astype(dtype) for leaf in side.values()], -1)


def _masses(leaves, weights, what):
    masses = {name: _counts_as_floats(mass, leaves.get(name)) for name, mass in trees.flatten(weights).items()}
    masses = trees.floating(masses, None, what=what)
    masses = {name: masses[name] for name in leaves if name in masses}
    _check_names(leaves, masses, "the tree", what)
    trees.check_finite(masses, what)
    for name, mass in masses.items():
        if mass.shape != leaves[name].shape:
            raise ValueError(
                f"{what}: {name!r} has shape {mass.shape}, its leaf {leaves[name].shape}; give one mass per entry"
            )
        if not isinstance(mass, jax.core.Tracer) and (np.any(np.asarray(mass) < 0) or not np.any(np.asarray(mass))):
            raise ValueError(f"{what}: {name!r} must be >= 0 and not all zero")
    return {name: to_host(mass).reshape(-1) for name, mass in masses.items()}


def _counts_as_floats(mass, leaf):
    dtype = mass.dtype if hasattr(mass, "dtype") else np.asarray(mass).dtype
    if leaf is None or not trees.numeric(dtype):
        return mass
    return jnp.asarray(mass, trees.wide_dtype(leaf))


def explain_nonfinite(distances: dict[str, Array], inputs: dict[str, dict[str, Array]]) -> None:
    """Check inputs for NaN and infinite entries, but only if a distance is not finite: every such entry causes one, and
    checking distances is cheap. Does nothing inside `jit`.

    Raises:
        ValueError: naming the input and its leaf.
    """
    if any(isinstance(d, jax.core.Tracer) for d in distances.values()):
        return
    if not all(np.isfinite(d).all() for d in distances.values()):
        for what, leaves in inputs.items():
            trees.check_finite(leaves, what)


def check_order(p: float) -> None:
    """Raise ValueError unless 1 <= p < inf."""
    if not isinstance(p, numbers.Real) or not 1 <= p < float("inf"):
        raise ValueError(f"p={p!r} must be a finite number >= 1 for a distance")


def _check_names(a, b, what_a, what_b, whole=({}, {})):
    if alone := sorted(a.keys() ^ b.keys()):
        name = alone[0]
        here, there, other = (what_a, what_b, whole[1]) if name in a else (what_b, what_a, whole[0])
        leaf = trees.flatten(other).get(name)
        if leaf is not None and trees.numeric(dtype := getattr(leaf, "dtype", None) or np.asarray(leaf).dtype):
            raise ValueError(f"{there}: {trees.cast_to_float(name, dtype)}, as {name!r} of {here} is")
        raise ValueError(
            f"{here} has a leaf {name!r} that {there} lacks ({len(alone)} names differ); give two trees of one "
            "structure, or select common leaves with `where`"
        )
