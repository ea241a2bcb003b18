"""The examples of the docs, run as a user runs them: from files outside the package, with arms, resuming and report."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
pytestmark = pytest.mark.slow


def command(workdir, *flags):
    return [sys.executable, "runs/train.py", f"--workdir={workdir}", "--cpu_devices=1", *flags]


def train(workdir, *flags):
    done = subprocess.run(command(workdir, *flags), cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert f"report: {workdir}/report.html" in done.stdout
    return done


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def pictures(folder):
    """Two classes of small pictures: bright above, bright below."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, rows in (("above", slice(0, 4)), ("below", slice(4, 8))):
        (folder / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 80, (8, 8, 3), np.uint8)
            pixels[rows] += 150
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.extended
def test_every_part_of_an_image_run_is_ones_own(tmp_path):
    """Pictures, network, expansion, distance, optimiser and callback, killed in the middle and gone on with."""
    expansion = f"{EXAMPLES}/my_expansion.py:Channels"
    config = tmp_path / "config.py"
    config.write_text(
        f"""
from sbjax import config as config_lib

def get_config(argument=None):
    config = config_lib.base_config()
    config.task.update(dataset={f"folder:{pictures(tmp_path / 'pictures')}"!r}, batch_size=16)
    config.model = {{"name": "{EXAMPLES}/my_model.py:Depthwise", "channels": (8,)}}
    config.optimizer = {{"name": "{EXAMPLES}/my_optimizer.py:Lion", "learning_rate": 3e-3}}
    config.monitor.update(kinds="marginal,{EXAMPLES}/my_distance.py:cosine", at="start,end")
    config.callbacks = "{EXAMPLES}/my_callback.py:note"
    config.update(replicas=3, train_steps=40, reports=8)
    config.arms = {{"raw": {{}}, "expanded": {{"expansion": {{"kind": "{expansion}", "count": 1, "value": 0.5}}}}}}
    return config
"""
    )
    flags = (f"--config={config}", "--config.checkpoint.saves=8")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(whole, *flags)
    process = subprocess.Popen(command(killed, *flags), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not ((killed / "metrics.jsonl").exists() and len(records(killed)) >= 4):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (killed / "status.json").exists()
    train(killed, *flags)
    assert (whole / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()
    last = records(whole)[-1]
    assert last["arm"] == "expanded"
    assert np.mean(last["train/accuracy"]) > 0.6, last["train/accuracy"]  # of two classes
    assert 0 < last["replica_distance/cosine"]["value"] < 2
    notes = (whole / "notes.txt").read_text().splitlines()
    assert len(notes) == len(records(whole))
    assert "replica_distance" in (whole / "report.html").read_text() or "cosine" in (whole / "report.html").read_text()


@pytest.mark.extended
def test_an_equation_of_ones_own(tmp_path):
    flags = ["--config=configs/pdes.py:poisson,quick", f"--config.task.equation={EXAMPLES}/my_equation.py:decay"]
    flags += ["--config.task.coefficients=rate=2", "--config.replicas=2", "--config.train_steps=300"]
    flags += ["--config.second_phase.steps=60", "--config.model.widths=(8,8)", "--config.reports=2"]
    config = tmp_path / "one_arm.py"
    config.write_text(
        f"""
import runpy

def get_config(argument=None):
    config = runpy.run_path({str(ROOT / "configs" / "pdes.py")!r})["get_config"]("poisson,quick")
    config.arms = {{"raw": config.arms["raw"]}}
    return config
"""
    )
    train(tmp_path / "run", f"--config={config}", *flags[1:])
    last = {record["arm"]: record for record in records(tmp_path / "run")}
    assert max(last["raw"]["test/l2"]) < 0.05


@pytest.mark.extended
def test_a_kind_of_experiment_of_ones_own(tmp_path):
    config = EXAMPLES / "my_experiment.py"
    fields = subprocess.run(
        [sys.executable, "runs/train.py", f"--config={config}", "--fields"], cwd=ROOT, capture_output=True, text=True
    )
    assert "--config.task.bits=4" in fields.stdout, fields.stderr
    train(tmp_path / "run", f"--config={config}:smoke")
    assert "Parity" in (tmp_path / "run" / "report.html").read_text()
    wrong = subprocess.run(
        command(tmp_path / "no", f"--config={config}", "--config.task.bits=1"), cwd=ROOT, capture_output=True, text=True
    )
    assert "task.bits=1 must be >= 2, <= 12" in wrong.stderr
    assert not (tmp_path / "no").exists()
    # A workdir may not run code unasked.
    report = [sys.executable, "runs/report.py", f"--workdir={tmp_path / 'run'}"]
    refused = subprocess.run(report, cwd=ROOT, capture_output=True, text=True, env={**os.environ})
    assert refused.returncode == 1
    assert "give --trust" in refused.stderr
    assert subprocess.run([*report, "--trust"], cwd=ROOT, capture_output=True).returncode == 0
