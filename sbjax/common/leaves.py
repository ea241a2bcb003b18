"""What trees of weights hold besides arrays of numbers, in the sentences of errors."""

import functools
import sys
from collections.abc import Mapping
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
    linen, nnx, torch = (sys.modules.get(name) for name in ("flax.linen", "flax.nnx", "torch.nn"))
    if isinstance(tree, str | bytes) or hasattr(tree, "__fspath__"):
        return f"the text {str(tree)!r}; read a file by sbjax.training.params_files.load_params"
    if tree is None:
        return "None; give a dict, list or module of arrays"
    for leaf in _told_apart(tree):
        kind = type(leaf).__name__
        if isinstance(leaf, getattr(linen, "Module", ())):
            given = "its variables, module.variables" if leaf.scope else "those that module.init(key, x) returns"
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
