"""Pytrees of arrays: flat names, stacking, finiteness."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree


def flatten(tree: PyTree) -> dict[str, Any]:
    """Leaves by name, the path joined with '/': {'dense_0/kernel': .., 'dense_0/bias': ..}.

    Works on dicts, tuples, named tuples and dataclasses alike; a bare leaf has the name ''.

    >>> flatten({'a': {'b': 1}, 'c': (2, 3)})
    {'a/b': 1, 'c/0': 2, 'c/1': 3}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Trees of the same structure -> one tree with a leading axis, the replica axis.

    >>> stack([{'w': jnp.zeros(3)}, {'w': jnp.ones(3)}])['w'].shape
    (2, 3)
    """
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def take(tree: PyTree, index: int | slice | np.ndarray) -> PyTree:
    """Entry (or entries) `index` of the leading axis of every leaf: one replica of a stacked tree.

    >>> take({'w': jnp.arange(6).reshape(2, 3)}, 1)['w'].tolist()
    [3, 4, 5]
    """
    return jax.tree.map(lambda leaf: leaf[index], tree)


def size(tree: PyTree) -> int:
    """Number of scalars in all leaves.

    >>> size({'w': jnp.zeros((2, 3)), 'b': jnp.zeros(3)})
    9
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether no floating leaf holds a NaN or an infinity.

    >>> bool(all_finite({'w': jnp.ones(2), 'n': jnp.arange(2)})), bool(all_finite(jnp.array([1.0, jnp.nan])))
    (True, False)
    """
    floating = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in floating], bool))


def total(parts: Sequence[PyTree]) -> PyTree:
    """Leafwise sum of trees of the same structure.

    >>> total([{'a': 1}, {'a': 2}])
    {'a': 3}
    """
    return jax.tree.map(lambda *leaves: sum(leaves), *parts)


def strong(tree: PyTree) -> PyTree:
    """The same values without weak types, which would make the second call of a jitted step compile again.

    >>> strong(jnp.asarray(1.0)).weak_type
    False
    """
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), tree)
