"""Shares of runs that improve, counted by hand; their intervals: tests/metrics/shares_test.py."""

import numpy as np
import pytest

from sbjax.experiments.pinn import suite_statistics as lib


def row(median, reference, *, improved, n=10, tied=0):
    return {
        "reason": None, "median": median, "reference_median": reference, "n": n,
        "improved": improved, "tied": tied, "left_out": 10 - n,
    }  # fmt: skip


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


@pytest.mark.parametrize(("good", "verdict"), [(15, "better"), (0, "worse"), (8, "no difference shown")])
def test_verdicts(good, verdict):
    rows = [row(0.5, 1.0, improved=10) if i < good else row(2.0, 1.0, improved=0) for i in range(15)]
    assert lib.read(rows, "min")["verdict"] == verdict
