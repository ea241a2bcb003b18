"""Linear mode connectivity: loss barriers on the straight line between two trained networks.

If all parameter symmetries were broken, independently trained replicas would lie in one basin and the loss on the line
between them would stay low. The barrier is its rise; several definitions are in use, see `curves.KINDS`.

A barrier is positive where the path is worse than the ends, also for an accuracy (then a drop). Report the values at
the ends beside it: two untrained networks have no barrier.

Sources: arXiv 1912.05671 (linear mode connectivity), 2209.04836 (after matching), 2405.20231 (symmetry removed).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PyTree, Real

from sbjax import trees
from sbjax.metrics.curves import KINDS, Monotonicity, check_grid, heights, monotonicity
from sbjax.metrics.interpolation import between, check_alike, check_alphas

__all__ = ["KINDS", "Barrier", "Monotonicity", "barrier", "barriers", "heights", "monotonicity", "summarise"]

Variables = dict[str, PyTree]


class Barrier(NamedTuple):
    """Metrics along the line between two networks, or between several pairs.

    Attributes:
        alphas: [points], from 0 (first network) to 1.
        curves: values of every metric of `evaluate_fn` by name, [points] or [pair, points].
        heights: barrier heights by metric, then by kind (`KINDS`), scalar or [pair].
        finite_ends: whether all metrics at both ends are finite; heights are NaN otherwise.
    """

    alphas: Float[np.ndarray, " points"]
    curves: dict[str, Float[np.ndarray, "*pair points"]]
    heights: dict[str, dict[str, Float[np.ndarray, "*pair"]]]
    finite_ends: np.ndarray


def barrier(
    evaluate_fn: Callable[[Variables], Mapping[str, Array]],
    variables_a: Variables,
    variables_b: Variables,
    *,
    alphas: Real[ArrayLike, " points"] | Sequence[float] | None = None,
    recalibrate: Callable[[Variables], Variables] | None = None,
    batch_stats: Literal["refuse", "interpolate"] = "refuse",
    higher_is_better: Sequence[str] = ("accuracy",),
    batch_size: int | None = None,
) -> Barrier:
    """Evaluate (1 - alpha) a + alpha b along the line and compute barrier heights.

    Only 'params' are interpolated. All points run in one program, compiled once per `evaluate_fn` and network.

    To measure the barrier after matching, permute `b` first. Here `b` is `a` with its two units swapped:

    >>> from sbjax.symmetry.permutation import Move, Spec, permute
    >>> def evaluate(v):
    ...     x = jnp.array([-1.0, 0.5, 2.0])
    ...     y = jnp.tanh(x[:, None] * v['params']['w']) @ v['params']['u']
    ...     return {'loss': jnp.mean((y - jnp.tanh(x)) ** 2)}
    >>> a = {'w': jnp.array([1.0, 0.0]), 'u': jnp.array([1.0, 0.0])}
    >>> spec, swap = Spec({'units': 2}, {'units': (Move('w', 0), Move('u', 0))}, {}), {'units': jnp.array([1, 0])}
    >>> b = permute(spec, a, swap)
    >>> for other in (b, permute(spec, b, swap)):
    ...     found = barrier(evaluate, {'params': a}, {'params': other})
    ...     print(round(float(found.heights['loss']['midpoint_over_mean_of_ends']), 3))
    0.059
    0.0

    Args:
        evaluate_fn: `variables -> {name: scalar}`, evaluated on data of the caller's choice. Arrays in its closure
            become constants of the program; leaves of a callable pytree (`jax.tree_util.Partial`, `over_parts`) become
            arguments.
        variables_a, variables_b: {'params': .., 'batch_stats': .., 'frozen': ..} of two networks of one architecture.
        alphas: increasing from 0 to 1, including 0.5; None = 25 equidistant points.
        recalibrate: applied to the variables at every point, including the ends; see
            `interpolation.recalibrate_batch_stats`.
        batch_stats: treatment of running statistics without `recalibrate`: 'refuse' or 'interpolate' them.
        higher_is_better: metrics for which larger is better, by name or last part of it ('accuracy' for
            'test/accuracy').
        batch_size: points evaluated at once, to bound memory. None = all points; on CPU one by one, which costs nothing
            for dense layers (`benchmarks/connectivity.py`), while convolutions vectorised over weights are slow.

    Raises:
        ValueError: invalid alphas; networks of different architecture; 'batch_stats' without a treatment; a difference
            in 'frozen' or any other collection; metrics that are not scalars.
    """
    for variables in (variables_a, variables_b):
        _check_collections(variables)
    check_alike(variables_a, variables_b)
    stacked = trees.stack([variables_a, variables_b])
    found = barriers(
        evaluate_fn,
        stacked,
        [(0, 1)],
        alphas=alphas,
        recalibrate=recalibrate,
        batch_stats=batch_stats,
        higher_is_better=higher_is_better,
        batch_size=batch_size,
    )
    curves, heights, finite = jax.tree.map(lambda leaf: leaf[0], (found.curves, found.heights, found.finite_ends))
    return Barrier(found.alphas, curves, heights, finite)


def barriers(
    evaluate_fn: Callable[[Variables], Mapping[str, Array]],
    stacked: Variables,
    pairs: Sequence[tuple[int, int]],
    *,
    alphas: Real[ArrayLike, " points"] | Sequence[float] | None = None,
    recalibrate: Callable[[Variables], Variables] | None = None,
    batch_stats: Literal["refuse", "interpolate"] = "refuse",
    higher_is_better: Sequence[str] = ("accuracy",),
    batch_size: int | None = None,
) -> Barrier:
    """As `barrier`, for pairs of replicas, one after another with one compiled program.

    Args:
        stacked: variables with a leading replica axis in every leaf.
        pairs: (i, j), such as `list(itertools.combinations(range(5), 2))`. Pairs that share a replica are not
            independent.

    Raises:
        ValueError: as `barrier`; no pairs, an invalid replica, a pair of a replica with itself.

    >>> stacked = {'params': jnp.array([[0.0], [1.0], [4.0]])}
    >>> found = barriers(lambda v: {'loss': jnp.sum(v['params'] ** 2)}, stacked, [(0, 1), (0, 2)])
    >>> found.heights['loss']['midpoint_over_mean_of_ends'].tolist()
    [-0.25, -4.0]
    """
    alphas = np.linspace(0.0, 1.0, 25) if alphas is None else np.asarray(alphas, np.float64)
    grid = check_alphas(alphas)
    check_grid(alphas)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be >= 1, or None for all points at once")
    _check_collections(stacked)
    pairs = _check_pairs(stacked, pairs)
    moving, fixed = _divide(stacked, recalibrate, batch_stats)
    for collection, tree in stacked.items():
        _check_equal(collection, tree, pairs, everything=collection in fixed)
    moving, fixed, grid = jax.device_put((moving, fixed, grid))
    evaluate_fn, recalibrate = _as_pytree(evaluate_fn), _as_pytree(recalibrate)
    rows = [
        _curves(evaluate_fn, recalibrate, moving, fixed, jnp.int32(i), jnp.int32(j), grid, batch_size=batch_size)
        for i, j in pairs
    ]
    curves = {name: np.stack([np.asarray(row[name], np.float64) for row in rows]) for name in rows[0]}
    finite = np.all([np.isfinite(curve[:, [0, -1]]).all(1) for curve in curves.values()], axis=0)
    better = {name: name in higher_is_better or name.rsplit("/", 1)[-1] in higher_is_better for name in curves}
    found = {name: heights(curve, alphas, higher_is_better=better[name]) for name, curve in curves.items()}
    return Barrier(alphas, curves, found, finite)


def summarise(found: Barrier) -> dict[str, dict[str, float]]:
    """Statistics over pairs, for JSON: median, quartiles, mean and standard deviation of each barrier height, such as
    'loss/midpoint_over_mean_of_ends', and of the level 'loss/mean_of_ends'.

    Only finite values are used: 'pairs' is their number, 'not_finite' the number of the others. The standard deviation
    is the sample one (n - 1), NaN for one pair.

    >>> once = summarise(barrier(lambda v: {'loss': v['params'] ** 2}, {'params': 0.0}, {'params': 2.0}))
    >>> once['loss/midpoint_over_mean_of_ends']['median'], once['loss/mean_of_ends']['median']
    (-1.0, 2.0)
    """
    summary = {}
    for name, by_kind in found.heights.items():
        ends = found.curves[name][..., [0, -1]]
        for kind, values in {**by_kind, "mean_of_ends": ends[..., 0] / 2 + ends[..., 1] / 2}.items():
            values = np.atleast_1d(values)
            kept = values[np.isfinite(values)]
            q1, median, q3 = np.quantile(kept, [0.25, 0.5, 0.75]) if len(kept) else [np.nan] * 3
            numbers = {"median": median, "q1": q1, "q3": q3, "mean": kept.mean() if len(kept) else np.nan}
            numbers["std"] = kept.std(ddof=1) if len(kept) > 1 else np.nan
            summary[f"{name}/{kind}"] = {key: float(x) for key, x in numbers.items()} | {
                "pairs": len(kept),
                "not_finite": len(values) - len(kept),
            }
    return summary


@functools.partial(jax.jit, static_argnames="batch_size")
def _curves(evaluate_fn, recalibrate, moving, fixed, i, j, alphas, *, batch_size):
    """Every metric of `evaluate_fn` at every alpha, [points]."""
    a, b, fixed = trees.take(moving, i), trees.take(moving, j), trees.take(fixed, i)

    def point(alpha):
        variables = {**fixed, **between(a, b, alpha)}
        numbers = evaluate_fn(variables if recalibrate is None else recalibrate(variables))
        if not isinstance(numbers, Mapping) or not numbers:
            raise ValueError(f"evaluate_fn gave {type(numbers).__name__}; it must give a dict of named scalars")
        for name, number in numbers.items():
            if np.shape(number):
                raise ValueError(f"evaluate_fn gave {name!r} of shape {np.shape(number)}; average it to a scalar")
        return {name: jnp.asarray(number) for name, number in numbers.items()}

    if batch_size is None:
        batch_size = 1 if jax.default_backend() == "cpu" else len(alphas)
    if batch_size >= len(alphas):
        return jax.vmap(point)(alphas)
    return jax.lax.map(point, alphas, batch_size=None if batch_size == 1 else batch_size)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Static:
    """A function as a pytree without leaves, so that equal functions share a compiled program."""

    fn: Callable = dataclasses.field(metadata={"static": True})

    def __call__(self, *args):
        return self.fn(*args)


def _as_pytree(fn: Any) -> Any:
    leaves = jax.tree.leaves(fn)
    return _Static(fn) if len(leaves) == 1 and leaves[0] is fn else fn


def _check_pairs(stacked, pairs) -> Int[np.ndarray, "pair 2"]:
    counts = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(stacked)}
    if len(counts) != 1 or min(counts) < 2:
        raise ValueError(
            f"stacked: every leaf needs one leading axis of at least 2 replicas, got sizes {sorted(counts)}; stack the "
            "variables of the replicas with sbjax.trees.stack"
        )
    replicas, array = counts.pop(), np.asarray(pairs)
    if array.ndim != 2 or array.shape[-1] != 2 or not len(array) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"pairs={pairs!r} must be a list of at least one pair (i, j) of replica numbers")
    for i, j in array.tolist():
        if not (0 <= i < replicas and 0 <= j < replicas) or i == j:
            raise ValueError(f"pairs has ({i}, {j}); give two different replicas out of 0 .. {replicas - 1}")
    return array


def _check_collections(variables):
    if not isinstance(variables, Mapping) or not jax.tree.leaves(variables.get("params")):
        raise ValueError(
            f"variables are a {type(variables).__name__} without 'params'; give {{'params': ..}} and its other "
            "collections: of a module of NNX {'params': nnx.state(module, nnx.Param)}, of Equinox {'params': "
            "equinox.filter(module, equinox.is_array)}"
        )


def _divide(stacked, recalibrate, batch_stats) -> tuple[Variables, Variables]:
    """Split the collections into those that are interpolated and those that must be equal."""
    if batch_stats not in ("refuse", "interpolate"):
        raise ValueError(f"batch_stats={batch_stats!r} is unknown; known: 'refuse', 'interpolate'")
    if recalibrate is not None and batch_stats == "interpolate":
        raise ValueError("batch_stats='interpolate' and recalibrate exclude one another; give one of them")
    has_stats = bool(jax.tree.leaves(stacked.get("batch_stats", {})))
    if has_stats and recalibrate is None and batch_stats == "refuse":
        raise ValueError(
            "variables have 'batch_stats': between two networks the running statistics of neither are valid. Give "
            "recalibrate=interpolation.recalibrate_batch_stats(apply_fn, batches), or batch_stats='interpolate' to "
            "measure that mismatch too"
        )
    # Statistics that will be re-estimated are interpolated too, only to have the right shape.
    moving = {name: tree for name, tree in stacked.items() if name == "params" or (name == "batch_stats" and has_stats)}
    return moving, {name: tree for name, tree in stacked.items() if name not in moving}


def _check_equal(collection, tree, pairs, *, everything) -> None:
    """Check, bytewise, that the networks of each pair agree in every leaf that is not interpolated."""
    for name, leaf in trees.flatten(tree).items():
        if not everything and jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        host = jax.device_get(jax.random.key_data(leaf) if is_key else leaf)
        rows = {replica: host[replica].tobytes() for replica in np.unique(pairs).tolist()}
        for i, j in pairs.tolist():
            if rows[i] != rows[j]:
                raise ValueError(
                    f"{collection!r}: leaf {name!r} differs between the two networks of pair ({i}, {j}). It is not "
                    "trained but part of the architecture, so a barrier between them is meaningless; build both "
                    "networks with the same key of masks and fixed weights, or compare replicas that share them"
                )
