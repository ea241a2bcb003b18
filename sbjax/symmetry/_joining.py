"""Unification of axes whose entries must be permuted alike, and their factors after reshapes and cuts.

Joining factors of equal size merges them (union-find). A factor joined with several smaller ones is split everywhere,
and one joined with ranges is cut into them everywhere. What does not fit is fixed.
"""

import functools
import math
from collections.abc import Sequence

from sbjax.symmetry._factors import (
    CONSTANT,
    FREE,
    SUM,
    Axes,
    Axis,
    Factor,
    Sum,
    axis,
    concatenated,
    fix,
    freed,
    is_constant,
    leaves,
    ranges,
    resolve,
    size,
)

_Stack = list[Factor | Sum]


def _pop(stack: _Stack) -> Factor | Sum:
    """Remove and return the most minor (resolved) factor of a stack."""
    *rest, last = resolve((stack.pop(),))
    stack.extend(rest)
    return last


def _split(factor: Factor | Sum, minor: int) -> Axis:
    """Split a factor into [size / minor, minor]; a free factor is split wherever it occurs.

    Ranges that are multiples of `minor` get a common minor factor; others are fixed.
    """
    if factor.kind == SUM:
        if all(size(part) % minor == 0 for part in ranges((factor,))):
            parts = [regroup(part, (size(part) // minor, minor)) for part in ranges((factor,))]
            return (*concatenated([major for major, _ in parts]), *functools.reduce(join, (last for _, last in parts)))
        kind = _give_up([factor], "ranges of other sizes than the parts of a reshape")
        return Factor(factor.size // minor, kind), Factor(minor, kind)
    parts = Factor(factor.size // minor, factor.kind), Factor(minor, factor.kind)
    if factor.kind == FREE:
        factor.parts = parts
    return parts


def _merge(a: Factor | Sum, b: Factor | Sum) -> Axis:
    """Merge two factors of equal size, which are permuted alike from now on."""
    if a is b or b.kind == CONSTANT:
        return (a,)
    if a.kind == CONSTANT:
        return (b,)
    if a.fixed or b.fixed:
        kept, other = (a, b) if a.fixed else (b, a)
        fix((other,), kept.kind)
        return (kept,)
    if a.kind == b.kind == SUM:
        return _join_ranges(a, b)
    kept, other = (b, a) if b.kind == SUM else (a, b)
    other.parts = freed((kept,))
    return other.parts


def _join_ranges(a: Sum, b: Sum) -> Axis:
    """Join ranges with ranges, cut where the others end."""
    left, right, joined = [(a,)], [(b,)], []
    while left and right:
        # Joining may have cut what is still to come, so ranges are looked up anew.
        left, right = ([*ranges(stack[0]), *stack[1:]] for stack in (left, right))
        small = min(size(left[0]), size(right[0]))
        pair = []
        for stack in (left, right):
            first, rest = cut(stack.pop(0), small)
            pair.append(first)
            stack[:0] = rest
        joined.append(join(*pair))
    return concatenated(joined)


def cut(factors: Axis, place: int) -> tuple[Axis, list[Axis]]:
    """The first `place` entries of an axis and, in a list, the others if there are any.

    A free factor is cut wherever it occurs; where a cut would go through the inside of a product, the axis is fixed.
    """
    n = size(factors)
    if place == n:
        return factors, []
    major, *minors = resolve(factors)
    inside = size(minors)
    if place % inside:
        kind = _give_up([major, *minors], "cut between ranges")
        return axis(place, kind), [axis(n - place, kind)]
    place //= inside
    if major.kind == SUM:
        before, after = [], ranges((major,))
        while place:
            part = after.pop(0)
            first, rest = cut(part, min(place, size(part)))
            before.append(first)
            after[:0] = rest
            place -= size(first)
        halves = concatenated(before), concatenated(after)
    else:
        halves = axis(place, major.kind), axis(major.size - place, major.kind)
        if major.kind == FREE:
            major.parts = (Sum(halves),)
    first, rest = ((*half, *minors) for half in halves)
    return first, [rest]


def can_be_cut(factors: Axis, place: int) -> bool:
    """Whether a cut after `place` entries is between two ranges, or through one without free factors."""
    major, *minors = resolve(factors) or ((),)
    if not major or place % size(minors):
        return not major
    place //= size(minors)
    for part in ranges((major,)):
        if place <= 0:
            break
        if place < size(part) and any(factor.kind == FREE for factor in leaves(part)):
            return False
        place -= size(part)
    return True


def join(a: Axis, b: Axis) -> Axis:
    """Unify two axes of equal size whose entries correspond; both are permuted alike from now on."""
    if size(a) != size(b):
        raise AssertionError(f"axes of {size(a)} and {size(b)} entries cannot correspond")
    left, right, joined = list(a), list(b), []
    while left and right:
        x, y = _pop(left), _pop(right)
        if x.size == y.size:
            joined.extend(reversed(_merge(x, y)))
        elif max(x.size, y.size) % min(x.size, y.size) == 0:
            big, small, stack, other = (x, y, left, right) if x.size > y.size else (y, x, right, left)
            stack.extend(_split(big, small.size))
            other.append(small)
        else:
            joined.extend(_misfit(x, left, y, right))
    return tuple(reversed(joined))


def _misfit(x: Factor | Sum, left: _Stack, y: Factor | Sum, right: _Stack) -> _Stack:
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


def _give_up(region: _Stack, reason: str) -> str:
    """Kind of a factor that replaces these: constant if all of them are; otherwise they are fixed."""
    if is_constant(region):
        return CONSTANT
    fix(region, reason)
    return next((factor.kind for factor in leaves(region) if factor.fixed), reason)


def regroup(factors: Sequence[Factor | Sum], sizes: Sequence[int]) -> Axes:
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
