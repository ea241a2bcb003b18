"""The lattice against its moments, group theory and null spaces, exact solutions, and scipy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

from sbjax.physics import lattice_boltzmann as lb


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def states(count=6, seed=0):
    random = np.random.default_rng(seed)
    return jnp.asarray(lb.WEIGHTS * (1 + 0.3 * random.uniform(-1, 1, (count, 9))))


def matrices():
    """The permutations as matrices."""
    return [np.eye(9)[:, np.argsort(p)] for p in lb.PERMUTATIONS]


def test_moments_of_the_weights():
    """Isotropic up to the fourth order, as the continuum is."""
    c, w = lb.VELOCITIES, lb.WEIGHTS
    np.testing.assert_allclose(w.sum(), 1)
    np.testing.assert_allclose(w @ c, 0, atol=1e-16)
    np.testing.assert_allclose(np.einsum("i,ia,ib", w, c, c), np.eye(2) / 3, atol=1e-16)
    one = np.eye(2)
    fourth = np.einsum("ab,cd->abcd", one, one)
    fourth = fourth + fourth.transpose(0, 2, 1, 3) + fourth.transpose(0, 3, 2, 1)
    np.testing.assert_allclose(np.einsum("i,ia,ib,ic,id", w, c, c, c, c), fourth / 9, atol=1e-16)


def test_the_permutations_are_a_group_that_moves_the_velocities():
    assert len({tuple(p) for p in lb.PERMUTATIONS}) == 8
    for matrix, p in zip(lb.SYMMETRIES, lb.PERMUTATIONS):
        np.testing.assert_array_equal(lb.VELOCITIES @ matrix.T, lb.VELOCITIES[p])
    for first, second in itertools.product(lb.PERMUTATIONS, repeat=2):
        assert any((first[second] == p).all() for p in lb.PERMUTATIONS)


def test_free_entries_by_burnside():
    """Orbits of pairs: the mean number of pairs that a symmetry fixes; characters 9, 3, 3, 3, 3, 1, 1, 1."""
    fixed = sorted(int((p == np.arange(9)).sum()) for p in lb.PERMUTATIONS)
    assert fixed == [1, 1, 1, 3, 3, 3, 3, 9]
    assert np.mean(np.square(fixed)) == lb.PAIRS.max() + 1 == 15
    assert np.mean(fixed) == lb.SINGLES.max() + 1 == 3


def test_free_entries_by_a_null_space():
    """All M with P M = M P are the tied ones: as many dimensions, and the same space."""
    rows = np.concatenate([np.kron(np.eye(9), p) - np.kron(p.T, np.eye(9)) for p in matrices()])
    space = scipy.linalg.null_space(rows)
    assert space.shape[1] == 15
    tied = np.stack([(k == lb.PAIRS).astype(float).T.ravel() for k in range(15)], 1)
    np.testing.assert_allclose(space @ (space.T @ tied), tied, atol=1e-12)


def test_invariants_by_a_null_space():
    assert scipy.linalg.null_space(np.concatenate([p - np.eye(9) for p in matrices()])).shape[1] == 3


@pytest.mark.parametrize("g", range(8))
def test_a_tied_layer_commutes_with_the_symmetry(g):
    random = np.random.default_rng(1)
    kernel = lb.equivariant_kernel(jnp.asarray(random.normal(size=(3, 2, 15))))
    bias = lb.equivariant_bias(jnp.asarray(random.normal(size=(3, 3))))
    x = jnp.asarray(random.normal(size=(5, 2, 9)))
    layer = lambda x: (x.reshape(5, 18) @ kernel + bias[None]).reshape(5, 3, 9)  # noqa: E731
    np.testing.assert_allclose(layer(lb.moved(x, g)), lb.moved(layer(x), g), atol=1e-13)


def test_a_tied_layer_is_the_mean_of_a_free_one_over_the_symmetries():
    """An independent way to all commuting maps: the projection of any matrix."""
    free = np.random.default_rng(2).normal(size=(9, 9))
    mean = sum(p.T @ free @ p for p in matrices()) / 8
    weights = np.array([mean[k == lb.PAIRS].mean() for k in range(15)])
    np.testing.assert_allclose(lb.equivariant_kernel(jnp.asarray(weights)[None, None]).T, mean, atol=1e-14)
    same = lb.averaged(lambda f: f @ free.T)(states())
    np.testing.assert_allclose(same, states() @ mean.T, atol=1e-14)


def test_moving_moves_velocities():
    f = states()
    rho, u = lb.moments(f)
    for g, matrix in enumerate(lb.SYMMETRIES):
        turned = lb.moments(lb.moved(f, g))
        np.testing.assert_allclose(turned[0], rho)
        np.testing.assert_allclose(turned[1], np.asarray(u) @ matrix.T, atol=1e-15)


def test_equilibrium_has_its_moments_and_stress():
    random = np.random.default_rng(3)
    rho, u = jnp.asarray(random.uniform(0.8, 1.2, 7)), jnp.asarray(random.uniform(-0.1, 0.1, (7, 2)))
    f = lb.equilibrium(rho, u)
    for found, expected in zip(lb.moments(f), (rho, u)):
        np.testing.assert_allclose(found, expected, atol=1e-15)
    stress = np.einsum("ni,ia,ib->nab", f, lb.VELOCITIES, lb.VELOCITIES)
    rho, u = np.asarray(rho), np.asarray(u)
    ideal = rho[:, None, None] * (np.eye(2) / 3 + u[:, :, None] * u[:, None, :])
    np.testing.assert_allclose(stress, ideal, atol=1e-15)


def test_equilibrium_is_near_the_one_of_largest_entropy():
    """The populations that maximise -sum f log(f / w) at given moments, by scipy, to third order in the velocity."""
    u = np.array([0.02, -0.01])

    def dual(x):
        return np.sum(lb.WEIGHTS * np.exp(x[0] + lb.VELOCITIES @ x[1:])) - x[0] - u @ x[1:]

    x = scipy.optimize.minimize(dual, np.zeros(3), method="BFGS", options={"gtol": 1e-12}).x
    exact = lb.WEIGHTS * np.exp(x[0] + lb.VELOCITIES @ x[1:])
    assert np.abs(lb.equilibrium(jnp.asarray(1.0), jnp.asarray(u)) - exact).max() < 0.0224**3


def test_the_relaxation_conserves_and_has_the_symmetry():
    f = states()
    update = lb.relaxation(f, 0.7)
    np.testing.assert_allclose(update.sum(-1), 0, atol=1e-15)
    np.testing.assert_allclose(np.asarray(update) @ lb.VELOCITIES, 0, atol=1e-15)
    for g in range(8):
        np.testing.assert_allclose(lb.relaxation(lb.moved(f, g), 0.7), lb.moved(update, g), atol=1e-15)
    np.testing.assert_allclose(lb.relaxation(2.5 * f, 0.7), 2.5 * update, atol=1e-15)


def test_what_conserves_is_a_projection_with_the_symmetry():
    update = jnp.asarray(np.random.default_rng(4).normal(size=(4, 9)))
    kept = lb.conserving(update)
    np.testing.assert_allclose(np.c_[kept.sum(-1), np.asarray(kept) @ lb.VELOCITIES], 0, atol=1e-14)
    np.testing.assert_allclose(lb.conserving(kept), kept, atol=1e-15)
    for g in range(8):
        np.testing.assert_allclose(lb.conserving(lb.moved(update, g)), lb.moved(kept, g), atol=1e-15)
    # By least squares with the weights: the nearest update without mass and momentum.
    rows = np.c_[np.ones(9), lb.VELOCITIES].T * np.sqrt(lb.WEIGHTS)
    nearest = (np.asarray(update) / np.sqrt(lb.WEIGHTS)) @ (
        np.eye(9) - scipy.linalg.orth(rows.T) @ scipy.linalg.orth(rows.T).T
    )
    np.testing.assert_allclose(kept, nearest * np.sqrt(lb.WEIGHTS), atol=1e-14)


def test_streaming_by_hand():
    f = jnp.asarray(np.random.default_rng(5).normal(size=(2, 4, 5, 9)))
    found = np.zeros(f.shape)
    for x, y, i in itertools.product(range(4), range(5), range(9)):
        dx, dy = lb.VELOCITIES[i]
        found[:, (x + dx) % 4, (y + dy) % 5, i] = f[:, x, y, i]
    np.testing.assert_array_equal(lb.stream(f), found)


@pytest.mark.parametrize("tau", [0.6, 0.8, 1.3])
def test_the_vortex_decays_at_the_analytic_rate(tau):
    """Second order at least, where the speed goes with 1 / n and the steps with n^2."""

    def error(n):
        speed, steps = 0.8 / n, 50 * n**2 // 256
        start = lb.taylor_green(n, speed, tau)
        end = lb.moments(lb.simulate(start, lambda f: lb.relaxation(f, tau), steps))[1]
        aim = lb.moments(start)[1] * np.exp(-2 * lb.viscosity(tau) * (2 * np.pi / n) ** 2 * steps)
        return float(jnp.linalg.norm(end - aim) / jnp.linalg.norm(aim))

    coarse, fine = error(16), error(32)
    assert fine < 0.04
    assert coarse > 3.3 * fine


@pytest.mark.extended
def test_the_vortex_keeps_mass_and_momentum():
    start = lb.taylor_green(8, 0.05, 0.8)
    end = lb.simulate(start, lambda f: lb.relaxation(f, 0.8), 30)
    np.testing.assert_allclose(end.sum(), start.sum(), rtol=1e-13)
    np.testing.assert_allclose((end @ lb.VELOCITIES).sum((0, 1)), 0, atol=1e-13)


def test_the_number_of_steps_may_be_traced():
    start = lb.taylor_green(4, 0.05, 0.8)
    several = jax.jit(lambda steps: lb.simulate(start, lambda f: lb.relaxation(f, 0.8), steps))
    for steps in (0, 3):
        there = lb.simulate(start, lambda f: lb.relaxation(f, 0.8), steps)
        np.testing.assert_allclose(several(steps), there, rtol=1e-6)


def test_a_vortex_without_divergence():
    """Velocities and their gradients, by Fourier differences."""
    _, u = lb.moments(lb.taylor_green(16, 0.05, 0.8))
    k = 1j * np.fft.fftfreq(16) * 2 * np.pi
    parts = np.fft.fft2(np.asarray(u), axes=(0, 1))
    np.testing.assert_allclose(k[:, None] * parts[..., 0] + k[None] * parts[..., 1], 0, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lb.viscosity(0.5), r"^tau=0.5 must be > 0.5"),
        (lambda: lb.relaxation(states(), 0.2), r"^tau=0.2 must be > 0.5"),
        (lambda: lb.taylor_green(1, 0.1, 0.8), r"^n=1 must be >= 2"),
        (lambda: lb.taylor_green(8, 2.0, 0.8), r"^speed=2.0 must be >= 0 and below 0.577"),
        (lambda: lb.moved(jnp.arange(9), 8), r"^symmetry=8 must lie between 0 and 7"),
        (lambda: lb.moved(jnp.arange(8), 1), r"^f has shape \(8,\): give 9 entries"),
        (lambda: lb.stream(jnp.ones((4, 4, 8))), r"give 9 entries"),
        (lambda: lb.averaged(lambda f: f)(jnp.ones(8)), r"give 9 entries"),
        (lambda: lb.equivariant_kernel(jnp.ones((1, 1, 81))), r"weights has shape .*: give 15 entries"),
        (lambda: lb.equivariant_bias(jnp.ones((1, 2))), r"weights has shape .*: give 3 entries"),
    ],
)
@pytest.mark.wrong_types
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
