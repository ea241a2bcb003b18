"""One run's report: all errors paired, and seconds beside those of a classical solver."""

import json

import pytest

from sbjax.experiments.pinn.report import report
from sbjax.report.results import load_results


def sections_of(workdir):
    return {section.title: section for section in report(load_results(workdir), workdir)}


def test_errors_and_loss_are_paired_by_seed(write_member):
    """As planted: `expanded` and `matched_bias` have a tenth of raw's error, and a hundredth of its loss."""
    (table,) = sections_of(write_member("alone"))["Errors and loss at the end"].tables
    found = {row[:3]: row[3:] for row in table.rows}
    pairs = [
        *((arm, "raw") for arm in ("expanded", "ones", "matched_bias", "widened")),
        *(("expanded", control) for control in ("matched_bias", "widened")),
    ]
    assert list(found) == [(metric, *pair) for metric in ("test/l2", "train/loss") for pair in pairs]
    compared = (
        "-1.00",
        "[-1.00, -1.00]",
        "0.0312",
        "6/6",
        "0",
        "better",
        "too few seeds for a verdict among 6 (fewer than 8)",
    )
    assert found["test/l2", "expanded", "raw"][2:] == compared
    assert found["train/loss", "expanded", "raw"][2] == "-2.00"
    assert found["test/l2", "expanded", "matched_bias"][2] == "+0.00"
    assert found["test/l2", "expanded", "widened"][2] == "-1.00"


def test_seconds_beside_a_classical_solver(write_member):
    workdir = write_member("alone", seconds=6.0)
    (table,) = sections_of(workdir)["Time to an error"].tables
    # Median errors fall by ten a report, one report in two seconds; `expanded` is a decade ahead.
    assert {row[1]: row[2:] for row in table.rows}["0.0001"] == ("-", "6", "-", "6", "-")
    assert "classical" not in table.headers
    (workdir / "classical.json").write_text(json.dumps({"heat": {"1e-2": 0.25, "1e-9": None}}))
    (table,) = sections_of(workdir)["Time to an error"].tables
    assert table.headers[-1] == "classical"
    reached = {row[1]: row[2:] for row in table.rows}
    assert (reached["0.01"][-1], reached["1e-09"]) == ("0.25", ("-",) * 6)
    (workdir / "classical.json").write_text("{")
    with pytest.raises(ValueError, match=r"classical\.json.*measure again"):
        sections_of(workdir)


def test_one_arm_has_nothing_to_compare(write_member):
    found = sections_of(write_member("one", factors={"raw": 1.0}, shape=(9, 7)))
    assert found["Time to an error"].parts
    assert not found["Errors and loss at the end"].parts
    assert [figure.name for figure in found["Solutions"].figures] == ["solution_maps"]
