"""Sweeps by real engines, with cells and drivers killed: the merged tables are those of one process."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TABLES = ("metrics.jsonl", "arms.json", "summary.json", "results.csv")
CONFIG = f"""
import pathlib, runpy, time

def slow(event):
    time.sleep(0.1)  # time enough to be killed in

def get_config(kind):
    name, words = {{"mlp": ("images.py", "digits,mlp,smoke"), "pinn": ("pdes.py", "burgers,smoke")}}[kind]
    config = runpy.run_path({str(ROOT / "configs")!r} + "/" + name)["get_config"](words)
    others = [arm for arm in config.arms if arm != config.reference]
    config.arms = {{arm: config.arms[arm] for arm in [config.reference, *others[:2]]}}
    config.replicas, config.train_steps, config.reports, config.checkpoint.saves = 4, 40, 10, 5
    config.callbacks = str(pathlib.Path(__file__)) + ":slow"
    return config
"""
# A network with loopback alone: Ray listens on the machine's own address, whatever it is told.
ALONE = """
import fcntl, os, socket, struct, sys
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sH", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running
os.execvp(sys.argv[1], sys.argv[1:])
"""

pytestmark = [pytest.mark.extended, pytest.mark.timeout(900)]


def sbjax(*words, home, wait=True, alone=False):
    command = [sys.executable, "-m", "sbjax", *map(str, words)]
    if alone:
        command = ["unshare", "-rn", sys.executable, "-c", ALONE, *command]
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, start_new_session=True)  # fmt: skip
    if not wait:
        return process
    said, _ = process.communicate(timeout=600)
    return process.returncode, said


@pytest.fixture(scope="module", params=["mlp", "pinn"])
def whole(request, tmp_path_factory):
    """A config, and its run in one process."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "config.py").write_text(CONFIG)
    code, said = sbjax(
        "train", f"--config=config.py:{request.param}", "--workdir=whole", "--cpu_devices=1", home=folder
    )
    assert code == 0, said
    return folder, request.param


def holder_of(sweep, driver, *, but=()):
    """The process of a cell that has reported, and the cell."""
    until = time.monotonic() + 400
    while time.monotonic() < until:
        for path in (sweep / "cells").glob("*/lease.json"):
            metrics = path.with_name("metrics.jsonl")
            try:
                if path.parent.name not in but and metrics.read_text().count("\n") > 2:
                    return json.loads(path.read_text())["pid"], path.parent.name
            except (FileNotFoundError, ValueError):
                continue
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.02)
    os.killpg(driver.pid, signal.SIGKILL)
    raise AssertionError("no cell has reported")


@pytest.mark.parametrize("engine", ["local", "submitit", "ray"])
def test_with_a_cell_and_the_driver_killed(whole, engine):
    folder, kind = whole
    alone = engine == "ray"
    if engine != "local":
        pytest.importorskip(engine)
    if alone and subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("no network namespace can be made here")
    sweep = folder / engine
    code, said = sbjax("sweep", "plan", f"--config=config.py:{kind}", f"--workdir={sweep}", "--block=2", home=folder)
    assert code == 0, said
    assert len(json.loads((sweep / "sweep.json").read_text())["cells"]) == 6
    run = ["sweep", "run", f"--workdir={sweep}", "--jobs=2", f"--engine={engine}", "--trust", "--cpu_devices=1"]
    run += ["--cluster=local"] if engine == "submitit" else []
    driver = sbjax(*run, home=folder, wait=False, alone=alone)
    pid, killed = holder_of(sweep, driver)
    os.kill(pid, signal.SIGKILL)
    holder_of(sweep, driver, but=(killed,))
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    code, said = sbjax(*run, home=folder, alone=alone)
    assert code == 0, said
    attempts = (sweep / "cells" / killed / "attempts.jsonl").read_text()
    assert attempts.count('"start"') > 1
    code, said = sbjax("sweep", "merge", f"--workdir={sweep}", "--trust", "--cpu_devices=1", home=folder)
    assert code == 0, said
    for name in TABLES:
        assert (sweep / "merged" / name).read_bytes() == (folder / "whole" / name).read_bytes(), name
    if alone:
        assert not (folder / ".ray").exists()
    shutil.rmtree(sweep)


def test_a_signal_stops_the_sweep_and_its_cells_have_saved(whole):
    folder, kind = whole
    sweep = folder / "stopped"
    sbjax("sweep", "plan", f"--config=config.py:{kind}", f"--workdir={sweep}", home=folder)
    driver = sbjax("sweep", "run", f"--workdir={sweep}", "--trust", "--cpu_devices=1", home=folder, wait=False)
    _, cell = holder_of(sweep, driver)
    os.kill(driver.pid, signal.SIGTERM)
    said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in said
    code, said = sbjax("sweep", "status", f"--workdir={sweep}", home=folder)
    assert code == 0
    assert "1 interrupted" in said
    assert "stopped after step" in said
    code, said = sbjax("sweep", "run", f"--workdir={sweep}", "--trust", f"--cell={cell}", home=folder)
    assert code == 0, said
    code, said = sbjax("sweep", "merge", f"--workdir={sweep}", "--trust", home=folder)
    assert code == 4, said
    assert "2 cells are missing" in said
