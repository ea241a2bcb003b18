"""Replica distance: how far independently trained copies lie apart.

Convention: **a smaller distance means that more symmetry is broken.** A symmetric system settles in many equivalent
states, far from one another; what breaks the symmetry selects one. A network that learned nothing is very symmetric,
so read the number beside accuracy, and beside its null: what independent re-initialisations of the same shapes and
scales give.

Four kinds, all in units of one weight (or output), each seeing more than the one before:

- `marginal_distance` (D1) sorts the entries of an array: it sees the law of the weights and no structure;
- `neuron_cloud_distance` (D2) compares the sets of neurons of a layer: it sees what a neuron is, not which one;
- `unmatched_distance` (D0) compares entry with entry;
- `function_distance` (D4) compares outputs.

A fifth one, D3 of `sbjax.metrics.matched`, is D0 after the best consistent permutation of hidden units, D2 <= D3 <= D0.

For one order p, D1 <= D2 <= D0, since each is a minimum over fewer rearrangements. The scale-free form divides a layer
by the standard deviation of all its entries over all replicas; independent draws are then sqrt(2) apart in D0.

Source: the Replica Distance Metric of arXiv 2409.06402 ('Wasserstein distance of weight distributions'); order,
normalisation, null and the kinds beyond the marginal are ours.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from sbjax import trees
from sbjax.metrics import bootstrap, neurons
from sbjax.metrics.bootstrap import Estimate
from sbjax.metrics.wasserstein import check_order, explain_nonfinite, pairwise_1d, pairwise_lp

SOLVERS = ("sliced", "assignment", "sinkhorn")


class Measured(NamedTuple):
    """Mean over the pairs of replicas with its interval; the same of the null; their difference (None without null)."""

    distance: Estimate
    null: Estimate | None
    excess: Estimate | None


class Reading(NamedTuple):
    """By layer, and aggregated: the power mean of order p over layers, weighted by their entries, pair by pair."""

    layers: dict[str, Measured]
    total: Measured


class ReplicaDistance(NamedTuple):
    """A replica distance.

    Attributes:
        kind: 'marginal', 'neuron_cloud', 'unmatched', 'matched', 'function', or a name of your own.
        raw: in units of one weight (output).
        scale_free: each layer divided by its standard deviation.
        pairs: raw [replica, replica] matrices by layer.
        scales: the standard deviations.
        unconverged: pairs for which Sinkhorn's iteration did not converge; 0 for everything else.
    """

    kind: str
    raw: Reading
    scale_free: Reading
    pairs: dict[str, np.ndarray]
    scales: dict[str, float]
    unconverged: int


def marginal_distance(
    stacked: PyTree, *, p: float = 1.0, where: trees.Where = None, key: Key[Array, ""] | None = None
) -> ReplicaDistance:
    """D1: mean pairwise 1-D Wasserstein distance W_p between the entries of replicas, array by array.

    W_p = (1/n sum_i |a_(i) - b_(i)|^p)^(1/p) with sorted entries a_(i), b_(i). This is the paper's number as far as it
    is known.

    What it cannot see: sorting hides every permutation of entries, and so the permutation of hidden units, the very
    symmetry in question. It moves with the norm of the weights, hence with decay, learning rate and normalisation; and
    it shrinks with the size of an array, for two samples of size n from one law are about 1.8 sigma / sqrt(n) apart
    (W_1): compare with the null.

    Args:
        stacked: parameters with the replica axis first in every leaf, any float dtype.
        p: order, 1 <= p < inf.
        where: which leaves, see `trees.Where`.
        key: for the null; None = no null.

    Raises:
        ValueError: fewer than two replicas, p < 1, NaN entries, or as `trees.floating`.

    Example:
        >>> import jax.numpy as jnp
        >>> marginal_distance({'w': jnp.array([[0.0, 1.0], [3.0, 2.0]])}).raw.total.distance.value
        2.0
    """
    check_order(p)

    def measure(tree):
        rows = trees.replica_rows(tree, where)
        return {name: pairwise_1d(leaf, p) for name, leaf in rows.items()}, rows, 0

    return measured("marginal", measure, p, stacked, null_replicas(stacked, where=where, key=key))


def unmatched_distance(
    stacked: PyTree, *, where: trees.Where = None, key: Key[Array, ""] | None = None
) -> ReplicaDistance:
    """D0: mean pairwise root mean square difference, entry by entry.

    (1/n sum_i (a_i - b_i)^2)^(1/2). It counts every symmetry as distance: two replicas that are the same network up to
    the order of hidden units are far apart here.

    What it cannot see: whether a difference is a symmetry or another function. It moves with the norm of the weights
    (use the scale-free form), and replicas that share an initialisation are close for that reason alone.

    Arguments and errors as `marginal_distance`.

    Example:
        >>> import jax.numpy as jnp
        >>> unmatched_distance({'w': jnp.array([[0.0, 1.0], [3.0, 4.0]])}).raw.total.distance.value
        3.0
    """

    def measure(tree):
        rows = trees.replica_rows(tree, where)
        return {name: pairwise_lp(leaf, 2.0) for name, leaf in rows.items()}, rows, 0

    return measured("unmatched", measure, 2.0, stacked, null_replicas(stacked, where=where, key=key))


def neuron_cloud_distance(
    stacked: PyTree,
    *,
    solver: str = "sliced",
    where: trees.Where = None,
    neuron_axis: int = -1,
    projections: int = 128,
    epsilon: float = 0.01,
    key: Key[Array, ""] | None = None,
) -> ReplicaDistance:
    """D2: mean pairwise optimal transport distance between the neurons of a layer, in any order.

    A neuron is a point made of its incoming weights and its bias (`neurons.neuron_clouds`); the distance is W_2 of the
    two clouds over sqrt(d), the root mean square difference of a weight under the best pairing of neurons.

    What it cannot see: layers are compared one by one, so a permutation need not be the same where a layer is written
    and where the next one reads it, and the neurons of a deeper layer look different when the layer before is permuted.
    It moves with the norm of the weights. The sliced form sees projections and is smaller than the exact one.

    Args:
        stacked: parameters with the replica axis first.
        solver: 'sliced' (random directions; any size), 'assignment' (exact, scipy), 'sinkhorn' (ott-jax, debiased, with
            fixed epsilon; `unconverged` counts the pairs that did not converge).
        where: which leaves.
        neuron_axis: the axis of a kernel that counts neurons: -1 in Flax, 0 in PyTorch.
        projections: directions of the sliced form.
        epsilon: smoothing of Sinkhorn in units of the layer's variance.
        key: for the null; None = no null.

    Raises:
        ValueError: an unknown solver, epsilon <= 0, a layer too large for a solver, or as `marginal_distance`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> layer = jax.random.normal(jax.random.key(0), (3, 4))
        >>> permuted = {'kernel': jnp.stack([layer, layer[:, ::-1]])}
        >>> neuron_cloud_distance(permuted).raw.total.distance.value
        0.0
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver!r} is unknown; known: {', '.join(SOLVERS)}")

    def measure(tree):
        clouds = neurons.neuron_clouds(tree, where, neuron_axis=neuron_axis)
        explain_nonfinite({name: cloud.sum() for name, cloud in clouds.items()}, {"stacked": clouds})
        if solver == "sliced":
            return {n: neurons.pairwise_sliced(c, projections=projections) for n, c in clouds.items()}, clouds, 0
        if solver == "assignment":
            return {name: neurons.pairwise_assignment(cloud) for name, cloud in clouds.items()}, clouds, 0
        solved = {name: neurons.pairwise_sinkhorn(cloud, epsilon=epsilon) for name, cloud in clouds.items()}
        return {name: matrix for name, (matrix, _) in solved.items()}, clouds, sum(bad for _, bad in solved.values())

    return measured("neuron_cloud", measure, 2.0, stacked, null_replicas(stacked, where=where, key=key))


def function_distance(
    outputs: Float[Array, "replica ..."], null_outputs: Float[Array, "replica ..."] | None = None
) -> ReplicaDistance:
    """D4: mean pairwise root mean square difference of outputs on a probe batch.

    (1/(B C) sum (f_r(x) - f_s(x))^2)^(1/2). It is the control for 'different weights, same function', and the one kind
    that no symmetry of the parameters and no rescaling between layers can move.

    What it cannot see: anything outside the probe batch. The outputs of an untrained network are nearly constant, so
    that the raw form is small there: read the scale-free one, whose unit is the spread of the outputs themselves.

    Args:
        outputs: of every replica on the same inputs, as from `replica_outputs`.
        null_outputs: likewise of `null_replicas`.

    Raises:
        ValueError: fewer than two replicas or NaN outputs.

    Example:
        >>> import jax.numpy as jnp
        >>> function_distance(jnp.array([[0.0, 1.0], [3.0, 4.0]])).raw.total.distance.value
        3.0
    """

    def measure(tree):
        rows = trees.replica_rows(tree)
        return {name: pairwise_lp(leaf, 2.0) for name, leaf in rows.items()}, rows, 0

    null = None if null_outputs is None else {"outputs": null_outputs}
    return measured("function", measure, 2.0, {"outputs": outputs}, null)


def replica_outputs(
    apply_fn: Callable[[PyTree, Any], Array], stacked: PyTree, probe: Any
) -> Float[Array, "replica ..."]:
    """`apply_fn(variables, probe)` of every replica, one after another in one program.

    >>> replica_outputs(lambda params, x: params['w'] * x, {'w': jnp.array([1.0, 2.0])}, 3.0).tolist()
    [3.0, 6.0]
    """
    return jax.jit(lambda stacked, probe: jax.lax.map(lambda tree: apply_fn(tree, probe), stacked))(stacked, probe)


def null_replicas(stacked: PyTree, *, key: Key[Array, ""] | None, where: trees.Where = None) -> PyTree | None:
    """Independent re-initialisations: every floating leaf drawn anew from a normal law with the leaf's own mean and
    standard deviation (over all replicas and entries), everything else as it was. None if `key` is None.

    What is left of a distance between such replicas comes from shape and scale alone.

    >>> drawn = null_replicas({'w': jnp.array([[1.0, 1.0], [1.0, 1.0]])}, key=jax.random.key(0))
    >>> drawn['w'].tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    if key is None:
        return None
    names = iter(trees.flatten(stacked))
    keys = iter(jax.random.split(key, len(jax.tree.leaves(stacked))))

    def draw(leaf):
        name, key = next(names), next(keys)
        floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return _redraw(leaf, key) if floating and trees.selects(where, name) else leaf

    return jax.tree.map(draw, stacked)


@jax.jit
def _redraw(leaf, key):
    mean, std = _moments(leaf)
    drawn = mean + std * jax.random.normal(key, leaf.shape, mean.dtype)
    most = float(jnp.finfo(leaf.dtype).max)
    return jnp.clip(drawn, -most, most).astype(leaf.dtype)


@jax.jit
def _moments(leaf):
    """Mean and standard deviation. The latter is 0 where all entries are equal, of which rounding makes some 1e-7, and
    no square overflows, as those of a diverging replica do."""
    wide = jnp.asarray(leaf, trees.wide_dtype(leaf))
    unit = jnp.max(jnp.abs(wide))
    unit = jnp.where(unit > 0, unit, 1)
    return unit * (wide / unit).mean(), jnp.where(wide.max() == wide.min(), 0, unit * (wide / unit).std())


def unit_scale(stacked: PyTree, where: trees.Where = None) -> PyTree:
    """Every selected floating leaf divided by its standard deviation over all replicas and entries.

    >>> unit_scale({'w': jnp.array([[0.0, 4.0], [4.0, 0.0]])})['w'].tolist()
    [[0.0, 2.0], [2.0, 0.0]]
    """
    scales = layer_scales(trees.replica_rows(stacked, where))
    leaves = trees.flatten(stacked)
    leaves |= {name: jnp.asarray(leaves[name]) / (scale or 1.0) for name, scale in scales.items()}
    return jax.tree.unflatten(jax.tree.structure(stacked), list(leaves.values()))


def measured(kind: str, measure: Callable, p: float, stacked: PyTree, null: PyTree | None) -> ReplicaDistance:
    """Raw and scale-free readings from a function that gives matrices, entries and unconverged pairs of a tree."""
    pairs, entries, unconverged = measure(stacked)
    explain_nonfinite(pairs, {"stacked": entries})
    scales, sizes = layer_scales(entries), {name: leaf[0].size for name, leaf in entries.items()}
    pairs = {name: np.asarray(matrix) for name, matrix in pairs.items()}
    nulls, null_scales = None, scales
    if null is not None:
        nulls, null_entries, bad = measure(null)
        nulls = {name: np.asarray(matrix) for name, matrix in nulls.items()}
        null_scales, unconverged = layer_scales(null_entries), unconverged + bad
    ones = dict.fromkeys(pairs, 1.0)
    raw = _reading(pairs, nulls, ones, ones, sizes, p)
    return ReplicaDistance(kind, raw, _reading(pairs, nulls, scales, null_scales, sizes, p), pairs, scales, unconverged)


def layer_scales(entries: dict[str, Array]) -> dict[str, float]:
    return {name: float(_moments(leaf)[1]) for name, leaf in entries.items()}


def _reading(pairs, nulls, scales, null_scales, sizes, p) -> Reading:
    def divide(matrices, scales):
        # A layer whose entries are all equal has distance zero whatever its unit.
        return {name: matrix / (scales[name] or 1.0) for name, matrix in matrices.items()}

    def total(matrices):
        whole = sum(sizes[name] * matrix.astype(np.float64) ** p for name, matrix in matrices.items())
        return (whole / sum(sizes.values())) ** (1 / p)

    pairs = divide(pairs, scales)
    nulls = None if nulls is None else divide(nulls, null_scales)
    layers = {name: estimate(matrix, None if nulls is None else nulls[name]) for name, matrix in pairs.items()}
    return Reading(layers, estimate(total(pairs), None if nulls is None else total(nulls)))


def estimate(
    matrix: Float[np.ndarray, "replica replica"], null: Float[np.ndarray, "replica replica"] | None
) -> Measured:
    """Distance, null and excess of matrices of pairwise distances, each with its bootstrap interval."""
    distance = bootstrap.over_pairs(matrix)
    if null is None:
        return Measured(distance, None, None)
    return Measured(distance, bootstrap.over_pairs(null, seed=1), bootstrap.excess(matrix, null))
