"""One run's report: all errors paired, and seconds beside those of a classical solver."""

import json
import re

import pytest

from sbjax.experiments.pinn.report import section
from sbjax.experiments.pinn.suite_statistics import CONTROLS
from sbjax.report.results import load_results


def rows_of(workdir):
    page = "\n".join(section(load_results(workdir), workdir))
    return page, [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]


def test_errors_and_loss_are_paired_by_seed(write_member):
    """As planted: `expanded` and `matched` have a tenth of the error, seed by seed, and a hundredth of the loss."""
    _, rows = rows_of(write_member("alone"))
    found = {tuple(row[:3]): row[3:] for row in rows if len(row) == 11}
    pairs = [
        *((arm, "raw") for arm in ("expanded", "ones", "matched", "widened")),
        *(("expanded", c) for c in CONTROLS),
    ]
    assert list(found) == [(metric, *pair) for metric in ("test/l2", "train/loss") for pair in pairs]
    compared = ["-1.00", "[-1.00, -1.00]", "0.0312", "6/6", "0", "better"]
    assert found["test/l2", "expanded", "raw"][2:] == compared
    assert found["train/loss", "expanded", "raw"][2] == "-2.00"
    assert found["test/l2", "expanded", "matched"][2] == "+0.00"
    assert found["test/l2", "expanded", "widened"][2] == "-1.00"


def test_seconds_beside_a_classical_solver(write_member):
    workdir = write_member("alone", seconds=6.0)
    page, rows = rows_of(workdir)
    reached = {row[1]: row[2:] for row in rows if len(row) == 7 and row[0] == "heat"}
    # Median errors fall by ten a report, one report in two seconds; `expanded` is a decade ahead.
    assert reached["0.0001"] == ["-", "6", "-", "6", "-"]
    assert "<th>classical</th>" not in page
    (workdir / "classical.json").write_text(json.dumps({"heat": {"1e-2": 0.25, "1e-9": None}}))
    page, rows = rows_of(workdir)
    reached = {row[1]: row[2:] for row in rows if len(row) == 8 and row[0] == "heat"}
    assert (reached["0.01"][-1], reached["1e-09"]) == ("0.25", ["-"] * 6)
    (workdir / "classical.json").write_text("{")
    with pytest.raises(ValueError, match=r"classical\.json cannot be used"):
        rows_of(workdir)


def test_one_arm_has_nothing_to_compare_and_other_runs_have_no_section(write_member, write_run):
    page, _ = rows_of(write_member("one", factors={"raw": 1.0}))
    assert "Time to an error" in page
    assert "Errors and loss" not in page
    assert rows_of(write_run()) == ("", [])
