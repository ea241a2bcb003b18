"""Shares of runs that improve, against the binomial law and counted by hand."""

import numpy as np
import pytest
import scipy.stats

from sbjax.experiments.pinn import suite_statistics as lib
from sbjax.metrics.bootstrap import expanded_tail


def row(median, reference, *, improved, n=10, tied=0):
    return {
        "reason": None, "median": median, "reference_median": reference, "n": n,
        "improved": improved, "tied": tied, "left_out": 10 - n,
    }  # fmt: skip


@pytest.mark.parametrize("successes", [4, 9, 12])
def test_interval_against_the_binomial_law(successes):
    """Of k runs with all seeds alike, the share in a resample is binomial."""
    k, n = 15, 10
    gains = np.where(np.arange(k) < successes, n, 0)
    found = lib.share(gains, np.full(k, n), resamples=200_000)
    assert found.value == successes / k
    tail = expanded_tail(k, 0.95)
    expected = scipy.stats.binom(k, successes / k).ppf([tail, 1 - tail]) / k
    np.testing.assert_allclose([found.low, found.high], expected, atol=1e-12)


def test_runs_are_drawn_whole():
    """Seeds that agree within a run say less than as many that do not."""
    apart = lib.share(np.full(10, 6), np.full(10, 10))
    together = lib.share(np.array([10] * 6 + [0] * 4), np.full(10, 10))
    assert apart.value == together.value == 0.6
    assert (apart.low, apart.high) == (0.6, 0.6)
    assert together.high - together.low > 0.5


def test_the_two_readings_can_differ():
    rows = [row(0.5, 1.0, improved=6), row(0.5, 1.0, improved=6), row(0.5, 1.0, improved=6), row(2.0, 1.0, improved=0)]
    found = lib.read(rows, "min")
    assert found["share_runs"]["value"] == 0.75
    assert found["share_pairs"]["value"] == 18 / 40
    found = lib.read(rows, "max")
    assert found["share_runs"]["value"] == 0.25


def test_ties_count_half_and_missing_runs_do_not():
    rows = [row(1.0, 1.0, improved=3, tied=4), row(0.5, 1.0, improved=8, n=8), {"reason": "no such arm"}]
    found = lib.read(rows, "min")
    assert (found["runs"], found["runs_improved"], found["runs_tied"], found["not_compared"]) == (2, 1, 1, 1)
    assert found["share_runs"]["value"] == 0.75
    assert found["share_pairs"]["value"] == 13 / 18
    assert (found["left_out"], found["verdict"]) == (2, lib.TOO_FEW)
    none = lib.read(rows[2:], "min")
    assert (none["runs"], none["pairs"]) == (0, 0)
    assert np.isnan(none["share_pairs"]["value"])


def test_one_run_has_no_interval():
    found = lib.share(np.array([7]), np.array([10]))
    assert found.value == 0.7
    assert np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize(("good", "verdict"), [(15, "better"), (0, "worse"), (8, "no difference shown")])
def test_verdicts(good, verdict):
    rows = [row(0.5, 1.0, improved=10) if i < good else row(2.0, 1.0, improved=0) for i in range(15)]
    assert lib.read(rows, "min")["verdict"] == verdict
