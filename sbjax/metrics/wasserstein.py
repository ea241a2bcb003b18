"""Wasserstein distances between the entries of pytrees: exact, jitted, differentiable.

In one dimension, W_p = (int_0^1 |F^-1(u) - G^-1(u)|^p du)^(1/p) with the quantile functions F^-1 and G^-1 of two
samples; for equal sizes this compares sorted entries. Every array is sorted once, for any number of pairs.

Limitation: the distance ignores positions. It is invariant under permutations of hidden units and any other permutation
within an array; `sbjax.metrics.replica` has distances that are not.
"""

import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from sbjax import trees
from sbjax.metrics import gaps
from sbjax.metrics.sorting import on_host, sort, to_host


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
            computed in float32 or wider; numpy arrays of float64, and numbers of Python, in float64, whatever the
            precision of jax. Which leaves count, see `trees.floating`: no counters, keys, functions or running
            statistics.
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
        mass_a, mass_b = (None if x is None else np.asarray(x) for x in (weights_a, weights_b))
        return _as_given(gaps.between_arrays(np.asarray(a), np.asarray(b), mass_a, mass_b, p), a, b)
    a, b = jnp.asarray(a, dtype), jnp.asarray(b, dtype)
    if weights_a is not None or weights_b is not None:
        (a, weights_a), (b, weights_b) = gaps.by_value(a, weights_a), gaps.by_value(b, weights_b)
        return gaps.between_weighted(a, b, weights_a, weights_b, p)
    return gaps.between_sorted(sort(a), sort(b), p)


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
        return _as_given(gaps.pairs_of_arrays(np.sort(rows.astype(np.float64), -1), p), rows)
    return gaps.pairs(sort(rows.astype(trees.wide_dtype(rows))), p)


def pairwise_lp(rows: Float[Array, "replica n"], p: float = 2.0) -> Float[Array, "replica replica"]:
    """(mean_i |a_i - b_i|^p)^(1/p) between all pairs of rows, entry by entry."""
    rows = to_host(rows, pair_work(rows))
    if isinstance(rows, np.ndarray):
        return _as_given(gaps.pairs_of_arrays(rows.astype(np.float64), p), rows)
    return gaps.pairs(rows, p)


def _as_given(value, *given):
    """In float64 where that was given, else as a jax array."""
    if any(map(trees.is_cut, given)):
        return value
    with np.errstate(over="ignore", under="ignore"):  # a distance may lie outside of float32, as its entries do not
        return jnp.asarray(value, trees.wide_dtype(*given))


def pair_work(rows: Float[Array, "replica ..."]) -> float:
    """Steps that comparing all pairs of rows takes, see `to_host`."""
    return len(rows) * rows.size / 2


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
    if not isinstance(p, numbers.Real) or isinstance(p, bool) or not 1 <= p < float("inf"):
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
