"""When a training reports and saves."""

import numpy as np
import pytest

from sbjax.training.timeline import boundaries, make_timeline


def test_boundaries():
    for steps in (1, 7, 100):
        for count in (1, 3, 7, 200):
            found = boundaries(steps, count)
            assert found[-1] == steps
            assert len(found) == min(count, steps)
            assert found[0] >= 1
            assert max(np.diff([0, *found])) - min(np.diff([0, *found])) <= 1
    assert boundaries(10, 10**12) == list(range(1, 11))  # at once


@pytest.mark.parametrize(
    ("phases", "options", "reports", "saves"),
    [
        ([30], {"reports": 5}, [6, 12, 18, 24, 30], [30]),
        ([30], {"reports": 5, "saves": 2}, [6, 12, 18, 24, 30], [18, 30]),
        ([20, 10], {"reports": 3, "saves": 3}, [10, 20, 30], [10, 20, 30]),
        ([25, 5], {"reports": 3, "saves": 2}, [10, 20, 25, 30], [20, 30]),  # 15 moves to the next report
        ([30], {"reports": 2, "monitor_steps": (0, 7, 30)}, [7, 15, 30], [30]),
        ([30], {"reports": 3, "extend_steps": 1}, [10, 20, 30, 31], [30, 31]),
        ([30], {"reports": 3, "saves": 3, "extend_steps": 20}, [10, 20, 30, 40, 50], [10, 20, 30, 40, 50]),
        ([30], {"reports": 2, "extend_steps": 60, "monitor_steps": (30, 33)}, [15, 30, 33, 45, 60, 75, 90], [30, 90]),
    ],
)  # fmt: skip
def test_reports_and_saves(phases, options, reports, saves):
    timeline = make_timeline(phases, **options)
    assert list(timeline.reports) == reports
    assert sorted(timeline.saves) == saves
    assert timeline.steps == timeline.ends[-1] == reports[-1]
    assert [timeline.next_report(step) for step in range(timeline.steps)] == [
        min(report for report in reports if report > step) for step in range(timeline.steps)
    ]


def test_phases_of_steps():
    timeline = make_timeline([20, 10], reports=1, extend_steps=5)
    assert timeline.ends == (20, 35)
    assert [timeline.phase(step) for step in (0, 1, 20, 21, 30, 35)] == [0, 0, 0, 1, 1, 1]


def test_an_extension_changes_nothing_before_it():
    """Whatever the numbers: up to the old end reports and saves are those of the training as it was planned."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        phases = [int(n) for n in rng.integers(1, 60, rng.integers(1, 3))]
        planned = sum(phases)
        options = {
            "reports": int(rng.integers(1, 20)),
            "saves": int(rng.integers(0, 20)),
            "monitor_steps": tuple(int(n) for n in rng.integers(0, planned + 1, 3)),
        }
        more = int(rng.integers(1, 100))
        short, long = make_timeline(phases, **options), make_timeline(phases, extend_steps=more, **options)
        assert [step for step in long.reports if step <= planned] == list(short.reports)
        assert {step for step in long.saves if step <= planned} == short.saves
        new = [step for step in long.reports if step > planned]
        assert new[-1] == planned + more
        assert len(new) == min(more, max(1, round(options["reports"] * more / planned)))


@pytest.mark.parametrize(
    ("phases", "options", "words"),
    [
        ([0], {}, "^steps=0 must be >= 1"),
        ([5, 0], {}, "^second_phase.steps=0 must be >= 1"),
        ([5], {"reports": 0}, "^reports=0 must be >= 1"),
        ([5], {"extend_steps": -1}, "^extend_steps=-1 must be >= 0"),
        ([5, 5], {"extend_steps": 5, "monitor_steps": (-1, 15, 16)}, r"^monitor_steps=\[-1, 16\] lie outside"),
    ],
)  # fmt: skip
def test_refusals(phases, options, words):
    with pytest.raises(ValueError, match=words):
        make_timeline(phases, **{"reports": 1, **options})
