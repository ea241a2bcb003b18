"""Several equations from one config: each a run of its own, resumed one by one, and one report."""

import json
import pathlib
import runpy
import subprocess
import sys

import pytest

from sbjax import suite
from sbjax.config import ConfigError

ROOT = pathlib.Path(__file__).parents[1]


def two_equations():
    config = runpy.run_path(str(ROOT / "configs" / "pdes.py"))["get_config"]("all,smoke")
    config.suite = {name: config.suite[name] for name in ("poisson", "euler_beam")}
    for name in config.suite:
        config.suite[name].arms = {arm: config.suite[name].arms[arm] for arm in ("raw", "ones")}
    config.model.widths = (6, 6)
    config.finish.steps = 0
    return config


def test_members_are_complete_configurations():
    config = runpy.run_path(str(ROOT / "configs" / "pdes.py"))["get_config"]("all")
    found = suite.members(config)
    assert len(found) == 15
    assert found["heat"]["task"]["equation"] == "heat"
    assert found["heat"]["task"]["points"] == 2000
    assert list(found["heat"]["arms"]) == ["raw", "expanded", "matched", "ones", "widened"]
    # One coordinate less is fewer weights to make up for.
    widths = [found[name]["arms"]["widened"]["model"]["widths"] for name in ("poisson", "heat")]
    assert [tuple(w) for w in widths] == [(36, 32, 32), (36, 32, 32)]


def test_an_entry_that_cannot_be_run_is_named():
    config = two_equations()
    config.suite.poisson.task.equation = "poison"
    with pytest.raises(ConfigError, match="'poison' is unknown, did you mean 'poisson'"):
        suite.run(config, "/tmp/never-written")
    config.suite.poisson.task = {"equatoin": "poisson"}
    with pytest.raises(ConfigError, match=r"suite.poisson: task.equatoin='poisson' is unknown"):
        suite.members(config)
    assert not pathlib.Path("/tmp/never-written").exists()


@pytest.mark.slow
def test_a_suite_goes_on_where_it_stopped(tmp_path):
    """The second run of a suite that has one of two equations trains the other one alone."""
    config, folder = two_equations(), tmp_path / "suite"
    alone = suite.members(config)["poisson"]
    suite.run(alone, folder / "poisson")
    before = (folder / "poisson" / "metrics.jsonl").stat().st_mtime_ns
    outcome = suite.run(config, folder)
    assert outcome.status == "done"
    assert (folder / "poisson" / "metrics.jsonl").stat().st_mtime_ns == before
    assert "euler_beam" in outcome.table
    page = outcome.report.read_text()
    assert 'href="poisson/report.html"' in page
    for name in ("poisson", "euler_beam"):
        assert {path.stem for path in (folder / name / "grids").iterdir()} == {"raw", "ones"}
    # The report script knows a suite, and what it writes again is the same.
    bytes_before = outcome.report.read_bytes()
    run = subprocess.run(
        [sys.executable, ROOT / "runs" / "report.py", f"--workdir={folder}"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert outcome.report.read_bytes() == bytes_before
    suite.report(folder, classical=True)
    seconds = json.loads((folder / "classical.json").read_text())
    assert 0 < seconds["poisson"]["1e-07"] < 1
    assert "classical" in outcome.report.read_text()
