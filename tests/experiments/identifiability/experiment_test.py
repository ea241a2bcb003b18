"""Identifiability from a config to the report; arms may differ in their data."""

import pathlib
import runpy

import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax.experiments.connectivity.report import load_lines
from sbjax.frame.errors import ConfigError
from sbjax.runner import run as runner

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "identifiability.py"


def config(words, arms=None):
    made = runpy.run_path(str(CONFIG))["get_config"](words)
    if arms:
        made.arms = {arm: made.arms[arm] for arm in arms}
    return made


def test_a_run_measures_both_kinds_on_their_subspaces(tmp_path):
    arms = ("standard_k2", "w_k2", "w_k8")
    made = config("drops,smoke", arms)
    made.model.widths = (16,)
    for arm in ("w_k2", "w_k8"):
        made.arms[arm].model.asymmetry.masks = {"dense_0/kernel": {"n_fix": 64, "kappa": 1.0}}
    outcome = runner.run(made, tmp_path / "run")
    found = load_lines(tmp_path / "run", arms)
    dimensions = {arm: found[arm]["identifiability"]["layers"]["dense_0"]["dimension"] for arm in arms}
    assert max(dimensions["standard_k2"]) <= 2 < min(dimensions["w_k8"]) <= 8
    assert np.abs(found["standard_k2"]["identifiability"]["swap"]).max() < 1e-6
    assert "Which neurons can be told apart" in outcome.report.read_text()


@pytest.mark.parametrize(
    ("words", "arms"), [("drops", 12), ("drops,quick", 12), ("scatter", 21), ("scatter,quick", 21)]
)
def test_configs_say_what_their_text_says(words, arms):
    plan = config_lib.read(config(words))
    assert len(plan.arms) == arms
    assert plan.replicas == (5 if "quick" in words else 10)


def test_what_cannot_be_is_refused_in_words():
    made = config("scatter,smoke", ("standard",))
    made.task.coherence = 0.1
    with pytest.raises(ConfigError, match=r"^task\.dataset='digits': target=0\.1 must lie in \[k / d, 1\]"):
        runner.prepare(config_lib.read(made))
