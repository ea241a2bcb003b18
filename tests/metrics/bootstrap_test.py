import itertools
import math

import numpy as np
import pytest
import scipy.stats

from sbjax.metrics.bootstrap import excess, expanded_tail, over_pairs
from sbjax.report import statistics


def distances(rng, replicas, d=5, spread=1.0):
    """Root mean square differences of independent normal replicas."""
    x = spread * rng.normal(size=(replicas, d))
    return np.sqrt(((x[:, None] - x[None]) ** 2).mean(-1))


MATRIX = distances(np.random.default_rng(0), 8)


@pytest.mark.parametrize("replicas", [2, 3, 4, 8])
def test_value_is_the_mean_over_pairs(replicas):
    matrix = MATRIX[:replicas, :replicas]
    pairs = [matrix[r, s] for r, s in itertools.combinations(range(replicas), 2)]
    estimate = over_pairs(matrix)
    assert estimate.value == pytest.approx(np.mean(pairs), rel=1e-12)
    assert np.isnan([estimate.low, estimate.high]).all() == (replicas < 4)
    difference = excess(matrix, 2 * matrix)
    assert difference.value == pytest.approx(-np.mean(pairs), rel=1e-12)
    assert np.isnan([difference.low, difference.high]).all() == (replicas < 4)


def resampled_mean(rng, matrix):
    drawn = rng.integers(0, len(matrix), len(matrix))
    return np.mean([matrix[r, s] for r, s in itertools.combinations(drawn, 2) if r != s])


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_interval_against_resampling_by_hand(confidence):
    rng, null = np.random.default_rng(1), distances(np.random.default_rng(5), 8, spread=0.5)
    means, null_means = (np.array([resampled_mean(rng, m) for _ in range(4000)]) for m in (MATRIX, null))
    options = {"confidence": confidence, "resamples": 20_000}
    for draws, estimate in (
        (means, over_pairs(MATRIX, **options)),
        (means - null_means, excess(MATRIX, null, **options)),
    ):
        tail = expanded_tail(8, confidence)
        low, high = np.quantile(draws, [tail, 1 - tail])
        np.testing.assert_allclose([estimate.low, estimate.high], [low, high], atol=0.05 * (high - low))


def test_the_order_of_replicas_matters_no_more_than_the_resampling():
    estimates = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(8)
        estimates.append(over_pairs(MATRIX[np.ix_(order, order)], resamples=20_000))
    values, lows, highs = np.array(estimates).T
    np.testing.assert_allclose(values, values[0], rtol=1e-12)
    assert max(np.ptp(lows), np.ptp(highs)) < 0.05 * (highs[0] - lows[0])
    assert over_pairs(MATRIX) == over_pairs(MATRIX)
    assert over_pairs(MATRIX, seed=1) != over_pairs(MATRIX)


@pytest.mark.parametrize("replicas", [5, 10])
def test_coverage(replicas):
    """Of a nominal 95 %, over independent sets of replicas."""
    rng, truth = np.random.default_rng(0), distances(np.random.default_rng(1), 2000)
    truth = truth.sum() / (2000 * 1999)
    estimates = [over_pairs(distances(rng, replicas), resamples=400) for _ in range(300)]
    assert 0.80 <= np.mean([low <= truth <= high for _, low, high in estimates]) <= 0.99


def test_coverage_of_the_excess_of_equal_laws():
    rng = np.random.default_rng(0)
    estimates = [excess(distances(rng, 8), distances(rng, 8), resamples=400) for _ in range(300)]
    assert 0.85 <= np.mean([low <= 0 <= high for _, low, high in estimates]) <= 0.995


def test_width():
    narrow, wide = over_pairs(MATRIX, confidence=0.5), over_pairs(MATRIX)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    many = over_pairs(distances(np.random.default_rng(0), 40))
    assert many.high - many.low < wide.high - wide.low
    scaled = over_pairs(3 * MATRIX)
    np.testing.assert_allclose(scaled, 3 * np.array(wide), rtol=1e-12)


@pytest.mark.parametrize("n", [2, 5, 30])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_expanded_tail(n, confidence):
    """As wide for a mean of normal values as Student's interval, although the bootstrap divides by n, not n - 1."""
    half_width = scipy.stats.t.interval(confidence, n - 1)[1] / math.sqrt(n - 1)
    assert -scipy.stats.norm.ppf(expanded_tail(n, confidence)) / math.sqrt(n) == pytest.approx(half_width, rel=1e-9)
    assert expanded_tail(10**6, confidence) == pytest.approx((1 - confidence) / 2, rel=1e-4)


def test_the_report_uses_the_same_tail():
    assert statistics.expanded_tail is expanded_tail
    d, tail = np.sort(np.random.default_rng(0).normal(size=9)), expanded_tail(9, 0.9)
    medians = np.median(np.random.default_rng(1).choice(d, (40_000, 9)), axis=1)
    ends = statistics._interval(d, confidence=0.9, resamples=40_000, seed=0)
    np.testing.assert_allclose(ends, np.quantile(medians, [tail, 1 - tail]), atol=0.02)


@pytest.mark.parametrize(("replicas", "said"), [(2, True), (3, True), (4, False)])
def test_what_has_no_interval_says_so(replicas, said):
    shown = repr(over_pairs(MATRIX[:replicas, :replicas]))
    assert ("no interval: fewer than 4 replicas" in shown) == said
    assert ("low=" in shown) != said
