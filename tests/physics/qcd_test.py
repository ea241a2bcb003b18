"""Quasi-partons and lattice parametrisations against scipy, limits known in closed form, and published numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate
from scipy.special import kn

from sbjax.physics import lattice, qcd
from sbjax.physics.finite_density import finite_density

pressure = jax.jit(qcd.scaled_pressure, static_argnames="nodes")
T = np.array([0.13, 0.155, 0.2, 0.25, 0.3, 0.4])
TIED = {0.13: 0.5372, 0.14: 0.5456, 0.15: 0.5450, 0.155: 0.5416, 0.17: 0.5235,
        0.2: 0.4827, 0.25: 0.4445, 0.3: 0.4279, 0.35: 0.4207, 0.4: 0.4188}  # fmt: skip


@pytest.fixture(autouse=True)
def double(x64):
    """All of this file is in double precision unless a dtype is given."""


def masses_fn(T, mu=None):
    """Masses that depend on everything, so that total and partial derivatives differ."""
    shift = 0.0 if mu is None else 0.3 * mu**2
    return jnp.stack([0.3 + 0.1 * jnp.sin(8 * T) + shift, 0.45 + 0.02 / T + shift, 0.9 - 0.4 * T + 2 * shift], -1)


# Integrals


@pytest.mark.parametrize("ratio", [0.0, 0.3, 2.0, 5.0])
def test_thermal_integrals_against_adaptive_quadrature(ratio):
    """All three species by scipy, to twelve digits."""

    def integral(sign):
        def integrand(x):
            energy = np.hypot(x, ratio)
            return sign * x**2 * np.log1p(sign * np.exp(-energy)) if energy else 0.0

        pieces = [integrate.quad(integrand, a, b, epsabs=1e-15, epsrel=1e-13)[0] for a, b in ((0, 1), (1, 8), (8, 60))]
        return sum(pieces) / (2 * np.pi**2)

    for species, (degeneracy, sign) in enumerate(((24, 1), (12, 1), (16, -1))):
        heavy = np.full(3, 0.2 * 300)
        heavy[species] = 0.2 * ratio
        found = float(pressure(0.2, heavy))
        np.testing.assert_allclose(found, degeneracy * integral(sign), rtol=1e-12)


def test_a_heavy_gas_is_a_sum_of_bessel_functions():
    """P/T^4 = d/(2 pi^2) a^2 sum_k (-+1)^(k+1)/k^2 K_2(k a)."""
    a, k = np.array([4.0, 5.0, 6.0]), np.arange(1, 12)[:, None]
    signs = np.where(np.array([1, 1, 0]), (-1.0) ** (k + 1), 1.0)
    terms = np.array([24, 12, 16]) / (2 * np.pi**2) * a**2 * signs / k**2 * kn(2, k * a)
    np.testing.assert_allclose(pressure(0.3, 0.3 * a), terms.sum(), rtol=1e-12)


def test_free_gas():
    np.testing.assert_allclose(pressure(0.2, np.zeros(3)), 5.2090, atol=5e-5)
    np.testing.assert_allclose(pressure(0.2, np.zeros(3)), qcd.FREE_PRESSURE, rtol=1e-12)
    gas = jax.jit(lambda t: qcd.equation_of_state(lambda t: qcd.scaled_pressure(t, jnp.zeros((6, 3))), t))(T)
    np.testing.assert_allclose(gas.energy, 3 * gas.pressure, rtol=1e-12)
    np.testing.assert_allclose(gas.sound_speed_squared, 1 / 3, rtol=1e-10)
    assert np.abs(gas.anomaly).max() < 1e-12


def test_few_nodes_are_enough_for_training_masses():
    masses = lattice.reference_masses("hotqcd_2014", T)
    exact = pressure(T, masses, nodes=128)
    for nodes, tolerance in ((64, 1e-12), (20, 2e-6)):
        np.testing.assert_allclose(pressure(T, masses, nodes=nodes), exact, rtol=tolerance)
    single = pressure(jnp.asarray(T, jnp.float32), jnp.asarray(masses, jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, exact, rtol=1e-5)


def laguerre(T, m, nodes, unit):
    """(P/T^4 of fermions, of bosons) for one degree of freedom, by Gauss and Laguerre with nodes p = unit x."""
    x, w = np.polynomial.laguerre.laggauss(nodes)
    p, energy = unit * x, np.hypot(unit * x, m)
    terms = np.log1p(np.exp(-energy / T)), -np.log1p(-np.exp(-energy / T))
    return [np.sum(w * np.exp(x) * p**2 * term) * unit / (2 * np.pi**2 * T**3) for term in terms]


def exactly(T, m):
    """The same from the library: heavy partons have no pressure."""
    light_quarks, gluons = (pressure(T, np.where(np.arange(3) == i, m, 300 * T)) for i in (0, 2))
    return float(light_quarks) / 24, float(gluons) / 16


def test_why_not_laguerre():
    """Nodes at p in GeV miss the small momenta: 8 of 50 lie below 3 GeV; in p/T they are good to five digits."""
    assert np.sum(np.polynomial.laguerre.laggauss(50)[0] < 3) == 8

    def error(T, m, nodes, unit):
        return np.abs(np.array(laguerre(T, m, nodes, unit)) / exactly(T, m) - 1)

    assert 1e-3 < error(0.1, 0.1, 50, 1.0)[1] < 1.5e-3 + 5e-5
    assert error(0.15, 0.1, 50, 1.0).max() < 4.5e-4
    for T, m in ((0.15, 0.3), (0.15, 0.5), (0.2, 0.3), (0.4, 0.6)):
        assert error(T, m, 50, 1.0).max() < 7e-5
        assert error(T, m, 25, T).max() < 1e-5
        assert error(T, m, 50, T).max() < 1.2e-6


# Thermodynamics


def test_densities_are_total_derivatives():
    """P = T ln Z, eps = T^2 d(ln Z)/dT and s = dP/dT by central differences, and the sum rules."""

    @jax.jit
    def total(t):
        return t * qcd.log_partition(t, masses_fn(t))

    @jax.jit
    def energy(t):
        return t**2 * jax.vmap(jax.grad(lambda u: qcd.log_partition(u, masses_fn(u))))(t)

    h = 1e-4
    found = jax.jit(lambda t: qcd.equation_of_state(lambda t: qcd.scaled_pressure(t, masses_fn(t)), t))(T)
    np.testing.assert_allclose(found.pressure * T**4, total(T), rtol=1e-13)

    def slope(f):
        return (8 * (f(T + h) - f(T - h)) - (f(T + 2 * h) - f(T - 2 * h))) / (12 * h)

    np.testing.assert_allclose(found.entropy * T**3, slope(total), rtol=1e-9)
    np.testing.assert_allclose(found.energy * T**4, T**2 * slope(lambda t: total(t) / t), rtol=1e-9)
    np.testing.assert_allclose(found.sound_speed_squared, slope(total) / slope(energy), rtol=1e-8)
    np.testing.assert_allclose(found.energy + found.pressure, found.entropy, rtol=1e-13)
    np.testing.assert_allclose(found.anomaly, found.energy - 3 * found.pressure, atol=1e-13)
    # Without the derivative of the masses it is something else: the test can fail.
    masses = np.asarray(jax.jit(masses_fn)(T))
    frozen = slope(lambda t: t**4 * pressure(t, masses))
    assert np.abs(found.entropy * T**3 / frozen - 1).max() > 1e-2


def test_units():
    """1 GeV^4 = 130.15 GeV/fm^3, by scipy's constants."""
    from scipy import constants

    hbar_c = constants.hbar * constants.c / constants.e / 1e9 / 1e-15
    eos = lattice.reference("hotqcd_2014", np.array([0.2]))
    found = qcd.to_fm(eos, np.array([0.2]))
    np.testing.assert_allclose(found.energy, eos.energy * 0.2**4 / hbar_c**3, rtol=1e-9)
    np.testing.assert_allclose(found.entropy, eos.entropy * 0.2**3 / hbar_c**3, rtol=1e-9)
    np.testing.assert_allclose(0.2 * found.entropy, found.energy + found.pressure, rtol=1e-12)
    assert found.sound_speed_squared == eos.sound_speed_squared


def test_finite_density_at_zero_against_differences():
    """chi_B2 = (1/T) d^2/dmu^2, chi_B4 = T d^4/dmu^4 of ln Z/V, through masses that depend on mu."""
    t, h = np.array([0.16, 0.3]), 0.02
    found = jax.jit(lambda t: finite_density(masses_fn, t))(t)
    grid = h * np.arange(-4, 5)
    log_z = jax.jit(lambda t, mu: qcd.log_partition(t, masses_fn(t, mu), mu))
    z = np.array([log_z(t, np.full(2, mu)) for mu in grid])
    second = np.array([-9, 128, -1008, 8064, -14350, 8064, -1008, 128, -9]) / 5040
    fourth = np.array([7, -96, 676, -1952, 2730, -1952, 676, -96, 7]) / 240
    np.testing.assert_allclose(found.chi_2, second @ z / h**2 / t, rtol=1e-5)
    np.testing.assert_allclose(found.chi_4, fourth @ z / h**4 * t, rtol=1e-2)
    at_zero = jax.jit(lambda t: qcd.equation_of_state(lambda t: qcd.scaled_pressure(t, masses_fn(t)), t))(t)
    for name in ("pressure", "energy", "entropy"):
        np.testing.assert_allclose(getattr(found, name), getattr(at_zero, name), rtol=1e-11)
    assert np.abs(found.baryons).max() < 1e-12


def test_massless_quarks_at_finite_density():
    """P/T^4 gains 3 (q^2/2 + q^4/(4 pi^2)) with q = mu_B/(3 T) from three flavours: exact, at every mu."""
    t, mu = np.array([0.15, 0.3]), np.array([0.2, 0.5])
    q = mu / (3 * t)
    massless = jax.jit(lambda t, mu: finite_density(lambda t, mu: jnp.zeros((2, 3)), t, mu))
    found = massless(t, mu)
    expected = qcd.FREE_PRESSURE + 3 * (q**2 / 2 + q**4 / (4 * np.pi**2))
    np.testing.assert_allclose(found.pressure, expected, rtol=1e-11)
    np.testing.assert_allclose(found.baryons, q + q**3 / np.pi**2, rtol=1e-11)
    np.testing.assert_allclose(found.chi_2, 1 / 3 + q**2 / np.pi**2, rtol=1e-9)
    np.testing.assert_allclose(found.chi_4, 2 / (9 * np.pi**2), rtol=1e-7)
    np.testing.assert_allclose(found.energy, 3 * found.pressure, rtol=1e-10)


# Lattice QCD


@pytest.mark.parametrize(
    ("name", "at", "anomaly", "pressure", "atol"),
    [
        ("hotqcd_2014", T, [1.0208, 2.4482, 4.0476, 3.5755, 2.9528, 1.9990],
         [0.4413, 0.7306, 1.6224, 2.4860, 3.0819, 3.7901], 5e-5),
        ("wuppertal_budapest_2010", T[[1, 2, 4, 5]], [2.700, 4.033, 2.480, 1.570], [0.709, 1.651, 2.985, 3.560], 6e-4),
        ("wuppertal_budapest_2013", T[[1, 2, 4, 5]], [2.605, 3.768, 2.738, 1.733], [0.736, 1.602, 2.966, 3.605], 6e-4),
    ],
)  # fmt: skip
def test_published_values(name, at, anomaly, pressure, atol):
    found = lattice.reference(name, at)
    np.testing.assert_allclose(found.anomaly, anomaly, atol=atol)
    np.testing.assert_allclose(found.pressure, pressure, atol=atol)
    assert found.pressure.dtype == np.float64


def test_hotqcd_agrees_with_the_lattice_table():
    rows = lattice.HOTQCD_ROWS
    found = lattice.reference("hotqcd_2014", rows[:, 0])
    assert len(rows) == 55
    np.testing.assert_allclose(rows[:, 0], np.linspace(0.13, 0.4, 55), rtol=1e-12)
    columns = (found.anomaly, found.pressure, found.energy, found.entropy)
    for column, tolerance, values in zip(rows[:, 1:5].T, (0.034, 0.011, 0.057, 0.063), columns, strict=True):
        assert np.abs(values - column).max() < tolerance + 5e-4
    # The table obeys the identities to its rounding: no row is mistyped.
    np.testing.assert_allclose(rows[:, 3], rows[:, 1] + 3 * rows[:, 2], atol=0.012)
    np.testing.assert_allclose(rows[:, 4], rows[:, 3] + rows[:, 2], atol=0.0111)


def test_the_points_themselves():
    """At the points they are the table, and between them a function with its own derivative to the table's rounding."""
    rows = lattice.HOTQCD_ROWS
    found = lattice.reference("hotqcd_points", rows[:, 0])
    columns = (found.anomaly, found.pressure, found.energy, found.entropy, found.sound_speed_squared)
    np.testing.assert_allclose(np.stack(columns, -1), rows[:, 1:], rtol=1e-12)
    at, h = np.linspace(0.14, 0.39, 60), 5e-3
    pressure = lattice.reference("hotqcd_points", np.stack([at - h, at, at + h])).pressure
    slope = at * (pressure[2] - pressure[0]) / (2 * h)
    assert np.abs(slope - lattice.reference("hotqcd_points", at).anomaly).max() < 0.04
    masses = lattice.reference_masses("hotqcd_points", at)
    np.testing.assert_allclose(masses, lattice.reference_masses("hotqcd_2014", at), atol=6e-3)
    with pytest.raises(ValueError, match=r"T=0\.12 GeV lies outside the lattice data of hotqcd_points; give 0\.13"):
        lattice.reference("hotqcd_points", 0.12)


@pytest.mark.parametrize("name", ["wuppertal_budapest_2010", "wuppertal_budapest_2013"])
def test_integrated_anomaly_is_the_published_one(name):
    """T d(P/T^4)/dT of the integral gives the integrand back, and the integral agrees with scipy's."""
    f0, f1, f2, g1, g2 = {"wuppertal_budapest_2010": (2.76, 6.79, -5.29, -0.47, 1.04),
                          "wuppertal_budapest_2013": (1.05, 6.39, -4.72, -0.92, 0.57)}[name]  # fmt: skip

    def anomaly(T):
        t = T / 0.2
        return np.exp(0.18 / t - 0.035 / t**2) * (0.1396 + f0 * (np.tanh(f1 * t + f2) + 1) / (1 + g1 * t + g2 * t**2))

    found = lattice.reference(name, T)
    np.testing.assert_allclose(found.anomaly, anomaly(T), rtol=1e-9)
    integral = integrate.quad(lambda T: anomaly(T) / T, 1e-3, 0.2, epsabs=1e-13, limit=200)[0]
    np.testing.assert_allclose(found.pressure[2], integral, rtol=1e-10)


def test_tied_masses():
    found = lattice.reference_masses("hotqcd_2014", np.array(list(TIED)))
    np.testing.assert_allclose(found[:, 0], list(TIED.values()), atol=5e-5)
    np.testing.assert_allclose(found[:, 1] - found[:, 0], 0.09, atol=1e-14)
    np.testing.assert_allclose(found[:, 2], 1.5 * found[:, 0], rtol=1e-14)
    assert found.max() < 0.82
    known = lattice.reference("hotqcd_2014", np.array(list(TIED))).pressure
    np.testing.assert_allclose(pressure(np.array(list(TIED)), found), known, rtol=1e-12)


def test_the_dtype_of_weakly_typed_temperatures(x64):
    """That of the arrays, which may all be weak: a Python number made an array."""
    weak = jnp.asarray(0.17)
    assert weak.weak_type
    masses = jnp.stack([weak, 1.5 * weak, weak])
    assert masses.weak_type
    found = qcd.scaled_pressure(weak, masses)
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, pressure(0.17, np.array([0.17, 0.255, 0.17])), rtol=1e-12)
    assert qcd.tied_masses(weak, jnp.asarray(1.6)).dtype == jnp.float64
    assert qcd.scaled_pressure(weak, masses, weak).dtype == jnp.float64
    assert qcd.scaled_pressure(weak, jnp.ones(3, jnp.float32)).dtype == jnp.float32
    assert qcd.scaled_pressure(jnp.bfloat16(0.2), jnp.ones(3, jnp.bfloat16)).dtype == jnp.float32


# Refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: qcd.scaled_pressure(np.array([0.2, -0.1]), jnp.ones((2, 3))), "T=-0.1 must be a positive temperature"),
        (lambda: finite_density(masses_fn, 0.0), "T=0 must be a positive temperature in GeV, such as 0.155"),
        (lambda: qcd.equation_of_state(lambda t: t, np.nan), "T=nan must be"),
        (lambda: qcd.scaled_pressure(0.2, jnp.ones(2)), r"masses has shape \(2,\); its last axis"),
        (lambda: qcd.quadrature(0), "nodes=0 must lie in 1 to 128"),
        (lambda: qcd.tied_masses(0.2, 6.0), r"pressure=6 \(P/T\^4\) cannot be reached"),
        (lambda: lattice.reference("hotqcd", 0.2), "'hotqcd' is unknown, did you mean 'hotqcd_2014'"),
        (lambda: lattice.reference("hotqcd_2014", 0.05), "T=0.05 GeV lies outside the lattice data of hotqcd_2014"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
