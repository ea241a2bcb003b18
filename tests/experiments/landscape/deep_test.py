"""Deep students from a config to a report; derivatives: tests/landscape/students_test.py."""

import pathlib
import runpy

import pytest

from sbjax.experiments.landscape import deep_report as report
from sbjax.runner import run as experiment

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "landscape.py"


@pytest.mark.extended
def test_smoke_runs_to_its_report(tmp_path):
    config = runpy.run_path(str(CONFIG))["get_config"]("deep,smoke")
    outcome = experiment.run(config, tmp_path / "run")
    assert outcome.status == "done"
    assert outcome.summary["arms"]["m04"]["parameters"] == 2 * 4 + 4 + 2 * (4 * 4 + 4) + 4 + 1
    assert "Deep students" in outcome.report.read_text()
    assert {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")} >= set(report.CAPTIONS)


def test_table():
    summary = {
        "width": 5,
        "shares": {bar: {"value": 0.25, "low": 0.1, "high": 0.4} for bar in ("1e-14", "1e-20")},
        "quantiles": {"0": 1e-30, "0.25": 1e-9, "0.5": None, "0.75": 2.0, "1": 3.0},
        "critical": 0.5,
    }
    (row,) = report.students_table({"m5": summary}).rows
    assert row == ("m5", "5", *["0.25 [0.1, 0.4]"] * 2, "1e-30", "1e-09", "-", "2", "3", "0.5")
