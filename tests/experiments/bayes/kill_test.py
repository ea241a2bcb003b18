"""A variational run that is killed and started again ends with the same bytes."""

import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[3]


def command(folder):
    flags = ["--config.train_steps=60", "--config.reports=10", "--config.checkpoint.saves=10", "--cpu_devices=2"]
    config = "--config=configs/bayes.py:mlp8,digits,smoke"
    return [sys.executable, "runs/train.py", config, f"--workdir={folder}", *flags]


def digests(folder):
    names = ["metrics.jsonl", "arms.json", "results.csv", "summary.json"]
    paths = [folder / name for name in names] + sorted((folder / "calibration").glob("*.json"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.extended
@pytest.mark.slow
def test_the_bytes_after_kills_are_those_of_a_whole_run(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), cwd=ROOT, check=True, capture_output=True)
    kills = 0
    for wanted in (3, 8, 25):  # lines of metrics.jsonl after which it is killed
        process = subprocess.Popen(command(killed), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            path = killed / "metrics.jsonl"
            if path.exists() and len(path.read_bytes().splitlines()) >= wanted:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                process.wait()
            time.sleep(0.02)
    subprocess.run(command(killed), cwd=ROOT, check=True, capture_output=True)
    assert kills >= 2
    assert digests(killed) == digests(whole)
