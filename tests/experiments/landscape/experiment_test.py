"""The frame of the experiments: configs, arms that are kept, and what is refused."""

import json
import pathlib
import runpy

import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax.common.options import describe
from sbjax.experiments.landscape import arm_results, counts, experiment
from sbjax.frame.errors import ConfigError
from sbjax.runner import run as runner
from sbjax.runner.signals import Interrupted

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "landscape.py"


def load(words):
    return runpy.run_path(str(CONFIG))["get_config"](words)


@pytest.mark.parametrize("name", experiment.EXPERIMENTS)
def test_every_experiment_has_a_config(name):
    own = experiment.EXPERIMENT.select({"experiment": name})
    assert {path.removeprefix("task.") for path in own.smoke} <= set(describe(own.fields))
    for words in (name, f"{name},quick", f"{name},smoke"):
        plan = config_lib.read(load(words))
        assert plan.task.experiment == plan.settings["task"]["experiment"] == name
        assert plan.replicas == 2 or "smoke" not in words


@pytest.mark.extended
def test_an_arm_that_is_finished_is_kept(tmp_path, monkeypatch):
    """Stopped in the second arm, and taken up there."""
    config = load("counts,smoke")
    config.arms = {f"r{r}": {"task": {"widths": (r,), "widest": r + 3}} for r in (2, 3)}
    config.reference = "r2"
    calls, original = [], counts.run_arm

    def interrupted(plan, arm, *rest):
        calls.append(arm.task.widths)
        return original(plan, arm, *rest) if arm.task.widths == (2,) or len(calls) > 2 else None

    monkeypatch.setattr(counts.EXPERIMENT, "run_arm", interrupted)
    plan = config_lib.read(config)
    folder = runner.open_workdir(plan, tmp_path / "run")
    folder.open(overrides=[], config_file=None)
    with runner.precision(plan.precision):
        assert not plan.experiment.run(plan, folder, stop=lambda: False)
        assert not plan.experiment.run(plan, folder, stop=lambda: True)
    folder.close()
    assert calls == [(2,), (3,)]
    before = (tmp_path / "run" / "landscape" / "r2.json").read_bytes()
    outcome = runner.run(config, tmp_path / "run")
    assert calls == [(2,), (3,), (3,)]
    assert (tmp_path / "run" / "landscape" / "r2.json").read_bytes() == before
    assert outcome.status == "done"
    assert outcome.summary["arms"]["r3"]["last_metrics"]["path/loss"]["median"] < 1e-25
    page = outcome.report.read_text()
    assert "Subspaces and paths" in page
    names = {"counts", "count_ratios", "intersection_graphs", "path_losses"}
    assert {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")} >= names


def test_a_run_that_is_stopped_says_what_is_kept(tmp_path, monkeypatch):
    import os
    import signal

    config = load("counts,smoke")
    config.arms, config.reference = {"r2": {"task": {"widths": (2,), "widest": 5}}}, "r2"

    def stopped(plan, arm, key, log, stop):
        os.kill(os.getpid(), signal.SIGTERM)
        return None

    monkeypatch.setattr(counts.EXPERIMENT, "run_arm", stopped)
    with pytest.raises(
        Interrupted, match=r"stopped by SIGTERM. Arms that were finished are kept in landscape/"
    ) as stop:
        runner.run(config, tmp_path / "run")
    assert stop.value.exit_code == 128 + signal.SIGTERM
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "interrupted"


def test_results_of_arms_survive_the_disk(tmp_path):
    result = arm_results.ArmResult(
        {"loss": [1e-300, 0.1, np.nan]}, {"kinds": {"minimum": 3}}, {"w": np.arange(6.0).reshape(2, 3)}, 9,
        {10: {"loss": [1.0, 2.0, 3.0]}, 2: {"loss": [4.0, 5.0, 6.0]}},
    )  # fmt: skip
    assert arm_results.load_arm(tmp_path, "m4") is None
    arm_results.save_arm(tmp_path, "m4", result)
    found = arm_results.load_arm(tmp_path, "m4")
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
    ("counts", {"train_steps": 0, "train_epochs": 1.0}, "train_epochs=1.0 has no effect"),
    ("two_layer", {"task": {"activation": "sigmoids"}}, "did you mean 'sigmoid'"),
    ("two_layer", {"arms": {"m04": {"task": {"width": 0}}}}, "arms.m04.task.width=0 must be >= 1"),
    ("two_layer", {"optimizer": {"name": "nonsense"}}, "optimizer.name='nonsense' has no effect with task.kind='lands"),
    ("two_layer", {"model": {"name": "nonsense"}}, "model.name='nonsense' has no effect"),
    ("two_layer", {"monitor": {"kinds": "nonsense"}}, "monitor.kinds='nonsense' has no effect"),
    ("two_layer", {"second_phase": {"steps": 7}}, "second_phase.steps=7 has no effect"),
    ("two_layer", {"checkpoint": {"keep_best": 3}}, "checkpoint.keep_best=3 has no effect"),
    ("counts", {"arms": {"r4": {}, "b": {"expansion": {"kind": "vector"}}}}, "arms.b.expansion has no effect"),
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
    with pytest.raises(ConfigError, match=message):
        runner.prepare(config_lib.read(config))


def test_words_that_do_not_go_together():
    assert load("two_layer,g").task.activation == "g"
    with pytest.raises(ConfigError, match="not with deep"):
        load("deep,g")
