"""Rankings and rank correlations against scipy, and against planted orders."""

import itertools

import numpy as np
import pytest
import scipy.stats

from sbjax.report import ranking as lib
from sbjax.report import ranking_page
from sbjax.report.results import Report, Results


def make_results(measures, accuracies, *, name="replica_distance/marginal"):
    """A run with one report an arm: a measure and four replicas of an accuracy for every arm."""
    arms = tuple(measures)
    numbers = {arm: {name: {"value": x, "low": x, "high": x}} for arm, x in measures.items()}
    reports = {
        arm: (
            Report(
                10,
                1.0,
                1e3,
                {split: np.array([accuracies[arm]] * 4) for split in ("validation/accuracy", "test/accuracy")},
                numbers[arm],
            ),
        )
        for arm in arms
    }
    return Results(
        arms=arms,
        reference=arms[0],
        primary="test/accuracy",
        goal="max",
        replicas=4,
        reports=reports,
        parameters={arm: 100 + i for i, arm in enumerate(arms)},
        flops_per_step={arm: 1e3 for arm in arms},
        steps={arm: 10 for arm in arms},
        failures=(),
        metrics=numbers,
        roles=dict.fromkeys(arms, "treatment") | {arms[0]: "reference"},
        labels={arm: {} for arm in arms},
        config={},
        environment={},
        overrides=(),
        config_file=None,
    )


ARMS = [f"design_{i}" for i in range(8)]


@pytest.mark.parametrize("seed", range(4))
def test_spearman_agrees_with_scipy(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=12), rng.integers(0, 5, size=12)  # with ties
    rho, p = lib.spearman(x, y)
    expected = scipy.stats.spearmanr(x, y)
    np.testing.assert_allclose(rho.value, expected.statistic, rtol=1e-12)
    assert rho.low <= rho.value <= rho.high
    assert abs(p - expected.pvalue) < 0.05


def test_interval_covers_the_correlation_of_a_known_law():
    """Two normals of correlation r have Spearman's rho (6/pi) asin(r/2)."""
    rng, r = np.random.default_rng(0), 0.6
    truth = 6 / np.pi * np.arcsin(r / 2)
    hits = 0
    for _ in range(150):
        x = rng.normal(size=20)
        rho, _ = lib.spearman(x, r * x + np.sqrt(1 - r**2) * rng.normal(size=20), resamples=400)
        hits += rho.low <= truth <= rho.high
    assert 0.85 < hits / 150 <= 1


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_both_ends_of_the_interval_are_scipys(confidence):
    rng = np.random.default_rng(1)
    x = rng.normal(size=15)
    y = x + rng.normal(size=15)

    def statistic(x, y, axis):
        x, y = (scipy.stats.zscore(scipy.stats.rankdata(side, axis=axis), axis=axis) for side in (x, y))
        return (x * y).mean(axis)

    expected = scipy.stats.bootstrap(
        (x, y), statistic, paired=True, method="percentile", confidence_level=confidence, rng=np.random.default_rng(2)
    ).confidence_interval
    rho, _ = lib.spearman(x, y, confidence=confidence, resamples=9999)
    np.testing.assert_allclose((rho.low, rho.high), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("sign", [1, -1])
def test_p_is_the_share_of_all_orders_that_are_as_far(sign):
    """Two-sided, ties with the value count, and the order itself is one of them."""
    x, y = np.arange(6), sign * np.array([0, 1, 3, 5, 4, 2])
    value = scipy.stats.spearmanr(x, y).statistic
    every = [scipy.stats.spearmanr(x, order).statistic for order in itertools.permutations(x)]
    exact = np.mean(np.abs(every) >= abs(value) - 1e-12)
    assert np.mean(np.abs(every) > abs(value) + 1e-12) < exact - 0.02
    assert lib.spearman(x, y, resamples=5000)[1] == pytest.approx(exact, abs=5 * np.sqrt(exact / 5000))
    assert lib.spearman(x, y, resamples=1)[1] in (0.5, 1.0)


def test_constant_side_has_no_correlation():
    rho, p = lib.spearman([1.0] * 6, range(6))
    assert np.isnan([*rho, p]).all()


def test_ranking_puts_the_smallest_distance_first():
    results = make_results(dict(zip(ARMS, [3, 1, 2, 8, 7, 6, 5, 4])), dict.fromkeys(ARMS, 0.9))
    rows = lib.rank(results, "marginal")
    assert [row.arm for row in rows] == [f"design_{i}" for i in (1, 2, 0, 7, 6, 5, 4, 3)]
    table = lib.ranking_table(rows, by="marginal", primary="test/accuracy")
    assert table.index("design_1") < table.index("design_3")
    assert "95 % intervals over replicas; read beside accuracy" in " ".join(table.split())
    few = [row._replace(distance=row.distance | {"low": None, "high": None}) for row in rows[1:]]
    said = " ".join(lib.ranking_table(few, by="marginal", primary="test/accuracy", arms=results.arms).split())
    assert "no intervals, which take 4 replicas that finished and a distance of each pair" in said
    assert "not ranked, since a distance takes two replicas that finished: design_1" in said
    with pytest.raises(ValueError, match="by='matched' was not measured in this run; measured: marginal"):
        lib.rank(results, "matched")


def test_planted_order_is_found_and_controls_stand_beside():
    accuracy = dict(zip(ARMS, np.linspace(0.5, 0.9, 8)))
    early = make_results(dict(zip(ARMS, range(8, 0, -1))), dict.fromkeys(ARMS, 0.3))
    found = {row.measure: row for row in lib.correlate(early, make_results(dict.fromkeys(ARMS, 1), accuracy))}
    assert found["replica_distance/marginal"].rho.value == pytest.approx(-1)
    assert found["replica_distance/marginal"].p_value < 0.01
    assert found["parameters"].rho.value == pytest.approx(1)
    assert np.isnan(found["validation/accuracy"].rho.value)  # the same in every early run
    table = lib.correlation_table(list(found.values()), primary="test/accuracy")
    assert "marginal" in table
    assert "parameters" in table


def test_too_few_designs_in_common():
    one = make_results(dict.fromkeys(ARMS, 1), dict.fromkeys(ARMS, 1))
    other = make_results(dict.fromkeys(["design_0", "b", "c"], 1), dict.fromkeys(["design_0", "b", "c"], 1))
    with pytest.raises(ValueError, match=r"1 designs in common \(design_0\)"):
        lib.correlate(one, other)


def test_the_page_says_the_verdict_first(tmp_path):
    """Then the ranking, then pictures with words; the same input gives the same bytes."""
    values = dict(zip(ARMS, [3, 1, 2, 8, 7, 6, 5, 4]))
    early = make_results(values, dict.fromkeys(ARMS, 0.3))
    full = make_results(dict.fromkeys(ARMS, 1), {arm: 0.9 - 0.05 * values[arm] for arm in ARMS})
    rows, found = lib.rank(early, "marginal"), lib.correlate(early, full)
    options = {"by": "marginal", "found": found, "full": full, "kinds": ["marginal"]}
    page, drawn = ranking_page.save_ranking(tmp_path, early, rows, **options)
    text = page.read_text()
    said = [
        '<p class="lead">Of 8 designs, design_1 has the smallest marginal distance between replicas, 1 [1, 1], and '
        "design_3 the largest, 8 [8, 8]. Intervals of neighbours overlap in 0 of 7 places",
        "Designs whose replicas lie closer together end up more accurate in test/accuracy of the full runs (rho -1",
        '<tr><th scope="row">design_1</th>',
        "All numbers of the ranking",
        'role="img" aria-label="',
        "Correlation with the full runs",
        'href="report.html"',
    ]
    places = [text.index(piece) for piece in said]
    assert places == sorted(places)
    assert [path.name for path in drawn] == ["ranking.png", "rank_correlation.png"]
    assert all(path.stat().st_size > 1000 for path in drawn)
    assert ranking_page.save_ranking(tmp_path, early, rows, **options)[0].read_text() == text
    alone, _ = ranking_page.save_ranking(tmp_path, early, rows, by="marginal")
    assert "full runs" not in alone.read_text()


def test_what_a_ranking_does_not_show():
    """Intervals that meet, none at all, one design, a correlation that may be chance."""
    wide = make_results(dict(zip(ARMS, range(1, 9))), dict.fromkeys(ARMS, 0.5))
    rows = [row._replace(distance=row.distance | {"low": 0.0, "high": 9.0}) for row in lib.rank(wide, "marginal")]
    assert "overlap in 7 of 7 places" in ranking_page.ranking_sentence(rows, by="marginal")
    bare = [row._replace(distance=row.distance | {"low": None, "high": None}) for row in rows]
    assert "Without intervals, which take 4 replicas" in ranking_page.ranking_sentence(bare, by="marginal")
    assert "nothing to rank" in ranking_page.ranking_sentence(rows[:1], by="marginal")
    accuracy = dict(zip(ARMS, [0.1, 0.2, 0.1, 0.3, 0.2, 0.1, 0.3, 0.15]))
    found = lib.correlate(wide, make_results(dict.fromkeys(ARMS, 1), accuracy))
    said = ranking_page.correlation_sentence(found, by="marginal", primary="test/accuracy")
    assert said.startswith("No rank correlation shown")
    said = ranking_page.correlation_sentence(found, by="matched", primary="test/accuracy")
    assert said.endswith("not measured in enough designs.")


def test_figures_are_drawn():
    results = make_results(dict(zip(ARMS, range(8))), dict(zip(ARMS, np.linspace(0.5, 0.9, 8))))
    rows = lib.rank(results, "marginal")
    assert len(lib.ranking_figure(rows, by="marginal").axes[0].get_yticklabels()) == 8
    panel = lib.correlation_figure(results, results, ["marginal"]).axes[0]
    assert sorted(text.get_text() for text in panel.texts) == [str(i) for i in range(1, 9)]
