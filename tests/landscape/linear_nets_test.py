"""Components of linear networks with one product: by brute force on a grid, by sampling, and along paths."""

import itertools

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage

from sbjax.landscape import linear_nets as nets


@pytest.mark.parametrize(("skip", "expected"), [(False, 4), (True, 3)])
def test_components_of_three_scalar_layers_by_flooding_the_plane(skip, expected):
    """w_3 is determined by w_1 and w_2 wherever w_1 w_2 (+ 1 with a skip connection) is not zero."""
    grid = np.linspace(-4, 4, 400)
    value = np.multiply.outer(grid, grid) + (1.0 if skip else 0.0)
    found = [scipy.ndimage.label(side)[1] for side in (value > 0, value < 0)]
    assert sum(found) == nets.components(3, skip=skip) == expected


def test_components_with_a_skip_connection_are_those_of_the_flooded_plane():
    """Labels agree with flooding at every point of the grid, and paths keep theirs."""
    grid = np.linspace(-4, 4, 200)
    for skip in (1.0, -0.7):
        value = np.multiply.outer(grid, grid) + skip
        labels = np.zeros(value.shape, int)
        for side in (value > 0, value < 0):
            found = scipy.ndimage.label(side)[0]
            labels[side] = found[side] + labels.max()
        ours = np.array([[nets.skip_component(a, b, skip) for b in grid] for a in grid])
        assert len({(one, other) for one, other in zip(labels.ravel(), ours.ravel())}) == 3
        random = np.random.default_rng(0)
        points = [tuple(random.normal(size=2) * 2) for _ in range(100)]
        for start, end in itertools.pairwise(points):
            kind = nets.skip_component(*start, skip)
            if kind == nets.skip_component(*end, skip):
                at = nets.skip_path(start, end, skip)
                np.testing.assert_allclose([at(0), at(1)], [start, end])
                assert {nets.skip_component(*at(t), skip) for t in np.linspace(0, 1, 21)} == {kind}


@pytest.mark.parametrize(
    ("layers", "width"), [(2, 1), (3, 1), (3, 2), (4, 3), pytest.param(5, 2, marks=pytest.mark.extended)]
)
def test_all_components_are_met_and_each_is_joined(layers, width):
    random = np.random.default_rng(layers * 10 + width)
    target = random.normal(size=(width, width))
    by_component = {}
    for _ in range(40 * nets.components(layers)):
        weights = nets.random_weights(random, layers, target)
        by_component.setdefault(nets.component_of(weights), []).append(weights)
    assert len(by_component) == nets.components(layers) == 2 ** (layers - 1)
    for found in by_component.values():
        start, end = found[:2]
        at = nets.path(start, nets.steps_between(start, end))
        for t in np.linspace(0, 1, 7):
            np.testing.assert_allclose(nets.product(at(t)), target, rtol=1e-6, atol=1e-8)
            assert nets.component_of(at(t)) == nets.component_of(start)
        for one, other in ((at(0), start), (at(1), end)):
            for a, b in zip(one, other):
                np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_a_real_logarithm_where_the_matrix_has_none():
    """diag(-1, -2) has positive determinant and no real logarithm; half a turn and a stretch reach it."""
    start = [np.eye(2), np.eye(2)]
    g = np.diag([-1.0, -2.0])
    end = [g, np.linalg.inv(g)]
    step = nets.steps_between(start, end)[0]
    np.testing.assert_allclose(scipy.linalg.expm(step.rotation) @ scipy.linalg.expm(step.stretch), g, atol=1e-12)
    assert np.iscomplexobj(scipy.linalg.logm(g))
    np.testing.assert_array_equal(step.rotation, -step.rotation.T)


def test_distance_from_the_chord_is_the_curvature_of_the_middle():
    """Also on the hyperbola a b = 1, whose curvature 2 / (a^2 + a^-2)^(3/2) ... is known in closed form."""
    for a in (1.0, 2.0):
        weights = [np.array([[a]]), np.array([[1 / a]])]
        exact = 2 * a**-3 / (1 + a**-4) ** 1.5  # |y''| / (1 + y'^2)^(3/2) of y = 1 / x
        assert nets.curvature(weights, [np.array([[0.3]])]) == pytest.approx(exact, rel=1e-12)
    for length, close in ((0.1, 1e-2), (0.01, 1e-4)):
        points = [[np.array([[np.exp(t)]]), np.array([[np.exp(-t)]])] for t in np.linspace(-length, length, 201)]
        chord = np.sqrt(2) * (np.exp(length) - np.exp(-length))
        expected = nets.curvature([np.eye(1), np.eye(1)], [np.eye(1)]) * chord**2 / 8
        assert nets.chord_distance(points) == pytest.approx(expected, rel=close)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nets.components(2, skip=True), "layers=2 must be 3 with a skip"),
        (lambda: nets.skip_component(1.0, -1.0), "skip is 0 or"),
        (lambda: nets.skip_path((2.0, -3.0), (0.0, 0.0)), "different components"),
        (lambda: nets.component_of([np.zeros((2, 2))] * 2), "singular"),
        (lambda: nets.skip_component(np.nan, 1.0), "or not finite"),
        (lambda: nets.path([np.eye(2)] * 3, []), "0 steps for 3 weights"),
        (lambda: nets.curvature([np.eye(2)] * 3, [np.eye(2)]), "1 generators for 3 weights"),
        (lambda: nets.curvature([np.eye(2)] * 2, [np.zeros((2, 2))]), "generators move nothing"),
        (lambda: nets.chord_distance([[np.eye(2)], [2 * np.eye(2)], [np.eye(2)]]), "are the same"),
        (lambda: nets.random_weights(np.random.default_rng(0), 0, np.eye(2)), "layers=0 must be >= 1"),
        (lambda: nets.component_of([np.full((2, 2), np.nan), np.eye(2)]), "not finite"),
        (lambda: nets.product([np.eye(2), np.eye(3)]), "give one or more"),
        (lambda: nets.steps_between([np.eye(1)] * 2, [-np.eye(1)] * 2), "no path joins them"),
        (lambda: nets.steps_between([np.eye(1)] * 2, [2 * np.eye(1)] * 2), "the same product"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
