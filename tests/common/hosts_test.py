"""Several processes of one run, on this machine: the same bytes as one process with as many devices."""

import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from sbjax.common import hosts

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = f"""
import runpy

def get_config():
    config = runpy.run_path({str(ROOT / "configs/images.py")!r})["get_config"]("digits,mlp,smoke")
    config.arms = {{arm: config.arms[arm] for arm in ("raw", "expanded")}}
    config.update(train_steps=60, reports=20)
    config.checkpoint.saves = 20
    config.model = {{"name": "mlp", "widths": (32,)}}
    return config
"""
PINN = f"""
import runpy

def get_config():
    config = runpy.run_path({str(ROOT / "configs/pdes.py")!r})["get_config"]("heat,smoke")
    config.arms = {{"raw": config.arms["raw"]}}
    config.update(train_steps=40, reports=10)
    config.checkpoint.saves = 10
    return config
"""


@pytest.fixture(scope="module")
def resume():
    spec = importlib.util.spec_from_file_location("resume_test", ROOT / "tests" / "resume_test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("yes", "must be 'auto'"),
        ("host,0,2", "must be 'auto'"),
        ("host:0,0,2", "must be 'auto'"),
        ("host:99999,0,2", "must be 'auto'"),
        ("host:1234,2,2", "process 2 of 2 is none; they are 0 to 1"),
    ],
)
def test_a_wrong_flag_is_refused(given, said):
    with pytest.raises(hosts.HostsError, match=said):
        hosts.parse(given)


def test_a_wrong_heartbeat_is_refused(monkeypatch):
    monkeypatch.setenv("SBJAX_HEARTBEAT_SECONDS", "1 min")
    with pytest.raises(hosts.HostsError, match="SBJAX_HEARTBEAT_SECONDS='1 min' must be a whole number"):
        hosts.start("127.0.0.1:1,0,2")


@pytest.mark.parametrize(
    ("ends", "said"),
    [("os.abort()", hosts.GONE), ("os._exit(3)", ""), ("os.kill(os.getpid(), 11)", "Segmentation fault")],
)
def test_what_an_abort_says(ends, said):
    code = f"import os\nfrom sbjax.common import hosts\nhosts._tell_of_an_abort()\n{ends}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stderr
    assert said in found if said.startswith("Seg") else found.strip() == said


def start(config, workdir, *, processes, other=None):
    """The processes of one run: several with a device each, or one with two; the second one may have another folder."""
    file = workdir.parent / f"{workdir.name}.py"
    file.write_text(config)
    command = [sys.executable, "runs/train.py", f"--config={file}"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [
        ["--cpu_devices=2"]
        if processes == 1
        else ["--cpu_devices=1", f"--distributed=127.0.0.1:{port},{i},{processes}"]
        for i in range(processes)
    ]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "SBJAX_HEARTBEAT_SECONDS": "20"}
    return [
        subprocess.Popen(
            [*command, f"--workdir={folder}", *own],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own, folder in zip(flags, (workdir, other or workdir), strict=False)
    ]


def parts(workdir):
    """Which processes have written the networks of each checkpoint."""
    return {
        tuple(sorted(path.name for path in folder.glob("ocdbt.process_*")))
        for folder in workdir.glob("checkpoints/*/[0-9]*/params")
    }


def end(started, seconds=400):
    """Exit codes, and what was written; none outlives the test."""
    try:
        said = [process.communicate(timeout=seconds) for process in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], said


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("hosts") / "one"
    codes, said = end(start(DIGITS, workdir, processes=1))
    assert codes == [0], said
    return workdir


@pytest.mark.extended
@pytest.mark.parametrize("config", [DIGITS, PINN], ids=["digits", "pinn"])
def test_two_processes_are_one_with_two_devices(config, tmp_path, resume):
    for name, processes in (("one", 1), ("two", 2)):
        codes, said = end(start(config, tmp_path / name, processes=processes))
        assert codes == [0] * processes, said
    assert resume.fingerprint(tmp_path / "two") == resume.fingerprint(tmp_path / "one")
    assert parts(tmp_path / "two") == {("ocdbt.process_0", "ocdbt.process_1")}  # each its own rows
    assert not list(tmp_path.glob("two/checkpoints/*/.shared*"))
    assert "report.html" in said[0][0]
    assert "report.html" not in said[1][0]  # one process speaks; Gloo writes a line of its own


@pytest.mark.extended
def test_no_folder_need_be_shared(digits, tmp_path, resume):
    """Then the first process writes for both, also on from what one process or both wrote in a shared folder."""
    workdir, other = tmp_path / "two", tmp_path / "other"
    began = start(DIGITS, workdir, processes=2)
    assert resume.wait_until(began[0], lambda: any(workdir.glob("checkpoints/*/*.sha256")))
    began[0].send_signal(signal.SIGTERM)
    assert end(began)[0] == [143, 143]
    codes, said = end(start(DIGITS, workdir, processes=2, other=other))
    assert codes == [0, 0], said
    assert "goes on from the checkpoint" in said[0][1]
    assert ("ocdbt.process_0",) in parts(workdir)
    assert not list(other.glob("checkpoints/*/*"))
    assert resume.fingerprint(workdir) == resume.fingerprint(digits)


@pytest.mark.extended
def test_more_networks_than_devices(tmp_path, resume):
    """Five on two devices: rows that are copies, or rounds of two, are whole in what both write."""
    for replicas in ("auto", "sequential"):
        config = f"{PINN}    config.replicas = 5\n    config.placement.replicas = {replicas!r}\n    return config\n"
        config = config.replace("    return config\n    config.replicas", "    config.replicas")
        for name, processes in (("one", 1), ("two", 2)):
            codes, said = end(start(config, tmp_path / f"{name}_{replicas}", processes=processes))
            assert codes == [0] * processes, said
        assert resume.fingerprint(tmp_path / f"two_{replicas}") == resume.fingerprint(tmp_path / f"one_{replicas}")


@pytest.mark.extended
@pytest.mark.parametrize(("killed", "then"), [(0, 2), (1, 2), (1, 1)])
def test_a_killed_process(digits, killed, then, tmp_path, resume):
    """The other one ends by itself; the command started again, in two or in one, goes on."""
    workdir = tmp_path / "killed"
    started = start(DIGITS, workdir, processes=2)
    assert resume.wait_until(started[0], lambda: any(workdir.glob("checkpoints/*/*.sha256")))
    started[killed].send_signal(signal.SIGKILL)
    began = time.monotonic()
    codes, said = end(started, seconds=200)
    assert codes[killed] == -signal.SIGKILL
    assert said[1 - killed][1].rstrip().splitlines()[-1] == hosts.GONE
    assert codes[1 - killed] not in (0, -signal.SIGKILL)
    assert time.monotonic() - began < 150
    codes, said = end(start(DIGITS, workdir, processes=then))
    assert codes == [0] * then, said
    assert "goes on from the checkpoint" in said[0][1]
    assert resume.fingerprint(workdir) == resume.fingerprint(digits)


@pytest.mark.extended
def test_a_signal_to_one_process_stops_both(digits, tmp_path, resume):
    workdir = tmp_path / "stopped"
    started = start(DIGITS, workdir, processes=2)
    assert resume.wait_until(started[0], lambda: any(workdir.glob("checkpoints/*/*.sha256")))
    started[1].send_signal(signal.SIGTERM)
    codes, said = end(started)
    assert codes == [143, 143], said
    assert json.loads((workdir / "status.json").read_text())["status"] == "interrupted"
    codes, said = end(start(DIGITS, workdir, processes=2))
    assert codes == [0, 0], said
    assert resume.fingerprint(workdir) == resume.fingerprint(digits)
