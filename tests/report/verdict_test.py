"""The sentence at the top of a report."""

import numpy as np
import pytest

from sbjax.common.power import smallest_shown
from sbjax.report import statistics
from sbjax.report import verdict as lib
from sbjax.report.results import load_results


def headline(workdir):
    results = load_results(workdir)
    return lib.headline(results, statistics.summarise(results))


@pytest.mark.parametrize(
    ("effect", "start", "verdict"),
    [
        (
            0.05,
            "expanded is better than raw: test/accuracy is higher by 4.96 points (95 % interval [+4.84, +5.22], 8 ",
            "better",
        ),
        (-0.05, "expanded is worse than raw: test/accuracy is lower by 5.04 points (95 % interval [", "worse"),
        (
            0.0,
            "No difference shown between expanded and raw in test/accuracy: median difference -0.04 points (95 % inte",
            "no difference shown",
        ),
    ],
)
def test_good_and_bad_news_are_as_plain(write_run, effect, start, verdict):
    first, control = headline(write_run(effect=effect, stop=False))
    assert first.startswith(start)
    assert f"corrected for 2 comparisons: {verdict}" in first
    assert ("could have shown is about 0.2" in first) == (effect == 0)
    assert control.startswith("Against nearest (control of resolution), expanded ")


def test_several_treatments_of_which_less_is_better(write_member):
    first, *others = headline(write_member("heat"))
    assert first == (
        "test/l2 of 2 treatments minus raw, at equal steps: better: expanded (-0.000851, not once corrected); worse: "
        "none; no difference shown: ones (+0) (6 seeds)."
    )
    assert others[0].startswith("expanded is better than raw: test/l2 is lower by 0.000851 (")
    assert [text.split(":")[0] for text in others[2:]] == [
        "Against matched_bias (control of starting bias and step), expanded shows no difference",
        "Against widened (control of first-layer size), expanded is better",
    ]


def test_what_is_corrected_is_said(write_run):
    results = load_results(write_run())
    summary = statistics.summarise(results)
    entry = summary["comparisons"]["equal_steps"][0]
    entry["comparison"]["verdict_corrected"] = "no difference shown"
    assert "corrected for 2 comparisons: no difference shown" in lib.sentence(summary, entry)
    assert lib.named("expanded", "test/accuracy", entry["comparison"]) == "expanded (+4.96, not once corrected)"
    alone = entry | {"comparison": entry["comparison"] | {"comparisons": 1}}
    assert "the only comparison" in lib.sentence(summary, alone)
    lost = entry | {"comparison": None, "reason": "expanded has no report"}
    assert lib.sentence(summary, lost).endswith("not compared in test/accuracy: expanded has no report.")


def test_the_smallest_difference_is_shown_in_four_of_five_runs():
    """Planted at the size that the formula gives, a difference gets the verdict in about that share of runs."""
    rng, n = np.random.default_rng(0), 12
    zero = np.zeros(n)
    null = [statistics.paired(zero, rng.normal(size=n), resamples=500) for _ in range(120)]
    least = np.median([smallest_shown(one.low, one.high) for one in null])
    shown = [statistics.paired(zero, least + rng.normal(size=n), resamples=500).verdict for _ in range(120)]
    assert 0.68 < shown.count("better") / len(shown) < 0.92


def test_what_has_no_interval_has_no_smallest_difference():
    assert np.isnan(smallest_shown(None, 1.0))
    with pytest.raises(ValueError, match=r"power=0.5 must lie between 0.5 and 1"):
        smallest_shown(0.0, 1.0, power=0.5)
