"""Utilities for pytrees of arrays: flat names, selection of leaves, stacking, finiteness."""

import fnmatch
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from sbjax.trees import leaves as kinds
from sbjax.trees.dtypes import along, is_cut, narrow, on_host, promoted, promoting, wide_dtype

__all__ = [
    "BESIDE_PARAMS",
    "Where",
    "all_finite",
    "along",
    "cast_to_float",
    "check_finite",
    "flatten",
    "floating",
    "is_cut",
    "nest",
    "numeric",
    "on_host",
    "parameters",
    "promoted",
    "promoting",
    "replica_rows",
    "replicas",
    "selects",
    "size",
    "stack",
    "strong",
    "take",
    "wide_dtype",
]

Where = str | Sequence[str] | Callable[[str], bool] | None
"""A selection of leaves by flat name: one or several globs, or a predicate; None = all."""


BESIDE_PARAMS = ("batch_stats", "opt_state", "cache", "intermediates", "perturbations", "ema_params")
"""What stands beside 'params' in the state of a network and is nothing that is trained."""


def flatten(tree: PyTree) -> dict[str, Any]:
    """Leaves by flat name, the path joined with '/': {'dense_0/kernel': .., 'dense_0/bias': ..}.

    Works on dicts, tuples, named tuples, dataclasses and NNX state; a tree that is a single leaf has the name ''.

    >>> flatten({'a': {'b': 1}, 'c': (2, 3)})
    {'a/b': 1, 'c/0': 2, 'c/1': 3}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves}


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts of flat names, the inverse of `flatten` for dicts.

    >>> nest({'a/b': 1, 'c': 2})
    {'a': {'b': 1}, 'c': 2}
    """
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *above, last = name.split("/")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree


def floating(tree: PyTree, where: Where = None, *, what: str = "tree") -> dict[str, Float[Array, "..."]]:
    """Selected floating leaves of a tree by flat name, as jax arrays.

    Ignored are integers, booleans and random keys, since states carry counters and keys beside weights, and what
    `parameters` leaves out. Running statistics, which are NNX variables other than `nnx.Param` beside such, and what
    `BESIDE_PARAMS` names beside 'params', in variables of Flax, a `TrainState` or several of them in one tree, count
    only where nothing else is selected. Other names are no sign of them here: the `bn.running_mean` of a PyTorch dict
    is a weight, unless `where` leaves it out, while `sbjax.training.params_files.load_params` knows such names. Floats
    with fewer than 16 bits are converted to float32, since jax has no implicit promotion for them. Numpy arrays of
    float64 and numbers of Python stay in float64, as arrays of numpy, where jax would cut them to float32.

    Args:
        tree: any pytree of arrays or numbers.
        where: selection of leaves.
        what: name of the tree in errors.

    States of optax count as running statistics do.

    Raises:
        ValueError: nothing is selected; a selected leaf is complex, empty, not numeric, masked, sparse, quantised,
            deleted or of another library; there are no arrays (a module of Linen or PyTorch, a function, a path).

    >>> floating({'a': {'kernel': np.ones(2, np.float32), 'bias': np.ones(3)}, 'step': np.int32(3)}, '*/kernel')
    {'a/kernel': Array([1., 1.], dtype=float32)}
    """
    given, tree = tree, parameters(tree)
    leaves = flatten(tree)
    chosen = {name: leaf for name, leaf in leaves.items() if selects(where, name)}
    kinds.check_dense(what, tree, chosen)
    chosen = _without_statistics(tree, chosen)
    kept, passed = {}, {}
    for name, leaf in chosen.items():
        kinds.check_library(what, name, leaf)
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if jnp.issubdtype(dtype, jnp.floating):
            kept[name] = _as_floats(leaf, dtype)
        elif jnp.issubdtype(dtype, jnp.complexfloating):
            raise ValueError(f"{what}: leaf {name!r} is complex ({dtype}); give real and imaginary parts as two leaves")
        else:
            kinds.check_counted(what, name, leaf, dtype)
            passed[name] = dtype
    if not leaves and (said := kinds.instead(given)):
        raise ValueError(f"{what} is {said}")
    if not kept:
        cast = next((cast_to_float(name, dtype) for name, dtype in passed.items() if numeric(dtype)), None)
        have = ", ".join(map(repr, list(leaves)[:8])) or "none"
        told = f"; {cast}" if cast else ""
        raise ValueError(f"{what} has no floating leaf that where={where!r} selects; its leaves: {have}{told}")
    for name, leaf in kept.items():
        if not leaf.size:
            raise ValueError(f"{what}: leaf {name!r} of shape {leaf.shape} is empty; leave it out with `where`")
    return kept


def cast_to_float(name: str, dtype: Any) -> str:
    """The remedy for a leaf of integers or booleans."""
    return f"leaf {name!r} holds {dtype}, and only floats are measured; cast it, as by .astype('float32')"


def numeric(dtype: Any) -> bool:
    """Whether a dtype is of integers or booleans, which could be meant as weights."""
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)


def parameters(tree: PyTree) -> PyTree:
    """A tree without what no optimiser trains: functions as leaves, and numbers that are no arrays in modules of
    Equinox (the `p` of its Dropout), as `equinox.filter(tree, equinox.is_array)`, and its running statistics, before
    `equinox.nn.make_with_state` (`StateIndex`) or beside a module (`State`). They become None.

    >>> parameters({'w': 1.0, 'activation': jnp.tanh})
    {'activation': None, 'w': 1.0}
    """
    equinox: Any = sys.modules.get("equinox")  # a tree of its modules can only come from who imported it
    kinds = (equinox.Module, equinox.nn.State) if hasattr(equinox, "Module") else ()
    module = lambda x: isinstance(x, kinds)  # noqa: E731

    def strip(leaf):
        if module(leaf):
            statistics = lambda x: isinstance(x, equinox.nn.StateIndex | equinox.nn.State)  # noqa: E731
            return jax.tree.map(lambda x: x if hasattr(x, "dtype") else None, leaf, is_leaf=statistics)
        return None if callable(leaf) else leaf

    stripped = any(module(leaf) or callable(leaf) for leaf in jax.tree.leaves(tree, is_leaf=module))
    return jax.tree.map(strip, tree, is_leaf=module) if stripped else tree


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
    # A view needs no program.
    rows: dict[str, Any] = {name: np.asarray(leaf) if on_host(leaf) else leaf for name, leaf in leaves.items()}
    return {name: leaf.reshape(len(leaf), -1) for name, leaf in rows.items()}


def replicas(stacked: PyTree, *, what: str = "stacked", part: str = "layer") -> PyTree:
    """The stacked tree that replicas are given as, for every replica distance.

    A list or tuple whose elements are trees with the same names and shapes is one of replicas, and is stacked; one
    whose elements have other names, or are arrays of other shapes, is itself a stacked tree, of layers. It could be
    either, and is refused, where elements agree and all their leaves begin with the same axis, where only shapes
    differ, and of a single element. Named tuples, dicts and modules are always one tree. Leaves are as in `parameters`.

    Args:
        stacked: the tree, or a list of trees.
        what: its name in errors.
        part: what the elements may be instead of replicas, in errors.

    Raises:
        ValueError: it could be either.

    >>> net = {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)}
    >>> jax.tree.map(jnp.shape, replicas([net, net]))
    {'bias': (2, 3), 'kernel': (2, 2, 3)}
    >>> layers = [jnp.ones((5, 2, 3)), jnp.ones((5, 3, 1))]
    >>> replicas(layers) is layers
    True
    """
    if type(stacked) not in (list, tuple) or not stacked:
        return parameters(stacked)
    n, kind = len(stacked), type(stacked).__name__
    named = f"a dict of named {part}s, such as {{'{part}_0': {what}[0], ..}}"
    if n == 1:
        raise ValueError(
            f"{what} is a {kind} of one tree, and a distance needs at least 2 replicas: give {what}[0] if that is "
            f"stacked already, or {named}, if it is one {part}"
        )
    for i, tree in enumerate(stacked):
        kinds.check_dense(f"{what}[{i}]", tree, flatten(tree))
    members = [parameters(tree) for tree in stacked]
    shapes = [{name: jnp.shape(leaf) for name, leaf in flatten(tree).items()} for tree in members]
    if not shapes[0] or any(other.keys() != shapes[0].keys() for other in shapes[1:]):
        return parameters(stacked)
    for other in shapes[1:]:
        name = next((name for name in other if other[name] != shapes[0][name]), None)
        if name == "":
            return parameters(stacked)
        if name is not None:
            raise ValueError(
                f"{what} is a {kind} of {n} trees with the same names and other shapes, as of {name!r}: "
                f"{shapes[0][name]} and {other[name]}; give trees of the same shapes if they are {n} replicas, or "
                f"{named}, if they are {n} {part}s, stacked already"
            )
    first = {shape[0] if shape else 0 for shape in shapes[0].values()}
    if len(first) == 1 and min(first) > 1:
        axis = first.pop()
        raise ValueError(
            f"{what} is a {kind} of {n} trees with the same shapes, whose leaves all begin with an axis of {axis}: "
            f"give sbjax.trees.stack({what}) if they are {n} replicas, or {named}, if they are {n} {part}s of {axis} "
            "replicas"
        )
    return stack(members)


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Stack trees of equal structure along a new leading (replica) axis; of modules, `parameters`.

    What is no leaf (`apply_fn`, `tx` of a `TrainState`) is that of the first. Float64 of numpy and words stay numpy's.

    >>> stack([{'w': jnp.zeros(3)}, {'w': jnp.ones(3)}])['w'].shape
    (2, 3)
    """
    join = lambda *xs: (np if any(is_cut(x) or isinstance(x, str) for x in xs) else jnp).stack(xs)  # noqa: E731
    members = [parameters(tree) for tree in trees]
    for name, leaf in flatten(members).items():
        kinds.check_library("trees", name, leaf)
    if len({tuple(flatten(member)) for member in members}) == 1:
        members = [jax.tree.unflatten(jax.tree.structure(members[0]), jax.tree.leaves(member)) for member in members]
    return jax.tree.map(join, *members)


def take(tree: PyTree, index: int | slice | Int[Array, "..."]) -> PyTree:
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


def strong(tree: PyTree) -> PyTree:
    """Remove weak types, which would cause the second call of a jitted step to recompile.

    >>> strong(jnp.asarray(1.0)).weak_type
    False
    """
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), tree)


def _as_floats(leaf, dtype):
    if isinstance(leaf, np.ndarray | np.generic) and dtype.kind == "f" and (dtype.itemsize > 8 or not dtype.isnative):
        leaf = np.asarray(leaf, np.float64 if dtype.itemsize > 8 else dtype.newbyteorder("="))
    return np.asarray(leaf) if is_cut(leaf) else jnp.asarray(leaf, jnp.float32 if narrow(dtype) else None)


def _without_statistics(tree, chosen):
    """Without running statistics, unless they are all that is chosen."""
    nnx = sys.modules.get("flax.nnx")
    names = set()
    if hasattr(nnx, "Variable"):
        boxes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: isinstance(x, nnx.Variable))
        boxes = {_name(path): box for path, box in boxes if isinstance(box, nnx.Variable)}
        names = {name for name, box in boxes.items() if not isinstance(box, nnx.Param)}
    split = {name: name.split("/") for name in flatten(tree)}
    states = [f"{_name(path)}/" if path else "" for path in kinds.optimizer_states(tree)]
    names |= {name for name in split if any(name.startswith(state) for state in states)}
    networks = {tuple(parts[:i]) for parts in split.values() for i, part in enumerate(parts) if part == "params"}
    names |= {
        name
        for name, parts in split.items()
        if any(part in BESIDE_PARAMS and tuple(parts[:i]) in networks for i, part in enumerate(parts))
    }
    return {name: leaf for name, leaf in chosen.items() if name not in names} or chosen


def _name(path: tuple) -> str:
    """The flat name of a path, without the attribute `value` of an NNX variable."""
    boxed = path and isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == "value" and len(path) > 1
    return jax.tree_util.keystr(path[:-1] if boxed else path, simple=True, separator="/")
