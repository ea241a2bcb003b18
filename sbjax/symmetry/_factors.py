"""Axes as products of factors, and which factors must be permuted alike.

An axis of size n is a sequence of factors, major first, whose sizes multiply to n; factors of size 1 are left out. A
factor is

- free: its entries may be permuted, along with all factors that it has been joined to;
- fixed: its entries stay where they are, for a reason;
- constant: the array has the same entries all along it, so that any permutation of them changes nothing.

Joining is unification: factors of one size become one (union-find), and a factor that meets several smaller ones is
split, here and wherever else it occurs. Splitting allows fewer permutations and fixing none, so whatever is done here,
what remains is a symmetry.
"""

import math
from collections.abc import Sequence

CONSTANT = "constant"
FREE = "free"


class Factor:
    """A factor; whether it is free and what it has become is found with `resolve`."""

    __slots__ = ("kind", "parts", "size")

    def __init__(self, size: int, kind: str = FREE):
        self.size = size
        self.kind = kind  # FREE, CONSTANT or the reason why it is fixed
        self.parts: tuple[Factor, ...] = ()  # what it has been joined to or split into

    @property
    def fixed(self) -> bool:
        return self.kind not in (FREE, CONSTANT)


Axis = Sequence[Factor]
Axes = Sequence[Axis]


def axis(size: int, kind: str = FREE) -> Axis:
    """A new axis of one factor; none if the size is 1."""
    return () if size == 1 else (Factor(size, kind),)


def axes(shape: Sequence[int], kind: str = FREE) -> Axes:
    """New axes of a shape."""
    return tuple(axis(size, kind) for size in shape)


def resolve(factors: Axis) -> list[Factor]:
    """What these factors have become, major first."""
    found, stack = [], list(reversed(factors))
    while stack:
        factor = stack.pop()
        if factor.parts:
            while len(factor.parts) == 1 and factor.parts[0].parts:
                factor.parts = factor.parts[0].parts  # path compression
            stack.extend(reversed(factor.parts))
        else:
            found.append(factor)
    return found


def size(factors: Axis) -> int:
    return math.prod(factor.size for factor in factors)


def fix(factors: Axis, reason: str) -> None:
    """Forbid all permutations of these factors."""
    for factor in resolve(factors):
        if factor.kind == FREE:
            factor.kind = reason


def is_constant(factors: Axis) -> bool:
    return all(factor.kind == CONSTANT for factor in resolve(factors))


def _pop(stack: list[Factor]) -> Factor:
    """The most minor factor of a stack, as what it has become by now."""
    *rest, last = resolve((stack.pop(),))
    stack.extend(rest)
    return last


def _split(factor: Factor, minor: int) -> Axis:
    """The factor as [size / minor, minor]; a free one is split wherever it occurs."""
    parts = Factor(factor.size // minor, factor.kind), Factor(minor, factor.kind)
    if factor.kind == FREE:
        factor.parts = parts
    return parts


def _merge(a: Factor, b: Factor) -> Factor:
    """One factor for two of the same size that are permuted alike."""
    if a is b or b.kind == CONSTANT:
        return a
    if a.kind == CONSTANT:
        return b
    if a.fixed or b.fixed:
        kept, other = (a, b) if a.fixed else (b, a)
        fix((other,), kept.kind)
        return kept
    b.parts = (a,)
    return a


def join(a: Axis, b: Axis) -> Axis:
    """One axis for two of the same size whose entries correspond: both are permuted alike from now on."""
    if size(a) != size(b):
        raise AssertionError(f"axes of {size(a)} and {size(b)} entries cannot correspond")
    left, right, joined = list(a), list(b), []
    while left and right:
        x, y = _pop(left), _pop(right)
        if x.size == y.size:
            joined.append(_merge(x, y))
        elif max(x.size, y.size) % min(x.size, y.size) == 0:
            big, small, stack, other = (x, y, left, right) if x.size > y.size else (y, x, right, left)
            stack.extend(_split(big, small.size))
            other.append(small)
        else:
            joined.extend(_misfit(x, left, y, right))
    return tuple(reversed(joined))


def _misfit(x: Factor, left: list[Factor], y: Factor, right: list[Factor]) -> list[Factor]:
    """The shortest parts, minor first, of two axes that have one size but no common factors."""
    xs, ys = [x], [y]
    while size(xs) != size(ys):
        stack, taken = (left, xs) if size(xs) < size(ys) else (right, ys)
        taken.append(_pop(stack))
    if is_constant(xs):
        return ys
    if is_constant(ys):
        return xs
    return [Factor(size(xs), _give_up(xs + ys, "axes without common factors"))]


def _give_up(region: list[Factor], reason: str) -> str:
    """The kind of a factor that stands for these in whichever order: constant if they are, else all are fixed."""
    if is_constant(region):
        return CONSTANT
    fix(region, reason)
    return next(factor.kind for factor in region if factor.fixed)


def regroup(factors: Sequence[Factor], sizes: Sequence[int]) -> Axes:
    """The same entries, in the same order, as axes of other sizes (a reshape).

    Where a factor does not divide, it is fixed together with all that lies between the next common boundaries.
    """
    stack, done = list(factors), []
    pending = list(sizes)
    while pending:
        need, taken = pending.pop(), []
        while need > 1:
            factor = _pop(stack)
            if need % factor.size == 0:
                taken.append(factor)
                need //= factor.size
            elif factor.size % need == 0:
                stack.extend(_split(factor, need))
            else:
                region, slots = [factor], [need]
                while (have := size(region)) != (want := math.prod(slots)):
                    if have < want:
                        region.append(_pop(stack))
                    else:
                        slots.append(pending.pop())
                kind = _give_up(region, "reshape without common factors")
                need, *whole = slots
                taken.append(Factor(need, kind))
                for n in whole:
                    done.append(tuple(reversed(taken)))
                    taken = list(axis(n, kind))
                need = 1
        done.append(tuple(reversed(taken)))
    return tuple(reversed(done))
