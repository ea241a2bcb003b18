"""Replica distance: mean pairwise distance between independently trained replicas.

Convention: **a smaller distance means that more symmetry is broken.** A symmetric system ends in one of many equivalent
states, far from one another; breaking the symmetry selects one. An untrained network is very symmetric, so report the
distance beside accuracy and beside its null, the distance between independent draws of the same shapes and scales.

Four kinds, all in units of one weight (or output):

- `marginal_distance` (D1) compares the distribution of the entries of an array, without structure;
- `neuron_cloud_distance` (D2) compares the sets of neurons of a layer, in any order;
- `unmatched_distance` (D0) compares entry by entry;
- `function_distance` (D4) compares outputs.

A fifth one, D3 in `sbjax.metrics.matched`, is D0 after the best consistent permutation of hidden units: D2 <= D3 <= D0.

Replicas are given as one tree with the replica axis first in every leaf, or as a list of their trees (modules of NNX or
Equinox, too), see `sbjax.trees.replicas`.

All but 'matched' and the solver 'assignment' work under `jit`, `vmap` and `grad`; traced distances have no intervals
(NaN). As a regulariser that pushes replicas apart or together:

    >>> def spread(stacked):
    ...     return marginal_distance(stacked).scale_free.total.distance.value
    >>> stacked = {'w': jnp.array([[0.0, 1.0, 2.0], [0.0, 2.0, 4.0]])}
    >>> gradient = jax.jit(jax.grad(spread))(stacked)
    >>> gradient['w'].shape
    (2, 3)

For equal order p, D1 <= D2 <= D0, since each is a minimum over fewer rearrangements. The scale-free form divides a
layer by the standard deviation of its entries over all replicas; independent draws then have D0 = sqrt(2).

Source: the Replica Distance Metric of arXiv 2409.06402 ('Wasserstein distance of weight distributions'); order,
normalisation, null and the kinds other than the marginal are ours.
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
from sbjax.metrics.norms import power_mean
from sbjax.metrics.scales import layer_scales, null_replicas, or_one
from sbjax.metrics.wasserstein import check_order, explain_nonfinite, pairwise_1d, pairwise_lp

SOLVERS = ("sliced", "assignment", "sinkhorn")


class Measured(NamedTuple):
    """Mean over pairs of replicas, the same for the null, and their difference (both None without null)."""

    distance: Estimate
    null: Estimate | None
    excess: Estimate | None


class Reading(NamedTuple):
    """Distances by layer, and in total: per pair, the power mean of order p over layers, weighted by their sizes."""

    layers: dict[str, Measured]
    total: Measured


class ReplicaDistance(NamedTuple):
    """A replica distance.

    Attributes:
        kind: 'marginal', 'neuron_cloud', 'unmatched', 'matched', 'function', or a name of your own.
        raw: in units of one weight (output).
        scale_free: each layer divided by its standard deviation.
        pairs: raw distance matrices [replica, replica] by layer.
        scales: standard deviations by layer.
        unconverged: number of pairs for which Sinkhorn did not converge; 0 for other solvers.
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

    W_p = (1/n sum_i |a_(i) - b_(i)|^p)^(1/p) with sorted entries a_(i), b_(i). This is the metric of arXiv 2409.06402
    as far as it is documented.

    Limitations: sorting removes every permutation of entries, including the permutation of hidden units, the symmetry
    in question. The distance depends on the norm of the weights, hence on weight decay, learning rate and
    normalisation. It decreases with the size n of an array: two samples from one distribution are about
    1.8 sigma / sqrt(n) apart (W_1), so compare with the null.

    Args:
        stacked: parameters with a leading replica axis in every leaf, any float dtype, or a list of trees.
        p: order, 1 <= p < inf.
        where: selection of leaves, see `trees.Where`.
        key: random key of the null; None = no null.

    Raises:
        ValueError: fewer than two replicas, p < 1, NaN entries; as `trees.floating`.

    Example:
        >>> import jax.numpy as jnp
        >>> marginal_distance({'w': jnp.array([[0.0, 1.0], [3.0, 2.0]])}).raw.total.distance.value
        2.0
    """
    check_order(p)
    stacked = trees.replicas(stacked)

    def measure(tree):
        rows = trees.replica_rows(tree, where)
        return {name: pairwise_1d(leaf, p) for name, leaf in rows.items()}, rows, 0

    return measured("marginal", measure, p, stacked, null_replicas(stacked, where=where, key=key))


def unmatched_distance(
    stacked: PyTree, *, where: trees.Where = None, key: Key[Array, ""] | None = None
) -> ReplicaDistance:
    """D0: mean pairwise root mean square difference (1/n sum_i (a_i - b_i)^2)^(1/2), entry by entry.

    Limitations: it does not distinguish symmetries from different functions; replicas that agree up to the order of
    hidden units are far apart. It depends on the norm of the weights (use the scale-free form), and replicas with a
    common initialisation are close for that reason alone.

    Arguments and errors as `marginal_distance`.

    Example:
        >>> import jax.numpy as jnp
        >>> unmatched_distance({'w': jnp.array([[0.0, 1.0], [3.0, 4.0]])}).raw.total.distance.value
        3.0
    """
    stacked = trees.replicas(stacked)

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

    A neuron is a point made of its incoming weights and its bias (`neurons.neuron_clouds`). The distance is W_2 of the
    two clouds divided by sqrt(d): the root mean square difference of a weight under the best pairing of neurons.

    Limitations: layers are compared independently, so the implied permutations of consecutive layers need not be
    consistent, and permuting a layer changes the incoming weights of the next one. The distance depends on the norm of
    the weights. The sliced distance is smaller than the exact one.

    Args:
        stacked: parameters with a leading replica axis.
        solver: 'sliced' (random directions, any size), 'assignment' (exact, scipy) or 'sinkhorn' (ott-jax, debiased,
            fixed epsilon; `unconverged` counts pairs without convergence).
        where: selection of leaves.
        neuron_axis: axis of a kernel that indexes neurons: -1 in Flax, 0 in PyTorch.
        projections: number of directions for 'sliced'.
        epsilon: regularisation for 'sinkhorn' in units of the layer's variance.
        key: random key of the null; None = no null.

    Raises:
        ValueError: an unknown solver, epsilon <= 0, a layer too large for the solver; as `marginal_distance`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> layer = jax.random.normal(jax.random.key(0), (3, 4))
        >>> permuted = {'kernel': jnp.stack([layer, layer[:, ::-1]])}
        >>> neuron_cloud_distance(permuted).raw.total.distance.value
        0.0
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver!r} is unknown; known: {', '.join(SOLVERS)}")
    stacked = trees.replicas(stacked)

    def measure(tree):
        clouds = neurons.neuron_clouds(tree, where, neuron_axis=neuron_axis)
        trees.check_finite(clouds, "stacked")
        if solver == "sliced":
            return {n: neurons.pairwise_sliced(c, projections=projections) for n, c in clouds.items()}, clouds, 0
        if solver == "assignment":
            return {name: neurons.pairwise_assignment(cloud) for name, cloud in clouds.items()}, clouds, 0
        solved = {name: neurons.pairwise_sinkhorn(cloud, epsilon=epsilon) for name, cloud in clouds.items()}
        return {name: matrix for name, (matrix, _) in solved.items()}, clouds, sum(bad for _, bad in solved.values())

    return measured("neuron_cloud", measure, 2.0, stacked, null_replicas(stacked, where=where, key=key))


def function_distance(
    outputs: Float[Array, "replica ..."] | PyTree, null_outputs: Float[Array, "replica ..."] | PyTree | None = None
) -> ReplicaDistance:
    """D4: mean pairwise root mean square difference of outputs on a probe batch.

    (1/(B C) sum (f_r(x) - f_s(x))^2)^(1/2). The control for different weights with the same function: the only kind
    that is invariant under all symmetries of the parameters and rescaling between layers.

    Limitations: it depends on the probe batch. Outputs of an untrained network are nearly constant, so the raw distance
    is small there; use the scale-free one, in units of the spread of the outputs.

    Args:
        outputs: outputs of every replica on the same inputs, see `replica_outputs`, or a tree of such. A list is read
            as by `trees.replicas`, which refuses it where it could be one of replicas or of several outputs.
        null_outputs: outputs of `null_replicas` on the same inputs, of the same structure.

    Raises:
        ValueError: fewer than two replicas, NaN outputs, a list that could be either, a null of another structure.

    Example:
        >>> import jax.numpy as jnp
        >>> function_distance(jnp.array([[0.0, 1.0], [3.0, 4.0]])).raw.total.distance.value
        3.0
    """

    def measure(tree):
        rows = trees.replica_rows(tree)
        return {name: pairwise_lp(leaf, 2.0) for name, leaf in rows.items()}, rows, 0

    found = {"outputs": trees.replicas(outputs, what="outputs", part="output")}
    if null_outputs is None:
        return measured("function", measure, 2.0, found, None)
    null = {"outputs": trees.replicas(null_outputs, what="null_outputs", part="output")}
    names, of_null = (sorted(trees.floating(tree)) for tree in (found, null))
    if names != of_null:
        raise ValueError(
            f"outputs has the leaves {', '.join(names)}, and null_outputs {', '.join(of_null)}; give both as one "
            "structure, with the replica axis first"
        )
    return measured("function", measure, 2.0, found, null)


def replica_outputs(
    apply_fn: Callable[[PyTree, Any], Array], stacked: PyTree, probe: Any
) -> Float[Array, "replica ..."]:
    """`apply_fn(variables, probe)` for every replica, one after another in one program.

    Replicas are one stacked tree or a list of trees, as for the distances (`trees.replicas`). `apply_fn` gets
    modules with their functions and settings, those of the first in a list.

    Raises:
        ValueError: as `trees.replicas`.

    >>> replica_outputs(lambda params, x: params['w'] * x, {'w': jnp.array([1.0, 2.0])}, 3.0).tolist()
    [3.0, 6.0]
    """
    arrays = trees.replicas(stacked)
    one = jax.tree.structure(arrays) == jax.tree.structure(trees.parameters(stacked))
    settings = stacked if one else stacked[0]

    def whole(tree):
        return jax.tree.map(lambda x, other: other if x is None else x, tree, settings, is_leaf=lambda x: x is None)

    return jax.jit(lambda arrays, probe: jax.lax.map(lambda tree: apply_fn(whole(tree), probe), arrays))(arrays, probe)


def measured(kind: str, measure: Callable, p: float, stacked: PyTree, null: PyTree | None) -> ReplicaDistance:
    """Raw and scale-free distances, from a function `measure(tree) -> (matrices, entries, unconverged)`."""
    pairs, entries, unconverged = measure(stacked)
    explain_nonfinite(pairs, {"stacked": entries})
    scales, sizes = layer_scales(entries), {name: leaf.size // len(leaf) for name, leaf in entries.items()}
    pairs = {name: _known(matrix) for name, matrix in pairs.items()}
    nulls, null_scales = None, scales
    if null is not None:
        nulls, null_entries, bad = measure(null)
        nulls = {name: _known(matrix) for name, matrix in nulls.items()}
        null_scales, unconverged = layer_scales(null_entries), unconverged + bad
    ones = dict.fromkeys(pairs, 1.0)
    raw = _reading(pairs, nulls, ones, ones, sizes, p)
    return ReplicaDistance(kind, raw, _reading(pairs, nulls, scales, null_scales, sizes, p), pairs, scales, unconverged)


def _known(matrix):
    return matrix if isinstance(matrix, jax.core.Tracer) else np.asarray(matrix)


def _reading(pairs, nulls, scales, null_scales, sizes, p) -> Reading:
    def divide(matrices, scales):
        return {name: matrix / or_one(scales[name]) for name, matrix in matrices.items()}

    def total(matrices):
        traced = any(isinstance(matrix, jax.core.Tracer) for matrix in matrices.values())
        stacked = (jnp if traced else np).stack(list(matrices.values()), -1)
        shares = np.array([sizes[name] for name in matrices], np.float64) / sum(sizes[name] for name in matrices)
        return power_mean(stacked, p, jnp.asarray(shares, stacked.dtype) if traced else shares)

    pairs = divide(pairs, scales)
    nulls = None if nulls is None else divide(nulls, null_scales)
    layers = {name: estimate(matrix, None if nulls is None else nulls[name]) for name, matrix in pairs.items()}
    return Reading(layers, estimate(total(pairs), None if nulls is None else total(nulls)))


def estimate(matrix: Float[Array, "replica replica"], null: Float[Array, "replica replica"] | None) -> Measured:
    """Distance, null and excess of matrices of pairwise distances, each with its bootstrap interval; without interval
    where they are traced."""
    if isinstance(matrix, jax.core.Tracer) or isinstance(null, jax.core.Tracer):
        upper = np.triu_indices(len(matrix), 1)
        distance, null = (None if x is None else jnp.asarray(x)[upper].mean() for x in (matrix, null))
        values = (distance, null, None if null is None else distance - null)
        return Measured(*(None if value is None else Estimate(value, np.nan, np.nan) for value in values))
    distance = bootstrap.over_pairs(matrix)
    if null is None:
        return Measured(distance, None, None)
    return Measured(distance, bootstrap.over_pairs(null, seed=1), bootstrap.excess(matrix, null))
