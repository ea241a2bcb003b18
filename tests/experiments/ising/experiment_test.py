"""The Ising analogy from a config to a report."""

import json
import pathlib
import runpy

import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax.experiments.ising import experiment as ising
from sbjax.frame.errors import ConfigError
from sbjax.runner import run as runner

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "ising.py"


def load(words):
    return runpy.run_path(str(CONFIG))["get_config"](words)


@pytest.mark.extended
def test_a_quench_shows_what_a_field_does(tmp_path):
    """Without a field either sign, far apart; with one, one sign, close together."""
    config = load("smoke")
    config.train_steps = 60
    outcome = runner.run(config, tmp_path / "run")
    assert outcome.status == "done"
    found = json.loads((tmp_path / "run" / "landscapes.json").read_text())
    free, field = found["h0"], found["h045"]
    assert field["quench"]["shares"]["up"]["value"] == 1
    assert 0.2 < free["quench"]["shares"]["up"]["value"] < 0.8
    metrics = outcome.summary["arms"]
    distances = {arm: metrics[arm]["metrics"][ising.DISTANCE]["value"] for arm in ("h0", "h045")}
    assert distances["h0"] > 1 > 3 * distances["h045"]
    assert [m["stable"] for m in free["mean_field"]["minima"]] == [True, True]
    assert [m["stable"] for m in field["mean_field"]["minima"]] == [False, True]
    # The ground energies of 4 x 4, tilted by the field.
    ground = np.array(free["four_by_four"]["ground_energy"])
    m = np.array(free["four_by_four"]["magnetisation"])
    np.testing.assert_allclose(field["four_by_four"]["ground_energy"], ground - 0.45 * m, atol=1e-12)
    assert "Which state" in outcome.report.read_text()
    names = {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert {"energy_landscapes", "quenched_distance"} <= names


def test_distance_of_replicas_in_two_states():
    """a of one sign and b of the other: 2 over a b of all pairs."""
    spins = np.concatenate([np.ones((5, 4, 4)), -np.ones((3, 4, 4))])
    assert ising.replica_distance(spins).value == pytest.approx(2 * 15 / 28)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicas": 10}, "replicas=10 must be a multiple of 32"),
        ({"task": {"size": 7}}, "arm 'h0': task.size=7 must be even"),
        ({"task": {"temperature": 0.0}}, "task.temperature=0.0 must be > 0"),
        ({"train_steps": 0, "train_epochs": 1.0}, "train_epochs=1.0 has no effect with task.kind='ising'"),
        (
            {"optimizer": {"name": "nonsense"}},
            "optimizer.name='nonsense' has no effect with task.kind='ising', which reads",
        ),
        ({"precision": {"x64": True}}, "precision.x64=True has no effect"),
        ({"arms": {"h0": {}, "b": {"model": {"name": "mlp"}}}}, "arms.b.model has no effect with task.kind='ising'"),
        ({"arms": {"h0": {}, "b": {}}}, "arms.b has the settings of arms.h0"),
    ],
)
def test_refusals(changes, message):
    config = load("smoke")
    config = config.to_dict()
    for field, value in changes.items():
        config[field] = {**config[field], **value} if isinstance(value, dict) and field != "arms" else value
    with pytest.raises(ConfigError, match=message):
        runner.prepare(config_lib.read(config))
