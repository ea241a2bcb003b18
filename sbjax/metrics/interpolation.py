"""Linear interpolation between two trees of weights, re-estimation of batch statistics, evaluation in parts."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree, Real

from sbjax import trees


def interpolate(tree_a: PyTree, tree_b: PyTree, alphas: Real[ArrayLike, " points"] | Sequence[float]) -> PyTree:
    """(1 - alpha) a + alpha b of every leaf, stacked over alpha.

    Computed in float32 or wider and cast back to the leaf's dtype; alpha = 0 and 1 reproduce the ends bitwise.
    Integers, booleans, random keys and the collection 'frozen' must be equal in both trees and are repeated.

    Args:
        tree_a, tree_b: trees of equal structure, with leaves of equal shape and dtype.
        alphas: in [0, 1].

    Returns:
        A tree whose leaves have a leading axis `points`.

    Raises:
        ValueError: structures, shapes or dtypes differ; an alpha outside [0, 1]; a frozen or non-floating leaf differs.
            Values are not checked inside `jit`.

    >>> interpolate({'w': jnp.array([0.0, 4.0])}, {'w': jnp.array([2.0, 0.0])}, [0.0, 0.5, 1.0])['w'].tolist()
    [[0.0, 4.0], [1.0, 2.0], [2.0, 0.0]]
    """
    alphas = check_alphas(alphas)
    check_alike(tree_a, tree_b)
    has_frozen = isinstance(tree_a, Mapping) and {"params", "frozen"} <= tree_a.keys()

    def is_frozen(name):
        return has_frozen and name.split("/")[0] == "frozen"

    constant = [
        {name: leaf for name, leaf in trees.flatten(tree).items() if not _inexact(leaf) or is_frozen(name)}
        for tree in (tree_a, tree_b)
    ]
    if (name := first_difference(*constant)) is not None:
        if is_frozen(name):
            raise ValueError(
                f"leaf {name!r} differs between the two networks. It is not trained but part of the architecture, so "
                "points between them are meaningless; build both from one AsymmetrySpec with the same mask_seed"
            )
        raise ValueError(
            f"leaf {name!r} is not floating and differs between the two trees, so it cannot be interpolated; "
            "interpolate the parameters only, or make the leaf equal in both"
        )

    def point(alpha):
        mixed = between(tree_a, tree_b, alpha)
        return {**mixed, "frozen": tree_a["frozen"]} if has_frozen else mixed

    return jax.vmap(point)(alphas)


def between(tree_a: PyTree, tree_b: PyTree, alpha: Float[Array, ""]) -> PyTree:
    """`interpolate` at one alpha, without checks; non-floating leaves are taken from `tree_a`.

    >>> between(jnp.array([1.0, 3.0]), jnp.array([2.0, 5.0]), jnp.float32(0.5)).tolist()
    [1.5, 4.0]
    """

    def mix(a, b):
        if not _inexact(a):
            return a
        a, b = jnp.asarray(a), jnp.asarray(b)
        wide = trees.wide_dtype(a)
        weight = jnp.asarray(alpha, wide)
        return ((1 - weight) * a.astype(wide) + weight * b.astype(wide)).astype(a.dtype)

    return jax.tree.map(mix, tree_a, tree_b)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class BatchStatsEstimate:
    """Callable returned by `recalibrate_batch_stats`: a pytree whose leaves are the batches."""

    batches: PyTree
    apply_fn: Callable = dataclasses.field(metadata={"static": True})
    unroll: int = dataclasses.field(default=1, metadata={"static": True})

    def __call__(self, variables: PyTree) -> dict[str, PyTree]:
        stats = variables.get("batch_stats")
        if not stats:
            raise ValueError("variables have no 'batch_stats' to re-estimate; leave `recalibrate` out")
        for name, leaf in trees.flatten(stats).items():
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ValueError(f"batch_stats leaf {name!r} is {leaf.dtype}; only floating running averages are known")
        zeros, ones = (jax.tree.map(lambda leaf, x=x: jnp.full_like(leaf, x), stats) for x in (0, 1))

        def statistics(_, batch):
            def update(stats):
                return self.apply_fn({**variables, "batch_stats": stats}, batch)[1]["batch_stats"]

            # In training mode outputs do not depend on the running averages s, so the update m s + (1 - m) batch is
            # affine in s: its value at s = 0 is (1 - m) batch, and its derivative is exactly m.
            update, momentum = jax.jvp(update, (zeros,), (ones,))
            return None, jax.tree.map(lambda new, m: new / (1 - m), update, momentum)

        _, each = jax.lax.scan(statistics, None, self.batches, unroll=self.unroll)
        return {**variables, "batch_stats": jax.tree.map(lambda leaf: leaf.mean(0), each)}


def recalibrate_batch_stats(
    apply_fn: Callable[[dict[str, PyTree], Any], tuple[Any, dict[str, PyTree]]], batches: PyTree, *, unroll: int = 1
) -> BatchStatsEstimate:
    """A function that re-estimates the running statistics of batch normalisation as the mean over batches.

    s = 1/B sum_b s_b, with s_b the mean and variance of batch b in training mode (layers below normalise with the
    statistics of the same batch). This is the exact cumulative average (PyTorch's `momentum=None`) for any momentum m
    of the layers: the update m s + (1 - m) s_b is solved for s_b. The variance is the mean within-batch variance,
    without the variance between batch means.

    Interpolated running statistics are not valid for the interpolated network; without re-estimation a barrier measures
    this mismatch (arXiv 2211.08403).

    Args:
        apply_fn: `(variables, batch) -> (outputs, updates)` in training mode with 'batch_stats' among the updates, such
            as `lambda v, x: module.apply(v, x, train=True, mutable=['batch_stats'])`.
        batches: arrays with leading axes [batches, batch].
        unroll: batches per iteration of the loop; use all of them if `apply_fn` has a convolution of `jax.lax` on CPU,
            which is slow in a rolled loop.

    Returns:
        A function of variables. It is a pytree that holds the batches, so `jit` passes them as an argument.

    Raises:
        ValueError: no batches, or different leading axes; when called: no 'batch_stats', or non-floating ones.

    >>> from flax import linen as nn
    >>> norm = nn.BatchNorm(use_running_average=False, momentum=0.99)
    >>> batches = jnp.array([[[0.0], [2.0]], [[2.0], [8.0]]])
    >>> variables = norm.init(jax.random.key(0), batches[0])
    >>> estimate = recalibrate_batch_stats(lambda v, x: norm.apply(v, x, mutable=['batch_stats']), batches)
    >>> {name: round(float(leaf[0]), 5) for name, leaf in estimate(variables)['batch_stats'].items()}
    {'mean': 3.0, 'var': 5.0}
    """
    counts = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(batches)}
    if len(counts) != 1 or min(counts) < 1:
        raise ValueError(f"batches: leaves need one leading axis of at least one batch, got sizes {sorted(counts)}")
    return BatchStatsEstimate(jax.tree.map(jnp.asarray, batches), apply_fn, unroll)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class PartsMean:
    """Callable returned by `over_parts`: a pytree whose leaves are the data."""

    data: PyTree
    evaluate: Callable = dataclasses.field(metadata={"static": True})
    parts: int = dataclasses.field(metadata={"static": True})
    unroll: int = dataclasses.field(default=1, metadata={"static": True})

    def __call__(self, variables: PyTree) -> dict[str, Float[Array, ""]]:
        def part(_, number):
            return None, self.evaluate(self.data, variables, number)

        _, each = jax.lax.scan(part, None, jnp.arange(self.parts), unroll=self.unroll)
        return {name: jax.tree.map(jnp.sum, average).value for name, average in each.items()}


def over_parts(
    evaluate: Callable[[PyTree, dict, Array], dict], data: PyTree, parts: int, *, unroll: int = 1
) -> PartsMean:
    """The evaluation of a task as a function of variables only: `over_parts(task.evaluate, task.data, task.parts)`.

    Args:
        evaluate: `(data, variables, part) -> {name: average}`, with named tuples (total, weight) that have a `value`,
            such as `sbjax.tasks.task.Average`.
        data: passed to `evaluate`.
        parts: number of parts, evaluated one after another.
        unroll: parts per iteration of the loop, as for `recalibrate_batch_stats`.

    Returns:
        A function of variables that returns the values of the sums over all parts: of an `Average`, sum of totals / sum
        of weights. It is a pytree that holds the data, so `jit` passes them as an argument.

    Raises:
        ValueError: parts < 1.

    >>> from sbjax.tasks.task import Average
    >>> rows = jnp.array([[1.0, 2.0], [3.0, 6.0]])
    >>> mean = over_parts(lambda data, v, part: {'mean': Average(v * data[part].sum(), 2.0)}, rows, 2)
    >>> float(mean(10.0)['mean'])
    30.0
    """
    if parts < 1:
        raise ValueError(f"parts={parts} must be >= 1")
    return PartsMean(data, evaluate, parts, unroll)


def check_alphas(alphas: Real[ArrayLike, " points"] | Sequence[float]) -> Float[Array, " points"]:
    """Validate alphas and convert them to a floating array.

    Raises:
        ValueError: not a vector, or an entry outside [0, 1] or NaN.
    """
    if np.ndim(alphas) != 1 or not np.size(alphas):
        raise ValueError(f"alphas has shape {np.shape(alphas)}; give a vector of numbers in [0, 1]")
    if not isinstance(alphas, jax.core.Tracer):
        values = np.asarray(alphas, np.float64)
        outside = values[~((values >= 0) & (values <= 1))]
        if outside.size:
            raise ValueError(f"alphas has {outside[0]:g}; the line between two trees is 0 <= alpha <= 1")
    return jnp.asarray(alphas, jnp.result_type(float))


def check_alike(tree_a: PyTree, tree_b: PyTree) -> None:
    """Check that two trees agree in structure and in shapes and dtypes of their leaves.

    Raises:
        ValueError: naming the first leaf that differs, or that is a function.
    """
    if trees.parameters(tree_a) is not tree_a:
        raise ValueError(
            "the tree has leaves that are functions or settings, as modules of Equinox have; give its arrays, "
            "equinox.filter(tree, equinox.is_array), and combine them again where it is applied"
        )
    a, b = trees.flatten(tree_a), trees.flatten(tree_b)
    if alone := sorted(a.keys() ^ b.keys()):
        raise ValueError(f"leaf {alone[0]!r} is in one tree only ({len(alone)} differ); give two trees of one network")
    for name, leaf in a.items():
        here, there = (f"{jnp.asarray(x).dtype}{list(np.shape(x))}" for x in (leaf, b[name]))
        if here != there:
            raise ValueError(f"leaf {name!r} is {here} in one tree and {there} in the other; give trees of one network")


def first_difference(tree_a: PyTree, tree_b: PyTree) -> str | None:
    """Flat name of the first leaf that differs bytewise, or None; traced values are not compared.

    >>> first_difference({'a': np.array([np.nan]), 'b': 1}, {'a': np.array([np.nan]), 'b': 2})
    'b'
    """
    b = trees.flatten(tree_b)
    for name, leaf in trees.flatten(tree_a).items():
        if isinstance(leaf, jax.core.Tracer) or isinstance(b[name], jax.core.Tracer):
            continue
        if _bytes(leaf) != _bytes(b[name]):
            return name
    return None


def _bytes(leaf) -> bytes:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).tobytes()


def _inexact(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype, jnp.inexact)
