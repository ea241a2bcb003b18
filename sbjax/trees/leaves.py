"""What trees of weights hold besides arrays of numbers, in the sentences of errors."""

import functools
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def optimizer_states(tree: PyTree) -> list[tuple]:
    """Paths of the states of optax in a tree, whose moments have the shapes of weights and are none.

    >>> import optax
    >>> [jax.tree_util.keystr(path) for path in optimizer_states({'w': 1.0, 'o': optax.trace(0.9).init(1.0)})]
    ["['o']"]
    """
    state = lambda x: type(x).__module__.startswith("optax.") and type(x).__name__.endswith("State")  # noqa: E731
    return [path for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=state)[0] if state(leaf)]


def sparse(tree: PyTree) -> list[tuple[tuple, str]]:
    """(path, class) of the sparse arrays of jax, pytrees whose leaves hold some of the entries, and their places.

    >>> from jax.experimental.sparse import BCOO
    >>> [kind for _, kind in sparse({'w': BCOO.fromdense(jnp.eye(2)), 'b': jnp.ones(2)})]
    ['BCOO']
    """
    module: Any = sys.modules.get("jax.experimental.sparse")  # only who imported it has such arrays
    kind = getattr(module, "JAXSparse", ())
    one = lambda x: isinstance(x, kind)  # noqa: E731
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=one)[0] if kind else []
    return [(path, type(leaf).__name__) for path, leaf in leaves if one(leaf)]


def check_dense(what: str, tree: PyTree, chosen: Iterable[str]) -> None:
    """Refuse sparse arrays, whose leaves are some of their entries and no weights of a network.

    Args:
        chosen: flat names of the leaves that count.

    Raises:
        ValueError: naming the leaf.
    """
    for path, kind in sparse(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if any(one == name or one.startswith(f"{name}/") or not name for one in chosen):
            raise ValueError(
                f"{what}: leaf {name!r} is a sparse array of jax ({kind}), whose zeros are not stored; give "
                ".todense() of it, or leave it out with `where`"
            )


def check_library(what: str, name: str, leaf: Any) -> None:
    """Refuse arrays of other libraries, whose dtypes mean nothing here, masked ones, whose masks would be lost, and
    those that are no more.

    Raises:
        ValueError: naming the leaf.
    """
    if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer) and leaf.is_deleted():
        raise ValueError(f"{what}: leaf {name!r} was deleted, as by a step that it was donated to; keep a copy before")
    masked = isinstance(leaf, np.ma.MaskedArray)
    if masked or (hasattr(leaf, "dtype") and not isinstance(leaf, np.ndarray | np.generic | jax.Array)):
        kind = "masked array" if masked else f"{type(leaf).__name__} of {type(leaf).__module__.partition('.')[0]}"
        raise ValueError(f"{what}: leaf {name!r} is a {kind}; give one of numpy or jax (.numpy(force=True) of PyTorch)")


def check_counted(what: str, name: str, leaf: Any, dtype: Any) -> None:
    """Refuse what is neither of floats nor of whole numbers that a state counts with: no tree at all (the name is ''),
    leaves of objects, text, dates or records, and codes of quantised weights.

    Raises:
        ValueError: naming the leaf.
    """
    if name == "" and (said := instead(leaf)):
        raise ValueError(f"{what} is {said}")
    if name == "" and getattr(dtype, "kind", "") == "O":
        kind = "an array of Python objects" if isinstance(leaf, np.ndarray) else f"a {type(leaf).__name__}"
        raise ValueError(f"{what} is {kind} and no tree of arrays; give a dict, list or module of arrays")
    if numberless(dtype):
        raise ValueError(f"{what}: leaf {name!r} holds no numbers ({dtype}); leave it out with `where`")
    if quantised(name, leaf, dtype):
        raise ValueError(
            f"{what}: leaf {name!r} holds {dtype} {list(leaf.shape)}, codes of quantised weights; give the weights "
            "they stand for (codes times scale, in floats), or leave it out with `where`"
        )


def quantised(name: str, leaf: Any, dtype: Any) -> bool:
    """Whether these are codes of quantised weights: matrices of integers of at most 8 bits, or packed in wider ones.

    >>> quantised('w', np.ones((2, 2), np.int8), np.dtype('int8')), quantised('n', np.int32(3), np.dtype('int32'))
    (True, False)
    """
    if not jnp.issubdtype(dtype, jnp.integer) or np.ndim(leaf) < 2:
        return False
    return jnp.iinfo(dtype).bits <= 8 or name.rpartition("/")[2].rpartition(".")[2] in ("qweight", "qzeros")


def numberless(dtype: Any) -> bool:
    """Whether a dtype is of objects, text, dates or records.

    >>> numberless(np.dtype('U3')), numberless(np.dtype([('a', 'f4')])), numberless(jnp.dtype('bfloat16'))
    (True, True, False)
    """
    return getattr(dtype, "kind", "") in ("O", "S", "U", "M", "m") or getattr(dtype, "names", None) is not None


def instead(tree: PyTree) -> str | None:
    """What to give in place of what has no arrays: a module without its parameters, a function, an optimiser, a file.

    >>> instead(jnp.tanh), instead('a.npz')
    ('a function; give the parameters', "the text 'a.npz'; read a file by sbjax.training.params_files.load_params")
    >>> instead({}) is None
    True
    """
    known: list[Any] = [sys.modules.get(name) for name in ("flax.linen", "flax.nnx", "torch.nn")]
    linen, nnx, torch = known
    if isinstance(tree, str | bytes) or hasattr(tree, "__fspath__"):
        return f"the text {str(tree)!r}; read a file by sbjax.training.params_files.load_params"
    if tree is None:
        return "None; give a dict, list or module of arrays"
    leaf: Any
    for leaf in _told_apart(tree):
        kind = type(leaf).__name__
        if isinstance(leaf, getattr(linen, "Module", ())):
            bound = getattr(leaf, "scope", None)
            given = "its variables, module.variables" if bound else "those that module.init(key, x) returns"
            return f"a module of Flax Linen ({kind}), which does not hold its parameters; give {given}"
        if isinstance(leaf, getattr(torch, "Module", ())):
            given = "{name: p.numpy(force=True) for name, p in module.named_parameters()}"
            return f"a module of PyTorch ({kind}); give {given}"
        if isinstance(leaf, type) and issubclass(leaf, getattr(nnx, "Module", ())):
            return f"the class {leaf.__name__} and no module; make one, {leaf.__name__}(.., rngs=nnx.Rngs(0))"
        if isinstance(leaf, functools.partial):
            return "a functools.partial, whose arguments are no leaves; give the parameters that it holds"
        if kind.startswith("GradientTransformation"):
            return "an optimiser of optax; give the parameters, not what updates them"
        if callable(leaf):
            return "a function; give the parameters"
    return "a state of optax without arrays; give the parameters" if optimizer_states(tree) else None


def _told_apart(tree: PyTree) -> list[Any]:
    """Leaves, with optimisers of optax whole, and one that is no pytree for itself."""
    whole = lambda x: type(x).__name__.startswith("GradientTransformation")  # noqa: E731
    leaves = jax.tree.leaves(tree, is_leaf=whole)
    return [] if isinstance(tree, Mapping) and not tree else leaves
