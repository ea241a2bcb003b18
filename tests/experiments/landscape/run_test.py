"""The frame of the experiments: configs, arms that are kept, and what is refused."""

import importlib
import json
import pathlib
import runpy

import numpy as np
import pytest

from sbjax.experiments.landscape import counts, counts_report, run
from sbjax.experiments.landscape import experiment as landscape
from sbjax.experiments.landscape.report import REPORTS
from sbjax.frame import config as config_lib
from sbjax.runner import run as experiment

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "landscape.py"


def load(words):
    return runpy.run_path(str(CONFIG))["get_config"](words)


@pytest.mark.parametrize("name", landscape.EXPERIMENTS)
def test_every_experiment_has_a_config(name):
    module = landscape.load_experiment(name)
    assert set(module.SMOKE) <= set(module.FIELDS)
    assert callable(importlib.import_module(REPORTS[name]).report)
    for words in (name, f"{name},quick", f"{name},smoke"):
        settings = config_lib.check(load(words))
        assert settings["task"]["experiment"] == name
        assert settings["replicas"] == 2 or "smoke" not in words


def test_an_arm_that_is_finished_is_kept(tmp_path, monkeypatch):
    """Stopped in the second arm, and taken up there."""
    config = load("counts,smoke")
    config.arms = {f"r{r}": {"task": {"widths": (r,), "widest": r + 3}} for r in (2, 3)}
    config.reference = "r2"
    calls, original = [], counts.run_arm

    def interrupted(settings, own, *rest):
        calls.append(own["task"]["widths"])
        return original(settings, own, *rest) if own["task"]["widths"] == (2,) or len(calls) > 2 else None

    monkeypatch.setattr(counts, "run_arm", interrupted)
    folder = experiment.Workdir(tmp_path / "run", config_lib.check(config))
    folder.open(overrides=[], config_file=None)
    with experiment.precision({"matmul": "highest", "x64": True}):
        assert not run.run(folder, config_lib.check(config), stop=lambda: False)
        assert not run.run(folder, config_lib.check(config), stop=lambda: True)
    folder.close()
    assert calls == [(2,), (3,)]
    before = (tmp_path / "run" / "landscape" / "r2.json").read_bytes()
    outcome = experiment.run(config, tmp_path / "run")
    assert calls == [(2,), (3,), (3,)]
    assert (tmp_path / "run" / "landscape" / "r2.json").read_bytes() == before
    assert outcome.status == "done"
    assert outcome.summary["arms"]["r3"]["last_metrics"]["path_loss"]["median"] < 1e-25
    page = outcome.report.read_text()
    assert "Subspaces and paths" in page
    assert {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")} >= set(counts_report.CAPTIONS)
    assert all(caption in page for caption in counts_report.CAPTIONS.values())


def test_results_of_arms_survive_the_disk(tmp_path):
    result = landscape.ArmResult(
        {"loss": [1e-300, 0.1, np.nan]}, {"kinds": {"minimum": 3}}, {"w": np.arange(6.0).reshape(2, 3)}, 9,
        {10: {"loss": [1.0, 2.0, 3.0]}, 2: {"loss": [4.0, 5.0, 6.0]}},
    )  # fmt: skip
    assert landscape.load_arm(tmp_path, "m4") is None
    landscape.save_arm(tmp_path, "m4", result)
    found = landscape.load_arm(tmp_path, "m4")
    assert found.metrics == {"loss": [1e-300, 0.1, None]}
    assert (found.summary, found.parameters, found.history) == (result.summary, 9, result.history)
    np.testing.assert_array_equal(found.arrays["w"], result.arrays["w"])
    json.loads((tmp_path / "landscape" / "m4.json").read_text())


REFUSED = [
    ("counts", {"task": {"experiment": "count"}}, r"'count' is unknown, did you mean 'counts'"),
    ("counts", {"task": {"sides": 3}}, r"task.sides=3 is unknown, did you mean 'side'"),
    ("counts", {"task": {"widths": (4, 1)}}, r"arm 'r4': task.widths=\(4, 1\) must be whole numbers >= 2"),
    ("counts", {"task": {"widest": 4}}, "task.widest=4 must be above 4"),
    ("counts", {"precision": {"x64": False}}, "precision.x64=False"),
    ("counts", {"train_steps": 0, "train_epochs": 1.0}, "give train_steps"),
    ("two_layer", {"task": {"activation": "sigmoids"}}, "did you mean 'sigmoid'"),
    ("two_layer", {"arms": {"m04": {"task": {"width": 0}}}}, "arm 'm04': task.width=0 must be >= 1"),
    ("deep", {"task": {"learning_rate": 0.0}}, "task.learning_rate=0.0 must be > 0"),
    ("deep", {"arms": {"m04": {"task": {"experiment": "counts"}}}}, "task.experiment='counts' must be 'deep'"),
]


@pytest.mark.parametrize(("name", "changes", "message"), REFUSED)
def test_refusals(name, changes, message):
    config = load(f"{name},smoke").to_dict()
    if name == "counts":
        config["arms"] = {"r4": {}}
    for field, value in changes.items():
        config[field] = {**config[field], **value} if isinstance(value, dict) and field != "arms" else value
    with pytest.raises(config_lib.ConfigError, match=message):
        run.check(config_lib.check(config))


def test_words_that_do_not_go_together():
    assert load("two_layer,g").task.activation == "g"
    with pytest.raises(config_lib.ConfigError, match="not with deep"):
        load("deep,g")
