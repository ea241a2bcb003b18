"""Symmetry-breaking distance: how far one network is from the points that a group of parameter symmetries fixes.

    Delta_G(w) = |w - P_G w|^2,    P_G w = mean of g w over the group,

the squared distance to the fixed points of G, zero where the network has the symmetry. Along training it says which
symmetries a network breaks, and which it restores. Where a replica distance compares networks that were trained apart,
this needs one.

The groups here move hidden units, see `sbjax.symmetry.permutation.Spec`:

- all permutations of the units of one layer, or of all layers at once: fixed are networks whose units are all alike;
- the exchange of two units: fixed are networks in which they are copies. The least of these distances says how near any
  two are to being one unit;
- the change of sign of one unit (odd activations), or its rescaling (relu, where the group is not compact and its only
  fixed points are these): fixed are networks in which the unit has no weights. The least of them says how near any unit
  is to being none.

Source: arXiv 2502.05300 (the distance; which groups, their shares and the least over a family are ours).
"""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree

from sbjax import trees
from sbjax.symmetry.permutation import Move, Spec, check_spec


class Breaking(NamedTuple):
    """Distances of one network.

    Attributes:
        permutation: Delta of all permutations of all hidden units.
        share: the same over the squared norm of the entries that they move, 0 to 1.
        layers: Delta by permutation of the spec, the others left alone.
        pair: the least, over exchanges of two units of one layer, of 2 Delta over the squared norm of their weights:
            |a - b|^2 / (|a|^2 + |b|^2), 0 for copies, 1 for orthogonal units, 2 for opposite ones; NaN where no layer
            has two units.
        unit: the least over units of |a|^2 over the mean of its layer; 0 for a unit without weights.
    """

    permutation: float
    share: float
    layers: dict[str, float]
    pair: float
    unit: float


class Layout(NamedTuple):
    """What the distances of a network need of its spec and shapes, made once by `make_layout`.

    Attributes:
        joint: by leaf, the class of each entry: equal for entries that permutations of all units exchange.
        own: by permutation and leaf, the same for one permutation alone.
        units: by permutation and leaf, for each axis that it moves, the unit of each entry; -1 where it moves nothing.
        shapes: by leaf.
    """

    joint: dict[str, Int[np.ndarray, " n"]]
    own: dict[str, dict[str, Int[np.ndarray, " n"]]]
    units: dict[str, dict[str, tuple[Int[np.ndarray, "..."], ...]]]
    shapes: dict[str, tuple[int, ...]]


def make_layout(spec: Spec, variables: PyTree, *, where: trees.Where = None) -> Layout:
    """Which entries of a network's arrays permutations exchange.

    Args:
        spec: of one network.
        variables: of one network, arrays or shapes.
        where: which leaves count, see `trees.Where`; all that the spec moves by default.

    Raises:
        ValueError: a spec that does not fit the arrays, no hidden unit can be permuted, or one permutation acts along
            three axes of an array.
    """
    leaves = trees.flatten(variables)
    here = {name: tuple(move for move in moves if move.leaf in leaves) for name, moves in spec.moves.items()}
    check_spec(spec._replace(moves=here), variables)
    joint: dict[str, np.ndarray] = {}
    own: dict[str, dict[str, np.ndarray]] = {}
    units: dict[str, dict[str, tuple[np.ndarray, ...]]] = {}
    for leaf, array in leaves.items():
        every = {name: [move for move in moves if move.leaf == leaf] for name, moves in spec.moves.items()}
        acting = {
            name: _units(array.shape, moves, spec.sizes[name])
            for name, moves in every.items()
            if moves and trees.selects(where, leaf)
        }
        for name, found in acting.items():
            if len(found) > 2:
                raise ValueError(f"permutation {name!r} acts along {len(found)} axes of leaf {leaf!r}; 2 are the most")
            units.setdefault(name, {})[leaf] = found
            own.setdefault(name, {})[leaf] = _classes(array.shape, {name: every[name]}, {name: found}, spec.sizes)
        if acting:
            joint[leaf] = _classes(array.shape, every, acting, spec.sizes)
    if not joint:
        raise ValueError("this network has no hidden units that can be permuted; `Spec.fixed` says why for each axis")
    return Layout(joint, own, units, {leaf: np.shape(leaves[leaf]) for leaf in joint})


def symmetry_breaking(layout: Layout, variables: PyTree) -> Breaking:
    """The symmetry-breaking distances of one network, NaN where squares of weights that move are not finite.

    Args:
        layout: as `make_layout` returns.
        variables: of one network.

    Raises:
        ValueError: leaves of the layout that are not there, or of other shapes or complex.

    Example:
        >>> from sbjax.symmetry.permutation import Move, Spec
        >>> spec = Spec({'h': 2}, {'h': (Move('in', 1), Move('out', 0))}, {})
        >>> network = {'in': np.array([[1.0, 3.0]]), 'out': np.array([2.0, 2.0])}
        >>> found = symmetry_breaking(make_layout(spec, network), network)
        >>> found.permutation, found.layers  # both units become (2, 2)
        (2.0, {'h': 2.0})
        >>> round(found.share, 3), round(found.pair, 3), round(found.unit, 3)
        (0.111, 0.222, 0.556)
    """
    given = trees.flatten(variables)
    for leaf, shape in layout.shapes.items():
        if leaf not in given or np.shape(given[leaf]) != shape:
            found = np.shape(given[leaf]) if leaf in given else "missing"
            raise ValueError(f"leaf {leaf!r} is {found}, and the layout was made for {shape}; give one network of that")
        if jnp.issubdtype(jnp.result_type(given[leaf]), jnp.complexfloating):
            raise ValueError(f"leaf {leaf!r} is complex; give real and imaginary parts as two leaves")
    leaves = {leaf: np.asarray(given[leaf], np.float64) for leaf in layout.shapes}
    with np.errstate(over="ignore"):
        finite = all(np.isfinite(np.sum(leaf**2)) for leaf in leaves.values())
    if not finite:
        return Breaking(np.nan, np.nan, dict.fromkeys(layout.own, np.nan), np.nan, np.nan)
    permutation = sum(_beyond(leaves[leaf], classes) for leaf, classes in layout.joint.items())
    layers = {name: sum(_beyond(leaves[leaf], one) for leaf, one in own.items()) for name, own in layout.own.items()}
    norm = 0.0
    for leaf in layout.joint:
        maps = [units for own in layout.units.values() for units in own.get(leaf, ())]
        norm += float(np.sum(leaves[leaf] ** 2, where=_any(maps)))
    pairs, units = zip(*(_least(leaves, own) for own in layout.units.values()))
    return Breaking(permutation, permutation / norm if norm else 0.0, layers, float(np.fmin.reduce(pairs)), min(units))


def _units(shape: tuple[int, ...], moves: list[Move], n: int) -> tuple[Int[np.ndarray, "..."], ...]:
    """The unit of each entry for each moved axis, in shapes that broadcast to the leaf's."""
    found: dict[int, np.ndarray] = {}
    for move in moves:
        along = np.full(shape[move.axis], -1)
        along[move.positions(n)] = np.arange(n)[:, None]
        units = _along(along, move.axis, len(shape))
        if move.stack != -1:
            units = np.where(_along(np.arange(shape[move.stack]), move.stack, len(shape)) == move.layer, units, -1)
        # Moves along one axis are of other ranges or other layers: no entry has two of them.
        found[move.axis] = np.maximum(found[move.axis], units) if move.axis in found else units
    return tuple(found.values())


def _classes(
    shape: tuple[int, ...],
    moves: dict[str, list[Move]],
    units: dict[str, tuple[np.ndarray, ...]],
    sizes: dict[str, int],
) -> Int[np.ndarray, " n"]:
    """Orbits of a leaf's entries under all permutations: its place without units, and which units are equal."""
    index = [_along(np.arange(size), axis, len(shape)) for axis, size in enumerate(shape)]
    for name in units:
        for move in moves[name]:
            positions, first = move.positions(sizes[name]), np.arange(shape[move.axis])
            first[positions] = positions[:, :1]
            inside = True if move.stack == -1 else index[move.stack] == move.layer
            index[move.axis] = np.where(inside, first[index[move.axis]], index[move.axis])
    label = np.zeros((1,) * len(shape), int)
    for a, b in ((a, b) for found in units.values() for a, b in itertools.combinations(found, 2)):
        label = 2 * label + ((a == b) & (a >= 0))
    for size, place in zip(shape, index):
        label = label * size + place
    return np.unique(np.broadcast_to(label, shape), return_inverse=True)[1].ravel()


def _along(values: np.ndarray, axis: int, dimensions: int) -> np.ndarray:
    return values.reshape([-1 if i == axis else 1 for i in range(dimensions)])


def _any(maps: list[np.ndarray]) -> Bool[np.ndarray, "..."]:
    """Which entries have a unit."""
    found = maps[0] >= 0
    for units in maps[1:]:
        found = found | (units >= 0)
    return found


def _beyond(leaf: Float[np.ndarray, "..."], classes: Int[np.ndarray, " n"]) -> float:
    """Sum of squares about the means of classes."""
    flat = leaf.ravel()
    means = np.bincount(classes, flat) / np.bincount(classes)
    return float(np.sum((flat - means[classes]) ** 2))


def _least(leaves: dict[str, np.ndarray], own: dict[str, tuple[np.ndarray, ...]]) -> tuple[float, float]:
    """Of one permutation, the least ratio over pairs of units, and the least norm of a unit over the mean one."""
    n = 1 + max(int(units.max()) for found in own.values() for units in found)
    apart, norms = np.zeros((n, n)), np.zeros(n)
    for leaf, found in own.items():
        full = [np.broadcast_to(units, leaves[leaf].shape).ravel() for units in found]
        flat = leaves[leaf].ravel()
        for units in full:
            norms += np.bincount(units[units >= 0], flat[units >= 0] ** 2, minlength=n)
        if len(full) == 2:  # an entry between a unit and itself was counted twice
            same = (full[0] == full[1]) & (full[0] >= 0)
            norms -= np.bincount(full[0][same], flat[same] ** 2, minlength=n)
        apart += sum(_distances(_rows(flat, units, n)) for units in full)
        if len(full) == 2:
            apart += _between(flat, *full, n)
    both = norms[:, None] + norms
    ratio = np.where(both > 0, apart / np.where(both > 0, both, 1), 0)[np.triu_indices(n, 1)]
    return float(ratio.min()) if n > 1 else float("nan"), float(norms.min() / norms.mean()) if norms.any() else 0.0


def _rows(flat: np.ndarray, units: np.ndarray, n: int) -> Float[np.ndarray, "n m"]:
    """The entries of each unit, a row each, in the order of their other indices."""
    order = np.argsort(units, kind="stable")
    return flat[order[np.count_nonzero(units < 0) :]].reshape(n, -1)


def _distances(rows: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n n"]:
    """|a - b|^2 for all rows; from the difference itself where products would leave nothing but rounding."""
    square = np.sum(rows**2, 1)
    both = square[:, None] + square
    found = np.maximum(both - 2 * rows @ rows.T, 0)
    for i, j in np.argwhere(np.triu(found < 1e-6 * both, 1)):
        found[i, j] = found[j, i] = np.sum((rows[i] - rows[j]) ** 2)
    return found


def _between(flat: np.ndarray, first: np.ndarray, second: np.ndarray, n: int) -> Float[np.ndarray, "n n"]:
    """What |w - (i j) w|^2 / 2 has beside the distances of rows and of columns, where both axes are moved.

    The entries between i and j themselves go to one another crosswise, and not along a row or a column.
    """
    inside = (first >= 0) & (second >= 0)
    block = _rows(flat[inside], first[inside] * n + second[inside], n * n).reshape(n, n, -1)
    square = lambda x: np.sum(x**2, -1)  # noqa: E731
    own = block[np.arange(n), np.arange(n)]
    rows = square(own[:, None] - block)  # |w_ii - w_ij|^2
    columns = square(own[:, None] - block.swapaxes(0, 1))  # |w_ii - w_ji|^2
    along = rows + rows.T + columns + columns.T
    return square(own[:, None] - own) + square(block - block.swapaxes(0, 1)) - along
