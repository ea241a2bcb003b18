"""Arrays whose layers are stacked along one axis, each layer with axes of its own.

Weights that a `scan` runs over, or of which one layer after the other is taken by its index, are a `Stack`, so that
every layer has its own permutations. What is neither turns a stack back into a plain array, whose layers are permuted
alike.
"""

from collections.abc import Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr

from sbjax.symmetry._factors import FREE, Axes, axes, axis
from sbjax.symmetry._rules import ELEMENTWISE, PASSED, join_all

LAYER = "number of a layer"
MOST_LAYERS = 256  # of longer stacks (a sequence, rather than layers) all rows are permuted alike


class Stack:
    """An array with the axes of each of its slices along the axis `place`.

    Attributes:
        leaves: names of the leaves it is made of.
        joined: set that takes the names of those that turned out to be no stacks.
    """

    __slots__ = ("joined", "leaves", "place", "slices")

    def __init__(self, place: int, slices: Sequence[Axes], leaves: frozenset[str], joined: set[str]):
        self.place, self.slices, self.leaves, self.joined = place, tuple(slices), leaves, joined

    def like(self, slices: Sequence[Axes], place: int | None = None) -> "Stack":
        return Stack(self.place if place is None else place, slices, self.leaves, self.joined)


def leaf_stack(name: str, shape: Sequence[int], place: int, joined: set[str]) -> Stack:
    """A leaf with free axes in every layer."""
    rest = (*shape[:place], *shape[place + 1 :])
    return Stack(place, [axes(rest, FREE) for _ in range(shape[place])], frozenset({name}), joined)


def plain(operand: Axes | Stack) -> Axes:
    """Axes of an array, with the layers of a stack permuted alike."""
    if not isinstance(operand, Stack):
        return operand
    operand.joined |= operand.leaves
    joined, number = join_all(*operand.slices), axis(len(operand.slices), LAYER)
    return (*joined[: operand.place], number, *joined[operand.place :])


def layers(operand: Axes | Stack) -> Sequence[Axes]:
    """Axes of the layers; of an array that is no stack, its own."""
    return operand.slices if isinstance(operand, Stack) else (operand,)


def row(operand: Axes | Stack, number: int) -> Axes:
    """What one iteration of a `scan` gets; a list of its own, since all empty tuples are one."""
    return list(operand.slices[number] if _scanned(operand) else operand[1:])


def scanned(operands: Sequence[Axes | Stack]) -> bool:
    """Whether a `scan` over these runs over layers."""
    return any(map(_scanned, operands))


def _scanned(operand) -> bool:
    return isinstance(operand, Stack) and operand.place == 0


def result(equation: Any, operands: Sequence[Axes | Stack]) -> list[Axes | Stack] | None:
    """Results of an equation that keeps layers apart; None if it does not."""
    name, params = equation.primitive.name, equation.params
    stacks = [operand for operand in operands if isinstance(operand, Stack)]
    first = stacks[0]
    if name in ELEMENTWISE or name in PASSED:
        shapes = {var.aval.shape for var, operand in zip(equation.invars, operands) if isinstance(operand, Stack)}
        scalars = all(isinstance(operand, Stack) or not len(operand) for operand in operands)
        if not scalars or len({stack.place for stack in stacks}) > 1 or len(shapes) > 1:
            return None
        merged = [join_all(*parts) for parts in zip(*(stack.slices for stack in stacks))]
        leaves = frozenset().union(*(stack.leaves for stack in stacks))
        return [Stack(first.place, merged, leaves, first.joined)] * len(equation.outvars)
    return _KEEPING[name](first, params, equation.invars[0].aval.shape) if name in _KEEPING else None


def _transposed(stack, params, shape):
    order = params["permutation"]
    rest = [old - (old > stack.place) for old in order if old != stack.place]
    moved = [tuple(layer[old] for old in rest) for layer in stack.slices]
    return [stack.like(moved, order.index(stack.place))]


def _sliced(stack, params, shape):
    starts, limits = params["start_indices"], params["limit_indices"]
    every = zip(shape, starts, limits, params["strides"] or (1,) * len(shape))
    cuts = [None if (start, limit, step) == (0, n, 1) else slice(start, limit, step) for n, start, limit, step in every]
    taken = cuts.pop(stack.place) or slice(None)
    return [stack.like(stack.slices[taken])] if not any(cuts) else None


def _squeezed(stack, params, shape):
    if {place % len(shape) for place in params["dimensions"]} != {stack.place}:
        return None
    return [stack.slices[0]]


def _unstacked(stack, params, shape):
    return list(stack.slices) if params["axis"] == stack.place else None


def _split(stack, params, shape):
    if params["axis"] != stack.place:
        return None
    rest = iter(stack.slices)
    return [stack.like([next(rest) for _ in range(n)]) for n in params["sizes"]]


_KEEPING = {
    "slice": _sliced,
    "split": _split,
    "squeeze": _squeezed,
    "transpose": _transposed,
    "unstack": _unstacked,
}


def depths(jaxpr: Jaxpr) -> set[int]:
    """Numbers of layers that stacks may have: lengths of loops, and of axes of which single entries are taken."""
    found = set()
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        shape = getattr(equation.invars[0].aval, "shape", ()) if equation.invars else ()
        if name == "scan":
            found.add(params["length"])
        elif name == "slice":
            ends = zip(shape, params["start_indices"], params["limit_indices"])
            found |= {n for n, start, limit in ends if limit - start == 1}
        elif name == "unstack" or (name == "split" and set(params["sizes"]) == {1}):
            found.add(shape[params["axis"]])
        for inner in _functions(list(params.values())):
            found |= depths(inner)
    return {n for n in found if 1 < n <= MOST_LAYERS}


def _functions(values):
    for value in values:
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _functions(value)
