"""The list of fields: what a config reads, and the page that shows all of them."""

import pathlib
import runpy
import subprocess
import sys

import pytest

from sbjax import config as config_lib
from sbjax.runner.fields import fields_of, fields_page, fields_text

ROOT = pathlib.Path(__file__).parents[2]


def plan(name, words):
    return config_lib.read(runpy.run_path(str(ROOT / "configs" / name))["get_config"](words))


def test_the_page_is_what_the_fields_say():
    assert (ROOT / "docs" / "fields.md").read_text() == fields_page()


@pytest.mark.parametrize(
    ("name", "words", "there", "not_there"),
    [
        ("quickstart.py", "", ("task.dataset", "optimizer.momentum"), ("optimizer.b1", "optimizer.decay_factor")),
        (
            "pdes.py",
            "heat",
            ("task.points", "second_phase.memory_size"),
            ("task.balance_every", "interpolation.points"),
        ),
        ("ising.py", "", ("task.size",), ("optimizer.name", "precision.x64")),
    ],
)
def test_only_what_is_read_is_listed(name, words, there, not_there):
    text = fields_text(plan(name, words))
    for path in there:
        assert f"--config.{path}=" in text
    for path in not_there:
        assert f"--config.{path}=" not in text


def test_what_is_listed_can_be_set_and_nothing_else_is_kept():
    """The list and the resolved config name the same fields."""
    found = plan("pdes.py", "heat,quick")
    for section, specs in fields_of(found).items():
        if section and section not in ("model", "expansion"):
            kept = set(found.settings[section]) - {"kind"}
            assert set(specs) == kept, section


def test_command_line():
    command = [sys.executable, "runs/train.py", "--config=configs/qcd.py:quick", "--fields"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--config.task.nodes=20" in done.stdout
    assert "of the integrals over momenta in training" in done.stdout
