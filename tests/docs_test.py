"""Docstring examples and the code of README and docs run as written; commands and links lead somewhere."""

import doctest
import importlib
import importlib.util
import json
import os
import pathlib
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys

import pytest

import sbjax
from tests import commands

ROOT = pathlib.Path(__file__).parents[1]
MODULES = [module.name for module in pkgutil.walk_packages(sbjax.__path__, "sbjax.")]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.sampled(90)
@pytest.mark.parametrize("name", ["sbjax", *MODULES])
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert result.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) > 20


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


RUN = """
import json, sys, traceback
for number, block in enumerate(json.load(sys.stdin)):
    try:
        exec(compile(block, f"block {number}", "exec"), {"__name__": "block"})
    except BaseException:
        sys.exit(f"block {number}:\\n{block}\\n{traceback.format_exc()}")
"""


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", [page.relative_to(ROOT).as_posix() for page in PAGES if blocks(page, "python")])
def test_python_of_a_page(name, tmp_path):
    """Every block of a page by itself, as a reader would copy it; a process a page, which imports JAX once."""
    found = blocks(ROOT / name, "python")
    (tmp_path / "docs").symlink_to(ROOT / "docs")  # examples are named from the root of the repository
    run = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(found),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr


def main_command():
    lines = [line for block in blocks(ROOT / "README.md", "sh") for line in block.splitlines()]
    (line,) = [line for line in lines if "pip install" in line and "configs/quickstart.py" in line]
    return line


def test_readme_is_short_and_has_one_line_of_tests():
    """The line is what `.ci/run` looks for."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert len([line for line in lines if re.search(r"pip install .*\.\[test\].*pytest", line)]) == 1


@pytest.mark.extended
@pytest.mark.slow
def test_readme_main_job(tmp_path):
    """The main command as a newcomer runs it, in a copy of the sources: only folder, replicas and steps are changed."""
    clone, workdir = tmp_path / "clone", tmp_path / "run"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name, follow_symlinks=False)
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


START = re.compile(r"(?:[A-Z_]+=\S+ )?(?:python|pip|mkdocs|python3|sbjax) ")


def shell_commands(page):
    """What a page tells a reader to type: shell blocks, indented blocks and code in a line."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    lines = [line.removeprefix("    ") for line in text.splitlines()]
    return [line for line in [*lines, *re.findall(r"`([^`\n]+)`", text)] if START.match(line)]


COMMANDS = list(dict.fromkeys(line for page in PAGES for line in shell_commands(page)))
# What the reader has to make first is named in capitals, or is an example of theirs.
MADE_BY_READERS = ("PATH", "FILE", "DIR", ":list", "screened.py", "module:", "my_", "/me/")


def flags_of(script, action=""):
    if action:
        module = importlib.import_module(f"sbjax.runner.commands.{pathlib.Path(script).stem}")
        return {*module.OWN_FLAGS[action], "help"}
    command = ROOT / "sbjax" / "runner" / "commands" / pathlib.Path(script).name  # scripts in runs/ only start these
    text = (command if script.startswith("runs/") else ROOT / script).read_text()
    shared = ["config", "cpu_devices"] if "define_config" in text else []
    shared += ["distributed"] * ("define_distributed" in text)
    return {*re.findall(r'DEFINE_\w+\(\s*"(\w+)"', text), *shared, "help", "helpfull"}


def test_every_command_of_the_pages_names_what_there_is():
    """Scripts, their flags, benchmarks and modules."""
    read = 0
    for line in COMMANDS:
        words = shlex.split(line, comments=True)
        words = words[1:] if "=" in words[0] else words
        if words[0] == "sbjax" and len(words) > 1 and not words[1].startswith("--"):
            words = ["python", f"runs/{words[1]}.py", *words[2:]]
        if words[0] not in ("python", "python3") or len(words) < 2 or "FILE" in line or "<name>" in line:
            continue
        if words[1] == "-m":
            assert importlib.util.find_spec(words[2]), line
        else:
            assert (ROOT / words[1]).is_file(), line
        if words[1].startswith("runs/"):
            action = words.pop(2) if len(words) > 2 and not words[2].startswith("--") else ""
            known = flags_of(words[1], action)
            for word in words[2:]:
                assert word.startswith("--"), line
                assert re.split(r"[=.]", word.removeprefix("--"))[0] in known, (word, line)
        read += 1
    assert read > 60


# ml_collections loads config files in an old way.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_every_config_of_the_pages_can_be_read(monkeypatch):
    """Config, words, overrides and what they give: a plan. Those that name what the reader has to make are left out."""
    asked = {
        commands.config_words(line): line
        for line in COMMANDS
        if commands.config_words(line) and not any(part in line for part in MADE_BY_READERS)
    }
    for line in asked.values():
        assert commands.plan_of(line, monkeypatch).arms, line
    assert len(asked) > 30


def links(page):
    """Targets of links and pictures, without those to other sites."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


def test_links_between_pages_lead_somewhere():
    found = 0
    for page in PAGES:
        for link in links(page):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), (page.name, link)
            # Pages of docs/ are a site of their own.
            assert ROOT / "docs" not in page.parents or ROOT / "docs" in target.parents, (page.name, link)
            if anchor:
                heads = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}, link
            found += 1
    assert found > 100


def test_every_page_is_in_the_site_and_can_be_reached():
    nav = set(re.findall(r"([\w/]+\.md)\s*$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    docs = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if ROOT / "docs" in page.parents}
    assert nav == docs


def test_the_site_builds(tmp_path):
    """Without a network, every warning an error."""
    pytest.importorskip("mkdocs")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "claims" / "index.html").stat().st_size > 0
