"""Standard deviations of layers, and draws with the same: what the null and the scale-free form of a distance need."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from sbjax import rng, trees
from sbjax.metrics.norms import moments
from sbjax.metrics.sorting import to_host


def null_replicas(stacked: PyTree, *, key: Key[Array, ""] | None, where: trees.Where = None) -> PyTree | None:
    """Replicas of the null: every selected floating leaf is drawn from a normal distribution with its own mean and
    standard deviation (over replicas and entries); other leaves are unchanged. None if `key` is None.

    Distances between such replicas are due to shapes and scales alone.

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


def unit_scale(stacked: PyTree, where: trees.Where = None) -> PyTree:
    """Every selected floating leaf divided by its standard deviation over all replicas and entries.

    >>> unit_scale({'w': jnp.array([[0.0, 4.0], [4.0, 0.0]])})['w'].tolist()
    [[0.0, 2.0], [2.0, 0.0]]
    """
    scales = layer_scales(trees.replica_rows(stacked, where))
    leaves = trees.flatten(stacked)
    for name, scale in scales.items():
        leaf = leaves[name] if trees.is_cut(leaves[name]) else jnp.asarray(leaves[name])
        leaves[name] = leaf / or_one(scale)
    return jax.tree.unflatten(jax.tree.structure(stacked), list(leaves.values()))


def layer_scales(entries: dict[str, Array]) -> dict[str, float]:
    """Standard deviation of the entries of each layer over all replicas."""

    def scale(leaf):
        host = to_host(leaf, leaf.size / 4)
        found = moments(host) if isinstance(host, np.ndarray) else _moments(leaf)
        return found[1] if isinstance(found[1], jax.core.Tracer) else float(found[1])

    return {name: scale(leaf) for name, leaf in entries.items()}


def or_one(scale: float | Array) -> float | Array:
    """A layer with equal entries has scale 0 and distance 0."""
    return jnp.where(scale == 0, 1, scale) if isinstance(scale, jax.core.Tracer) else scale or 1.0


def _redraw(leaf, key):
    if isinstance(key, jax.core.Tracer) or not isinstance(host := to_host(leaf, leaf.size), np.ndarray):
        return _redraw_compiled(leaf, key)
    mean, std = moments(host)
    drawn = mean + std * rng.normal(key, leaf.shape).astype(np.float64)
    most = float(jnp.finfo(leaf.dtype).max)
    drawn = np.clip(drawn, -most, most)
    return drawn if trees.is_cut(leaf) else jnp.asarray(drawn.astype(leaf.dtype))


@jax.jit
def _redraw_compiled(leaf, key):
    mean, std = _moments(leaf)
    drawn = mean + std * jax.random.normal(key, leaf.shape, mean.dtype)
    most = float(jnp.finfo(leaf.dtype).max)
    return jnp.clip(drawn, -most, most).astype(leaf.dtype)


@jax.jit
def _moments(leaf):
    return moments(jnp.asarray(leaf, trees.wide_dtype(leaf)))
