"""A zoo whose process is killed and started again ends with the same bytes."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[3]


def command(folder):
    flags = ["--config.replicas=12", "--config.train_epochs=3", "--config.task.train_share=0.3"]
    return [sys.executable, "runs/train.py", "--config=configs/zoo.py:smoke", f"--workdir={folder}", *flags]


def contents(folder):
    names = ["metrics.jsonl", "arms.json", "results.csv", "summary.json"]
    paths = [folder / name for name in names] + sorted((folder / "zoo").glob("*/*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.extended
@pytest.mark.slow
def test_the_bytes_after_kills_are_those_of_a_whole_run(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), cwd=ROOT, check=True, capture_output=True)
    kills = 0
    for wanted in (2, 4, 7):  # blocks after which it is killed
        process = subprocess.Popen(command(killed), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if len(list(killed.glob("zoo/*/block-*.safetensors"))) >= wanted:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                process.wait()
            time.sleep(0.02)
    subprocess.run(command(killed), cwd=ROOT, check=True, capture_output=True)
    assert kills >= 2
    assert contents(killed) == contents(whole)
    assert len(contents(whole)) == 4 + 3 * 5 + 1  # a file of constants
