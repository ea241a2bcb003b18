"""Pieces of the manifold against linear systems that are built and solved here."""

import collections
import itertools
import math

import jax
import numpy as np
import pytest

from sbjax.landscape import counting
from sbjax.landscape import manifold as lib

CASES = [(1, 2), (1, 3), (2, 2), (2, 3), (2, 4), (3, 3), (3, 4)]


def draw_units(r, din=2, dout=1, seed=0):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(r, din)), "a": rng.normal(size=(r, dout))}


def equations(piece, units):
    """The piece as A theta = b, from its definition; theta holds w [m, din], then a [m, dout]."""
    (_, din), (_, dout) = units["w"].shape, units["a"].shape
    m = sum(map(len, piece.copies + piece.zeros))
    rows, right = [], []

    def demand(coefficients, value):
        row = np.zeros(m * (din + dout))
        for index, c in coefficients:
            row[index] += c
        rows.append(row)
        right.append(value)

    def sum_of_outgoing(group, total):
        for d in range(dout):
            demand([(m * din + i * dout + d, 1) for i in group], total[d])

    for t, group in enumerate(piece.copies):
        for i, d in itertools.product(group, range(din)):
            demand([(i * din + d, 1)], units["w"][t, d])
        sum_of_outgoing(group, units["a"][t])
    for group in piece.zeros:
        for i, d in itertools.product(group[1:], range(din)):
            demand([(i * din + d, 1), (group[0] * din + d, -1)], 0)
        sum_of_outgoing(group, np.zeros(dout))
    return np.array(rows), np.array(right)


def flat(point):
    return np.concatenate([point["w"].ravel(), point["a"].ravel()])


def flat_basis(space):
    dim = len(space.basis["w"])
    return np.concatenate([space.basis["w"].reshape(dim, -1), space.basis["a"].reshape(dim, -1)], 1)


@pytest.mark.parametrize(("r", "m"), [*CASES, (1, 5), (2, 6), (4, 6)])
def test_signatures_and_pieces_are_counted_by_T(r, m):
    sizes = list(lib.signatures(r, m))
    assert len(set(sizes)) == len(sizes)
    assert sum(map(lib.multiplicity, sizes)) == counting.T(r, m)
    found = list(lib.pieces(r, m))
    assert len(set(found)) == len(found) == counting.T(r, m)
    assert sum(not piece.zeros for piece in found) == counting.G(r, m)
    tally = collections.Counter(map(lib.signature, found))
    assert tally == {size: lib.multiplicity(size) for size in sizes}


@pytest.mark.parametrize(("r", "m", "din", "dout"), [(1, 3, 2, 1), (2, 4, 2, 1), (2, 3, 3, 2), (1, 4, 1, 2)])
def test_affine_subspaces_solve_their_equations(r, m, din, dout):
    units = draw_units(r, din, dout)
    for piece in lib.pieces(r, m):
        space = lib.affine(piece, units)
        matrix, right = equations(piece, units)
        basis = flat_basis(space)
        np.testing.assert_allclose(matrix @ flat(space.base), right, atol=1e-14)
        np.testing.assert_allclose(matrix @ basis.T, 0, atol=1e-14)
        np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-14)
        np.testing.assert_allclose(basis @ flat(space.base), 0, atol=1e-14)
        assert len(basis) == m * (din + dout) - np.linalg.matrix_rank(matrix)
        assert len(basis) == lib.dimension(lib.signature(piece), din, dout)


@pytest.mark.parametrize(
    ("r", "m", "din", "dout", "dimensions", "edges", "components"),
    [
        (1, 2, 2, 1, {1, 2}, 2, 1),
        (1, 3, 2, 1, {2, 3, 4}, 30, 1),
        (2, 2, 2, 1, {0}, 0, 2),
        (2, 3, 2, 1, {1, 2}, 12, 1),
        (2, 3, 3, 2, {2, 3}, 12, 1),
        (2, 4, 2, 1, {2, 3, 4}, 300, 1),
        (3, 3, 2, 1, {0}, 0, 6),
        (3, 4, 2, 1, {1, 2}, 72, 1),
    ],
)
def test_intersection_graph(r, m, din, dout, dimensions, edges, components):
    graph = lib.intersection_graph(r, m)
    assert {lib.dimension(lib.signature(piece), din, dout) for piece in graph.pieces} == dimensions
    assert len(graph.edges) == edges
    assert set(graph.component) == set(range(components))
    # By numbers: two subspaces meet where their joint system of equations is solvable.
    units = draw_units(r, din, dout)
    systems = [equations(piece, units) for piece in graph.pieces]
    met = []
    for (i, (one, b)), (j, (other, c)) in itertools.combinations(enumerate(systems), 2):
        matrix, right = np.concatenate([one, other]), np.concatenate([b, c])
        solution = np.linalg.lstsq(matrix, right)[0]
        gap = np.linalg.norm(matrix @ solution - right)
        assert gap < 1e-12 or gap > 1e-3
        met += [[i, j]] if gap < 1e-12 else []
    np.testing.assert_array_equal(graph.edges, np.array(met).reshape(-1, 2))


def test_the_chain_of_one_unit_in_two():
    """Zero outgoing weight, equal incoming weights, zero outgoing weight of the other."""
    graph = lib.intersection_graph(1, 2)
    middle = [i for i, piece in enumerate(graph.pieces) if not piece.zeros]
    assert sorted(graph.edges.ravel().tolist(), key=middle.count) == [1, 2, *middle * 2]


def test_no_piece_contains_another():
    units = draw_units(2)
    systems = [(lib.affine(piece, units), *equations(piece, units)) for piece in lib.pieces(2, 4)]
    for (space, *_), (_, matrix, right) in itertools.permutations(systems, 2):
        inside = np.allclose(matrix @ flat(space.base), right, atol=1e-12)
        assert not (inside and np.allclose(matrix @ flat_basis(space).T, 0, atol=1e-12))


def test_many_more_components():
    """m = r: r! isolated points; one unit more connects them."""
    assert lib.intersection_graph(4, 4).component.max() + 1 == math.factorial(4)
    assert lib.intersection_graph(4, 5).component.max() == 0


def test_samples_compute_the_same_function(x64):
    units = draw_units(2, 3, 2)
    x = np.random.default_rng(1).normal(size=(20, 3))
    expected = np.tanh(x @ units["w"].T) @ units["a"]
    seen = set()
    for seed in range(12):
        piece = lib.random_piece(jax.random.key(seed), 2, 5)
        seen.add(lib.signature(piece))
        drawn = lib.sample(jax.random.key(seed), piece, units, scale=2.0)
        np.testing.assert_allclose(np.tanh(x @ drawn["w"].T) @ drawn["a"], expected, atol=1e-13)
        for group in piece.copies + piece.zeros:
            assert np.all(drawn["w"][list(group)] == drawn["w"][group[0]])
        matrix, right = equations(piece, units)
        np.testing.assert_allclose(matrix @ flat(drawn), right, atol=1e-14)
    assert len(seen) > 4


def test_coordinates_of_a_point():
    space = lib.affine(lib.Piece(((0, 2),), ((1,),)), draw_units(1))
    coefficients = np.arange(1.0, 4)
    moved = flat(lib.point(space, coefficients)) - flat(space.base)
    np.testing.assert_allclose(flat_basis(space) @ moved, coefficients, atol=1e-14)


def test_contrasts():
    assert lib.contrasts(1).shape == (1, 0)
    found = lib.contrasts(5)
    np.testing.assert_allclose(found.T @ found, np.eye(4), atol=1e-15)
    np.testing.assert_allclose(found.sum(0), 0, atol=1e-15)


PIECE = lib.Piece(((0, 1),), ())
INVALID = [
    (lambda: lib.pieces(3, 2), "r=3 > m=2"),
    (lambda: list(lib.signatures(0, 2)), "r=0"),
    (lambda: lib.pieces(2, 20), "r=2, m=20 has .* pieces, more than 1000000"),
    (lambda: lib.intersection_graph(2, 8), "r=2, m=8 has .* pieces: .*choose smaller widths"),
    (lambda: lib.affine(PIECE, draw_units(2)), r"w of shape \(2, 2\).* r=1 units"),
    (lambda: lib.affine(lib.Piece(((0, 2),), ()), draw_units(1)), "each unit 0 .. 1 once"),
    (lambda: lib.affine(lib.Piece(((0,), ()), ()), draw_units(2)), "copy of every narrow unit"),
    (lambda: lib.point(lib.affine(PIECE, draw_units(1)), np.ones(2)), r"shape \(2,\): give \(1,\)"),
]


@pytest.mark.parametrize(("call", "message"), INVALID)
def test_errors_name_field_value_and_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()
