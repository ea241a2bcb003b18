"""All linear maps between parameters that commute with the permutations of hidden units.

For an input block with axes A and an output block with axes B, the maps that commute are spanned by one map for every
partition of the axes A + B into parts of the same permutation: entries are equal where the indices within each part
are. A part of input axes alone is a mean over their diagonal, one of both carries an index over, one of output axes
alone copies along a diagonal. Here the partitions are written as pairs of slots: what is taken from an input block, and
where it goes in an output block.

Source: universal neural functionals, Zhou, Finn, Harrison, arXiv 2402.05232, theorem 3.1; for the symmetric group,
Maron et al., arXiv 1812.09902.
"""

import collections
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from sbjax import trees
from sbjax.metanets.blocks import Block, Layout

Part = tuple[int, ...]
Groups = tuple[str, ...]


class Slot(NamedTuple):
    """A partition of the axes of a block, with the parts whose index is carried over.

    Attributes:
        parts: axes with one index each.
        kept: those that are carried over, in the order of `groups`.
        groups: the permutations of the kept parts, sorted.
    """

    parts: tuple[Part, ...]
    kept: tuple[Part, ...]
    groups: Groups


def slots_in(groups: Sequence[str]) -> list[Slot]:
    """What can be taken from a block whose axes belong to these permutations.

    >>> [(slot.parts, slot.kept) for slot in slots_in(('p',))]
    [(((0,),), ()), (((0,),), ((0,),))]
    >>> len(slots_in(('p', 'p'))), len(slots_in(('p', 'q')))
    (7, 4)
    """
    return [
        Slot(slot.parts, order, slot.groups)
        for slot in slots_out(groups)
        for order in itertools.permutations(slot.kept)
        if tuple(groups[part[0]] for part in order) == slot.groups
    ]


def slots_out(groups: Sequence[str]) -> list[Slot]:
    """Where it can go in a block; kept parts of one permutation stay in order, as `slots_in` has every order.

    >>> len(slots_out(('p', 'p')))
    6
    """
    found = []
    for parts in _partitions(tuple(groups)):
        for count in range(len(parts) + 1):
            for kept in itertools.combinations(parts, count):
                kept = tuple(sorted(kept, key=lambda part: (groups[part[0]], part)))
                found.append(Slot(parts, kept, tuple(groups[part[0]] for part in kept)))
    return found


def take(x: Float[Array, "..."], axes: int, slot: Slot) -> Float[Array, "..."]:
    """What a slot takes from blocks [*batch, n_1, .., n_axes, features]: [*batch, *kept, features].

    >>> x = jnp.arange(9.0).reshape(3, 3, 1)
    >>> take(x, 2, Slot(((0, 1),), (), ()))  # the mean of the diagonal
    Array([4.], dtype=float32)
    """
    letters = {axis: chr(ord("a") + number) for number, part in enumerate(slot.parts) for axis in part}
    diagonal = "".join(letters[part[0]] for part in slot.parts)
    if len(slot.parts) < axes:
        x = jnp.einsum(f"...{''.join(letters[axis] for axis in range(axes))}z->...{diagonal}z", x)
    first = x.ndim - 1 - len(slot.parts)
    dropped = tuple(first + number for number, part in enumerate(slot.parts) if part not in slot.kept)
    x = x.mean(dropped) if dropped else x
    left = [part for part in slot.parts if part in slot.kept]
    order = [first + left.index(part) for part in slot.kept]
    return x.transpose((*range(first), *order, x.ndim - 1))


def put(y: Float[Array, "..."], sizes: Sequence[int], slot: Slot) -> Float[Array, "..."]:
    """Values [*batch, *kept, features] in a block [*batch, *sizes, features], with 1 for sizes that are only copied."""
    first = y.ndim - 1 - len(slot.kept)
    heads = sorted(slot.kept)  # by first axis
    y = y.transpose((*range(first), *(first + slot.kept.index(part) for part in heads), y.ndim - 1))
    shape = [1] * len(sizes)
    for part in heads:
        shape[part[0]] = sizes[part[0]]
    y = y.reshape((*y.shape[:first], *shape, y.shape[-1]))
    for part in slot.parts:
        for other in part[1:]:
            eye = [sizes[axis] if axis in (part[0], other) else 1 for axis in range(len(sizes))]
            y = y * trees.along(jnp.eye(sizes[part[0]], dtype=y.dtype).reshape((*eye, 1)), y)
    return y


def count_maps(layout: Layout) -> int:
    """Number of linear maps of a tree to itself that commute with all permutations.

    >>> from sbjax.metanets import make_layout, open_ends
    >>> from sbjax.symmetry import derive_spec
    >>> tree = {'a': jnp.ones((2, 3)), 'b': jnp.ones(3), 'c': jnp.ones((3, 2)), 'd': jnp.ones(2)}
    >>> apply = lambda p, x: jnp.tanh(x @ p['a'] + p['b']) @ p['c'] + p['d']
    >>> spec = derive_spec(apply, tree, jnp.ones(2))
    >>> count_maps(make_layout(spec, tree)), count_maps(make_layout(open_ends(spec, tree), tree))  # HNP, NP
    (74, 32)
    """
    given, wanted = _tally(layout, slots_in), _tally(layout, slots_out)
    return sum(
        one * other
        for (groups, used), one in given.items()
        for (same, needed), other in wanted.items()
        if groups == same and _fits(layout, used + needed, groups)
    )


def count_invariants(layout: Layout) -> int:
    """Number of linear functions of a tree that no permutation changes: those that an equivariant layer may add, too.

    >>> from sbjax.metanets import make_layout
    >>> from sbjax.symmetry import spec_from_axes
    >>> tree = {'a': jnp.ones((3, 3))}
    >>> count_invariants(make_layout(spec_from_axes({'a': ('p', 'p')}, tree), tree))  # trace and sum
    2
    """
    return sum(count for (groups, used), count in _tally(layout, slots_in).items() if not groups
               and _fits(layout, used, ()))  # fmt: skip


def _tally(layout: Layout, slots) -> collections.Counter:
    """How many features there are by kept permutations and the permutation of every part."""
    found: collections.Counter = collections.Counter()
    for block in layout.blocks:
        for slot in slots(block.groups):
            used = tuple(sorted(block.groups[part[0]] for part in slot.parts))
            found[slot.groups, used] += block.features
    return found


def _fits(layout: Layout, used: Groups, shared: Groups) -> bool:
    """Whether there are as many units as parts, without which maps of different partitions are dependent."""
    needed = collections.Counter(used)
    needed.subtract(shared)
    return all(count <= layout.sizes[name] for name, count in needed.items())


def _partitions(groups: Groups) -> Iterator[tuple[Part, ...]]:
    """Partitions of axes into parts of one permutation, parts by their first axis."""
    if not groups:
        yield ()
        return
    last = len(groups) - 1
    for parts in _partitions(groups[:-1]):
        for number, part in enumerate(parts):
            if groups[part[0]] == groups[last]:
                yield (*parts[:number], (*part, last), *parts[number + 1 :])
        yield (*parts, (last,))


def block_sizes(layout: Layout, block: Block) -> tuple[int, ...]:
    """Units along each axis of a block but the last."""
    return tuple(layout.sizes[name] for name in block.groups)
