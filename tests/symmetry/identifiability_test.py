"""Costs of neurons against closed cases, brute force and invariances; rotations against their target."""

import jax
import numpy as np
import pytest
import scipy.linalg

from sbjax.asymmetry import AsymmetrySpec, MaskSpec, make_asymmetric
from sbjax.asymmetry.weights import effective
from sbjax.models import make_model
from sbjax.symmetry import identifiability as lib

RNG = np.random.default_rng(0)


def orthonormal(d, k, rng=RNG):
    return np.linalg.qr(rng.normal(size=(d, k)))[0]


@pytest.mark.parametrize(("d", "k"), [(5, 2), (6, 6), (30, 4)])
def test_standard_neurons_cannot_be_told_apart(d, k):
    u, w = orthonormal(d, k), RNG.normal(size=(d, 7))
    costs = lib.realisation_costs(u, w)
    np.testing.assert_allclose(costs.cost, np.tile(((u.T @ w) ** 2).sum(0), (7, 1)), rtol=1e-13)
    assert np.abs(lib.swap_costs(costs.cost)).max() < 1e-13
    assert (costs.residual == 0).all()
    # Written out as constants it is the same.
    again = lib.realisation_costs(u, w, fixed=np.zeros_like(w), trainable=np.ones_like(w))
    np.testing.assert_array_equal(again.cost, costs.cost)


@pytest.mark.parametrize("k", [2, 5, 9])
def test_a_dense_shift_costs_what_centres_and_weights_say(k):
    """syre: S_i = I, and a swap costs 2 (a_i - a_j).(v_i - v_j)."""
    u, f, w = orthonormal(9, k), RNG.normal(size=(9, 6)), RNG.normal(size=(9, 6))
    a, v = u.T @ w, u.T @ f
    swaps = lib.swap_costs(lib.realisation_costs(u, w, fixed=f).cost)
    for i, j in np.ndindex(6, 6):
        np.testing.assert_allclose(swaps[i, j], 2 * (a[:, i] - a[:, j]) @ (v[:, i] - v[:, j]), atol=1e-12)


def test_a_mask_on_all_inputs_costs_its_own_weights():
    """k = d: c(i, i) = |m_i w_i|^2, and what is frozen is out of range."""
    u, mask = orthonormal(8, 8), RNG.random((8, 5)) < 0.6
    f, w = ~mask * RNG.normal(size=(8, 5)), RNG.normal(size=(8, 5))
    costs = lib.realisation_costs(u, f + mask * w, fixed=f, trainable=mask)
    np.testing.assert_allclose(np.diag(costs.cost), ((mask * w) ** 2).sum(0), rtol=1e-12)
    np.testing.assert_allclose(np.diag(costs.residual), 0, atol=1e-20)
    effect = f + mask * w
    for i, j in np.ndindex(5, 5):
        gap = effect[:, j] - f[:, i]
        np.testing.assert_allclose(costs.cost[i, j], (gap[mask[:, i]] ** 2).sum(), rtol=1e-10)
        np.testing.assert_allclose(costs.residual[i, j], (gap[~mask[:, i]] ** 2).sum(), atol=1e-12)


def test_costs_are_those_of_the_least_weights():
    """scipy's least norm solution of M_i w = a_j - v_i, with a diagonal that is no mask, and what it leaves over."""
    u, d = orthonormal(12, 5), RNG.random((12, 4)) * (RNG.random((12, 4)) < 0.4)
    f, w = RNG.normal(size=(12, 4)), RNG.normal(size=(12, 4))
    costs = lib.realisation_costs(u, f + d * w, fixed=f, trainable=d)
    assert costs.residual.max() > 1e-3  # the case is not an easy one
    for i, j in np.ndindex(4, 4):
        away, m = u.T @ (f + d * w)[:, j] - u.T @ f[:, i], u.T * d[:, i]
        found = scipy.linalg.lstsq(m, away, cond=1e-8)[0]
        np.testing.assert_allclose(costs.cost[i, j], found @ found, rtol=1e-8)
        np.testing.assert_allclose(costs.residual[i, j], ((m @ found - away) ** 2).sum(), atol=1e-12)
        np.testing.assert_allclose(costs.gap[i, j], (away**2).sum(), rtol=1e-12)
    swaps = lib.swap_costs(costs.cost)
    np.testing.assert_array_equal(swaps, swaps.T)
    np.testing.assert_array_equal(np.diag(swaps), 0)


def test_another_basis_of_the_same_subspace_costs_the_same():
    u, mask = orthonormal(10, 4), RNG.random((10, 6)) < 0.7
    f, w = ~mask * RNG.normal(size=(10, 6)), RNG.normal(size=(10, 6))
    options = {"fixed": f, "trainable": mask}
    one = lib.realisation_costs(u, f + mask * w, **options)
    other = lib.realisation_costs(u @ orthonormal(4, 4), f + mask * w, **options)
    np.testing.assert_allclose(one.cost, other.cost, rtol=1e-9)
    # Neurons in another order: the same costs in that order.
    order = RNG.permutation(6)
    moved = lib.realisation_costs(u, (f + mask * w)[:, order], fixed=f[:, order], trainable=mask[:, order])
    np.testing.assert_allclose(moved.cost, one.cost[np.ix_(order, order)], rtol=1e-12)


def test_a_neuron_without_trained_inputs_reaches_nothing():
    trainable = np.array([[0.0, 1.0], [0.0, 1.0]])
    costs = lib.realisation_costs(np.eye(2), np.eye(2), fixed=np.eye(2) * [1, 0], trainable=trainable)
    assert costs.cost[0].tolist() == [0, 0]
    assert costs.residual[0].tolist() == [0, 2]
    found = lib.summarise(costs)
    assert found.swappable == 0
    assert found.residual == 0.5


def test_the_summary_separates_kinds_of_networks():
    """More of the norm in the constants, more identifiable: standard < kappa .1 < kappa 1, on a small network."""
    x = RNG.normal(size=(200, 12)) @ RNG.normal(size=(12, 12))
    basis = lib.subspace_basis(x).vectors
    relative = []
    for kappa in (None, 0.1, 1.0):
        masks = () if kappa is None else (("dense_0/kernel", MaskSpec(4, kappa)),)
        spec = AsymmetrySpec("w", masks=masks) if masks else AsymmetrySpec()
        net = make_asymmetric(make_model("mlp", classes=2, widths=(16,)), spec)
        variables = net.init(jax.random.key(0), x[:1])
        made = {
            name: tree["dense_0"]["kernel"] for name, tree in variables.get("frozen", {}).get("asymmetry", {}).items()
        }
        relative.append(lib.summarise(lib.realisation_costs(basis, effective(variables)["dense_0"]["kernel"], **made)))
    assert relative[0].relative == pytest.approx(0, abs=1e-9)
    assert relative[0].relative < relative[1].relative < relative[2].relative
    assert relative[2].swappable < 0.5 < relative[0].swappable


@pytest.mark.parametrize("shape", [(50, 8), (8, 50)])
def test_the_basis_is_that_of_a_decomposition(shape):
    x = RNG.normal(size=shape) * np.linspace(5, 0.1, shape[1]) + 3
    for variance in (0.5, 0.9, 1.0):
        found = lib.subspace_basis(x, variance=variance)
        values = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
        shares = np.cumsum(values) / values.sum()
        k = int(np.argmax(shares >= variance - 1e-12)) + 1
        assert found.vectors.shape[1] == k
        assert found.explained == pytest.approx(shares[k - 1])
        inside = (x - x.mean(0)) @ found.vectors
        assert (inside**2).sum() == pytest.approx(values[:k].sum())


def test_the_basis_of_a_subspace_has_its_dimension():
    u = orthonormal(40, 3)
    x = RNG.normal(size=(500, 3)) @ u.T + 7
    found = lib.subspace_basis(x, variance=1.0).vectors
    assert found.shape == (40, 3)
    np.testing.assert_allclose(found @ found.T, u @ u.T, atol=1e-10)


def test_coherence_of_known_bases():
    hadamard = scipy.linalg.hadamard(16) / 4
    for k in (1, 4, 16):
        assert lib.coherence(np.eye(16)[:, :k]) == 1
        assert lib.coherence(hadamard[:, :k]) == pytest.approx(k / 16, abs=1e-15)


@pytest.mark.parametrize(("d", "k"), [(10, 1), (12, 5), (7, 6), (5, 5), (60, 20)])
def test_rotations_meet_every_feasible_target(d, k):
    u = orthonormal(d, k)
    for target in np.linspace(k / d, 1, 5):
        rotation = lib.targeted_rotation(u, target)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(d), atol=1e-12)
        assert lib.coherence(rotation @ u) == pytest.approx(target, abs=1e-11)
    with pytest.raises(ValueError, match=r"^target=0\.05 must lie in \[k / d, 1\]|^target=1\.5"):
        lib.targeted_rotation(u, 0.05 if k / d > 0.06 else 1.5)


def test_a_rotation_of_the_inputs_changes_no_standard_network():
    """It changes what masks see, and nothing where there are none."""
    u, w = orthonormal(9, 4), RNG.normal(size=(9, 3))
    rotation = lib.targeted_rotation(u, 0.6)
    np.testing.assert_allclose(
        lib.realisation_costs(rotation @ u, rotation @ w).cost, lib.realisation_costs(u, w).cost, rtol=1e-12
    )


def test_the_bound_on_anisotropy_holds_as_often_as_it_says():
    """Bernoulli masks, p on both sides of 1/2; with b = p, as published, it is smaller for p < 1/2."""
    for p in (0.2, 0.8):
        u = lib.targeted_rotation(orthonormal(64, 4), 4 / 64) @ np.eye(64)[:, :4]
        masks = RNG.random((64, 2000)) < p
        bound = lib.anisotropy_bound(lib.coherence(u), 4, p, failure=0.05)
        assert np.mean(lib.anisotropy(u, masks, p) > bound) <= 0.05
    log = np.log(8 / 0.05)
    by_hand = 2 / 3 * 0.8 * 0.1 * log + 0.4 * np.sqrt(0.2 * log)
    assert lib.anisotropy_bound(0.1, 4, 0.2) == pytest.approx(by_hand)
    assert by_hand > 2 / 3 * 0.2 * 0.1 * log + 0.4 * np.sqrt(0.2 * log)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_a_subspace_is_free_of_scale(size):
    x = np.random.default_rng(0).normal(size=(20, 4)) * [1, 2, 3, 4]
    found, expected = lib.subspace_basis(size * x), lib.subspace_basis(x)
    np.testing.assert_allclose(np.abs(found.vectors), np.abs(expected.vectors), rtol=1e-6)
    assert found.explained == pytest.approx(expected.explained)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lib.subspace_basis(np.ones(3)), r"^inputs has shape \(3,\)"),
        (lambda: lib.subspace_basis(np.ones((4, 3))), "^inputs do not vary"),
        (lambda: lib.subspace_basis(np.full((4, 3), np.nan)), "^inputs has entries that are not finite"),
        (lambda: lib.subspace_basis(np.eye(3), variance=1.5), r"^variance=1\.5 must lie in \(0, 1\]"),
        (lambda: lib.coherence(np.ones((3, 2))), "^basis of shape .* must have orthonormal columns"),
        (lambda: lib.realisation_costs(np.eye(3), np.ones((2, 2))), r"^weights has shape \(2, 2\); a basis of 3"),
        (lambda: lib.realisation_costs(np.eye(2), np.eye(2), fixed=np.ones((2, 3))), r"^fixed has shape \(2, 3\)"),
        (lambda: lib.summarise(lib.realisation_costs(np.eye(2), np.ones((2, 1)))), "^costs of one neuron"),
        (lambda: lib.anisotropy_bound(0.5, 2, 1.2), r"^mean=1\.2 must lie in \[0, 1\]"),
        (lambda: lib.anisotropy_bound(0.5, 0, 0.5), r"^nu=0\.5 must be >= 0 and k=0 >= 1"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
