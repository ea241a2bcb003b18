"""Replica distance: how far independently trained copies lie apart.

Convention: **a smaller distance means that more symmetry is broken.** A symmetric system settles in many equivalent
states, far from one another; what breaks the symmetry selects one. A network that learned nothing is very symmetric,
so read the number beside accuracy.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sbjax import trees


def marginal_distance(stacked: PyTree, *, p: float = 1.0) -> dict[str, float]:
    """Mean pairwise 1-D Wasserstein distance between the weights of replicas, array by array.

    For replicas r < s and an array with n entries, sorted values a_(i) of r and b_(i) of s:
    W_p = (1/n sum_i |a_(i) - b_(i)|^p)^(1/p), averaged over all pairs. Computed by ott-jax's univariate solver.

    What it cannot see: values are sorted, so permuting hidden units changes nothing, and that permutation is the very
    symmetry in question. It moves with the norm of the weights, and two independent samples of size n from one law are
    already about 1.8 sigma / sqrt(n) apart.

    Args:
        stacked: parameters with the replica axis first in every leaf, any float dtype.
        p: order, >= 1.

    Returns:
        Distance by flat name, and under '' the mean over arrays weighted by their size.

    Raises:
        ValueError: fewer than two replicas, or p < 1.

    Example:
        >>> import jax.numpy as jnp
        >>> marginal_distance({'w': jnp.array([[0.0, 1.0], [3.0, 2.0]])})
        {'w': 2.0, '': 2.0}

    Source: the Replica Distance Metric of arXiv 2409.06402; order, normalisation and pairing are ours.
    """
    leaves = trees.flatten(stacked)
    replicas = {leaf.shape[0] for leaf in leaves.values()}
    if len(replicas) != 1 or min(replicas) < 2:
        raise ValueError(
            f"a replica distance needs one stacked axis of at least 2 replicas, got sizes {sorted(replicas)}"
        )
    if p < 1:
        raise ValueError(f"p={p} must be >= 1 for a distance")
    distances = {name: float(_mean_over_pairs(jnp.asarray(leaf), p)) for name, leaf in leaves.items()}
    sizes = {name: leaf[0].size for name, leaf in leaves.items()}
    mean = sum(distances[name] * sizes[name] for name in leaves) / sum(sizes.values())
    return {**distances, "": mean}


def _mean_over_pairs(leaf: Float[Array, "replica ..."], p: float) -> Float[Array, ""]:
    leaf = leaf.reshape(len(leaf), -1).astype(jnp.promote_types(leaf.dtype, jnp.float32))
    pairs = list(itertools.combinations(range(len(leaf)), 2))
    return sum(_wasserstein(leaf[r], leaf[s], p) for r, s in pairs) / len(pairs)


@functools.partial(jax.jit, static_argnames="p")
def _wasserstein(a: Float[Array, " n"], b: Float[Array, " n"], p: float) -> Float[Array, ""]:
    from ott.geometry import costs, pointcloud  # a slow import that only this needs
    from ott.solvers import linear

    # ott's own default cost is squared, and PNormP(p) is |x - y|^p / p.
    geometry = pointcloud.PointCloud(a[:, None], b[:, None], cost_fn=costs.PNormP(p))
    return (p * linear.solve_univariate(geometry).ot_costs[0]) ** (1 / p)
