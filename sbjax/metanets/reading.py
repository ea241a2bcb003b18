"""What metanetworks are told of the networks they read: which entries belong together, and which are trained."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int, PyTree

from sbjax import trees
from sbjax.metanets.blocks import Layout, make_layout, open_ends
from sbjax.symmetry.permutation import Spec, permute

STATISTICS = ("mean", "var", "min", "max", "q25", "q50", "q75")


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """The networks of one architecture, as metanetworks see them. Compared by identity.

    Attributes:
        spec: permutations of hidden units.
        layout: blocks under these permutations (HNP).
        opened: blocks where inputs and outputs are permuted too (NP), see `open_ends`.
        leaves: number of the array of each entry.
        kept: whether an entry is read; frozen entries of asymmetric networks are not.
        names: of the arrays.
    """

    spec: Spec
    layout: Layout
    opened: Layout
    leaves: Int[np.ndarray, "size"]
    kept: Bool[np.ndarray, "size"]
    names: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        """Permutations of the inputs and outputs."""
        return tuple(name for name in self.opened.sizes if name not in self.layout.sizes)


def make_reading(spec: Spec, tree: PyTree, masks: PyTree | None = None) -> Reading:
    """How networks with the parameters of `tree` are read.

    Args:
        spec: of the network, with the names of the tree, see `sbjax.symmetry.derive_spec`. Of an asymmetric network,
            that of the same network without its constants: the metanetwork may still treat its units alike.
        tree: parameters of one network, arrays or shapes.
        masks: True where an entry is trained, for some of the arrays; None = everywhere.

    Raises:
        ValueError: as `make_layout`; a mask without an array, or of another shape.

    >>> from sbjax.symmetry import spec_from_axes
    >>> tree = {'a': np.ones((5, 3)), 'b': np.ones((3, 2))}
    >>> make_reading(spec_from_axes({'a': (None, 'p'), 'b': ('p', None)}, tree), tree).kept.sum().item()
    21
    """
    layout = make_layout(spec, tree)
    masks = {name: np.asarray(mask) for name, mask in trees.flatten(masks or {}).items()}
    for name, mask in masks.items():
        if mask.shape != layout.shapes.get(name):
            raise ValueError(f"masks: {name!r} has shape {mask.shape}, the array {layout.shapes.get(name)}: give one "
                             "mask an array, by its name")  # fmt: skip
    sizes = [int(np.prod(shape, dtype=int)) for shape in layout.shapes.values()]
    kept = [masks[name].astype(bool).ravel() if name in masks else np.ones(size, bool)
            for name, size in zip(layout.shapes, sizes)]  # fmt: skip
    return Reading(
        spec,
        layout,
        make_layout(open_ends(spec, tree), tree),
        np.repeat(np.arange(len(sizes)), sizes),
        np.concatenate(kept),
        tuple(layout.shapes),
    )


def statistics(reading: Reading, entries: Float[np.ndarray, "n size"]) -> Float[np.ndarray, "n statistic"]:
    """Mean, variance, least, largest and quartiles of the entries of each array that are read.

    Source: Unterthiner et al., arXiv 2002.11448; seven numbers an array as in arXiv 2405.20231.

    >>> from sbjax.symmetry import spec_from_axes
    >>> tree = {'a': np.ones((2, 2))}
    >>> statistics(make_reading(spec_from_axes({}, tree), tree), np.arange(4.0)[None]).tolist()
    [[1.5, 1.25, 0.0, 3.0, 0.75, 1.5, 2.25]]
    """
    found = []
    for number in range(len(reading.names)):
        x = np.sort(np.asarray(entries[:, reading.kept & (reading.leaves == number)], np.float64), axis=1)
        if x.shape[1]:
            found += [x.mean(1), x.var(1), x[:, 0], x[:, -1], *np.quantile(x, [0.25, 0.5, 0.75], axis=1)]
    return np.stack(found, axis=1)


def permuted(
    reading: Reading, entries: Float[np.ndarray, "n size"], orders: Mapping[str, Int[ArrayLike, "n units"]]
) -> Float[np.ndarray, "n size"]:
    """The same networks with their hidden units in another order, which for standard ones are the same functions.

    Args:
        reading: of them.
        entries: vectors of parameters.
        orders: permutations by name, a row a network.
    """
    ends = np.cumsum([int(np.prod(shape, dtype=int)) for shape in reading.layout.shapes.values()])[:-1]
    names, shapes, spec = reading.layout.shapes.keys(), reading.layout.shapes.values(), restricted(reading)
    orders = {name: np.asarray(orders[name]) for name in spec.sizes}
    found = []
    for number, row in enumerate(np.asarray(entries)):
        tree = {name: part.reshape(shape) for name, shape, part in zip(names, shapes, np.split(row, ends))}
        moved = permute(spec, tree, {name: rows[number] for name, rows in orders.items()})
        found.append(np.concatenate([moved[name].ravel() for name in names]))
    return np.stack(found)


def restricted(reading: Reading) -> Spec:
    """The spec of the arrays that are read."""
    shapes = reading.layout.shapes
    moves = {
        name: tuple(move for move in reading.spec.moves[name] if move.leaf in shapes) for name in reading.layout.sizes
    }
    return Spec(dict(reading.layout.sizes), moves, {})
