"""Burgers' reference against quadrature in 40 digits, a Gauss-Hermite rule and printed values."""

import jax
import mpmath
import numpy as np
import pytest

from sbjax.physics.equation import evaluate
from sbjax.physics.pdes import make_equation
from sbjax.physics.references import cole_hopf


def in_digits(x, t, nu, digits=40, step="0.05"):
    with mpmath.workdps(digits):
        x, t, nu, step = map(mpmath.mpf, (x, t, nu, step))
        reach = mpmath.sqrt(1 / (mpmath.pi * nu) + 2.4 * digits)
        top = bottom = 0
        for i in range(-int(reach / step), int(reach / step) + 1):
            angle = mpmath.pi * (x - 2 * mpmath.sqrt(nu * t) * i * step)
            weight = mpmath.exp(-mpmath.cos(angle) / (2 * mpmath.pi * nu) - (i * step) ** 2)
            top, bottom = top + weight * mpmath.sin(angle), bottom + weight
        return float(-top / bottom)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("nu", [0.01 / np.pi, 0.001 / np.pi, 1e-4, 0.1, 1.0])
def test_the_certified_error(nu):
    equation = make_equation("burgers", nu=nu)
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(-1, 1, 16), rng.uniform(0, 1, 16)], 1)
    points[:8, 0] *= min(1, 10 * nu)  # in the front
    points[8:10, 0] = 1, -1
    points[10:12, 1] = 0
    truth = np.array([in_digits(x, t, nu) for x, t in points])
    gap = evaluate(equation, points)[:, 0] - truth
    assert np.linalg.norm(gap) <= equation.reference.floor * np.linalg.norm(truth)
    assert abs(gap).max() <= equation.reference.floor_max


def test_printed_values():
    points = [[0.5, 0.25], [0.5, 0.5], [0.5, 0.75], [0.05, 0.5], [-0.3, 0.9], [0.25, 1.0]]
    printed = [-0.803198, -0.592770, -0.461413, -0.978982, 0.563829, -0.559196]
    np.testing.assert_allclose(evaluate(make_equation("burgers"), points)[:, 0], printed, rtol=0, atol=5e-7)


def test_gauss_hermite_says_the_same():
    """Another rule with 200 nodes: good to 1e-12 where its nodes reach, that is, at the usual viscosity."""
    nu = 0.01 / np.pi
    z, w = np.polynomial.hermite.hermgauss(200)
    rng = np.random.default_rng(1)
    points = np.stack([rng.uniform(-1, 1, 200), rng.uniform(0, 1, 200)], 1)
    angle = np.pi * (points[:, :1] - 2 * np.sqrt(nu * points[:, 1:]) * z)
    exponent = np.log(w) - np.cos(angle) / (2 * np.pi * nu)
    weight = np.exp(exponent - exponent.max(1, keepdims=True))
    gauss = -(np.sin(angle) * weight).sum(1) / weight.sum(1)
    np.testing.assert_allclose(evaluate(make_equation("burgers"), points)[:, 0], gauss, rtol=0, atol=1e-12)


def test_the_step_is_small_enough(x64, monkeypatch):
    """Halving it changes nothing, at later times and large viscosities too."""
    points = np.stack([np.linspace(-1, 1, 31), np.linspace(0, 4, 31)], 1)
    for nu in (1e-3, 0.5):
        found = jax.jit(jax.vmap(cole_hopf.make_solution(nu, final=4.0)))(points)
        with monkeypatch.context() as patch:
            patch.setattr(cole_hopf, "STEP", cole_hopf.STEP / 2)
            np.testing.assert_allclose(
                found, jax.jit(jax.vmap(cole_hopf.make_solution(nu, final=4.0)))(points), rtol=0, atol=1e-13
            )


def test_a_perfect_solver_in_single_precision_is_close():
    """The formula itself does not overflow in float32."""
    points = np.float32([[0.5, 0.25], [0.05, 0.5], [0.0, 1.0]])
    for nu in (0.01 / np.pi, 1e-4):
        equation = make_equation("burgers", nu=nu)
        single = jax.jit(jax.vmap(equation.reference.solution))(points)
        np.testing.assert_allclose(single, evaluate(equation, points), rtol=0, atol=2e-3)
