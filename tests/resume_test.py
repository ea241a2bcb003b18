"""Real processes, killed: the same command started again ends with the same bytes as a run that was never stopped."""

import functools
import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
TWO_ARMS = f"""
import runpy

def get_config():
    config = runpy.run_path({str(ROOT / "configs/images.py")!r})["get_config"]("digits,mlp,smoke")
    config.arms = {{arm: config.arms[arm] for arm in ("raw", "expanded")}}
    return config
"""
FLAGS = [
    "--config.train_steps=60",
    "--config.reports=20",
    "--config.checkpoint.saves=20",
    "--config.model.dropout=0.2",
    "--config.model.widths=(32,)",  # a hidden layer compiles sooner than two
    "--cpu_devices=2",
]
pytestmark = pytest.mark.slow


def start(workdir, *flags):
    config = workdir.parent / "two_arms.py"
    config.write_text(TWO_ARMS)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "runs/train.py", f"--config={config}", f"--workdir={workdir}", *FLAGS, *flags]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(workdir, *flags):
    process = start(workdir, *flags)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def arrays(folder):
    """Digest of every array of a checkpoint, read by orbax alone."""
    import orbax.checkpoint as ocp

    digests = {}
    for item in ("params", "state"):
        tree = ocp.StandardCheckpointer().restore(folder / item)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            digests[item + jax.tree_util.keystr(path)] = hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
    return digests


def fingerprint(workdir):
    """All that must not depend on interruptions."""
    files = ["metrics.jsonl", "results.csv", "summary.json", "arms.json"]
    content = {name: (workdir / name).read_bytes() for name in files}
    arms = json.loads((workdir / "arms.json").read_text())["steps"]
    checkpoints = {arm: arrays(workdir / "checkpoints" / arm / str(steps)) for arm, steps in arms.items()}
    return content, checkpoints


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("resume") / "unbroken"
    code, out, err = finish(workdir)
    assert code == 0, err
    assert "report.html" in out
    return workdir, fingerprint(workdir)


def reports(workdir):
    metrics = workdir / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def reported(workdir, target):
    return reports(workdir) >= target


def saving(workdir, _):
    return any(workdir.glob("checkpoints/*/*.orbax-checkpoint-tmp*"))


def wait_until(process, condition, seconds=120):
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.002)
    return False


def test_killed_at_random_moments(unbroken, tmp_path_factory):
    """kill -9 up to five times: after a random number of reports, and as soon as a save has begun."""
    workdir = unbroken[0].parent / "killed"
    rng = random.Random(0)
    kills = 0
    for attempt in range(5):
        process = start(workdir)
        target = reports(workdir) + rng.randint(3, 15)
        due = saving if attempt % 2 else reported
        if wait_until(process, functools.partial(due, workdir, target)):
            time.sleep(rng.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        process.communicate()
    assert kills >= 3
    code, _, err = finish(workdir)
    assert code == 0, err
    assert "goes on from the checkpoint" in err
    content, checkpoints = fingerprint(workdir)
    assert content == unbroken[1][0]
    assert checkpoints == unbroken[1][1]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.extended)]
)
def test_asked_to_stop(unbroken, number, code):
    workdir = unbroken[0].parent / number.name
    process = start(workdir)
    assert wait_until(process, lambda: any(workdir.glob("checkpoints/*/*.sha256")))
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "start the same command again" in err
    assert json.loads((workdir / "status.json").read_text())["status"] == "interrupted"
    code, _, err = finish(workdir)
    assert code == 0, err
    assert fingerprint(workdir) == unbroken[1]


def test_finished_run_does_nothing(unbroken):
    workdir, _ = unbroken
    times = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    code, out, err = finish(workdir)
    assert code == 0
    assert "is finished (done): nothing to do" in err
    assert "report.html" in out
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()} == times


def test_contradiction_is_refused_by_name(unbroken):
    workdir, _ = unbroken
    began = time.monotonic()
    code, _, err = finish(workdir, "--config.replicas=3", "--config.optimizer.learning_rate=0.5")
    assert code == 1
    assert "replicas: 3 now, 2 in the workdir" in err
    assert "optimizer.learning_rate: 0.5 now, 0.05 in the workdir" in err
    assert time.monotonic() - began < 15


def test_two_processes_on_one_workdir(unbroken):
    workdir = unbroken[0].parent / "shared"
    first = start(workdir)
    assert wait_until(first, lambda: (workdir / "config.json").exists())
    code, _, err = finish(workdir)
    first.kill()
    first.communicate()
    assert code == 1
    assert "is in use by another process" in err
