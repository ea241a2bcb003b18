"""Array axes as products of factors, with unification of factors that must be permuted alike.

An axis of size n is a sequence of factors, major first, whose sizes multiply to n (factors of size 1 are omitted). A
factor is

- free: its entries may be permuted, together with all factors it has been joined with;
- fixed: its entries may not be permuted, for a recorded reason;
- constant: the array does not vary along it, so any permutation is allowed.

Joining factors of equal size merges them (union-find); a factor joined with several smaller ones is split everywhere.
Splitting and fixing only ever remove permutations, so the permutations that remain are symmetries.
"""

import math
from collections.abc import Sequence

CONSTANT = "constant"
FREE = "free"


class Factor:
    """A factor of an axis; use `resolve` to get its current representative(s)."""

    __slots__ = ("kind", "parts", "size")

    def __init__(self, size: int, kind: str = FREE):
        self.size = size
        self.kind = kind  # FREE, CONSTANT or the reason why it is fixed
        self.parts: tuple[Factor, ...] = ()  # the factor it was merged into, or the factors it was split into

    @property
    def fixed(self) -> bool:
        return self.kind not in (FREE, CONSTANT)


Axis = Sequence[Factor]
Axes = Sequence[Axis]


def axis(size: int, kind: str = FREE) -> Axis:
    """A new axis with a single factor; without factors if the size is 1."""
    return () if size == 1 else (Factor(size, kind),)


def axes(shape: Sequence[int], kind: str = FREE) -> Axes:
    """New axes for a shape."""
    return tuple(axis(size, kind) for size in shape)


def resolve(factors: Axis) -> list[Factor]:
    """Current representatives of these factors, after merging and splitting; major first."""
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
    """Remove and return the most minor (resolved) factor of a stack."""
    *rest, last = resolve((stack.pop(),))
    stack.extend(rest)
    return last


def _split(factor: Factor, minor: int) -> Axis:
    """Split a factor into [size / minor, minor]; a free factor is split wherever it occurs."""
    parts = Factor(factor.size // minor, factor.kind), Factor(minor, factor.kind)
    if factor.kind == FREE:
        factor.parts = parts
    return parts


def _merge(a: Factor, b: Factor) -> Factor:
    """Merge two factors of equal size, which are permuted alike from now on."""
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
    """Unify two axes of equal size whose entries correspond; both are permuted alike from now on."""
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
    """Unify the shortest minor parts of two axes with equal size but incompatible factors; they are fixed, unless one
    side is constant."""
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
    """Kind of a factor that replaces these: constant if all of them are; otherwise they are fixed."""
    if is_constant(region):
        return CONSTANT
    fix(region, reason)
    return next(factor.kind for factor in region if factor.fixed)


def regroup(factors: Sequence[Factor], sizes: Sequence[int]) -> Axes:
    """Axes after a reshape: the same factors grouped into new sizes.

    A factor that does not divide a new size is fixed, together with all factors up to the next common boundary.
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
