"""Mean field against scipy's minimiser, enumeration against a plain loop, Onsager and Kaufman against each other."""

import itertools
import math

import jax
import mpmath
import numpy as np
import pytest
import scipy.optimize

from sbjax.physics.ising import exact, mean_field

T_C = exact.CRITICAL_TEMPERATURE


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0, 3.9, 5.0])
@pytest.mark.parametrize("field", [0.0, 0.45, -0.45, 1.2])
def test_minima_are_those_of_a_fine_grid(temperature, field):
    """Local minima of f on a grid, refined by scipy, without any derivative."""
    m = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 20_001)[1:-1])  # dense at both ends

    def f(m):
        p = np.array([(1 + m) / 2, (1 - m) / 2])
        return -2 * m**2 - field * m + temperature * np.sum(p * np.log(p), 0)

    values = f(m)
    inner = np.flatnonzero((values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])) + 1
    expected = [scipy.optimize.minimize_scalar(f, bracket=m[i - 1 : i + 2], tol=1e-12).x for i in inner]
    found = mean_field.minima(temperature, field)
    np.testing.assert_allclose([x.magnetisation for x in found], expected, atol=1e-6)
    np.testing.assert_allclose([x.free_energy for x in found], f(np.array(expected)), rtol=1e-10)
    assert [x.stable for x in found] == [x.free_energy < min(f(np.array(expected))) + 1e-9 for x in found]


def test_numbers_of_the_two_landscapes():
    """At T = 2 a field of 0.45 tilts a double well, at T = 3 it leaves one: the spinodal field lies between."""
    for temperature, field, printed in (
        (2.0, 0.0, [(-0.958, -2.0393), (0.958, -2.0393)]),
        (2.0, 0.45, [(-0.926, -1.6148), (0.975, -2.4744)]),
        (3.0, 0.0, [(-0.776, None), (0.776, None)]),
        (3.0, 0.45, [(0.861, None)]),
    ):
        for found, (m, f) in zip(mean_field.minima(temperature, field), printed, strict=True):
            assert found.magnetisation == pytest.approx(m, abs=1e-3)
            assert f is None or found.free_energy == pytest.approx(f, abs=5e-5)
    assert [len(mean_field.minima(t, h)) for t, h in ((2, 0), (2, 0.45), (3, 0), (3, 0.45))] == [2, 2, 2, 1]
    for temperature, field in ((1.5, 1.553), (2.0, 1.066), (2.5, 0.668), (3.0, 0.352), (3.5, 0.121)):
        spinodal = mean_field.spinodal_field(temperature)
        assert spinodal == pytest.approx(field, abs=5e-4)
        assert len(mean_field.minima(temperature, 0.999 * spinodal)) == 2
        assert len(mean_field.minima(temperature, 1.001 * spinodal)) == 1
        assert mean_field.spinodal_temperature(spinodal) == pytest.approx(temperature, rel=1e-10)
    assert mean_field.spinodal_temperature(0.45) == pytest.approx(2.8, abs=0.05)


def test_free_energy_is_differentiable_and_ends_where_it_should(x64):
    slope = jax.grad(mean_field.free_energy)(0.3, 2.0, 0.45)
    assert slope == pytest.approx(2 * math.atanh(0.3) - 4 * 0.3 - 0.45, rel=1e-12)
    assert mean_field.free_energy(1.0, 2.0, 0.45) == pytest.approx(-2.45)
    assert np.isnan(mean_field.free_energy(1.5, 2.0))


def test_enumeration_against_a_plain_loop():
    states = exact.enumerate_states(2, 3)
    counts = {}
    for spins in itertools.product((-1, 1), repeat=6):
        site = np.reshape(spins, (2, 3))
        bonds = sum(site[i, j] * (site[(i + 1) % 2, j] + site[i, (j + 1) % 3]) for i in range(2) for j in range(3))
        counts[bonds, sum(spins)] = counts.get((bonds, sum(spins)), 0) + 1
    assert dict(zip(zip(states.bonds.tolist(), states.magnetisations.tolist()), states.counts.tolist())) == counts
    weights = {k: n * math.exp((k[0] + 0.45 * k[1]) / 1.7) for k, n in counts.items()}
    mean = sum(w * k[1] for k, w in weights.items()) / sum(weights.values()) / 6
    assert exact.thermal_averages(states, 1.7, 0.45).magnetisation == pytest.approx(mean, rel=1e-12)


def test_four_by_four():
    states = exact.enumerate_states(4, 4)
    m, ground, free = exact.landscape(states, 2.0)
    expected = [-32, -24, -20, -16, -16, -12, -12, -12, -16]
    assert ground.tolist() == expected + expected[-2::-1]
    tilted = exact.landscape(states, 2.0, 0.45)
    np.testing.assert_allclose(tilted[1], ground - 0.45 * m, rtol=1e-14)
    np.testing.assert_allclose(tilted[2], free - 0.45 * m, rtol=1e-12)
    total = -2.0 * scipy.special.logsumexp(-free / 2.0)
    assert total == pytest.approx(-2.0 * exact.kaufman_log_partition(0.5, 4, 4), rel=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (4, 3), (4, 4), (3, 5)])
@pytest.mark.parametrize("temperature", [0.7, T_C, 3.5])
def test_kaufman_is_the_enumeration(rows, columns, temperature):
    states = exact.enumerate_states(rows, columns)
    log = scipy.special.logsumexp(states.bonds / temperature, b=states.counts)
    assert exact.kaufman_log_partition(1 / temperature, rows, columns) == pytest.approx(log, rel=1e-12)
    energy = exact.thermal_averages(states, temperature).energy
    assert exact.kaufman_energy(temperature, rows, columns) == pytest.approx(energy, abs=1e-8)


@pytest.mark.parametrize("temperature", [0.4, 2.0, T_C * (1 - 1e-7), T_C, 3.0, 20.0])
def test_onsager_is_the_derivative_of_his_integral(temperature):
    """-d/dK of ln(2 cosh 2K) + 1/(2 pi) int_0^pi ln((1 + sqrt(1 - k^2 sin^2)) / 2), in 30 digits."""
    with mpmath.workdps(30):

        def log_partition(k):
            modulus = 2 * mpmath.sinh(2 * k) / mpmath.cosh(2 * k) ** 2
            integrand = lambda x: mpmath.log((1 + mpmath.sqrt(1 - (modulus * mpmath.sin(x)) ** 2)) / 2)  # noqa: E731
            half = mpmath.quad(integrand, [0, mpmath.pi / 4, mpmath.pi / 2 - 1e-4, mpmath.pi / 2])
            return mpmath.log(2 * mpmath.cosh(2 * k)) + half / mpmath.pi

        k, h = 1 / mpmath.mpf(temperature), mpmath.mpf(1e-7)
        slope = (log_partition(k + h) - log_partition(k - h)) / (2 * h)
    assert exact.onsager_energy(temperature) == pytest.approx(-float(slope), abs=1e-5)


def test_limits():
    assert exact.onsager_energy(2.0) == pytest.approx(exact.kaufman_energy(2.0, 64, 64), abs=1e-8)
    assert exact.onsager_energy(T_C) == pytest.approx(-math.sqrt(2), rel=1e-12)
    assert exact.yang_magnetisation(T_C) == 0
    assert exact.yang_magnetisation(2.0) == pytest.approx((1 - math.sinh(1.0) ** -4) ** 0.125, rel=1e-12)
    assert exact.yang_magnetisation(0.01) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_field.minima(0.0), "temperature=0.0 must be a positive number"),
        (lambda: mean_field.minima(1.0, math.inf), "field=inf must be finite"),
        (lambda: mean_field.spinodal_temperature(5.0), "field=5.0: for"),
        (lambda: exact.enumerate_states(5, 5), "rows=5, columns=5: a lattice of 1 to 20 spins"),
        (lambda: exact.onsager_energy(-1.0), "temperature=-1.0 must be a positive"),
        (lambda: exact.kaufman_log_partition(0.5, 0, 4), "must be positive"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
