"""From the factors of all axes to the moves of a spec and the names of its permutations."""

import itertools
from collections.abc import Iterator

from sbjax.symmetry._factors import FREE, SUM, Axes, Axis, Factor, axis, leaves, resolve, size
from sbjax.symmetry._stacks import LAYER, Stack
from sbjax.symmetry.permutation import Move, Spec

_Place = tuple[int, list[tuple[int, int]], int]  # first position, loops (count, stride), size of a unit


def permuted_twice(factors: Axis) -> list[Factor]:
    """Free factors of which a permutation would act twice on some entry: in two factors of a product."""
    resolved = resolve(factors)
    inside = [{leaf for leaf in leaves((factor,)) if leaf.kind == FREE} for factor in resolved]
    twice = [leaf for a, b in itertools.combinations(inside, 2) for leaf in a & b]
    deeper = [part for factor in resolved if factor.kind == SUM for part in factor.ranges]
    return twice + [leaf for part in deeper for leaf in permuted_twice(part)]


def moves_of(arrays: dict[str, Axes | Stack]) -> tuple[dict[Factor, list[Move]], dict[str, str]]:
    """Moves of each free factor, and the reason for each fixed axis."""
    moves: dict[Factor, list[Move]] = {}
    fixed: dict[str, str] = {}
    for name, array in arrays.items():
        for number, layers in enumerate(_columns(array)):
            reasons, found = [], False
            for layer, factors in enumerate(layers):
                only = (array.place, layer) if isinstance(array, Stack) and len(layers) > 1 else ()
                total, places = size(factors), {}
                for factor, *place in _walk(factors, 0, [], 1):
                    if factor.kind == FREE:
                        places.setdefault(factor, []).append(tuple(place))
                    elif factor.kind not in reasons:
                        reasons.append(factor.kind)
                for factor, at in places.items():
                    found = True
                    made = _moves(name, number, total, factor.size, at)
                    moves.setdefault(factor, []).extend(Move(*move[:7], *only) for move in made)
            if reasons or not found:
                fixed[f"{name}[{number}]"] = ("in part: " if found else "") + ("; ".join(reasons) or "size 1")
    return moves, fixed


def _columns(array: Axes | Stack) -> list[list[Axis]]:
    """Each axis of an array, for each layer if the layers differ in it."""
    if not isinstance(array, Stack):
        return [[factors] for factors in array]
    columns = [list(column) for column in zip(*array.slices)]
    columns = [column if len({*map(_shape, column)}) > 1 else column[:1] for column in columns]
    return [*columns[: array.place], [axis(len(array.slices), LAYER)], *columns[array.place :]]


def _shape(factors: Axis) -> tuple:
    """What distinguishes an axis of one layer from that of another."""
    found = _walk(factors, 0, [], 1)
    return tuple((f if f.kind == FREE else f.kind, start, *loops, unit) for f, start, loops, unit in found)


def _walk(factors: Axis, start: int, loops: list[tuple[int, int]], unit: int) -> Iterator[tuple]:
    """Factors that are no sums, each with its place on the axis."""
    outer, resolved = 1, resolve(factors)
    for number, factor in enumerate(resolved, 1):
        inner = unit * size(resolved[number:])
        here = [*loops, (outer, factor.size * inner)] if outer > 1 else loops
        if factor.kind == SUM:
            place = start
            for part in factor.ranges:
                yield from _walk(part, place, here, inner)
                place += size(part) * inner
        else:
            yield factor, start, here, inner
        outer *= factor.size


def _moves(leaf: str, axis: int, total: int, n: int, places: list[_Place]) -> Iterator[Move]:
    """The moves of one factor on one axis: one for several ranges at equal distances."""
    if len(places) > 1 and not any(loops for _, loops, _ in places):
        starts, units = [start for start, _, _ in places], {unit for _, _, unit in places}
        steps = {b - a for a, b in itertools.pairwise(starts)}
        if len(steps) == len(units) == 1:
            places = [(starts[0], [(len(starts), steps.pop())], units.pop())]
    for start, loops, unit in places:
        # A move has one loop, the longest; the others are written out.
        longest = max(loops, default=(1, n * unit))
        others = list(loops)
        others.remove(longest) if loops else None
        outer, stride = longest
        span = (outer - 1) * stride + n * unit
        for steps in itertools.product(*(range(count) for count, _ in others)):
            first = start + sum(i * step for i, (_, step) in zip(steps, others))
            yield Move(leaf, axis, outer, unit, first, total - first - span, stride - n * unit if outer > 1 else 0)


def named(moves: dict[Factor, list[Move]], fixed: dict[str, str], used: list[str]) -> Spec:
    """The spec with permutations in order of first use, each named after the first array it acts on."""
    order = {leaf: place for place, leaf in enumerate(used)}
    first = {
        factor: min(places, key=lambda move: (order[move.leaf], move.layer, move.axis, move.before))
        for factor, places in moves.items()
    }
    place = lambda move: (order[move.leaf], move.layer, move.axis, move.before, move.outer)  # noqa: E731
    found = sorted(moves, key=lambda factor: place(first[factor]))
    stems: dict[str, list[Factor]] = {}
    for factor in found:
        stems.setdefault(_stem(first[factor].leaf), []).append(factor)
    names: dict[Factor, str] = {}
    for stem, factors in stems.items():
        several = [first[factor].leaf for factor in factors]
        for i, factor in enumerate(factors):
            if len(factors) == 1:
                name = stem
            elif len(set(several)) == len(several):
                name = several[i]
            else:
                name = f"{stem}.{i}"
            while name in names.values():
                name += "'"
            names[factor] = name
    sizes = {names[factor]: factor.size for factor in found}
    return Spec(sizes, {names[factor]: tuple(moves[factor]) for factor in found}, fixed)


def _stem(leaf: str) -> str:
    """'params/dense_0/kernel' -> 'dense_0'.

    >>> _stem('params/dense_0/kernel'), _stem('weight')
    ('dense_0', 'weight')
    """
    parts = leaf.removeprefix("params/").split("/")
    return "/".join(parts[:-1]) or parts[0] or "leaf"
