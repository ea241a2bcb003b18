"""The manifold of networks of m units that compute the function of r units, as a union of affine subspaces.

A two-layer network f(x) = sum_i a_i sigma(w_i . x) is {'w': [m, din], 'a': [m, dout]}. A piece of the manifold assigns
every unit to a group of copies or to a group of cancelling units (arXiv 2105.12221):

- copies of unit t of the narrow network have the incoming vector w_t, and their outgoing vectors sum to a_t;
- a group of cancelling units has one arbitrary incoming vector, and outgoing vectors that sum to 0.

There are `counting.T(r, m)` pieces. For generic units it depends on combinatorics only whether two pieces intersect;
the graph of intersecting pieces has r! components for m = r and one for m > r.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
import scipy
from jaxtyping import Array, Float, Int, Key

from sbjax.landscape import counting

Units = Mapping[str, Float[Array, "r ..."]]
"""A two-layer network without biases: incoming 'w' [r, din], outgoing 'a' [r, dout]."""

MOST_PIECES = 1_000_000


class Signature(NamedTuple):
    """Group sizes of a piece.

    Attributes:
        copies: number of copies of each unit of the narrow network, at least 1.
        zeros: sizes of the cancelling groups, ascending.
    """

    copies: tuple[int, ...]
    zeros: tuple[int, ...]


class Piece(NamedTuple):
    """Assignment of m units to groups.

    Attributes:
        copies: for each unit of the narrow network, the units that copy it, ascending.
        zeros: cancelling groups of units, each ascending, ordered by their first units.
    """

    copies: tuple[tuple[int, ...], ...]
    zeros: tuple[tuple[int, ...], ...]


class Affine(NamedTuple):
    """{base + sum_d c_d basis_d}: an affine subspace of parameters.

    Attributes:
        base: {'w': [m, din], 'a': [m, dout]}, the point of minimal norm.
        basis: {'w': [dim, m, din], 'a': [dim, m, dout]}, orthonormal.
    """

    base: dict[str, Float[np.ndarray, "m ..."]]
    basis: dict[str, Float[np.ndarray, "dim m ..."]]


class Graph(NamedTuple):
    """Intersection graph of the pieces.

    Attributes:
        pieces: the nodes.
        edges: pairs of intersecting pieces, the smaller index first.
        component: index of the connected component of each node.
    """

    pieces: tuple[Piece, ...]
    edges: Int[np.ndarray, "edge 2"]
    component: Int[np.ndarray, "piece"]


def signatures(r: int, m: int) -> Iterator[Signature]:
    """All group sizes: k_1 + .. + k_r + b_1 + .. + b_j = m with every k and b at least 1.

    Raises:
        ValueError: not 1 <= r <= m, or not integers.

    >>> [tuple(signature) for signature in signatures(1, 2)]
    [((2,), ()), ((1,), (1,))]
    """
    r, m = counting.pair(r, m)
    for cancelled in range(m - r + 1):
        for cuts in itertools.combinations(range(1, m - cancelled), r - 1):
            edges = (0, *cuts, m - cancelled)
            copies = tuple(after - before for before, after in itertools.pairwise(edges))
            for zeros in _partitions(cancelled):
                yield Signature(copies, zeros)


def multiplicity(signature: Signature) -> int:
    """Number of pieces with these group sizes: m! / (prod k! prod b!) / orderings of cancelling groups of equal size.

    >>> multiplicity(Signature((1,), (1, 1))), multiplicity(Signature((2, 1), ()))
    (3, 3)
    """
    copies, zeros = signature
    units = math.factorial(sum(copies) + sum(zeros))
    equal = math.prod(math.factorial(zeros.count(size)) for size in set(zeros))
    return units // (math.prod(map(math.factorial, copies + zeros)) * equal)


def dimension(signature: Signature, din: int, dout: int = 1) -> int:
    """Dimension of a piece: j din + (m - r - j) dout for j cancelling groups.

    >>> dimension(Signature((2, 1), ()), 2), dimension(Signature((1, 1), (1,)), 2)
    (1, 2)
    """
    copies, zeros = signature
    return len(zeros) * din + (sum(copies) + sum(zeros) - len(copies) - len(zeros)) * dout


def signature(piece: Piece) -> Signature:
    """Group sizes of a piece.

    >>> signature(Piece(((1,),), ((0, 3), (2,))))
    Signature(copies=(1,), zeros=(1, 2))
    """
    return Signature(tuple(map(len, piece.copies)), tuple(sorted(map(len, piece.zeros))))


def pieces(r: int, m: int) -> Iterator[Piece]:
    """All `counting.T(r, m)` pieces, lazily.

    Raises:
        ValueError: not 1 <= r <= m, not integers, or more than a million pieces.

    >>> [tuple(piece) for piece in pieces(1, 2)]
    [(((0, 1),), ()), (((1,),), ((0,),)), (((0,),), ((1,),))]
    """
    r, m = counting.pair(r, m)
    if (number := counting.T(r, m)) > MOST_PIECES:
        raise ValueError(f"r={r}, m={m} has {number:.3g} pieces, more than {MOST_PIECES}: use `signatures` instead")
    return _pieces(r, m)


def affine(piece: Piece, units: Units) -> Affine:
    """The affine subspace of a piece.

    Args:
        piece: assignment of m units.
        units: units of the narrow network, {'w': [r, din], 'a': [r, dout]}.

    Raises:
        ValueError: the piece does not assign every unit exactly once, or `units` does not have r units.

    >>> line = affine(Piece(((0, 1),), ()), {'w': np.array([[3.0]]), 'a': np.array([[2.0]])})
    >>> line.base['w'].ravel().tolist(), line.base['a'].ravel().tolist(), len(line.basis['a'])
    ([3.0, 3.0], [1.0, 1.0], 1)
    """
    w, a, m = _units_of(piece, units)
    din, dout = w.shape[1], a.shape[1]
    base = {"w": np.zeros((m, din), w.dtype), "a": np.zeros((m, dout), a.dtype)}
    directions = []

    def move(name, group, weights):
        """Add one direction per vector component, along which the units of the group move by `weights`."""
        for component in range(base[name].shape[1]):
            direction = {key: np.zeros_like(value) for key, value in base.items()}
            direction[name][list(group), component] = weights
            directions.append(direction)

    for t, group in enumerate(piece.copies):
        base["w"][list(group)] = w[t]
        base["a"][list(group)] = a[t] / len(group)
        for weights in contrasts(len(group)).T:
            move("a", group, weights)
    for group in piece.zeros:
        move("w", group, 1 / math.sqrt(len(group)))
        for weights in contrasts(len(group)).T:
            move("a", group, weights)
    dim = len(directions)
    basis = {k: np.array([d[k] for d in directions], v.dtype).reshape(dim, *v.shape) for k, v in base.items()}
    return Affine(base, basis)


def point(space: Affine, coefficients: Float[Array, "dim"]) -> dict[str, Float[np.ndarray, "m ..."]]:
    """The point base + sum_d c_d basis_d.

    Raises:
        ValueError: the number of coefficients is not the dimension.

    >>> line = affine(Piece(((0, 1),), ()), {'w': np.array([[3.0]]), 'a': np.array([[2.0]])})
    >>> point(line, [np.sqrt(2)])['a'].round(9).ravel().tolist()
    [2.0, 0.0]
    """
    coefficients = np.asarray(coefficients)
    if coefficients.shape != (dim := len(space.basis["w"]),):
        raise ValueError(f"coefficients has shape {coefficients.shape}: give ({dim},), one number per dimension")
    return {
        key: (base + np.tensordot(coefficients, space.basis[key], 1)).astype(base.dtype)
        for key, base in space.base.items()
    }


def sample(
    key: Key[Array, ""], piece: Piece, units: Units, *, scale: float = 1.0
) -> dict[str, Float[np.ndarray, "m ..."]]:
    """A random point of the piece: normal around its point of minimal norm, standard deviation `scale` per direction.

    It computes the same function as `units`. Incoming vectors within a group are bitwise equal. Errors as `affine`.

    >>> drawn = sample(jax.random.key(0), Piece(((0, 1),), ()), {'w': np.array([[3.0]]), 'a': np.array([[2.0]])})
    >>> drawn['w'].tolist(), round(float(drawn['a'].sum()), 5)
    ([[3.0], [3.0]], 2.0)
    """
    space = affine(piece, units)
    drawn = point(space, scale * np.asarray(jax.random.normal(key, (len(space.basis["w"]),))))
    for t, group in enumerate(piece.copies):
        drawn["w"][list(group)] = np.asarray(units["w"])[t]
    for group in piece.zeros:
        drawn["w"][list(group)] = drawn["w"][group[0]]
    return drawn


def random_piece(key: Key[Array, ""], r: int, m: int) -> Piece:
    """A random piece: group sizes uniform over signatures, then a uniform assignment of the units.

    Every piece has positive probability, but the distribution is not uniform over pieces, most of which have many small
    groups.

    >>> sorted(sum(sum(random_piece(jax.random.key(0), 2, 5), ()), ()))
    [0, 1, 2, 3, 4]
    """
    choose, shuffle = jax.random.split(key)
    sizes = list(signatures(r, m))
    copies, zeros = sizes[int(jax.random.randint(choose, (), 0, len(sizes)))]
    order = np.asarray(jax.random.permutation(shuffle, m)).tolist()
    cuts = list(itertools.accumulate((*copies, *zeros), initial=0))
    groups = [tuple(sorted(order[start:stop])) for start, stop in itertools.pairwise(cuts)]
    return Piece(tuple(groups[: len(copies)]), tuple(sorted(groups[len(copies) :])))


def meet(first: Piece, second: Piece) -> bool:
    """Whether two pieces of one manifold intersect, for generic units of the narrow network.

    In the intersection, units that share a group in either piece have equal incoming vectors. Consider the classes
    generated by this relation. For generic units, the pieces intersect iff every class contains copies of the same
    single unit in both pieces, or of none in both. Necessary: a class has one incoming vector, and its outgoing vectors
    have the same sum in both pieces. Sufficient: for each class the groups of both pieces (nodes) and units (edges)
    form a connected bipartite graph, on which flows exist for all node sums with equal totals.

    >>> blue, green, mirrored = Piece(((0,),), ((1,),)), Piece(((0, 1),), ()), Piece(((1,),), ((0,),))
    >>> meet(blue, green), meet(green, mirrored), meet(blue, mirrored)
    (True, True, False)
    """
    parent = list(range(1 + max(max(group) for group in first.copies + first.zeros)))

    def root(unit):
        while parent[unit] != unit:
            unit = parent[unit]
        return unit

    for group in first.copies + first.zeros + second.copies + second.zeros:
        for unit in group[1:]:
            parent[root(unit)] = root(group[0])
    places = [{root(group[0]): t for t, group in enumerate(piece.copies)} for piece in (first, second)]
    # If two narrow units had copies in one class, they would share a key, and there would be fewer keys than units.
    return places[0] == places[1] and len(places[0]) == len(first.copies)


def intersection_graph(r: int, m: int) -> Graph:
    """Intersection graph of all pieces of the manifold, with its connected components.

    Raises:
        ValueError: as `pieces`; more than 5,000 pieces.

    >>> graph = intersection_graph(2, 3)
    >>> len(graph.pieces), len(graph.edges), int(graph.component.max()) + 1
    (12, 12, 1)
    """
    r, m = counting.pair(r, m)
    if (number := counting.T(r, m)) > 5000:
        raise ValueError(f"r={r}, m={m} has {number:.3g} pieces: the graph is limited to 5000, choose smaller widths")
    nodes = tuple(pieces(r, m))
    edges = [(i, j) for (i, one), (j, other) in itertools.combinations(enumerate(nodes), 2) if meet(one, other)]
    edges = np.array(edges, int).reshape(-1, 2)
    adjacency = scipy.sparse.coo_matrix((np.ones(len(edges)), edges.T), shape=(len(nodes),) * 2)
    _, component = scipy.sparse.csgraph.connected_components(adjacency, directed=False)
    return Graph(nodes, edges, component)


def contrasts(k: int) -> Float[np.ndarray, "k k-1"]:
    """Orthonormal basis of the vectors in R^k with sum 0 (Helmert).

    >>> contrasts(3).round(3).tolist()
    [[0.707, 0.408], [-0.707, 0.408], [0.0, -0.816]]
    """
    columns = np.zeros((k, k - 1))
    for j in range(1, k):
        columns[:j, j - 1], columns[j, j - 1] = 1, -j
        columns[:, j - 1] /= math.sqrt(j * (j + 1))
    return columns


def _pieces(r, m) -> Iterator[Piece]:
    for cancelled in range(m - r + 1):
        for chosen in itertools.combinations(range(m), cancelled):
            rest = [unit for unit in range(m) if unit not in chosen]
            for zeros in _set_partitions(chosen):
                for labels in itertools.product(range(r), repeat=len(rest)):
                    if len(set(labels)) == r:
                        groups = [tuple(u for u, label in zip(rest, labels) if label == t) for t in range(r)]
                        yield Piece(tuple(groups), zeros)


def _partitions(total, least=1):
    """Ascending tuples of positive integers with this sum."""
    if total == 0:
        yield ()
    for first in range(least, total + 1):
        for rest in _partitions(total - first, first):
            yield (first, *rest)


def _set_partitions(units):
    """Partitions of a tuple of units into groups, ordered by their first units."""
    if not units:
        yield ()
        return
    first, rest = units[0], units[1:]
    for size in range(len(rest) + 1):
        for partners in itertools.combinations(rest, size):
            left = tuple(unit for unit in rest if unit not in partners)
            for others in _set_partitions(left):
                yield ((first, *partners), *others)


def _units_of(piece, units):
    """Validate the piece and the narrow network; returns w, a and the number m of units of the piece."""
    w, a = np.asarray(units["w"]), np.asarray(units["a"])
    r, m = len(piece.copies), sum(map(len, piece.copies + piece.zeros))
    if w.ndim != 2 or a.ndim != 2 or not len(w) == len(a) == r:
        raise ValueError(
            f"units has w of shape {w.shape} and a of shape {a.shape}: the piece copies r={r} units, so give "
            f"w [{r}, din] and a [{r}, dout]"
        )
    if sorted(unit for group in piece.copies + piece.zeros for unit in group) != list(range(m)) or () in piece.copies:
        raise ValueError(f"piece={piece} must hold each unit 0 .. {m - 1} once and a copy of every narrow unit")
    return w, a, m
