"""Calibration of a run of any classifier, by one field; numbers again from its checkpoints."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax import trees
from sbjax.data import images as images_lib
from sbjax.experiments.calibration import measure as lib
from sbjax.experiments.calibration import report
from sbjax.frame.errors import ConfigError
from sbjax.metrics import calibration
from sbjax.report.results import load_results
from sbjax.runner import run as runner
from sbjax.training.load import load_variables

HERE = __file__


def inverted():
    """Digits, white on black: of none of the classes."""
    data = images_lib.load("digits")
    return {"train": (255 - data.train_images, data.train_labels), "test": (255 - data.test_images, data.test_labels)}


def make_config(bins=15, unknown=f"{HERE}:inverted"):
    config = config_lib.shrink(config_lib.base_config())
    config.model = {"name": "mlp", "widths": (16,)}
    config.task.update(train_share=1.0, eval_share=1.0, batch_size=64, eval_batch_size=200)
    config.optimizer.learning_rate = 0.01
    config.train_steps = 60
    config.monitor.kinds = ""
    config.calibration.update(bins=bins, unknown=unknown if bins else "")
    config.arms = {"raw": {}, "wide": {"model": {"widths": (32,)}}}
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration") / "run"
    return folder, runner.run(make_config(), folder)


def test_numbers_are_those_of_the_checkpoints(run):
    folder, _ = run
    found = report.load(folder, ["raw", "wide"])["raw"]
    task = {arm.name: arm.task for arm in runner.prepare(config_lib.read(make_config())).built.arms}["raw"]
    variables, _ = load_variables(folder / "checkpoints" / "raw")
    labels = np.asarray(task.data["eval_labels"])[np.asarray(task.data["eval_split"]) == 1]
    assert found["examples"] == len(labels) == 360
    every = list(lib.predictions(task, variables, [0, 1]))
    for numbers, one in zip(found["replicas"], every, strict=True):
        assert numbers["brier"] == pytest.approx(calibration.brier(one.test, labels), rel=1e-6)
        assert numbers["error"] == pytest.approx(calibration.calibration_error(one.test, labels), rel=1e-6)
        assert numbers["floor"] == calibration.floor(one.test).mean > 0
        assert numbers["accuracy"] > 0.4
    # All inputs once and in their order, whatever the parts.
    images = images_lib.load("digits")
    model = lambda x: task.model.apply(trees.take(variables, 1), x, train=False)  # noqa: E731
    unknown = images_lib.load(f"{HERE}:inverted").test_images
    prepared = (unknown / 255.0 - np.array(images.mean)) / np.array(images.std)
    expected = jax.nn.log_softmax(model(jnp.asarray(prepared, jnp.float32)))
    np.testing.assert_allclose(every[1].unknown, expected, atol=2e-4)
    known, unknown = calibration.confidence(every[1].test), calibration.confidence(every[1].unknown)
    wins = (known[:, None] > unknown).mean() + 0.5 * (known[:, None] == unknown).mean()
    assert found["replicas"][1]["detection"] == pytest.approx(wins, abs=1e-9)


def test_the_ensemble_is_of_averaged_probabilities(run):
    folder, _ = run
    found = report.load(folder, ["wide"])["wide"]
    assert found["ensemble"]["loss"] <= np.mean([one["loss"] for one in found["replicas"]])
    assert sum(found["reliability"]["counts"]) == 2 * found["examples"]


def test_report_and_table_show_the_floor_beside_every_error(run):
    folder, outcome = run
    for text in (outcome.table, report.table(folder, ["raw", "wide"])):
        assert "its floor" in text
        assert "raw, averaged" in text
        assert "AUROC" in text
    (section,) = report.report(load_results(folder), folder)
    assert [figure.name for figure in section.figures] == ["reliability"]
    header, rows = section.tables[0].headers, section.tables[0].rows
    assert header[-3:] == ("calibration error", "its floor", "detection")
    assert [row[0] for row in rows] == ["raw", "raw, averaged", "wide", "wide, averaged"]


@pytest.mark.extended
def test_nothing_is_measured_by_default(tmp_path):
    config = make_config(bins=0)
    config.train_steps = 2
    runner.run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "calibration").exists()


def test_what_is_wrong_is_told_before_the_training(tmp_path):
    with pytest.raises(ConfigError, match=r"calibration\.unknown.*digit"):
        runner.prepare(config_lib.read(make_config(unknown="digitz")))
    config = make_config()
    config.calibration.bins = 0
    with pytest.raises(ConfigError, match=r"calibration.unknown=.* has no effect with calibration.bins=0"):
        config_lib.read(config)
    config = config_lib.base_config("text")
    config.arms, config.train_epochs = {"raw": {}}, 1.0
    config.calibration.update(bins=15, unknown="imdb")
    with pytest.raises(ConfigError, match=r"calibration.unknown='imdb' is for images"):
        config_lib.read(config)
    config = config_lib.base_config("pinn")
    config.calibration.bins = 15
    with pytest.raises(ConfigError, match=r"calibration.bins=15 has no effect with task.kind='pinn'"):
        config_lib.read(config)


@pytest.mark.extended
def test_outputs_that_overflow_are_left_out():
    task = {arm.name: arm.task for arm in runner.prepare(config_lib.read(make_config())).built.arms}["raw"]
    stacked = jax.vmap(task.init)(jax.random.split(jax.random.key(0), 2))
    stacked["params"]["dense_1"]["bias"] = stacked["params"]["dense_1"]["bias"].at[0].set(jnp.nan)
    found = lib.measure(task, stacked, running=[0, 1])
    assert found["running"] == [1]
    assert len(found["replicas"]) == 1
    assert found["ensemble"] is None
    assert json.dumps(found)
