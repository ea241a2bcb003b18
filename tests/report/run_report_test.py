"""`runs/report.py` as a user calls it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def call(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "runs" / "report.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_writes_the_report_and_prints_its_path(write_run):
    workdir = write_run()
    done = call(f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert f"report: {workdir / 'report.html'}" in done.stdout
    assert (workdir / "report.html").is_file()


def test_an_empty_workdir_is_an_error_that_names_the_flag(tmp_path):
    done = call(f"--workdir={tmp_path}")
    assert done.returncode != 0
    assert f"workdir={tmp_path} has no" in done.stdout + done.stderr
    assert "config.json" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_flag_is_required():
    done = call()
    assert done.returncode != 0
    assert "--workdir" in done.stdout + done.stderr
