"""Order, stiffness and coefficients."""

import mpmath
import numpy as np

from sbjax.physics.references import etdrk4 as module
from sbjax.physics.references.etdrk4 import etdrk4


def test_order_four_on_a_logistic_equation():
    """a' = -a + 3 a - a^2 split in two: a = 2 / (1 + e^-2t) from 1."""
    exact = 2 / (1 + np.exp(-4))
    errors = [
        abs(etdrk4(np.array([-1.0]), lambda a: 3 * a - a**2, np.ones(1), np.array([0.0, 2.0]), step)[-1, 0] - exact)
        for step in (0.1, 0.05, 0.025)
    ]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert ((orders > 3.7) & (orders < 4.4)).all()


def test_stiff_and_oscillating_parts_are_exact():
    linear = np.array([-1e7 + 0j, 1e3j, -2.0, 0.0])
    found = etdrk4(linear, lambda a: 0 * a, np.ones(4, complex), np.array([0.0, 0.3, 1.0]), 0.25)
    np.testing.assert_allclose(found, np.exp(np.outer([0, 0.3, 1], linear)), rtol=1e-12, atol=1e-300)


def test_coefficients_do_not_cancel():
    """Against the formulas in 60 digits, from far on the left to next to zero."""
    z = np.array([-1e6, -30.0, -1.0, -1e-3, -1e-9])
    found = np.array(module._coefficients(z))
    for column, value in zip(found.T, z):
        with mpmath.workdps(60):
            w = mpmath.mpf(value)
            e = mpmath.exp(w)
            expected = [
                e,
                mpmath.exp(w / 2),
                (mpmath.exp(w / 2) - 1) / w,
                (-4 - w + e * (4 - 3 * w + w**2)) / w**3,
                2 * (2 + w + e * (w - 2)) / w**3,
                (-4 - 3 * w - w**2 + e * (4 - w)) / w**3,
            ]
        np.testing.assert_allclose(column, [float(v) for v in expected], rtol=2e-14)
    np.testing.assert_allclose(
        module._coefficients(np.zeros(1)), [[1], [1], [1 / 2], [1 / 6], [1 / 3], [1 / 6]], rtol=1e-14
    )
