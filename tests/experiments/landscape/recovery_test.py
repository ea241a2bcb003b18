"""Parameter recovery from a config to a report."""

import json
import pathlib
import runpy

import jax
import numpy as np
import pytest
import scipy

from sbjax import config as config_lib
from sbjax.experiments.landscape import recovery_report, recovery_shallow, recovery_toys
from sbjax.runner import run as experiment

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "landscape.py"


def load(**task):
    config = runpy.run_path(str(CONFIG))["get_config"]("recovery,smoke")
    config.task.update(task)
    return config


@pytest.mark.extended
def test_teachers_are_recovered_from_wide_students(tmp_path):
    """Both teachers in one dimension, from data alone, to the round-off of the last fit."""
    config = load(teachers="2:1", students=4, expansion=2.0, points=40, polish_steps=200)
    config.arms = {"tanh": {"task": {"activation": "tanh"}}}
    config.reference = "tanh"
    config.train_steps = 1000
    outcome = experiment.run(config, tmp_path / "run")
    assert outcome.status == "done"
    found = json.loads((tmp_path / "run" / "landscape" / "tanh.json").read_text())
    metrics, summary = found["metrics"], found["summary"]
    assert metrics["units/excess"] == [0, 0]
    assert max(metrics["units/worst"]) < 1e-8
    assert max(metrics["units/worst"]) < max(metrics["units/worst_before"]) < 0.1
    assert max(metrics["test/function"]) < 1e-9
    assert summary["recovered"]["value"] == 1
    # Independent of the matching: the recovered vectors are the teacher's but for order and sign.
    with np.load(tmp_path / "run" / "landscape" / "tanh.npz") as file:
        arrays = dict(file)
    for i in range(2):
        rows, known = arrays[f"found_{i}"], arrays[f"teacher_{i}"]
        gaps = [[min(np.abs(row - w).max(), np.abs(row + w).max()) for row in rows] for w in known]
        assert max(min(gap) for gap in gaps) < 1e-8
    assert "Recovered parameters" in outcome.report.read_text()
    names = {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert set(recovery_report.CAPTIONS) <= names


@pytest.mark.extended
def test_deep_teachers_are_recovered(tmp_path):
    config = load(teachers="2-2:3", students=6, expansion=3.0, points=300, polish_steps=500)
    config.arms = {"deep": {"task": {"activation": "tanh"}}}
    config.reference = "deep"
    config.train_steps = 3000
    assert experiment.run(config, tmp_path / "run").status == "done"
    found = json.loads((tmp_path / "run" / "landscape" / "deep.json").read_text())
    assert min(found["metrics"]["worst"]) < 1e-6
    assert min(found["metrics"]["function"]) < 1e-8


def test_toy_teachers_keep_their_distance():
    teacher = recovery_toys.toy_teacher(jax.random.key(3), 8, 2)
    rows = np.concatenate([teacher["w"], -teacher["w"]])
    apart = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(rows)) + 9 * np.eye(16)
    assert apart[:8].min() >= 0.3
    norms = np.linalg.norm(teacher["w"][:, :2], axis=1)
    assert (norms >= 0.5).all()
    assert (norms <= 1.5).all()
    with pytest.raises(ValueError, match="no 9 units 5 apart"):
        recovery_toys.toy_teacher(jax.random.key(0), 9, 1, apart=5)


@pytest.mark.parametrize(("width", "activation"), [(2, "softplus"), (0, "g")])
def test_last_fit_against_a_fit_without_derivatives(width, activation, x64):
    """No slope by finite differences; a linear part beside the units, and no unit at all."""
    x = recovery_toys.draw_inputs(jax.random.key(0), 25, 1)
    targets = np.logaddexp(0, 2 * x[:, 0]) + np.logaddexp(0, 1 - 2 * x[:, 0]) + 0.1 * np.sin(5 * x[:, 0])
    params = {"w": np.ones((width, 2)), "a": np.ones((width, 1)), "constant": np.zeros(1)}
    if width:
        params |= {"w": np.array([[1.0, 0.2], [-0.5, 1.0]]), "linear": np.zeros((2, 1))}
    found, loss = recovery_shallow.fine_tune(params, x, targets, activation)

    def outputs(flat):
        w, a, constant, linear = np.split(flat, np.cumsum([2 * width, width, 1]))
        feature = np.logaddexp(0, x @ w.reshape(width, 2).T) @ a + constant
        return feature + (x @ linear if width else 0) - targets

    flat = np.concatenate([found[name].ravel() for name in ("w", "a", "constant", "linear") if name in found])
    assert np.mean(outputs(flat) ** 2) == pytest.approx(loss, rel=1e-9)
    slope = scipy.optimize.approx_fprime(flat, lambda flat: np.mean(outputs(flat) ** 2), 1e-7)
    np.testing.assert_allclose(slope, 0, atol=1e-4)
    if not width:
        assert found["constant"] == pytest.approx(np.mean(targets))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"activation": "sigmoidd"}, "activation='sigmoidd'.*sigmoid"),
        ({"teachers": "4x2"}, "teachers='4x2' must be pairs"),
        ({"teachers": "3-0:2"}, "teachers='3-0:2' must be pairs"),
        ({"teachers": "3-3:2", "activation": "g"}, "several hidden layers"),
        ({"students": 1}, "students=1"),
        ({"gamma": 0.4}, "gamma=0.4 must be between 2 / students = 0.5"),
        ({"beta": 90.0}, "beta=90.0"),
        ({"expansion": 0.5}, "expansion=0.5"),
        ({"points": 6}, "points=6 must be >= 7"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"polish_steps": -1}, "polish_steps"),
    ],
)
def test_refusals(task, message):
    config = load(**task)
    if "activation" in task:
        config.arms = {"one": {}}
        config.reference = "one"
    with pytest.raises(config_lib.ConfigError, match=message):
        experiment.prepare(config_lib.read(config))
