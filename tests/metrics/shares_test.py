"""Intervals of shares against the laws that they come from, and against simulation."""

import numpy as np
import pytest
import scipy.stats

from sbjax.metrics import shares as lib
from sbjax.metrics.bootstrap import expanded_tail


@pytest.mark.parametrize(("k", "n"), [(0, 5), (1, 2), (7, 10), (49, 50), (8, 8)])
def test_intervals_by_hand(k, n):
    flags = np.arange(n) < k
    z, p = scipy.stats.norm.ppf(0.975), k / n
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = (p, (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n))
    np.testing.assert_allclose(lib.share(flags), expected, atol=1e-12)
    low = scipy.stats.beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = scipy.stats.beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    np.testing.assert_allclose(lib.share(flags, method="exact"), (p, low, high), rtol=1e-9)


@pytest.mark.parametrize("p", [0.03, 0.2, 0.5, 0.9])
def test_exact_intervals_cover_at_least_as_often_as_they_say(p):
    n = 12
    weights = scipy.stats.binom.pmf(np.arange(n + 1), n, p)

    def coverage(method):
        found = [lib.share(np.arange(n) < k, method=method) for k in range(n + 1)]
        return sum(w for w, f in zip(weights, found, strict=True) if f.low <= p <= f.high)

    assert coverage("exact") >= 0.95
    assert coverage("wilson") > 0.9


def test_values_that_are_not_finite_are_not_below():
    losses = [1e-30] * 7 + [1.0, np.nan, np.inf]
    low, high = scipy.stats.beta.ppf([0.025, 0.975], [7, 8], [4, 3])
    np.testing.assert_allclose(lib.share_below(losses, 1e-14), (0.7, low, high), rtol=1e-10)


@pytest.mark.parametrize("successes", [4, 9, 12])
def test_groups_that_agree_follow_the_binomial_law(successes):
    k, n = 15, 10
    gains = np.where(np.arange(k) < successes, n, 0)
    found = lib.grouped_share(gains, np.full(k, n), resamples=200_000)
    assert found.value == successes / k
    tail = expanded_tail(k, 0.95)
    expected = scipy.stats.binom(k, successes / k).ppf([tail, 1 - tail]) / k
    np.testing.assert_allclose([found.low, found.high], expected, atol=1e-12)


def test_groups_are_drawn_whole():
    """Trials that agree within a group say less than as many that do not."""
    apart = lib.grouped_share(np.full(10, 6), np.full(10, 10))
    together = lib.grouped_share(np.array([10] * 6 + [0] * 4), np.full(10, 10))
    assert apart.value == together.value == 0.6
    assert (apart.low, apart.high) == (0.6, 0.6)
    assert together.high - together.low > 0.5


def test_one_group_has_no_interval_and_none_no_share():
    found = lib.grouped_share(np.array([7]), np.array([10]))
    assert found.value == 0.7
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(lib.grouped_share(np.zeros(0, int), np.zeros(0, int))).all()


@pytest.mark.wrong_types
def test_refusals():
    with pytest.raises(ValueError, match="flags is empty"):
        lib.share([])
    with pytest.raises(ValueError, match="method='wald' is unknown; known: wilson, exact"):
        lib.share([True], method="wald")
