"""The command of a cell inside a job of another engine: asked to save when its job is announced to end or is gone."""

import signal
import subprocess
import sys
import time

import pytest

CHILD = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path(sys.argv[1]).write_text("saved")
    sys.exit(7)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
"""
JOB = """
import signal, sys, time
from sbjax.runner.sweeps.engines import Command
command = Command([sys.executable, "-c", sys.argv[1], sys.argv[2]], sys.argv[3])
def announced(*_):
    began = time.monotonic()
    command.save()
    print(time.monotonic() - began, flush=True)
signal.signal(signal.SIGUSR2, announced)
print("code", command(), flush=True)
"""


@pytest.fixture
def job(tmp_path):
    """A process that runs a command, and what its child leaves."""
    words = [sys.executable, "-c", JOB, CHILD, str(tmp_path / "state"), str(tmp_path / "log")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        until(lambda: (tmp_path / "log").exists() and "ready" in (tmp_path / "log").read_text())
        yield process, tmp_path / "state"
        process.kill()


def until(holds, seconds=60):
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds
        time.sleep(0.05)


def test_announced_end(job):
    process, state = job
    process.send_signal(signal.SIGUSR2)
    said, _ = process.communicate(timeout=30)
    seconds, code = said.splitlines()
    assert float(seconds) < 20  # not the whole time of grace
    assert code == "code 7"
    assert state.read_text() == "saved"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_a_killed_job_leaves_no_cell_behind(job):
    process, state = job
    process.kill()
    until(state.exists)
