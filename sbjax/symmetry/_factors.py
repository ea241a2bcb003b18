"""Array axes as products of factors and sums of ranges; which entries may be permuted.

An axis of size n is a sequence of factors, major first, whose sizes multiply to n (factors of size 1 are omitted). A
factor is

- free: its entries may be permuted, together with all factors it has been joined with;
- fixed: its entries may not be permuted, for a recorded reason;
- constant: the array does not vary along it, so any permutation is allowed;
- a `Sum`: ranges one after another, each of which is an axis of its own. Concatenation makes them.

`sbjax.symmetry._joining` joins, splits and cuts factors. All it does only ever removes permutations, so the
permutations that remain are symmetries.
"""

import math
from collections.abc import Iterator, Sequence

CONSTANT = "constant"
FREE = "free"
SUM = "ranges"


class Factor:
    """A factor of an axis; use `resolve` to get its current representative(s)."""

    __slots__ = ("kind", "parts", "size")

    def __init__(self, size: int, kind: str = FREE):
        self.size = int(size)  # parameters of jaxprs hold integers of numpy
        self.kind = kind  # FREE, CONSTANT or the reason why it is fixed
        self.parts: tuple[Factor | Sum, ...] = ()  # what it was merged into, or the factors it was split into

    @property
    def fixed(self) -> bool:
        return self.kind not in (FREE, CONSTANT)


class Sum:
    """Ranges of an axis, in order. It never changes; the factors of its ranges do."""

    __slots__ = ("ranges", "size")
    kind, parts, fixed = SUM, (), False

    def __init__(self, ranges: Sequence["Axis"]):
        self.ranges = tuple(ranges)
        self.size = sum(map(size, self.ranges))


Axis = Sequence[Factor | Sum]
Axes = Sequence[Axis]


def axis(size: int, kind: str = FREE) -> Axis:
    """A new axis with a single factor; without factors if the size is 1."""
    return () if size == 1 else (Factor(size, kind),)


def axes(shape: Sequence[int], kind: str = FREE) -> Axes:
    """New axes for a shape."""
    return tuple(axis(size, kind) for size in shape)


def resolve(factors: Axis) -> list[Factor | Sum]:
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


def ranges(factors: Axis) -> list[Axis]:
    """The ranges of an axis, each of which is no sum itself; the axis alone if it is no sum."""
    resolved = resolve(factors)
    if len(resolved) != 1 or resolved[0].kind != SUM:
        return [resolved]
    return [part for inner in resolved[0].ranges for part in ranges(inner)]


def concatenated(parts: Sequence[Axis], reason: str = "concatenate") -> Axis:
    """The axis whose ranges are these; neighbours that cannot be permuted become one range."""
    merged: list[Axis] = []
    rigid = False
    for part in (inner for outer in parts for inner in ranges(outer)):
        stiff = all(factor.fixed for factor in part)
        if stiff and rigid:
            kind = next((factor.kind for factor in (*merged[-1], *part)), reason)
            merged[-1] = axis(size(merged[-1]) + size(part), kind)
        else:
            merged.append(part)
        rigid = stiff
    return merged[0] if len(merged) == 1 else (Sum(merged),)


def size(factors: Axis) -> int:
    return math.prod(factor.size for factor in factors)


def leaves(factors: Axis) -> Iterator[Factor]:
    """All factors of an axis, those of its ranges too."""
    for factor in resolve(factors):
        if factor.kind == SUM:
            for part in factor.ranges:
                yield from leaves(part)
        else:
            yield factor


def fix(factors: Axis, reason: str) -> None:
    """Forbid all permutations of these factors."""
    for factor in leaves(factors):
        if factor.kind == FREE:
            factor.kind = reason


def freed(factors: Axis) -> Axis:
    """The axis with new free factors in place of constant ones."""
    result = []
    for factor in resolve(factors):
        if factor.kind == SUM:
            result.append(Sum([freed(part) for part in factor.ranges]))
        else:
            result.append(Factor(factor.size) if factor.kind == CONSTANT else factor)
    return tuple(result)


def is_constant(factors: Axis) -> bool:
    """Whether the array does not vary along the axis. It may differ between ranges."""
    return all(factor.kind == CONSTANT for factor in resolve(factors))
