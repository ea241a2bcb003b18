"""Kinds of critical points: constructed ones of every kind, and end points of training on the 41 x 41 grid."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from sbjax.landscape import classification as lib
from sbjax.landscape import critical_points, manifold, splitting

TEACHER = {"w": np.array([[0.6, 0.5], [-0.5, 0.5], [-0.2, -0.6], [0.1, -0.6]]), "a": np.ones((4, 1))}
LOOSE = lib.Tolerances(gradient=np.inf)


def generic(z):
    """No symmetry of its own, and neither odd nor even derivatives vanish at 0."""
    return jax.nn.sigmoid(4 * z) + jax.nn.softplus(z)


def feature(z):
    return scipy.special.expit(4 * z) + np.logaddexp(0, z)


AXIS = np.linspace(-5, 5, 41)
X = np.stack(np.meshgrid(AXIS, AXIS, indexing="ij"), -1).reshape(-1, 2)
Y = feature(X @ TEACHER["w"].T) @ TEACHER["a"]

# Where Adam and Levenberg-Marquardt left students of four units, from three initialisations.
STUDENTS = {
    "plateau": {
        "w": [[-0.0507147, -0.5691929], [0.6326897, 0.5189551], [-0.5524697, 0.5384017], [0.6326895, 0.518955]],
        "a": [[2.0621972], [1.4358781], [0.9462076], [-0.4477031]],
    },
    "minimum": {
        "w": [[-0.6049321, 0.5542806], [-0.046107, -0.5319609], [0.0612769, 0.7090046], [0.7010668, 0.5410998]],
        "a": [[0.787502], [2.1755662], [0.2376435], [0.8086164]],
    },
    "global": {"w": TEACHER["w"][[2, 0, 3, 1]] + 1e-4, "a": TEACHER["a"]},
}


@functools.lru_cache(maxsize=4)
def student(name):
    """Polished by Gauss and Newton steps that leave nearly flat directions alone."""
    params = {key: np.array(value) for key, value in STUDENTS[name].items()}
    for _ in range(20):
        here = critical_points.derivatives(params, X, Y, generic)
        step = np.linalg.lstsq(here.hessian, here.gradient, rcond=1e-9)[0]
        params = {"a": params["a"] - step[:4].reshape(4, 1), "w": params["w"] - step[4:].reshape(4, 2)}
    return params


def classify(params, **options):
    return lib.classify(params, X, Y, generic, teacher=TEACHER, **options)


def test_end_points_of_training(x64):
    """The losses tell nothing about the kind; the published inertia of the plateau is (0, 1, 11)."""
    plateau = classify(student("plateau"))
    assert (plateau.kind, plateau.width) == (lib.STABLE_PLATEAU, 3)
    assert plateau.loss == pytest.approx(0.01235, abs=5e-6)
    assert plateau.merged_loss == pytest.approx(plateau.loss, rel=1e-9)
    assert plateau.merged_gradient < 1e-8
    assert plateau.signature == ((1, 2, 1), ())
    assert plateau.piece.copies == ((0,), (1, 3), (2,))
    # S < 0 and one positive mu: the stable case.
    assert max(plateau.curvatures[1]) < 0
    assert sum(plateau.coefficients[1]) == pytest.approx(1, abs=1e-12)
    assert plateau.coefficients[1][0] > 1
    assert plateau.predicted == plateau.measured == (0, 1, 11)
    assert plateau.teacher == (-1, -1, -1, -1)
    minimum = classify(student("minimum"))
    assert (minimum.kind, minimum.width) == (lib.MINIMUM, 4)
    assert minimum.loss == pytest.approx(0.00783, abs=5e-6)
    assert minimum.predicted == minimum.measured == (0, 0, 12)
    found = classify(student("global"))
    assert (found.kind, found.width, found.teacher) == (lib.GLOBAL_MINIMA, 4, (2, 0, 3, 1))
    assert found.predicted == found.measured == (0, 0, 12)


@pytest.mark.parametrize(
    ("mu", "kind", "negative"),
    [
        ((0.5, 0.5), lib.STRICT_SADDLE, 2),
        ((1.2, -0.2), lib.STABLE_PLATEAU, 0),
        ((-0.2, 1.2), lib.STABLE_PLATEAU, 0),
        ((1.0, 0.0), lib.STABLE_PLATEAU, 0),
    ],
)
def test_splits_of_a_minimum(mu, kind, negative, x64):
    """A minimum of width 3 whose inner matrices are negative definite for the split unit."""
    plateau = student("plateau")
    merged = {"w": plateau["w"][:3], "a": plateau["a"][:3].copy()}
    merged["a"][1] += plateau["a"][3]
    found = classify(splitting.split(merged, 1, mu))
    assert (found.kind, found.width, found.measured.negative) == (kind, 3, negative)
    assert found.predicted == found.measured
    np.testing.assert_allclose(found.coefficients[1], mu, atol=1e-9)
    assert classify(merged).kind == lib.MINIMUM


@pytest.mark.parametrize("seed", range(5))
def test_points_of_the_expansion_manifold(seed, x64):
    piece = manifold.random_piece(jax.random.key(seed), 4, 6)
    params = manifold.sample(jax.random.key(seed + 100), piece, TEACHER)
    found = classify(params)
    assert (found.kind, found.width) == (lib.GLOBAL_MINIMA, 4)
    assert found.signature == (tuple(map(len, found.piece.copies)), tuple(sorted(map(len, piece.zeros))))
    assert sorted(found.piece.copies) == sorted(piece.copies)
    assert found.piece.zeros == piece.zeros
    assert [found.teacher[group[0]] for group in piece.copies] == [0, 1, 2, 3]
    assert all(found.teacher[unit] == -1 for group in piece.zeros for unit in group)
    assert found.predicted == found.measured


@pytest.mark.parametrize(("bend", "kind"), [(1.0, lib.MINIMUM), (50.0, lib.SADDLE)])
def test_one_unit_at_zero(bend, kind, x64):
    """An even target on a symmetric line: w = 0 is critical, a minimum or a saddle by the curvature in w."""
    x = np.linspace(-2, 2, 21)[:, None]
    even = x**2 - np.mean(x**2)
    a, slope, curvature = 3 / feature(0.0), 1.5, 0.25
    params = {"w": np.zeros((1, 1)), "a": np.array([[a]])}
    found = lib.classify(params, x, 3 + bend * even, generic)
    along_w = 2 * np.mean(a**2 * slope**2 * x**2 - bend * even * a * curvature * x**2)
    assert (along_w < 0) == (kind == lib.SADDLE)
    assert (found.kind, found.width) == (kind, 1)
    assert found.predicted == found.measured == (int(along_w < 0), 0, 2 - int(along_w < 0))


def test_channels(x64):
    w = np.array([[0.5, 0.4], [0.501, 0.4], [-0.3, 0.6]])
    apart = lib.Tolerances(distance=1e-5)
    found = classify({"w": w, "a": np.array([[400.0], [-399.0], [1.0]])}, tolerances=apart._replace(norm=1e9))
    assert found.kind == lib.CHANNEL
    assert "units 0 and 1" in found.reason
    assert classify({"w": 1e3 * w, "a": np.ones((3, 1))}).kind == lib.CHANNEL
    # Large outgoing weights of one sign, or of units that differ, are none.
    for a in ([[400.0], [400.0], [1.0]], [[400.0], [1.0], [-400.0]]):
        assert classify({"w": w, "a": np.array(a)}, tolerances=apart._replace(norm=1e9)).kind == lib.NOT_CONVERGED
    moderate = {"w": w, "a": np.array([[20.0], [-19.0], [1.0]])}
    assert classify(moderate, tolerances=apart).kind == lib.NOT_CONVERGED
    grown = classify(moderate, tolerances=apart, previous={"w": w, "a": moderate["a"] / 2})
    assert (grown.kind, "grown from 19.5" in grown.reason) == (lib.CHANNEL, True)
    assert classify(moderate, tolerances=apart, previous=moderate).kind == lib.NOT_CONVERGED


def test_not_converged(x64):
    minimum = student("minimum")
    off = {"w": minimum["w"] + 1e-4, "a": minimum["a"]}
    assert "polish further" in classify(off).reason
    dead = {"w": np.append(minimum["w"], [[0.2, 0.9]], 0), "a": np.append(minimum["a"], [[0.0]], 0)}
    assert classify(dead).kind == lib.NOT_CONVERGED
    excluded = classify(dead, tolerances=LOOSE)
    assert (excluded.kind, excluded.piece.zeros) == (lib.NOT_CONVERGED, ((4,),))
    assert "excludes" in excluded.reason
    # Near each other, but no copies.
    near = splitting.split(minimum, 0, (3.0, -2.0))
    near["w"][1, 0] += 0.009
    found = classify(near, tolerances=lib.Tolerances(gradient=1e2))
    assert (found.kind, found.width) == (lib.NOT_CONVERGED, 4)
    assert "no copies" in found.reason
    broken = classify({"w": minimum["w"] * np.nan, "a": minimum["a"]})
    assert (broken.kind, "nan" in broken.reason) == (lib.NOT_CONVERGED, True)


@pytest.mark.parametrize(("activation", "sign"), [(jnp.tanh, -1), (jnp.cos, 1)])
def test_signs_of_odd_and_even_activations(activation, sign, x64):
    y = np.asarray(activation(X @ TEACHER["w"].T)) @ TEACHER["a"]
    units = splitting.split(TEACHER, 2, (0.4, 0.6))
    units["w"][3] *= -1
    units["a"][3] *= sign
    found = lib.classify(units, X, y, activation, teacher={"w": -TEACHER["w"], "a": sign * TEACHER["a"]})
    assert (found.kind, found.width, found.signature) == (lib.GLOBAL_MINIMA, 4, ((1, 1, 2, 1), ()))
    assert found.teacher == (0, 1, 2, 2, 3)
    np.testing.assert_allclose(found.coefficients[2], (0.4, 0.6), rtol=1e-12)


def test_an_activation_with_other_symmetries_warns(x64):
    y = scipy.special.expit(X @ TEACHER["w"].T) @ TEACHER["a"]
    with pytest.warns(UserWarning, match="odd up to a constant: equivalent units"):
        found = lib.classify(TEACHER, X, y, jax.nn.sigmoid)
    assert (found.kind, found.predicted) == (lib.GLOBAL_MINIMA, None)


def test_other_networks_are_refused(x64):
    with pytest.raises(ValueError, match=r"entries \['dense_0'\]: classify"):
        classify({"dense_0": TEACHER})
