"""Propagation of array axes through a jaxpr, with the rules of `sbjax.symmetry._rules` for single equations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from sbjax.symmetry._factors import CONSTANT, Axes, axes, axis, fix, freed
from sbjax.symmetry._indexing_rules import INDEXING_RULES
from sbjax.symmetry._rules import RULES, join_all, unknown
from sbjax.symmetry._stacks import Stack, plain, result, row, scanned

_RULES = RULES | INDEXING_RULES
FOLLOWED = frozenset(_RULES)
# Parameter that holds the called function, by primitive; custom derivatives do not affect values and are ignored.
_CALLS = {
    "call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "composite": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
}


def follow(
    closed: ClosedJaxpr, arguments: Sequence[Axes | Stack], see: Callable[[Axes | Stack], None]
) -> list[Axes | Stack]:
    """Propagate axes through a function and return those of its results.

    Args:
        closed: the function.
        arguments: axes of its arguments, or of each of their layers.
        see: callback, called with the axes of every operand in order of use.
    """
    jaxpr = closed.jaxpr
    known = {var: of_constant(value) for var, value in zip(jaxpr.constvars, closed.consts)}
    known |= dict(zip(jaxpr.invars, arguments))
    read = lambda var: of_constant(var.val) if isinstance(var, Literal) else known[var]  # noqa: E731
    for equation in _needed(jaxpr):
        operands = [read(var) for var in equation.invars]
        name = equation.primitive.name
        if (inner := called(equation)) is not None:
            results = follow(inner, operands, see)
        elif name in _CONTROL:
            results = _CONTROL[name](equation.params, operands, see)
        else:
            for operand in operands:
                see(operand)
            apart = result(equation, operands) if any(isinstance(operand, Stack) for operand in operands) else None
            results = _applied(equation, [*map(plain, operands)]) if apart is None else apart
        known.update(zip(equation.outvars, results))
    return [read(var) for var in jaxpr.outvars]


def _applied(equation: Any, operands: list[Axes]) -> list[Axes]:
    """The rule of an equation. Axes of size 0 cannot be factored; an array without entries says nothing of others."""
    name = equation.primitive.name
    full = [0 not in getattr(var.aval, "shape", ()) for var in equation.invars]
    if all(0 in getattr(var.aval, "shape", ()) for var in equation.outvars):
        return [axes(var.aval.shape, CONSTANT) for var in equation.outvars]
    if name == "concatenate":
        return _RULES[name](equation, [operand for operand, some in zip(operands, full) if some])
    return (_RULES.get(name, unknown) if all(full) else unknown)(equation, operands)


def of_constant(value: Any) -> Axes:
    """Axes of a constant of the function: constant where the array does not vary along them, else fixed."""
    if not isinstance(value, np.ndarray | jax.Array) or jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended):
        return axes(np.shape(value), "constant of the function")
    value = np.asarray(value)
    same = [bool((value == value.take([0], i)).all()) if value.size else False for i in range(value.ndim)]
    return tuple(axis(n, CONSTANT if s else "constant of the function") for n, s in zip(value.shape, same))


def _needed(jaxpr: Jaxpr) -> list:
    """Equations that the results depend on or that have side effects."""
    live = {var for var in jaxpr.outvars if not isinstance(var, Literal)}
    needed = []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not live.isdisjoint(equation.outvars):
            needed.append(equation)
            live.update(var for var in equation.invars if not isinstance(var, Literal))
    return needed[::-1]


def called(equation: Any) -> ClosedJaxpr | None:
    """The function called by an equation if it is a plain call of its operands, else None."""
    inner = equation.params.get(_CALLS.get(equation.primitive.name))
    if isinstance(inner, Jaxpr) and not inner.constvars:
        inner = ClosedJaxpr(inner, ())
    plain = isinstance(inner, ClosedJaxpr) and len(inner.jaxpr.invars) == len(equation.invars)
    return inner if plain else None


def _cond(params, operands, see):
    branches = [follow(branch, operands[1:], see) for branch in params["branches"]]
    return [join_all(*map(plain, results)) for results in zip(*branches)]


def scan_ends(params: Mapping[str, Any]) -> tuple[int, int]:
    """Where constants of a `scan` end among its operands, and where what it carries does."""
    if "num_consts" in params:
        return params["num_consts"], params["num_consts"] + params["num_carry"]
    constants, carry, _ = map(len, params["ft_in"].unpack())  # jax 0.12 and later
    return constants, constants + carry


def _scan(params, operands, see):
    """Scanned axes are fixed, and carried values have the same factors in every iteration; layers are told apart."""
    first, last = scan_ends(params)
    if scanned(operands[last:]):
        return _scan_of_layers(params, operands, see)
    operands = [*operands[:first], *map(plain, operands[first:])]
    carry = [_carried(operand) for operand in operands[first:last]]
    for operand in operands[last:]:
        fix(operand[0], "scan")
    rows = [[*operand[1:]] for operand in operands[last:]]  # lists, since all empty tuples are one
    see = _seen_as(operands[first:], [*carry, *rows], see)
    results = follow(params["jaxpr"], [*operands[:first], *carry, *rows], see)
    for operand in operands[first:last]:
        see(operand)
    results = [*map(plain, results)]
    carry = [join_all(*pair) for pair in zip(carry, results)]
    return carry + [(axis(params["length"], "scan"), *rows) for rows in results[len(carry) :]]


def _scan_of_layers(params, operands, see):
    """Iteration by iteration, as if the loop were written out: each has its own layer and its own carry."""
    first, last = scan_ends(params)
    carry, rows = operands[first:last], operands[last:]
    rows = [operand if scanned([operand]) else plain(operand) for operand in rows]
    for operand in rows:
        if not isinstance(operand, Stack):
            fix(operand[0], "scan")
    numbers, made, inside, kept = range(params["length"]), {}, see, []
    for number in reversed(numbers) if params["reverse"] else numbers:
        now = [*map(list, map(plain, carry)), *(row(operand, number) for operand in rows)]
        kept.append(now)  # `see` goes by identity
        inside = _seen_as([*carry, *rows], now, inside)
        results = follow(params["jaxpr"], [*operands[:first], *now], inside)
        carry, made[number] = results[: len(carry)], [*map(plain, results[len(carry) :])]
    for operand in operands[first:last]:
        see(operand)
    return carry + [Stack(0, column, frozenset(), set()) for column in zip(*(made[number] for number in numbers))]


def _while(params, operands, see):
    tested, total = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    operands = [*operands[:total], *map(plain, operands[total:])]
    carry = [_carried(operand) for operand in operands[total:]]
    see = _seen_as(operands[total:], carry, see)
    follow(params["cond_jaxpr"], [*operands[:tested], *carry], see)
    results = follow(params["body_jaxpr"], [*operands[tested:total], *carry], see)
    for operand in operands[total:]:
        see(operand)
    return [join_all(*pair) for pair in zip(carry, map(plain, results))]


def _carried(start: Axes) -> Axes:
    """Axes of a carry, which may be constant in the first iteration only: then its factors are free."""
    return [freed(factors) for factors in start]


def _seen_as(outside: Sequence[Axes], inside: Sequence[Axes], see: Callable[[Axes], None]) -> Callable[[Axes], None]:
    """`see` for the body of a loop: what it reads under a new name is the operand of the loop."""
    names = {id(new): old for new, old in zip(inside, outside, strict=True)}
    return lambda operand: see(names.get(id(operand), operand))


_CONTROL = {"cond": _cond, "scan": _scan, "while": _while}
