"""Experiments with closed forms: their configs, one run each to its report and record, and what is refused."""

import pathlib
import runpy

import pytest

from sbjax import config as config_lib
from sbjax.claims import recording, records
from sbjax.experiments.exact import experiment
from sbjax.frame.errors import ConfigError
from sbjax.runner import run as runner

CONFIGS = pathlib.Path(__file__).parents[3] / "configs"


def load(name, words):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](words)


@pytest.mark.parametrize("name", experiment.EXPERIMENTS)
def test_every_experiment_has_a_config(name):
    for words in ("", "smoke"):
        plan = config_lib.read(load(name, words))
        assert plan.experiment.name == "exact"
        assert plan.task.experiment == name
        plan.experiment.prepare(plan)


def test_a_run_becomes_a_report_and_a_record(tmp_path):
    config = load("linear_nets", "smoke")
    config.arms = {"a": {"task": {"layers": 2}}, "b": {"task": {"layers": 3, "width": 1}, "role": "control of depth"}}
    config.reference = "a"
    outcome = runner.run(config, tmp_path / "run")
    page = outcome.report.read_text()
    assert "Components of the weights of linear networks" in page
    assert "met at random" in page
    found = recording.record_of(tmp_path / "run", title="x", table="cells")
    records.check(found)
    assert [row["cells"]["components"] for row in found["rows"]] == [2, 4]
    assert [row.get("mark") for row in found["rows"]] == [None, "control"]
    assert found["rows"][0]["cells"]["path"] < 1e-20
    assert found["columns"][1] == {"key": "layers", "name": "layers", "digits": 7}


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("linear_nets", {"experiment": "linear_net"}, "did you mean 'linear_nets'"),
        ("linear_nets", {"layers": 1}, "task.layers=1 must be >= 2"),
        ("relu_minima", {"part": "search", "k": 26}, "task.k=26 must be <= 25"),
        ("lattice_collision", {"tau": 0.5}, "task.tau=0.5 must be > 0.5"),
        ("lattice_collision", {"method": "averagd"}, "did you mean 'averaged'"),
        ("relu_minima", {"part": "searches"}, "did you mean 'search'"),
    ],
)
def test_refusals(name, task, message):
    config = load(name, "smoke").to_dict()
    config["arms"], config["reference"] = {"one": {}}, "one"
    config["task"] = {**config["task"], **task}
    with pytest.raises(ConfigError, match=message):
        runner.prepare(config_lib.read(config))
