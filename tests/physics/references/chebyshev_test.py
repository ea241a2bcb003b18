"""Derivatives, series and basis against numpy's Chebyshev polynomials."""

import jax
import numpy as np
import pytest

from sbjax.physics.references import chebyshev


@pytest.mark.parametrize("n", [8, 64])
def test_second_derivative_of_even_functions(n):
    x, matrix = chebyshev.second_derivative(n)
    assert x[-1] == pytest.approx(0, abs=1e-16)
    k = np.pi / 2  # cos(k x) vanishes at +-1
    np.testing.assert_allclose(matrix @ np.cos(k * x), -(k**2) * np.cos(k * x), rtol=0, atol=1e-15 * n**4 + 1e-12)


def test_its_eigenvalues_are_those_of_the_interval():
    """-((j + 1/2) pi)^2 for even functions; all real and negative, as the solver assumes."""
    values = np.linalg.eigvals(chebyshev.second_derivative(40)[1])
    assert abs(values.imag).max() == 0
    assert values.real.max() < 0
    np.testing.assert_allclose(-np.sort(-values.real)[:10], -(((np.arange(10) + 0.5) * np.pi) ** 2), rtol=1e-10)


def test_coefficients_and_basis(x64):
    rng = np.random.default_rng(0)
    series = rng.normal(size=(3, 30))
    nodes = np.cos(np.pi * np.arange(30) / 29)
    values = np.polynomial.chebyshev.chebval(nodes, series.T)
    np.testing.assert_allclose(chebyshev.coefficients(values), series, rtol=0, atol=1e-13)
    x = rng.uniform(-1, 1, 50)
    for n in (2, 17, 321):
        found = jax.jit(jax.vmap(lambda x, n=n: chebyshev.basis(x, n)))(x)
        np.testing.assert_allclose(found, np.polynomial.chebyshev.chebvander(x, n - 1), rtol=0, atol=1e-13 * n)
