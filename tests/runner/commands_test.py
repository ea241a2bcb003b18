"""The console script, and what a wheel holds."""

import configparser
import pathlib
import re
import subprocess
import sys

import pytest

import sbjax
from sbjax.runner import cli, commands

ROOT = pathlib.Path(__file__).parents[2]


def call(monkeypatch, capsys, *words):
    """What `sbjax WORDS` prints, and how it ends."""
    monkeypatch.setattr(sys, "argv", ["sbjax", *words])
    try:
        commands.main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().out


def test_commands_are_listed(monkeypatch, capsys):
    for words in ((), ("--help",), ("help",)):
        code, out = call(monkeypatch, capsys, *words)
        assert code == 0
        assert all(re.search(rf"^  {name} ", out, re.MULTILINE) for name in commands.COMMANDS)
    assert call(monkeypatch, capsys, "--version") == (0, f"sbjax {sbjax.__version__}\n")


def test_an_unknown_command_is_told_with_a_near_one(monkeypatch, capsys):
    code, _ = call(monkeypatch, capsys, "tran", "--config=x")
    assert code.startswith("error: 'tran' is no command, did you mean 'train'?")


def test_every_command_has_its_script():
    scripts = {path.stem: path.read_text() for path in (ROOT / "runs").glob("*.py")}
    assert set(scripts) == set(commands.COMMANDS)
    for name, text in scripts.items():
        assert f'start("{name}")' in text
        assert f"`sbjax {name}`" in text


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("--config=quickstart", "quickstart.py"),
        ("--config=quickstart:smoke", "quickstart.py:smoke"),
        ("--config=configs/pdes.py:heat,quick", "pdes.py:heat,quick"),
        ("--config=elsewhere/pdes.py", None),
        ("--config=nothing", None),
        ("--workdir=quickstart", None),
    ],
)
def test_configs_of_the_package_are_found_from_anywhere(given, found, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    flag, _, value = cli._with_own_config(given).partition("=")
    if found is None:
        assert f"{flag}={value}" == given
    else:
        assert pathlib.Path(value.split(":")[0]).is_file()
        assert cli._as_given(value) == f"configs/{found}"


def test_a_file_of_ones_own_goes_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.py").write_text("")
    assert cli._with_own_config("--config=quickstart.py:smoke") == "--config=quickstart.py:smoke"


def test_versions_and_requirements_are_said_once():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: sbjax.__version__"
    assert f"version: {sbjax.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    needed = set(setup["options"]["install_requires"].split())
    light = {line for line in (ROOT / "requirements-light.txt").read_text().splitlines() if line[:1].isalpha()}
    assert light < needed


@pytest.mark.parametrize(
    "name", ["README.md", "CITATION.cff", *(f"notebooks/{p.name}" for p in (ROOT / "notebooks").glob("*.py"))]
)
def test_no_address_is_named_but_the_home(name):
    """The home is one constant; while it is unset nothing links to a place that may not be there."""
    links = re.findall(r"https?://(?:github\.com|colab\.research\.google\.com)/[^\s)\]]+", (ROOT / name).read_text())
    assert all(sbjax.HOME and link.startswith(sbjax.HOME) for link in links), links


@pytest.mark.extended
def test_a_wheel_holds_its_configs_and_its_command(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "installed"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)],
        check=True,
        capture_output=True,
    )
    assert sorted(p.name for p in (target / "sbjax" / "configs").glob("*.py")) == sorted(
        p.name for p in (ROOT / "configs").glob("*.py")
    )
    run = [sys.executable, "-m", "sbjax", "train", "--config=quickstart:smoke", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(
        run,
        cwd=tmp_path,
        env={"PYTHONPATH": str(target), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
