"""Docstring examples and README code run as written."""

import doctest
import importlib
import pathlib
import pkgutil
import re
import shutil
import subprocess
import sys

import pytest
from absl import flags as absl_flags

import sbjax

ROOT = pathlib.Path(__file__).parents[1]
MODULES = [module.name for module in pkgutil.walk_packages(sbjax.__path__, "sbjax.")]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.sampled(90)
@pytest.mark.parametrize("name", ["sbjax", *MODULES])
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert result.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) > 20


def readme_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(readme_blocks("python"))))
def test_readme_python(number, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", readme_blocks("python")[number]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr


def main_command():
    lines = [line for block in readme_blocks("sh") for line in block.splitlines()]
    (line,) = [line for line in lines if "pip install" in line and "configs/quickstart.py" in line]
    return line


@pytest.mark.extended
@pytest.mark.slow
def test_readme_main_job(tmp_path):
    """The main command as a newcomer runs it, in a copy of the sources: only folder, replicas and steps are changed."""
    clone, workdir = tmp_path / "clone", tmp_path / "run"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    command, replaced = re.subn(r"--workdir=\S+", f"--workdir={workdir}", main_command())
    assert replaced == 1
    command += " --config.replicas=2 --config.train_epochs=1 --config.reports=1"
    run = subprocess.run(command, shell=True, cwd=clone, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr
    assert f"report: {workdir / 'report.html'}" in run.stdout
    assert re.search(r"left \d+:\d\d", run.stderr)  # progress with the time left
    for name in ("config.json", "status.json", "metrics.jsonl", "results.csv", "summary.json", "report.html"):
        assert (workdir / name).stat().st_size > 0
    for name in ("figures", "tensorboard", "checkpoints"):
        assert any((workdir / name).iterdir())


def test_the_config_page_is_a_config():
    """Its Python block answers its words, and is read."""
    from sbjax import config as config_lib

    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "config.md").read_text(), re.DOTALL)
    names = {}
    exec(block, names)
    for words in ("", "mnist", "digits,smoke"):
        plan = config_lib.read(names["get_config"](words))
        assert [arm.role for arm in plan.arms] == ["reference", "treatment", "control of resolution"]


COMMANDS = [
    (page.name, line.strip())
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for line in re.sub(r"\\\\\n\s*", " ", page.read_text()).splitlines()
    if re.match(r"\s*(OPENBLAS_NUM_THREADS=1 )?python runs/train.py --config=", line)
]


# ml_collections loads config files in an old way.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_every_training_command_of_the_pages_can_be_read(monkeypatch):
    """Config, words, overrides and what they give: a plan. Those that name what the reader has to make are left out."""
    from ml_collections import config_flags

    from sbjax.runner import suite

    read = 0
    for page, line in COMMANDS:
        words = [word for word in line.split("#")[0].split() if word.startswith("--config")]
        if any(part in line for part in ("PATH", "FILE", "DIR", ":list", "screened.py", "module:", "my_", "/me/")):
            continue
        flags = absl_flags.FlagValues()
        config_flags.DEFINE_config_file("config", None, flag_values=flags)
        # ml_collections looks for overrides there.
        monkeypatch.setattr(sys, "argv", ["x", *(word.replace("--config=", f"--config={ROOT}/", 1) for word in words)])
        flags(sys.argv)
        assert suite.first_plan(flags.config).arms, (page, line)
        read += 1
    assert read > 20
