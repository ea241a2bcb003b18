import itertools
import json

import numpy as np
import pytest
import scipy.stats

from sbjax.report import statistics as lib
from sbjax.report.results import load_results, save_summary

RNG = np.random.default_rng(0)
A = 0.9 + 0.01 * RNG.normal(size=10)
NOISE = 0.01 * RNG.normal(size=10)


def brute_signed_rank(d):
    """The exact two-sided p from all 2^n signs."""
    ranks = scipy.stats.rankdata(np.abs(d))
    positive = ranks[d > 0].sum()
    signs = np.array(list(itertools.product([0, 1], repeat=len(d))))
    null = signs @ ranks
    return min(1.0, 2 * min(np.mean(null >= positive - 1e-9), np.mean(null <= positive + 1e-9)))


@pytest.mark.parametrize("n", [5, 6, 9])
def test_p_against_all_signs(n):
    a, b = A[:n], A[:n] + NOISE[:n]
    assert lib.paired(a, b).p_value == pytest.approx(brute_signed_rank(b - a), rel=1e-12)


def test_p_with_ties_and_zeros_against_all_signs():
    a, d = np.zeros(8), np.array([0.0, 0.0, 1.0, 1.0, -1.0, 2.0, 2.0, 3.0])
    c = lib.paired(a, d)
    assert c.p_value == pytest.approx(brute_signed_rank(d[d != 0]), rel=1e-12)
    assert (c.improved, c.tied, c.n, c.share_improved) == (5, 2, 8, 6 / 8)


def bootstrap_median_quantiles(d, confidence):
    """Percentile interval of the median of an odd number of values, from the exact bootstrap distribution.

    The resampled median is at most d_(k) if and only if at least half of n draws fall on the k smallest
    values.
    """
    n, d = len(d), np.sort(d)
    below = scipy.stats.binom.sf(n // 2, n, np.arange(1, n + 1) / n)
    tail = (1 - confidence) / 2
    return d[np.searchsorted(below, tail)], d[np.searchsorted(below, 1 - tail)]


def expanded(n, confidence):
    """The level that makes a percentile interval of the mean of n normal values as wide as Student's."""
    width = scipy.stats.t(n - 1).interval(confidence)[1] * np.sqrt(n / (n - 1))
    return scipy.stats.norm.cdf(width) - scipy.stats.norm.cdf(-width)


@pytest.mark.parametrize(("n", "confidence"), [(5, 0.95), (7, 0.95), (9, 0.95), (9, 0.8)])
def test_interval_against_the_exact_bootstrap_distribution(n, confidence):
    c = lib.paired(A[:n], A[:n] + NOISE[:n], confidence=confidence)
    low, high = bootstrap_median_quantiles(A[:n] + NOISE[:n] - A[:n], expanded(n, confidence))
    assert (c.low, c.high) == (low, high)


def test_medians_are_of_pairs():
    c = lib.paired([0.0, 10.0, 20.0], [11.0, 12.0, 13.0])
    # Differences 11, 2, -7: their median is 2 and the difference of the medians too; of these it is not.
    assert (c.median_a, c.median_b, c.difference) == (10.0, 12.0, 2.0)
    c = lib.paired([0.0, 10.0, 20.0], [30.0, 11.0, 12.0])
    assert (c.difference, c.median_b - c.median_a) == (1.0, 2.0)


def test_order_of_seeds_does_not_matter():
    order = np.random.default_rng(3).permutation(10)
    b = A + NOISE
    assert lib.paired(A, b) == lib.paired(A[order], b[order])


def test_swapping_the_arms_flips_the_signs():
    b = A + NOISE + 0.02
    one, two = lib.paired(A, b), lib.paired(b, A)
    assert (one.difference, one.p_value, one.n) == (-two.difference, two.p_value, two.n)
    # The resamples differ, so the ends agree up to the bootstrap's own error.
    np.testing.assert_allclose([one.low, one.high], [-two.high, -two.low], atol=0.2 * (one.high - one.low))
    assert (one.verdict, two.verdict, one.improved + two.improved) == ("better", "worse", 10)


@pytest.mark.parametrize(
    ("shift", "goal", "verdict"),
    [
        (0.03, "max", "better"),
        (-0.03, "max", "worse"),
        (0.03, "min", "worse"),
        (-0.03, "min", "better"),
        (0.0, "max", "no difference shown"),
    ],
)
def test_verdict_on_planted_effects(shift, goal, verdict):
    c = lib.paired(A, A + NOISE - np.median(NOISE) + shift, goal=goal)
    assert c.verdict == verdict
    assert c.difference == pytest.approx(shift, abs=4 * np.finfo(np.float64).eps)
    assert c.low <= c.difference <= c.high


def test_goal_changes_the_improved_seeds_only():
    high, low = lib.paired(A, A + NOISE), lib.paired(A, A + NOISE, goal="min")
    assert high.improved == np.sum(NOISE > 0)
    assert low.improved == np.sum(NOISE < 0)
    assert high[:8] == low[:8]


@pytest.mark.parametrize("n", [5, 7, 9, 11, 13, 21])
def test_coverage_exactly_for_odd_n(n):
    # The median lies outside the k-th smallest and k-th largest of n continuous values if fewer than k of n fair
    # coins fall on one side. Plain percentiles would cover 0.875 at n = 7 and 0.908 at n = 13.
    low, high = lib._interval(np.arange(1.0, n + 1), confidence=0.95, resamples=10_000, seed=0)
    assert low + high == n + 1
    assert 0.93 < 1 - 2 * scipy.stats.binom.cdf(low - 1, n, 0.5) < 0.99


@pytest.mark.parametrize("n", [8, 10])
def test_coverage_by_simulation_for_even_n(n):
    rng = np.random.default_rng(0)
    trials = 400
    ends = [lib._interval(np.sort(rng.normal(size=n)), confidence=0.95, resamples=2000, seed=0) for _ in range(trials)]
    covered = np.mean([low <= 0 <= high for low, high in ends])
    # 0.94 is one standard error below nominal; all values would be covered by an interval of no use.
    assert 0.94 <= covered < 1


@pytest.mark.parametrize("d", [0.0, 0.25])
def test_equal_differences_have_an_interval_of_no_width(d):
    a = np.arange(6.0)
    c = lib.paired(a, a + d)
    assert (c.low, c.difference, c.high) == (d, d, d)
    assert c.verdict == ("better" if d else "no difference shown")
    assert c.p_value == (1.0 if d == 0 else 2 * 0.5**6)
    assert c.share_improved == (0.5 if d == 0 else 1.0)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_few_seeds_get_no_verdict(n):
    c = lib.paired(np.zeros(n), np.ones(n))
    assert c.verdict == lib.TOO_FEW
    assert "too few seeds" in c.verdict
    assert c.n == n
    assert np.isnan(c.low) == (n == 1)


def test_stopped_replicas_are_left_out_and_counted():
    a, b = A.copy(), A + NOISE
    a[1], b[4], b[1] = np.nan, np.inf, np.nan
    c = lib.paired(a, b)
    kept = [0, 2, 3, 5, 6, 7, 8, 9]
    assert (c.n, c.left_out) == (8, 2)
    assert c._replace(left_out=0) == lib.paired(A[kept], (A + NOISE)[kept])
    none = lib.paired([np.nan] * 6, b[:6])
    assert (none.n, none.left_out, none.verdict) == (0, 6, lib.TOO_FEW)
    assert np.isnan(none.difference)


@pytest.mark.parametrize(
    ("a", "b", "options", "match"),
    [
        ([1.0], [1.0, 2.0], {}, r"a has shape \(1,\) and b \(2,\)"),
        ([[1.0]], [[1.0]], {}, "one number a seed"),
        ([1.0], [1.0], {"goal": "up"}, "goal='up'"),
        ([1.0], [1.0], {"confidence": 95}, "confidence=95"),
    ],
)
def test_paired_refuses(a, b, options, match):
    with pytest.raises(ValueError, match=match):
        lib.paired(a, b, **options)


def test_describe_against_scipy():
    described = lib.describe([*A, np.nan, np.inf])
    assert described.n == 10
    assert described.median == pytest.approx(np.median(A))
    assert described.q3 - described.q1 == pytest.approx(scipy.stats.iqr(A))
    assert lib.describe([np.nan]).n == 0


def test_equal_steps_reads_the_last_common_step(write_run):
    results = load_results(write_run())
    reports = results.reports | {"expanded": results.reports["expanded"][:3]}
    for report in (results, results._replace(reports=reports)):
        pairing = lib.pair_reports(report, "expanded", at="equal_steps")
        assert pairing.reference.step == pairing.arm.step == report.reports["expanded"][-1].step
        assert pairing.budget is None


def test_flops_that_are_not_counted_give_no_pair(write_run):
    """Those of one arm or of both: a budget of zero would read the last reports, as at equal steps."""
    results = load_results(write_run())
    for arms in (["expanded"], ["raw", "expanded"]):
        none = {arm: [report._replace(flops=0.0) for report in results.reports[arm]] for arm in arms}
        uncounted = results._replace(reports={**results.reports, **none})
        reason = f"the FLOPs of {' and '.join(arms)} are not counted"
        assert lib.pair_reports(uncounted, "expanded", at="equal_flops") == (None, None, None, reason)
        assert lib.summarise(uncounted)["comparisons"]["equal_flops"][0]["comparison"] is None
        assert lib.pair_reports(uncounted, "expanded", at="equal_steps").reason is None


def test_equal_flops_stays_within_the_budget(write_run):
    results = load_results(write_run())
    pairing = lib.pair_reports(results, "expanded", at="equal_flops")
    # raw spends 4e8 in 400 steps; expanded, at four times the cost, has spent that after 100.
    assert (pairing.budget, pairing.reference.step, pairing.arm.step) == (4e8, 400, 100)
    nudged = [report._replace(flops=report.flops * (1 + 2e-16)) for report in results.reports["expanded"]]
    nudged = results._replace(reports=results.reports | {"expanded": tuple(nudged)})
    assert lib.pair_reports(nudged, "expanded", at="equal_flops").arm.step == 100


def test_a_comparison_that_cannot_be_made_says_why(write_run):
    results = load_results(write_run())

    def summary(**reports):
        return lib.summarise(results._replace(reports=results.reports | reports))["comparisons"]

    late = summary(expanded=results.reports["expanded"][1:])["equal_flops"][0]
    assert late["comparison"] is None
    assert late["reason"] == "expanded has no report within the budget of 4e+08 FLOPs"
    assert "no report of test/accuracy" in summary(expanded=())["equal_steps"][0]["reason"]
    odd = tuple(report._replace(step=report.step + 1) for report in results.reports["expanded"])
    assert "no step at which both report" in summary(expanded=odd)["equal_steps"][0]["reason"]
    with pytest.raises(ValueError, match="at='equal_time'"):
        lib.pair_reports(results, "expanded", at="equal_time")


def test_an_arm_before_its_first_step_is_no_result(write_run):
    results = load_results(write_run())
    start = {arm: reports[0]._replace(step=0, flops=0.0) for arm, reports in results.reports.items()}
    late = {arm: (start[arm], *reports[1:]) for arm, reports in results.reports.items()}
    pairing = lib.pair_reports(results._replace(reports=late), "expanded", at="equal_flops")
    assert pairing.reason == "expanded has no report within the budget of 4e+08 FLOPs"
    only = {arm: (report,) for arm, report in start.items()}
    assert lib.pair_reports(results._replace(reports=only), "expanded", at="equal_steps").reason is not None


def test_reports_without_the_primary_metric_are_passed_over(write_run):
    results = load_results(write_run())
    last = results.reports["raw"][-1]
    bare = last._replace(step=500, flops=5e8, values={"train/loss": last.values["train/loss"]})
    results = results._replace(reports=results.reports | {"raw": (*results.reports["raw"], bare)})
    assert lib.pair_reports(results, "expanded", at="equal_flops").reference.step == 400


def test_summary_agrees_with_its_parts_and_survives_json(write_run):
    workdir = write_run()
    results = load_results(workdir)
    summary = lib.summarise(results)
    assert json.loads(save_summary(workdir, summary).read_text()) == summary
    last = {arm: reports[-1].values["test/accuracy"] for arm, reports in results.reports.items()}
    by_arm = {entry["arm"]: entry for entry in summary["comparisons"]["equal_steps"]}
    assert list(by_arm) == ["expanded", "nearest"]
    for arm, entry in by_arm.items():
        single = lib.paired(last["raw"], last[arm])._asdict()
        assert {name: entry["comparison"][name] for name in single} == single
        assert entry["comparison"]["comparisons"] == 2
        assert summary["arms"][arm]["last_metrics"]["test/accuracy"] == lib.describe(last[arm])._asdict()
    assert by_arm["expanded"]["comparison"]["verdict"] == "better"
    assert by_arm["nearest"]["comparison"]["left_out"] == 1
    assert summary["arms"]["nearest"]["stopped"] == 1
    at_budget = summary["comparisons"]["equal_flops"][0]
    assert at_budget["comparison"]["verdict"] == "worse"
    assert at_budget["read"]["expanded"] == {"step": 100, "epoch": 0.5, "flops": 4e8}
