"""Power means against exact fractions and float64, over the whole range of float32."""

import fractions
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.metrics.norms import moments, power_mean

ROWS = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
SCALES = (1e-30, 1e-24, 1.0, 1e20, 1e30)


def exact(row, p):
    """By fractions, which neither overflow nor round before the root."""
    values = [abs(fractions.Fraction(float(x))) for x in row]
    most = max(values)
    return float(most) * float(sum((x / most) ** p for x in values) / len(values)) ** (1 / p)


@pytest.mark.parametrize("p", [1, 2, 3, 50, 538])
def test_against_fractions(p):
    for scale in SCALES:
        rows = ROWS * np.float32(scale)
        expected = [exact(row, p) for row in rows]
        np.testing.assert_allclose(power_mean(rows, p), expected, rtol=1e-12)
        np.testing.assert_allclose(power_mean(jnp.asarray(rows), float(p)), expected, rtol=2e-6)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 30.0])
def test_gradient_is_that_of_scaled_entries(p):
    """The power mean is homogeneous, so its gradient does not depend on the scale."""
    gradient = jax.grad(lambda x: power_mean(x, p))
    once = gradient(jnp.asarray(ROWS[0]))
    wide = ROWS[0].astype(np.float64)
    expected = np.sign(wide) * (np.abs(wide) / exact(ROWS[0], p if p != 1.5 else 2)) ** (p - 1) / 40
    if p != 1.5:
        np.testing.assert_allclose(once, expected, rtol=1e-5, atol=1e-9)
    for scale in SCALES:
        np.testing.assert_allclose(gradient(jnp.asarray(ROWS[0] * np.float32(scale))), once, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(gradient(jnp.zeros(3)), np.zeros(3))


def test_entries_of_mass_zero_set_no_unit():
    gaps, masses = np.array([1e30, 1.0, 2.0], np.float32), np.array([0.0, 0.5, 0.5], np.float32)
    for x, w in ((gaps, masses), (jnp.asarray(gaps), jnp.asarray(masses))):
        np.testing.assert_allclose(power_mean(x, 2.0, w), math.sqrt(2.5), rtol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_moments(scale):
    rows = ROWS * np.float32(scale)
    for found in (moments(rows), moments(jnp.asarray(rows))):
        np.testing.assert_allclose(found, [np.mean(rows, dtype=np.float64), np.std(rows / scale) * scale], rtol=1e-5)
