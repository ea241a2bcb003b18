"""Layers as point clouds of neurons, one point per unit: its incoming weights and its bias.

Distances between clouds do not depend on the order of neurons within a layer. They do depend on permutations of the
previous layer, which reorder the incoming weights.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from sbjax import rng, trees
from sbjax.metrics.norms import moments, power_mean, root
from sbjax.metrics.sorting import LITTLE, sort, to_host
from sbjax.metrics.wasserstein import pair_work, pairwise_lp

_AT_ONCE = 2**26  # entries of the cost matrices between pairs that an accelerator takes at once
MOST_NEURONS = 4096  # limit for solvers with a dense cost matrix; 16k points take seconds and 3 GB per iteration


class CloudDistances(NamedTuple):
    """Distance matrices [replica, replica] by layer, and the number of pairs without convergence by layer."""

    layers: dict[str, Array]
    unconverged: dict[str, int]


def neuron_clouds(
    stacked: PyTree, where: trees.Where = None, *, neuron_axis: int = -1
) -> dict[str, Float[Array, "replica neuron d"]]:
    """Layers of a stacked tree as point clouds.

    Leaves with the same parent and number of neurons form a layer, named after the parent: a kernel [.., d_in, neuron]
    and its bias [neuron], or scale and bias of a normalisation. If several kernels share a parent, as in a plain list
    of arrays, every array is a layer of its own.

    Args:
        stacked: parameters with a leading replica axis.
        where: selection of leaves.
        neuron_axis: axis of a kernel (without the replica axis) that indexes neurons: -1 in Flax and Haiku, 0 in
            PyTorch.

    Raises:
        ValueError: as `trees.replica_rows`; a kernel without that axis.

    >>> tree = {'dense': {'kernel': jnp.zeros((5, 3, 4)), 'bias': jnp.zeros((5, 4))}}
    >>> {name: cloud.shape for name, cloud in neuron_clouds(tree).items()}
    {'dense': (5, 4, 4)}
    """
    trees.replica_rows(stacked, where)
    groups: dict[tuple[str, int], dict[str, Array]] = {}
    leaves = {name: to_host(x, pair_work(x)) for name, x in trees.floating(stacked, where, what="stacked").items()}
    library = np if all(isinstance(leaf, np.ndarray) for leaf in leaves.values()) else jnp
    for name, leaf in leaves.items():
        if leaf.ndim > 2 and not -leaf.ndim < neuron_axis < leaf.ndim - 1:
            raise ValueError(
                f"neuron_axis={neuron_axis} is no axis of {name!r}, whose shape in one replica is {leaf.shape[1:]}; it "
                "is -1 in Flax, 0 in PyTorch"
            )
        axis = 0 if leaf.ndim == 1 else neuron_axis % (leaf.ndim - 1) + 1
        leaf = leaf[:, None] if leaf.ndim == 1 else library.moveaxis(leaf, axis, 1)
        cloud = leaf.reshape(*leaf.shape[:2], -1)
        groups.setdefault((name.rpartition("/")[0], cloud.shape[1]), {})[name] = cloud
    clouds = {}
    for (parent, _), members in groups.items():
        kernels = [name for name, cloud in members.items() if cloud.shape[2] > 1]
        if len(members) == 1 or len(kernels) > 1 or not parent:
            clouds |= members
        else:
            clouds[parent if parent not in clouds else next(iter(members))] = _side_by_side(list(members.values()))
    return clouds


def pairwise_sliced(
    cloud: Float[Array, "replica neuron d"], *, projections: int = 128, key: Array | None = None
) -> Float[Array, "replica replica"]:
    """Sliced W_2 between all pairs of clouds; each projection is sorted once.

    SW_2 = (mean_theta W_2(<theta, x>, <theta, y>)^2)^(1/2) over random unit directions theta. Since the mean of
    <theta, v>^2 is |v|^2 / d, it is in units of one weight and at most W_2 / sqrt(d). The default directions (key 0)
    are the same in every call, so values are comparable.

    Raises:
        ValueError: projections < 1.

    Source: Rabin et al. 2012; Bonneel et al. 2015.
    """
    if projections < 1:
        raise ValueError(f"projections={projections} must be >= 1")
    key = jax.random.key(0) if key is None else key
    work = cloud.size * projections
    cloud = to_host(cloud, 0 if work <= 4 * LITTLE else work)
    if not isinstance(cloud, np.ndarray):
        projected = _project(cloud, key, projections)
        return pairwise_lp(sort(projected).reshape(len(cloud), -1), 2.0)
    directions = rng.normal(key, (projections, cloud.shape[-1])).astype(np.float64)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cloud = cloud.astype(np.float64)
    # Sums of einsum, whose order does not depend on threads; a matrix product for what is large and float64.
    products = np.einsum("rnd,pd->rpn", cloud, directions, optimize=work > 4 * LITTLE)
    return pairwise_lp(np.sort(products, -1).reshape(len(cloud), -1), 2.0)


def _side_by_side(arrays):
    """Joined along the last axis, in the widest of their dtypes."""
    if not all(isinstance(array, np.ndarray) for array in arrays):
        return jnp.concatenate(arrays, -1)
    dtype = np.float64 if any(map(trees.is_cut, arrays)) else trees.wide_dtype(*arrays)
    return np.concatenate([array.astype(dtype) for array in arrays], -1)


@functools.partial(jax.jit, static_argnames="projections")
def _project(cloud, key, projections):
    cloud = cloud.astype(trees.wide_dtype(cloud))
    directions = jax.random.normal(key, (projections, cloud.shape[-1]), cloud.dtype)
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)
    return jnp.einsum("rnd,pd->rpn", cloud, directions, precision="highest")


def pairwise_assignment(cloud: Float[Array, "replica neuron d"]) -> Float[np.ndarray, "replica replica"]:
    """Exact W_2 / sqrt(d) between all pairs of clouds, (min_pi 1/(n d) sum_i |x_i - y_pi(i)|^2)^(1/2), by linear
    assignment.

    Raises:
        ValueError: more than `MOST_NEURONS` neurons.
    """
    from scipy.optimize import linear_sum_assignment

    if isinstance(cloud, jax.core.Tracer):
        raise ValueError("solver='assignment' pairs neurons on the host and cannot be traced; use 'sliced' inside jit")
    _check_size(cloud, "assignment")
    cloud = np.asarray(cloud, np.float64)
    scale = np.abs(cloud).max() or 1.0
    # Centred, since the cost is computed from |x|^2, where a common offset would cause cancellation.
    cloud = (cloud - cloud.mean((0, 1))) / scale

    def distance(r, s):
        pairs = linear_sum_assignment(_squared(cloud[r], cloud[s]))
        return scale * power_mean((cloud[r][pairs[0]] - cloud[s][pairs[1]]).reshape(-1), 2.0)

    return _symmetric(len(cloud), distance)


def pairwise_sinkhorn(
    cloud: Float[Array, "replica neuron d"], *, epsilon: float = 0.01, max_iterations: int = 2000
) -> tuple[Float[np.ndarray, "replica replica"], int]:
    """Square root of the debiased Sinkhorn divergence between all pairs of clouds, by ott-jax.

    The cost is |x - y|^2 / (d v) with v the variance of all entries of the layer: `epsilon` is relative to the layer,
    and the result scales with the weights. Zero for equal clouds.

    Returns:
        The matrix, and the number of pairs without convergence.

    Raises:
        ValueError: epsilon <= 0, or more than `MOST_NEURONS` neurons.

    Source: Feydy et al., arXiv 1810.08278.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon={epsilon} must be > 0; use the solver 'assignment' for no smoothing")
    _check_size(cloud, "sinkhorn")
    traced = isinstance(cloud, jax.core.Tracer)
    cloud = cloud.astype(trees.wide_dtype(cloud)) if traced else np.asarray(cloud, np.float64)
    scale = moments(cloud)[1]
    scale = jnp.where(scale == 0, 1, scale) if traced else float(scale) or 1.0
    # Divided and centred, since the cost is computed from |x|^2, where a common offset would cause cancellation.
    points = (cloud - cloud.mean((0, 1))) / (scale * np.sqrt(cloud.shape[-1]))
    points = jnp.asarray(points, trees.wide_dtype(cloud))
    first, second = np.array(list(itertools.combinations(range(len(cloud)), 2)), int).reshape(-1, 2).T
    if jax.default_backend() == "cpu" or not len(first):
        found = [_divergence(points[r], points[s], epsilon, max_iterations) for r, s in zip(first, second)]
    else:  # one program, as many pairs at once as cost matrices may be large
        at_once = max(1, _AT_ONCE // cloud.shape[1] ** 2)
        found = list(zip(*_divergences(points, first, second, epsilon, max_iterations, min(at_once, len(first)))))
    found = found if traced else jax.device_get(found)  # once, when all are under way
    unconverged = sum(1 - converged if traced else int(not converged) for _, converged in found)
    distances = iter(
        [scale * (root(jnp.maximum(x, 0), 2.0) if traced else np.sqrt(max(float(x), 0.0))) for x, _ in found]
    )
    return _symmetric(len(cloud), lambda r, s: next(distances)), unconverged


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _divergences(points, first, second, epsilon, max_iterations, at_once):
    def pair(rows):
        return _divergence(points[rows[0]], points[rows[1]], epsilon, max_iterations)

    return jax.lax.map(pair, (jnp.asarray(first), jnp.asarray(second)), batch_size=at_once)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _divergence(x, y, epsilon, max_iterations):
    from ott.geometry import pointcloud  # imported here because it is slow
    from ott.tools import sinkhorn_divergence

    with trees.promoting():
        value, out = sinkhorn_divergence.sinkhorn_divergence(
            pointcloud.PointCloud, x, y, epsilon=epsilon, solve_kwargs={"max_iterations": max_iterations}
        )
    return value, jnp.all(jnp.array(out.converged))


def _squared(x, y):
    """Cost matrix |x_i - y_j|^2 / d."""
    norms = (x**2).sum(1)[:, None] + (y**2).sum(1)[None]
    return np.maximum(norms - 2 * x @ y.T, 0) / x.shape[1]


def _symmetric(count, distance):
    pairs = list(itertools.combinations(range(count), 2))
    values = [distance(r, s) for r, s in pairs]
    upper = tuple(np.array(pairs).T)
    if not any(isinstance(value, jax.core.Tracer) for value in values):
        matrix = np.zeros((count, count))
        matrix[upper] = values
        return matrix + matrix.T
    matrix = jnp.zeros((count, count)).at[upper].set(jnp.stack(values))
    return matrix + matrix.T


def _check_size(cloud, solver):
    if cloud.shape[1] > MOST_NEURONS:
        raise ValueError(
            f"solver={solver!r} stores the dense cost matrix of a layer and {cloud.shape[1]} neurons are more than "
            f"{MOST_NEURONS}; use 'sliced', or choose layers with `where`"
        )
