"""The folder of a run: where it lies, in which environments it was computed, and that it can be read where it cannot
be written."""

import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from sbjax.frame import environment as environment_lib
from sbjax.frame import own_parts
from sbjax.frame import workdir as lib
from sbjax.frame.errors import ConfigError
from sbjax.report.page import build_report
from sbjax.report.results import load_results
from sbjax.report.statistics import summarise
from sbjax.runner import suite

SETTINGS = {"task": {"kind": "images"}, "seed": 0}


def opened(path, **options):
    folder = lib.Workdir(path, SETTINGS, **options)
    folder.open(overrides=[], config_file=None)
    folder.close()
    return json.loads((folder.path / "config.json").read_text())


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    opened("~/run")
    assert (tmp_path / "home" / "run" / "config.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    with pytest.raises(ConfigError, match=r"\$NO_SUCH_VARIABLE, which is not set"):
        lib.Workdir("$NO_SUCH_VARIABLE/run", SETTINGS)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("-", "the path '-' begins with '-'"),
        ("-x/y", "write './-x/y' if it is called so"),
        ("", "is empty"),
        (" ", "is empty"),
        ("~nouser/x", "holds ~nouser, which is not set"),
        ("a\nb", "holds a line break"),
        ("a\tb", "another control character"),
        ("a\0b", "holds a NUL"),
        (b"-", "begins with '-'"),
        ("a-file", "a-file is a file; name a folder"),
        ("a-file/run", "a-file is a file; name a folder"),
    ],
)
def test_a_path_that_is_no_folder_is_refused(path, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").write_text("")
    with pytest.raises(ConfigError, match=words):
        lib.Workdir(path, SETTINGS)
    assert lib.Workdir("./-x", SETTINGS).status == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a-file"]


def test_another_environment_is_told_and_kept(tmp_path, monkeypatch, caplog, write_run):
    caplog.set_level(logging.WARNING, logger="sbjax")
    first = opened(tmp_path / "run")
    assert opened(tmp_path / "run") == first
    assert caplog.text == ""
    real = lib.environment
    changed = {"device": "another device", "commit": "0123456789"}
    monkeypatch.setattr(lib, "environment", lambda *arguments: real(*arguments) | changed)
    second = opened(tmp_path / "run")
    assert "goes on in another environment than before" in caplog.text
    assert "another device" in caplog.text
    assert second["environment"] == first["environment"]
    assert [found["commit"] for found in second["continued"]] == ["0123456789"]
    assert opened(tmp_path / "run") == second  # the same one again is no other
    monkeypatch.setattr(lib, "environment", real)
    assert len(opened(tmp_path / "run")["continued"]) == 2  # back again: a third part
    caplog.clear()
    monkeypatch.setattr(environment_lib, "_processor", lambda: "Another CPU")
    assert opened(tmp_path / "run")["continued"][-1]["processor"] == "Another CPU"
    assert '-> "Another CPU"' in caplog.text
    run = write_run()
    settings = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**settings, "continued": [{"jax": "0.12.0", "device": "cpu"}]}))
    page = build_report(run).read_text()
    assert "Not all of it was computed in one environment" in page
    assert "jax: &quot;0.10.1&quot; -&gt; &quot;0.12.0&quot;" in page
    assert "Environment of part 2" in page


def test_code_and_data_of_ones_own_that_were_changed_are_told(tmp_path, caplog):
    """A folder of pictures is read again when a run goes on, and a file of code is run again."""
    caplog.set_level(logging.WARNING, logger="sbjax")
    code, pictures = tmp_path / "mine.py", tmp_path / "run"
    code.write_text("Net = 1")
    data = lambda x: own_parts.data_digests({("folder:/pictures", 1.0): {"x": np.full(3, x)}, ("digits",): {"x": x}})  # noqa: E731

    def opened(x):
        folder = lib.Workdir(pictures, SETTINGS | {"model": {"name": f"{code}:Net"}})
        folder.open(overrides=[], config_file=None, own_code=[f"model.name={code}:Net"], own_data=data(x))
        folder.close()
        return json.loads((pictures / "config.json").read_text())

    first = opened(1.0)
    assert opened(1.0) == first
    assert caplog.text == ""
    assert list(first["environment"]["own_data"]) == ["folder:/pictures, 1.0"]
    assert len(opened(2.0)["continued"]) == 1
    assert "own_data.folder:/pictures, 1.0: " in caplog.text
    code.write_text("Net = 2")
    assert len(opened(2.0)["continued"]) == 2
    assert f"own_code.{code}:Net: " in caplog.text


def test_what_was_not_recorded_has_not_changed(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="sbjax")
    first = opened(tmp_path / "run")
    del first["environment"]["processor"], first["environment"]["cores"], first["started"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(first))
    assert opened(tmp_path / "run") == first
    assert caplog.text == ""


def test_a_folder_that_cannot_be_written_is_shown(write_run, monkeypatch, caplog):
    run = write_run()
    monkeypatch.setattr("os.access", lambda *_: False)
    before = sorted(path.name for path in run.iterdir())
    table, _, summary = suite.report(run)
    assert "expanded" in table
    assert summary["comparisons"]["equal_steps"][0]["comparison"]["verdict"] == "better"
    assert sorted(path.name for path in run.iterdir()) == before
    assert "cannot be written: no page is made" in caplog.text


@pytest.mark.extended
def test_seeds_and_replicas_that_are_too_few_are_said(write_run):
    from sbjax.report.tables import format_table

    run = write_run(replicas=3)  # one replica of 'nearest' stops
    page, table = build_report(run).read_text(), suite.report(run)[2]
    assert "too few seeds for a verdict (fewer than 5)" in page
    text = " ".join(format_table(table).split())
    for few in ("2 replicas in nearest", "3 replicas in raw, expanded"):
        assert f"A distance of {few} has no interval: it takes 4." in page
        assert f"A distance of {few} has no interval: it takes 4" in text
    five = format_table(summarise(load_results(write_run("five", replicas=5))))  # 4 finished in 'nearest'
    assert "it takes 4" not in " ".join(five.split())
    alone = " ".join(format_table(summarise(load_results(write_run("alone", replicas=1, stop=False)))).split())
    assert "No distance of 1 replica: it takes 2, with an interval 4" in alone
    assert "too few seeds for a verdict (fewer than 5)" in text
    assert "2 comparisons, each by itself; the report has verdicts corrected for their number" in text


def test_every_name_is_shown_on_a_terminal_of_few_letters(write_run):
    """In a process of its own, with a folder of other letters."""
    run = write_run(name="ünï")
    command = [sys.executable, "runs/report.py", f"--workdir={run}"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "\\xfcn\\xef/report.html" in done.stdout
    again = subprocess.run([*command[:2], "--workdir=-"], capture_output=True, text=True)
    assert "--workdir=- stands for no folder" in again.stderr
    assert load_results(run).replicas == 8
