"""Colourisation from config to report: arms, pictures beside predictions without a network, kills, what cannot be."""

import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax.common.files import FileError
from sbjax.data import images as images_lib
from sbjax.data.colours import with_statistics
from sbjax.experiments.colour import report
from sbjax.frame.errors import ConfigError
from sbjax.runner import run as run_lib
from sbjax.tasks.colour import METRICS, baselines

ROOT = pathlib.Path(__file__).parents[3]
TOY = f"{ROOT / 'tests' / 'toy_colours.py'}:load"


def load(words, arms=None, **changes):
    config = runpy.run_path(str(ROOT / "configs" / "colour.py"))["get_config"](words)
    config.task.update(dataset=TOY, train_share=1.0, eval_share=1.0, image_size=0)
    if arms:
        config.arms = {arm: config.arms[arm] for arm in arms}
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.extended
def test_every_arm_is_built():
    config = load("", **{"task.image_size": 32})
    plan = config_lib.read(config)
    arms = {arm.name: arm for arm in plan.experiment.prepare(plan).arms}
    assert list(arms) == ["raw", "expanded", "zero", "nearest", "bilinear", "equal_flops", "channel"]
    count = {name: arm.parameters for name, arm in arms.items()}
    cost = {name: arm.flops_per_step / arms["raw"].flops_per_step for name, arm in arms.items()}
    assert count["raw"] == 487_730
    assert count["expanded"] == count["zero"] == count["nearest"] == count["bilinear"] == count["raw"]
    assert count["channel"] == count["raw"] + 9 * 16
    assert 3.8 < cost["expanded"] < 4.3
    assert 0.85 < cost["equal_flops"] / cost["expanded"] < 1.1
    assert cost["channel"] < 1.1


def test_words():
    get_config = runpy.run_path(str(ROOT / "configs" / "colour.py"))["get_config"]
    brief, full = get_config("l1,brief,eurosat,smoke"), get_config("")
    assert sorted(brief.arms, key=lambda arm: brief.arms[arm].order) == ["raw", "expanded", "nearest"]
    assert (brief.task.loss, brief.task.image_size, brief.model.width) == ("l1", 16, 4)
    assert round(full.task.train_share * 45_000) == 10_000
    assert (full.task.dataset, full.replicas, full.train_epochs) == ("cifar10", 5, 10.0)
    assert full.arms.equal_flops.model.width == 2 * full.model.width


def test_columns_are_the_numbers_of_the_task():
    assert list(report.COLUMNS) == list(METRICS)


@pytest.mark.slow
def test_smoke_runs_to_its_report(tmp_path):
    config = load("smoke,brief", ("raw", "expanded"))
    outcome = run_lib.run(config, tmp_path / "run")
    assert outcome.status == "done"
    page = outcome.report.read_text()
    assert "Beside predictions without a network" in page
    assert "mean ab given L" in page
    found = json.loads((tmp_path / "run" / "baselines.json").read_text())
    wanted = baselines(with_statistics(images_lib.load(TOY)), share=config.task.eval_share)
    assert found == {name: pytest.approx(numbers) for name, numbers in wanted.items()}
    test_images = images_lib.load(TOY).test_images
    for arm in config.arms:
        pictures = report.load_pictures(tmp_path / "run", arm)
        np.testing.assert_array_equal(pictures["truth"], test_images[:8])
        assert pictures["predicted"].shape == pictures["truth"].shape
        assert np.ptp(pictures["predicted"]) > 0
    assert (tmp_path / "run" / "figures" / "colours.png").stat().st_size > 2000


@pytest.mark.extended
def test_classes_of_colour_run_to_their_report(tmp_path):
    outcome = run_lib.run(load("smoke,bins", ("raw", "expanded", "channel")), tmp_path / "run")
    assert outcome.status == "done"


@pytest.mark.extended
def test_networks_beat_the_mean_given_the_lightness(tmp_path):
    arms = ("raw", "expanded", "nearest", "channel")
    changes = {"train_steps": 60, "task.batch_size": 32, "model.width": 4, "optimizer.learning_rate": 0.01}
    run_lib.run(load("smoke", arms, **changes), tmp_path / "run")
    best = json.loads((tmp_path / "run" / "baselines.json").read_text())["mean ab given L"]["ab_rmse"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = {line["arm"]: line["test/ab_rmse"] for line in lines}
    assert set(last) == set(arms)
    for arm, values in last.items():
        assert max(values) < 0.8 * best, arm


@pytest.mark.extended
def test_killed_and_started_again_it_ends_with_the_same_bytes(tmp_path):
    """kill -9 after a few reports, twice; all that a run leaves but its times is that of one that was left alone."""

    def start(folder):
        command = [
            *(sys.executable, "runs/train.py", "--config=configs/colour.py:smoke,brief"),
            *(f"--workdir={folder}", f"--config.task.dataset={TOY}", "--cpu_devices=1"),
            *("--config.train_steps=24", "--config.reports=12", "--config.checkpoint.saves=12"),
        ]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def reports(folder):
        path = folder / "metrics.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def content(folder):
        names = ["metrics.jsonl", "arms.json", "results.csv", "summary.json", "baselines.json"]
        names += [f"colours/{arm}.npz" for arm in ("raw", "expanded", "nearest")]
        return {name: (folder / name).read_bytes() for name in names}

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _, err = (process := start(whole)).communicate(timeout=900)
    assert process.returncode == 0, err
    for enough in (5, 16):  # in the first arm, and in the second one
        process = start(killed)
        while reports(killed) < enough and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    _, err = (process := start(killed)).communicate(timeout=900)
    assert process.returncode == 0, err
    assert b"goes on from the checkpoint" in err
    assert content(killed) == content(whole)


def test_pictures_that_are_none_are_told(tmp_path):
    assert report.load_pictures(tmp_path, "raw") is None
    images = np.zeros((2, 4, 4, 3))
    report.save_pictures(tmp_path, "raw", images.astype(np.uint8), images + 0.5)
    assert report.load_pictures(tmp_path, "raw")["predicted"].max() == 128
    np.savez(tmp_path / "colours" / "raw.npz", truth=images, predicted=images[:1])
    with pytest.raises(FileError, match="holds no images beside their truth"):
        report.load_pictures(tmp_path, "raw")


def test_the_input_is_drawn_without_colour():
    truth = np.array([[[[200, 30, 30], [30, 200, 30]]]], np.uint8)
    figure = report.draw({"raw": {"truth": truth, "predicted": truth}})
    first, second, third = (np.asarray(axes.images[0].get_array()) for axes in figure.axes)
    assert np.ptp(first, axis=-1).max() < 1e-9
    np.testing.assert_allclose(second, truth[0] / 255)
    np.testing.assert_allclose(third, second)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task.batch_size": 10_000}, "task.batch_size=10000 must lie between 1 and the"),
        ({"task.dataset": "digits"}, "task.dataset='digits': images of 'digits' have 1 channel"),
        ({"task.loss": "l3"}, "task.loss='l3'"),
        ({"task.temperature": 0.5}, "temperature"),
        ({"model.name": "unett"}, "did you mean 'unet'"),
        ({"model.name": "cnn"}, "model.name='cnn' is a network of the family 'image', not 'map'"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(changes, said, tmp_path):
    config = load("smoke", ("raw",))
    with config.unlocked():
        for path, value in changes.items():
            section, field = path.split(".")
            config[section][field] = value
    with pytest.raises(ConfigError, match=said):
        run_lib.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
