"""Utilities for pytrees of arrays: flat names, selection of leaves, stacking, finiteness."""

import fnmatch
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

Where = str | Sequence[str] | Callable[[str], bool] | None
"""A selection of leaves by flat name: one or several globs, or a predicate; None = all."""


def flatten(tree: PyTree) -> dict[str, Any]:
    """Leaves by flat name, the path joined with '/': {'dense_0/kernel': .., 'dense_0/bias': ..}.

    Works on dicts, tuples, named tuples, dataclasses and NNX state; a tree that is a single leaf has the name ''.

    >>> flatten({'a': {'b': 1}, 'c': (2, 3)})
    {'a/b': 1, 'c/0': 2, 'c/1': 3}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(_bare(path), simple=True, separator="/"): leaf for path, leaf in leaves}


def floating(tree: PyTree, where: Where = None, *, what: str = "tree") -> dict[str, Float[Array, "..."]]:
    """Selected floating leaves of a tree by flat name, as jax arrays.

    Integers, booleans and random keys are ignored, since states carry counters and keys beside weights. Floats with
    fewer than 16 bits are converted to float32, since jax has no implicit promotion for them.

    Args:
        tree: any pytree of arrays or numbers.
        where: selection of leaves.
        what: name of the tree in errors.

    Raises:
        ValueError: nothing is selected; a selected leaf is complex, empty or not numeric.

    >>> floating({'a': {'kernel': np.ones(2), 'bias': np.ones(3)}, 'step': np.int32(3)}, '*/kernel')
    {'a/kernel': Array([1., 1.], dtype=float32)}
    """
    leaves = flatten(tree)
    chosen = {name: leaf for name, leaf in leaves.items() if selects(where, name)}
    kept = {}
    for name, leaf in chosen.items():
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if jnp.issubdtype(dtype, jnp.floating):
            kept[name] = jnp.asarray(leaf, jnp.float32 if _narrow(dtype) else None)
        elif jnp.issubdtype(dtype, jnp.complexfloating):
            raise ValueError(f"{what}: leaf {name!r} is complex ({dtype}); give real and imaginary parts as two leaves")
        elif getattr(dtype, "kind", "") in ("O", "S", "U"):
            raise ValueError(f"{what}: leaf {name!r} holds no numbers ({dtype}); leave it out with `where`")
    if not kept:
        have = ", ".join(map(repr, list(leaves)[:8])) or "none"
        raise ValueError(f"{what} has no floating leaf that where={where!r} selects; its leaves: {have}")
    for name, leaf in kept.items():
        if not leaf.size:
            raise ValueError(f"{what}: leaf {name!r} of shape {leaf.shape} is empty; leave it out with `where`")
    return kept


def wide_dtype(*arrays: Array) -> np.dtype:
    """Dtype for sums over arrays: the widest of their dtypes, at least float32.

    >>> wide_dtype(jnp.ones(2, jnp.bfloat16)), wide_dtype(jnp.ones(2, jnp.float8_e4m3fn), jnp.ones(2))
    (dtype('float32'), dtype('float32'))
    """
    dtypes = (jnp.result_type(x) for x in arrays)  # `jnp.asarray` would copy host arrays
    return functools.reduce(jnp.promote_types, (dtype for dtype in dtypes if not _narrow(dtype)), jnp.dtype("float32"))


def check_finite(leaves: dict[str, Array], what: str = "tree") -> None:
    """Check for NaN and infinite entries; traced values are not checked.

    Raises:
        ValueError: naming the first leaf that has them.
    """
    for name, leaf in leaves.items():
        # numpy, since inside `jit` jax would trace operations on constants too.
        if not isinstance(leaf, jax.core.Tracer) and (bad := int(np.sum(~np.isfinite(np.asarray(leaf))))):
            raise ValueError(
                f"{what}: leaf {name!r} has {bad} entries that are NaN or infinite; drop that tree or replica, or "
                "leave the leaf out with `where`"
            )


def selects(where: Where, name: str) -> bool:
    """Whether a selection includes the leaf with this flat name.

    >>> selects('*kernel', 'dense_0/kernel'), selects(['dense_1/*'], 'dense_0/kernel'), selects(None, 'x')
    (True, False, True)
    """
    if where is None or callable(where):
        return where is None or bool(where(name))
    globs = [where] if isinstance(where, str) else where
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def replica_rows(
    stacked: PyTree, where: Where = None, *, what: str = "stacked"
) -> dict[str, Float[Array, "replica n"]]:
    """Selected floating leaves of a stacked tree by flat name, flattened to one row per replica.

    Raises:
        ValueError: as `floating`; leaves without a common leading axis of at least two replicas.
    """
    leaves = floating(stacked, where, what=what)
    counts = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves.values()}
    if len(counts) != 1 or min(counts) < 2:
        raise ValueError(
            f"{what}: a replica distance needs one leading axis of at least 2 replicas in every leaf, got sizes "
            f"{sorted(counts)}; stack the trees of the replicas with sbjax.trees.stack"
        )
    return {name: leaf.reshape(len(leaf), -1) for name, leaf in leaves.items()}


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Stack trees of equal structure along a new leading (replica) axis.

    >>> stack([{'w': jnp.zeros(3)}, {'w': jnp.ones(3)}])['w'].shape
    (2, 3)
    """
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def take(tree: PyTree, index: int | slice | np.ndarray) -> PyTree:
    """Index the leading axis of every leaf: one replica, or several, of a stacked tree.

    >>> take({'w': jnp.arange(6).reshape(2, 3)}, 1)['w'].tolist()
    [3, 4, 5]
    """
    return jax.tree.map(lambda leaf: leaf[index], tree)


def size(tree: PyTree) -> int:
    """Total number of entries of all leaves.

    >>> size({'w': jnp.zeros((2, 3)), 'b': jnp.zeros(3)})
    9
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether all entries of all floating leaves are finite.

    >>> bool(all_finite({'w': jnp.ones(2), 'n': jnp.arange(2)})), bool(all_finite(jnp.array([1.0, jnp.nan])))
    (True, False)
    """
    floating = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in floating], bool))


def total(parts: Sequence[PyTree]) -> PyTree:
    """Leafwise sum of trees of equal structure.

    >>> total([{'a': 1}, {'a': 2}])
    {'a': 3}
    """
    return jax.tree.map(lambda *leaves: sum(leaves), *parts)


def strong(tree: PyTree) -> PyTree:
    """Remove weak types, which would cause the second call of a jitted step to recompile.

    >>> strong(jnp.asarray(1.0)).weak_type
    False
    """
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), tree)


def _narrow(dtype) -> bool:
    """Whether it is a float of fewer than 16 bits, for which jax has no implicit promotion."""
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 16


def _bare(path: tuple) -> tuple:
    """A path without the attribute `value` of an NNX variable."""
    boxed = path and isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == "value" and len(path) > 1
    return path[:-1] if boxed else path
