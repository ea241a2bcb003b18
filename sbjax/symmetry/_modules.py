"""Modules of NNX and Equinox as functions of their arrays."""

import sys
from collections.abc import Callable

import jax
from jaxtyping import PyTree

from sbjax import trees
from sbjax.trees.leaves import instead


def split(apply_fn: Callable, variables: PyTree) -> tuple[Callable, PyTree]:
    """A pure function of arrays, and the arrays: of a module, or a tree with functions as leaves, what can be traced.

    Flat names stay. An NNX module is merged inside, so that it may write to its own variables there.

    >>> fn, tree = split(lambda net, x: net['act'](net['w'] * x), {'w': 2.0, 'act': abs})
    >>> tree, fn(tree, -3.0)
    ({'act': None, 'w': 2.0}, 6.0)

    Raises:
        ValueError: there are no arrays, as in a module of Linen, which does not hold its parameters.
    """
    nnx = sys.modules.get("flax.nnx")
    if hasattr(nnx, "Module") and isinstance(variables, nnx.Module):
        graph, state = nnx.split(variables)
        return lambda state, *inputs: apply_fn(nnx.merge(graph, state), *inputs), state
    arrays = trees.parameters(variables)
    if not jax.tree.leaves(arrays) and (said := instead(variables)):
        raise ValueError(f"variables is {said}")
    if arrays is variables:
        return apply_fn, variables

    def pure(arrays, *inputs):
        whole = lambda kept, given: given if kept is None else kept  # noqa: E731
        return apply_fn(jax.tree.map(whole, arrays, variables, is_leaf=lambda x: x is None), *inputs)

    return pure, arrays
