"""Families at real k: at whole k they are those of the full matrices, and where they turn."""

import numpy as np
import pytest

from sbjax.landscape import relu_minima as rm
from sbjax.landscape import relu_minima_fractional as fractional


@pytest.mark.parametrize("family", rm.FAMILIES)
@pytest.mark.parametrize("k", [6, 9])
def test_whole_numbers_are_the_full_matrices(family, k):
    w = rm.critical_point(family, k).weights
    c = fractional.real_point(family, float(k))
    np.testing.assert_allclose(c, [w[0, 0], w[0, 1], w[0, -1], w[-1, 0], w[-1, -1]], atol=1e-10)
    off = c + 0.1 * np.random.default_rng(0).normal(size=5)
    slope = rm.gradient(rm.expand(off, k))
    entries = [slope[0, 0], slope[0, 1], slope[0, -1], slope[-1, 0], slope[-1, -1]]
    np.testing.assert_allclose(fractional.real_gradient(off, k), entries, atol=1e-12)
    v = np.zeros((k, k))
    v[[0, 1, 2], [1, 2, 0]], v[[1, 2, 0], [0, 1, 2]] = 1, -1
    value = fractional.alternating_eigenvalue(c, k)
    np.testing.assert_allclose(rm.hessian(w) @ v.ravel(), value * v.ravel(), atol=1e-9)
    multiplicity = np.sum(np.abs(rm.spectrum(w) - value) < 1e-8)
    assert multiplicity == ((k - 1) * (k - 2) // 2 if family == "A" else (k - 2) * (k - 3) // 2)


def test_type_one_turns_between_six_and_seven():
    k = fractional.turning_point("I", 6.0, 7.0)
    assert 6 < k < 7
    assert abs(fractional.alternating_eigenvalue(fractional.real_point("I", k), k)) < 1e-9
    # Between whole numbers nothing jumps: a cubic through four of them meets it.
    values = [fractional.alternating_eigenvalue(fractional.real_point("I", n), n) for n in (6, 7, 8, 9)]
    roots = np.roots(np.polyfit((6, 7, 8, 9), values, 3))
    assert min(abs(roots - k)) < 5e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fractional.real_point("A", 4.5), "k=4.5 must be >= 5"),
        (lambda: fractional.turning_point("I", 7.0, 9.0), "one sign from k=7.0"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
