"""The spectral solver against the soliton, the two-soliton solution and three conserved integrals."""

import numpy as np

from sbjax.physics.equation import evaluate
from sbjax.physics.pdes import make_equation
from sbjax.physics.references import kdv

TIMES = np.linspace(0, 0.5, 6)


def test_the_exact_soliton_is_found_by_an_independent_method():
    equation = make_equation("kdv")
    x, u = kdv.solve(lambda x: 2 / np.cosh(x) ** 2, TIMES, largest_step=2.5e-4)
    inside = abs(x) <= 5
    for time, row in zip(TIMES, u):
        points = np.stack([x[inside], np.full(inside.sum(), time)], 1)
        np.testing.assert_allclose(row[inside], evaluate(equation, points)[:, 0], rtol=0, atol=1e-10)


def test_conservation_laws():
    """Mass, momentum and energy of two solitons that part."""
    x, u = kdv.solve(lambda x: 6 / np.cosh(x) ** 2, np.linspace(0, 0.3, 4), modes=512, largest_step=1e-4)
    width = x[1] - x[0]
    k = 2 * np.pi * np.fft.rfftfreq(len(x), width)
    u_x = np.fft.irfft(1j * k * np.fft.rfft(u), len(x))
    for law, rtol in ((u, 1e-13), (u**2, 1e-8), (u**3 - u_x**2 / 2, 1e-8)):
        integral = law.sum(1) * width
        np.testing.assert_allclose(integral, integral[0], rtol=rtol)


def test_two_solitons():
    """6 sech^2 x at t = 0 is 12 (3 + 4 cosh(2x - 8t) + cosh(4x - 64t)) / (3 cosh(x - 28t) + cosh(3x - 36t))^2."""
    t = 0.2
    x, u = kdv.solve(lambda x: 6 / np.cosh(x) ** 2, np.array([0, t]), modes=512, largest_step=1e-4)
    top = 12 * (3 + 4 * np.cosh(2 * x - 8 * t) + np.cosh(4 * x - 64 * t))
    np.testing.assert_allclose(u[1], top / (3 * np.cosh(x - 28 * t) + np.cosh(3 * x - 36 * t)) ** 2, rtol=0, atol=3e-7)
