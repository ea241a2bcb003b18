"""Real processes, killed: the same command started again ends with the same bytes as a run that was never stopped."""

import contextlib
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
from PIL import Image

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
    "--config.monitor.kinds=marginal,sharpness,breaking",
    "--config.monitor.at=start,25%,50%,end",
    "--config.monitor.products=3",
    "--cpu_devices=2",
]
# A short training in pulses of one step: <folder> <save_seconds> <step at which it waits to be killed>.
SAVING_BY_TIME = """
import sys
import jax
from sbjax.optimizers import Adam
from sbjax.training import fit as fit_lib
from sbjax.training.checkpoint import Checkpoints
from sbjax.training.placement import Placement

sys.path.insert(0, "tests")
import toys

folder, seconds, wait_at = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])

def wait(step, *_):
    if step == wait_at:
        print("waiting", flush=True)
        sys.stdin.read()

fit_lib.PULSE_SECONDS = 1e-9
fit_lib.fit(
    toys.classification(toys.Dense(dropout=0.2)), Adam().make(0.05), steps=24, replicas=2, reports=2,
    key=jax.random.key(0), placement=Placement(devices=1),
    save_seconds=seconds, checkpoints=Checkpoints(folder, keep=1),
    hooks=fit_lib.Hooks(on_pulse=wait, on_resume=lambda step, history: print("resumed", step, len(history))),
)
"""
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
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)  # the devices of several processes are not here
    reader = ocp.PyTreeCheckpointer()
    for item in sorted(path.parent.name for path in folder.glob("*/_METADATA")):
        saved = reader.metadata(folder / item).item_metadata.tree
        tree = reader.restore(folder / item, restore_args=jax.tree.map(lambda _: as_numpy, saved))
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


@pytest.mark.extended
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


def test_killed_between_reports_after_a_save_by_time(tmp_path):
    """kill -9 before the first report and before the second one; all but the last step before it is kept."""

    def start(folder, seconds, wait_at=-1):
        words = [sys.executable, "-c", SAVING_BY_TIME, tmp_path / folder, str(seconds), str(wait_at)]
        return subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def kept():
        return [path.stem for path in (tmp_path / "killed").glob("*.sha256")]

    for wait_at, resumed in ((10, ""), (20, "resumed 9 1\n")):
        process = start("killed", 1e-9, wait_at)
        assert "".join(process.stdout.readline() for _ in range(1 + bool(resumed))) == f"{resumed}waiting\n"
        # The last one is written by a thread, while training waits.
        assert wait_until(process, lambda step=wait_at - 1: kept() == [str(step)])
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert kept() == [str(wait_at - 1)]
    for folder, seconds, said in (("killed", 1e-9, "resumed 19 2\n"), ("unbroken", 0, "")):
        process = start(folder, seconds)
        assert process.communicate(timeout=300) == (said, None)
        assert process.returncode == 0
    killed, unbroken = (tmp_path / folder / "24" for folder in ("killed", "unbroken"))
    assert arrays(killed) == arrays(unbroken)
    assert (killed / "meta/metadata").read_bytes() == (unbroken / "meta/metadata").read_bytes()
    assert {path.name for path in killed.parent.iterdir()} == {path.name for path in unbroken.parent.iterdir()}


def children(process):
    """Processes that a process has started, and those that these have."""
    found = [process.pid]
    for pid in found:
        with contextlib.suppress(OSError):
            for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found[1:]


@pytest.mark.extended
def test_killed_while_images_are_streamed(tmp_path):
    """The batch of a step stays the same, and the processes that decode end with the one that started them."""
    generator = np.random.default_rng(0)
    for i in range(60):
        path = tmp_path / "photos" / f"{i % 3}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (10, 9, 3), np.uint8)).save(path)
    flags = [f"--config.task.dataset=folder:{tmp_path / 'photos'}", f"--config.task.cache_dir={tmp_path / 'cache'}"]
    flags += ["--config.task.image_size=8", "--config.task.stream=always", "--config.task.stream_workers=1"]
    flags += ["--config.reports=6", "--config.checkpoint.saves=6"]
    flags += ["--config.task.train_share=1.0", "--config.task.eval_share=1.0"]
    workdir = tmp_path / "killed"
    process = start(workdir, *flags)
    assert wait_until(process, lambda: reported(workdir, 3)), process.communicate()
    started = children(process)
    assert started
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 20
    while any(map(alive, started)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, started))
    for folder in (workdir, tmp_path / "unbroken"):
        code, _, err = finish(folder, *flags)
        assert code == 0, err
        assert "read from disk as they are needed" in err
        assert ("goes on from the checkpoint" in err) == (folder == workdir)
    assert fingerprint(workdir) == fingerprint(tmp_path / "unbroken")


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.extended
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


@pytest.mark.extended
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
