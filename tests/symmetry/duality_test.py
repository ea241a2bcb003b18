"""Correlators of random networks: closed forms by quadrature and by sampling, rotations, and what breaks them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.symmetry import duality

POINTS = np.array([[1.0, 0.4, -0.2], [-0.3, 0.8, 1.1]])


def quadrature(power):
    """E relu(w.x)^p relu(w.y)^p by a sum over angles in the plane of x and y: exact but for the sum's step."""
    x, y = POINTS
    t = np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    angles = (np.arange(200_000) + 0.5) * 2 * np.pi / 200_000
    radial = {1: 2.0, 2: 8.0}[power]  # E r^(2 p) of a Gaussian in the plane
    angular = np.mean((np.maximum(np.cos(angles), 0) * np.maximum(np.cos(angles - t), 0)) ** power)
    return radial * angular * (np.linalg.norm(x) * np.linalg.norm(y) / 3) ** power


def test_kernels_by_quadrature():
    assert duality.unit_kernel(POINTS, POINTS)[0, 1] == pytest.approx(quadrature(1), rel=1e-8)
    assert duality.squares_kernel(POINTS, POINTS)[0, 1] == pytest.approx(quadrature(2), rel=1e-8)
    lengths = np.linalg.norm(POINTS, axis=1)
    np.testing.assert_allclose(np.diag(duality.unit_kernel(POINTS, POINTS)), lengths**2 / 6)
    np.testing.assert_allclose(duality.unit_kernel(POINTS, -POINTS).diagonal(), 0, atol=1e-7)
    np.testing.assert_allclose(duality.unit_mean(POINTS), lengths / np.sqrt(3) / np.sqrt(2 * np.pi))


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("width", "means"), [(1, [0.0, 0.0]), (8, [0.3, 0.3, 0.0]), (50, [0.2, 0.0])])
def test_two_point_function_of_sampled_networks(width, means, x64):
    """Within four standard errors at every entry, at every width."""
    found = duality.sample_outputs(jax.random.key(1), POINTS, networks=40_000, means=means, width=width)
    exact = duality.two_point(POINTS, POINTS, means=means, width=width)
    assert np.abs(duality.scores(duality.products(found), exact)).max() < 4
    assert np.abs(duality.scores(duality.products(found), 1.2 * exact)).max() > 4  # it would see a fifth


@pytest.mark.extended
def test_two_point_function_of_many_networks(x64):
    """2e5 networks of 8 units, d = 3, means .3, .3 and 0: all nine pairs of outputs within three standard errors."""
    found = duality.sample_outputs(jax.random.key(7), POINTS, networks=200_000, means=[0.3, 0.3, 0.0], width=8)
    exact = duality.two_point(POINTS, POINTS, means=[0.3, 0.3, 0.0], width=8)
    scores = duality.scores(duality.products(found), exact)
    assert np.abs(scores[:, :, 0, 1]).max() < 3
    assert np.abs(scores).max() < 4


def test_a_mean_adds_one_direction_that_grows_with_the_square_of_the_width():
    """At the published width 50 and mean 0.2 it dwarfs the random part."""
    random, moved = (duality.two_point(POINTS, POINTS, means=[mean] * 3, width=50)[:, :, 0, 1] for mean in (0.0, 0.2))
    values = np.linalg.eigvalsh(moved - random)
    np.testing.assert_allclose(values[:2], 0, atol=1e-12 * values[2])
    np.testing.assert_allclose(random, np.eye(3) * random[0, 0], atol=1e-15)
    assert values[2] > 50 * random[0, 0]


def test_rotations_of_the_outputs_are_a_symmetry_without_a_mean_only(x64):
    rotations = [np.asarray(duality.haar_rotation(jax.random.key(seed), 3)) for seed in range(5)]
    for means, symmetric in (([0.0] * 3, True), ([0.3, 0.3, 0.0], False)):
        exact = duality.two_point(POINTS, POINTS, means=means, width=8)
        found = duality.sample_outputs(jax.random.key(2), POINTS, networks=40_000, means=means, width=8)
        scores = max(np.abs(duality.rotation_scores(found, r)).max() for r in rotations)
        changes = max(np.abs(np.einsum("ia,jb,abnm->ijnm", r, r, exact) - exact).max() for r in rotations)
        assert (scores < 4.5) == (changes < 1e-12) == symmetric
    about = np.array([0.3, 0.3, 0.0]) / np.hypot(0.3, 0.3)  # rotations about the mean remain
    basis = np.linalg.qr(np.c_[about, np.eye(3)[:, :2]])[0]
    turn = basis @ np.array([[1, 0, 0], [0, 0.6, 0.8], [0, -0.8, 0.6]]) @ basis.T
    np.testing.assert_allclose(np.einsum("ia,jb,abnm->ijnm", turn, turn, exact), exact, atol=1e-12)


def test_haar_rotations_are_uniform(x64):
    """R e_1 is uniform on the sphere: E R = 0, E R_ij^2 = 1 / 3, E R_11^4 = 1 / 5; the determinant is 1."""
    found = np.stack([np.asarray(duality.haar_rotation(jax.random.key(seed), 3)) for seed in range(600)])
    np.testing.assert_allclose(np.linalg.det(found), 1, atol=1e-12)
    for power, expected in ((1, 0), (2, 1 / 3), (4, 1 / 5)):
        assert np.abs(duality.scores(found**power, expected)).max() < 4


def test_connected_four_point_function_falls_as_one_over_the_width(x64):
    for width in (1, 4):
        found = duality.sample_outputs(jax.random.key(3), POINTS, networks=100_000, means=[0.0] * 2, width=width)
        f, g = found[:, :, 0], found[:, :, 1]
        exact = duality.two_point(POINTS, POINTS, means=[0.0] * 2, width=width)
        xx, yy, xy = exact[:, :, 0, 0], exact[:, :, 1, 1], exact[:, :, 0, 1]
        rest = np.einsum("ij,kl->ijkl", xx, yy) + np.einsum("ik,jl->ijkl", xy, xy) + np.einsum("il,jk->ijkl", xy, xy)
        connected = duality.connected_four_point(*POINTS, outputs=2, width=width)
        scores = duality.scores(np.einsum("si,sj,sk,sl->sijkl", f, f, g, g), connected + rest)
        assert np.abs(scores).max() < 4
    one, ten = (duality.connected_four_point(*POINTS, outputs=2, width=n) for n in (1, 10))
    np.testing.assert_allclose(one, 10 * ten)


def test_rotations_of_the_inputs_are_a_symmetry_with_any_mean():
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    one, other = (duality.two_point(x, x, means=[0.3, 0.0], width=5) for x in (POINTS, POINTS @ turn.T))
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_sampling_goes_on_in_chunks(monkeypatch):
    monkeypatch.setattr(duality, "CHUNK", 2)
    found = duality.sample_outputs(jax.random.key(0), jnp.eye(2), networks=5, means=[0.0], width=8)
    assert found.shape == (5, 1, 2)
    assert len(np.unique(found.sum((1, 2)))) == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: duality.two_point(POINTS, POINTS, means=[0.0], width=0), "width=0 must be >= 1"),
        (lambda: duality.two_point(POINTS, np.eye(2), means=[0.0], width=1), "3 and 2 entries a point"),
        (lambda: duality.sample_outputs(None, POINTS, networks=0, means=[0.0], width=1), "networks=0 and width=1 must"),
        (lambda: duality.haar_rotation(None, 0), "size=0 must be >= 1"),
        (lambda: duality.scores(np.ones((1, 2))), "1 samples have no standard error"),
        (lambda: duality.rotation_scores(np.ones((3, 2, 1)), 2 * np.eye(2)), "must be orthogonal, of 2 outputs"),
        (lambda: duality.connected_four_point([1.0], [1.0], outputs=1, width=0), "width=0 must be >= 1"),
        (lambda: duality.unit_kernel(np.ones(2), np.ones(2)), "give points"),
    ],
)
@pytest.mark.wrong_types
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
