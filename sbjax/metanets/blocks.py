"""The entries of a network's parameters, ordered by what the permutations of its hidden units do to them.

A *block* is a part of one array on which every permutation acts along whole axes: `[n_1, .., n_k, features]`, where
each n_i belongs to one permutation and `features` are all entries that no permutation moves: kernel taps, input
channels, outputs. Most arrays are one block. What reads a concatenation, and layers stacked for a `scan`, are several.

Blocks come from a `Spec` alone (`sbjax.symmetry.derive_spec`), so that they exist for every network of which one does.
"""

import dataclasses
import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from sbjax import trees
from sbjax.symmetry.permutation import Move, Spec, check_spec

ENDS = ("input", "output")


class Block(NamedTuple):
    """A part of an array on which permutations act along whole axes.

    Attributes:
        leaf: flat name of the array.
        groups: the permutation of each axis but the last; one may occur several times.
        index: int32 [*sizes, features], places of its entries in the vector of all parameters, see `vector`.
    """

    leaf: str
    groups: tuple[str, ...]
    index: Int[np.ndarray, "..."]

    @property
    def features(self) -> int:
        """Entries that no permutation moves."""
        return self.index.shape[-1]


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """All blocks of a tree. Compared by identity, so that it can be a field of a Linen module.

    Attributes:
        sizes: units of each permutation.
        blocks: in the order of the arrays; together every entry once.
        shapes: of the arrays, by flat name.
    """

    sizes: dict[str, int]
    blocks: tuple[Block, ...]
    shapes: dict[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """Number of entries."""
        return sum(map(math.prod, self.shapes.values()))


def make_layout(spec: Spec, tree: PyTree) -> Layout:
    """The blocks of a tree.

    Args:
        spec: of a network, see `sbjax.symmetry.derive_spec`.
        tree: arrays, or anything with shapes, with the names of the spec. Arrays of the spec may be missing: without
            `batch_stats` only parameters are read.

    Raises:
        ValueError: the spec does not fit; no array that it moves is there.

    >>> from sbjax.symmetry import spec_from_axes
    >>> tree = {'a': jnp.ones((5, 3)), 'b': jnp.ones((3, 2))}
    >>> layout = make_layout(spec_from_axes({'a': (None, 'p'), 'b': ('p', None)}, tree), tree)
    >>> [(block.leaf, block.groups, block.index.shape) for block in layout.blocks]
    [('a', ('p',), (3, 5)), ('b', ('p',), (3, 2))]
    """
    shapes = {name: tuple(jnp.shape(leaf)) for name, leaf in trees.flatten(tree).items()}
    spec = _restricted(spec, shapes)
    check_spec(spec, tree)
    blocks, start = [], 0
    for leaf, shape in shapes.items():
        places = start + np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
        start += places.size
        acting = [(name, move) for name, moves in spec.moves.items() for move in moves if move.leaf == leaf]
        for part, moves in _layers(leaf, places, acting):
            blocks += [Block(leaf, *block) for block in _blocks(part, moves, spec.sizes) if block[1].size]
    return Layout(dict(spec.sizes), tuple(blocks), shapes)


def open_ends(spec: Spec, tree: PyTree) -> Spec:
    """The spec with inputs and outputs of the network permuted too, each by a permutation of its own.

    This is no symmetry of the function. It is the convention of neural functionals called NP, and it makes inputs and
    outputs nodes of a graph; what reads the blocks has to tell them apart by an embedding. Axes of one size are taken
    for the same inputs.

    Source: Zhou et al., arXiv 2302.14040, section 2.

    >>> from sbjax.symmetry import derive_spec
    >>> tree = {'a': jnp.ones((5, 3)), 'b': jnp.ones((3, 2))}
    >>> spec = derive_spec(lambda p, x: jnp.tanh(x @ p['a']) @ p['b'], tree, jnp.ones(5))
    >>> open_ends(spec, tree).sizes
    {'a': 3, 'input': 5, 'output': 2}
    """
    sizes, moves, fixed = dict(spec.sizes), dict(spec.moves), dict(spec.fixed)
    shapes = {name: jnp.shape(leaf) for name, leaf in trees.flatten(tree).items()}
    moved = {(move.leaf, move.axis) for acting in spec.moves.values() for move in acting}
    for axis, reason in spec.fixed.items():
        leaf, number = axis[:-1].rsplit("[", 1)
        if reason not in ENDS or leaf not in shapes or (leaf, int(number)) in moved:
            continue
        n = shapes[leaf][int(number)]
        if n < 2:
            continue
        name = reason if sizes.get(reason, n) == n else f"{reason}_{n}"
        sizes[name] = n
        moves[name] = (*moves.get(name, ()), Move(leaf, int(number)))
        del fixed[axis]
    return Spec(sizes, moves, fixed)


def vector(tree: PyTree, *, batch_axes: int = 0) -> Float[Array, "*batch size"]:
    """All entries of a tree of arrays in one vector, in the order of `sbjax.trees.flatten`.

    >>> vector({'a': jnp.zeros((2, 3)), 'b': jnp.ones(1)}).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    """
    leaves = [jnp.asarray(leaf) for leaf in trees.flatten(tree).values()]
    return jnp.concatenate([leaf.reshape((*leaf.shape[:batch_axes], -1)) for leaf in leaves], axis=-1)


def split_vector(layout: Layout, entries: Float[Array, "*batch size"]) -> dict[str, Array]:
    """The arrays of a vector by flat name, the inverse of `vector`; `sbjax.trees.nest` makes nested dicts of it."""
    arrays, start = {}, 0
    for name, shape in layout.shapes.items():
        end = start + math.prod(shape)
        arrays[name] = entries[..., start:end].reshape((*entries.shape[:-1], *shape))
        start = end
    return arrays


def to_blocks(layout: Layout, entries: Float[Array, "*batch size"]) -> tuple[Float[Array, "*batch _"], ...]:
    """The blocks `[*batch, n_1, .., n_k, features]` of vectors of parameters."""
    return tuple(entries[..., block.index] for block in layout.blocks)


def from_blocks(layout: Layout, blocks: tuple[Float[Array, "*batch _"], ...]) -> Float[Array, "*batch size"]:
    """Vectors of parameters of their blocks, the inverse of `to_blocks`."""
    order = np.argsort(np.concatenate([block.index.reshape(-1) for block in layout.blocks]))
    flat = [x.reshape((*x.shape[: x.ndim - block.index.ndim], -1)) for block, x in zip(layout.blocks, blocks)]
    return jnp.concatenate(flat, axis=-1)[..., order]


def _restricted(spec: Spec, shapes: dict) -> Spec:
    """The spec of those arrays that are there."""
    moves = {name: tuple(m for m in acting if m.leaf in shapes) for name, acting in spec.moves.items()}
    kept = [name for name, acting in moves.items() if acting]
    if spec.sizes and not kept:
        theirs = next(move.leaf for acting in spec.moves.values() for move in acting)
        raise ValueError(
            f"the spec moves arrays such as {theirs!r}, and the tree holds {next(iter(shapes), 'none')!r}, ..: give "
            "the tree from which the spec was derived, as {'params': ..}"
        )
    return Spec({name: spec.sizes[name] for name in kept}, {name: moves[name] for name in kept}, spec.fixed)


def _layers(leaf, places, acting):
    """The layers of a stack of which each has moves of its own, or the whole array."""
    stacks = {move.stack for _, move in acting} - {-1}
    if not stacks:
        return [(places, acting)]
    if len(stacks) > 1:
        raise ValueError(f"{leaf!r} is stacked along axes {sorted(stacks)}: layers along one axis only are told apart")
    (stack,) = stacks
    return [
        (places.take(layer, stack), [(n, m.inside(stack)) for n, m in acting if m.stack == -1 or m.layer == layer])
        for layer in range(places.shape[stack])
    ]


def _blocks(places, acting, sizes):
    """Groups and index of every block of an array."""
    by_axis = [
        _segments(size, [(name, move, sizes[name]) for name, move in acting if move.axis == axis])
        for axis, size in enumerate(places.shape)
    ]
    for segments in itertools.product(*by_axis):
        index = places[np.ix_(*(entries.reshape(-1) for _, entries in segments))]
        index = index.reshape([n for _, entries in segments for n in entries.shape])
        ends = np.cumsum([entries.ndim for _, entries in segments], dtype=int) - 1
        index = np.moveaxis(index, ends, range(index.ndim - len(ends), index.ndim))
        groups = tuple(name for names, _ in segments for name in names)
        yield groups, index.reshape((*index.shape[: len(groups)], -1))


def _segments(size, acting):
    """Parts of an axis that the same moves act on: their permutations, and entries [*sizes, rest]."""
    if not acting:
        yield (), np.arange(size)
        return
    labels = np.full((len(acting), size), -1)
    for row, (_, move, n) in zip(labels, acting):
        row[move.positions(n)] = np.arange(n)[:, None]
    signature = labels >= 0
    for kind in np.unique(signature, axis=1).T[::-1]:
        entries = np.flatnonzero((signature == kind[:, None]).all(0))
        chosen = [move for move, taken in zip(acting, kind) if taken]
        own = labels[:, entries][kind]
        entries = entries[np.lexsort((entries, *own[::-1]))]
        shape = [n for _, _, n in chosen]
        names = tuple(name for name, _, _ in chosen)
        entries = entries.reshape((*shape, -1)) if entries.size % math.prod(shape) == 0 else entries
        if not _moves_whole_axes(entries, chosen, size):
            raise ValueError(f"permutations {', '.join(names)} overlap in parts of an axis of {size} entries: fix one")
        yield names, entries


def _moves_whole_axes(entries, chosen, size):
    """Whether each move, as it moves all units on by one, rolls its own axis of the entries."""
    if entries.ndim != len(chosen) + 1:
        return False
    for axis, (_, move, n) in enumerate(chosen):
        places, shifted = move.positions(n), np.arange(size)
        shifted[places] = np.roll(places, -1, 1)
        if not np.array_equal(shifted[entries], np.roll(entries, -1, axis)):
            return False
    return True
