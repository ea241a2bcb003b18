"""Mutated configurations: refused in words or accepted with an effect, soon, and nothing is written."""

import importlib.util
import logging
import pathlib
import re
import signal

import pytest

from sbjax import config as config_lib
from sbjax.frame import sections as sections_lib
from sbjax.frame.errors import ConfigError
from sbjax.runner import fields as fields_lib
from sbjax.runner import run as runner

SECONDS = 20
SECTIONS = ("task", "model", "expansion", "optimizer", "second_phase", *sections_lib.SHARED)
OFF = ("'0'", "'0.0'", "'False'", "''", "'{}'", "'None'", "'1'")


def load():
    path = pathlib.Path(__file__).parents[1] / "mutations.py"
    spec = importlib.util.spec_from_file_location("mutations", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutations = load()


@pytest.fixture
def in_time():
    """Time of the processor, since a busy machine is no hang."""

    def late(*_):
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, late)
    yield lambda seconds=SECONDS: signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def parts(count):
    """A few that are read by default, and all, which are built as well."""
    extended = (pytest.param(i, i + 50, True, marks=pytest.mark.extended) for i in range(0, count, 50))
    return pytest.mark.parametrize(("first", "last", "prepare"), [(0, 40, False), *extended])


@pytest.mark.wrong_types
@parts(300)
def test_refused_in_words_or_accepted_with_an_effect(tmp_path, monkeypatch, in_time, first, last, prepare):
    try_all(tmp_path, monkeypatch, in_time, first, last, prepare, seed=0, files=mutations.STARTS)


@pytest.mark.wrong_types
@parts(200)
def test_kinds_that_came_later(tmp_path, monkeypatch, in_time, first, last, prepare):
    try_all(tmp_path, monkeypatch, in_time, first, last, prepare, seed=11, files=mutations.LATER)


@pytest.mark.wrong_types
@parts(200)
def test_kinds_that_came_last(tmp_path, monkeypatch, in_time, first, last, prepare):
    try_all(tmp_path, monkeypatch, in_time, first, last, prepare, seed=31, files=mutations.LAST)


def try_all(tmp_path, monkeypatch, in_time, first, last, prepare, *, seed, files):
    logging.getLogger("sbjax").setLevel(logging.ERROR)  # conftest sets it back
    plain = {name: config_lib.read(tree) for name, tree in mutations.starts(files).items()}
    monkeypatch.chdir(tmp_path)
    raw, silent, strange = [], [], []
    for number, (start, said, tree) in list(enumerate(mutations.mutated(last, seed, files)))[first:]:
        in_time()
        try:
            plan = config_lib.read(tree)
            folder = runner.open_workdir(plan, tmp_path / "run")
            if prepare:
                runner.prepare(plan)
        except ConfigError as error:
            raw += [(number, start, said, "long")] * (not 0 < len(str(error)) < 3000)
            strange += [(number, said, name) for name in named(error) if not exists(name, tree, plain[start])]
            continue
        except Exception as error:
            raw.append((number, start, said, repr(error)))
            continue
        finally:
            in_time(0)
            assert list(tmp_path.iterdir()) == [], (number, said)
        assert folder.status == "new"
        if plan.settings == plain[start].settings and not without_effect(said):
            silent.append((number, start, said))
    assert raw == []
    assert silent == []
    assert strange == []


def named(error):
    """Fields of sections that a message is about: 'model.heads' of 'model.heads=3 must divide ..'."""
    return re.findall(r"\b([a-z_]+\.[a-z_0-9]+)=", str(error))


def exists(name, tree, plan):
    """Whether a name is a field of this plan, one that was given, or no field at all but a name in a sentence."""
    section, field = name.split(".")
    if section not in SECTIONS:
        return True
    every = fields_lib.fields_of(plan).get(section, {})
    arms = [own for own in dict(tree.get("arms") or {}).values() if isinstance(own, dict)] if "arms" in tree else []
    given = [found for own in (tree, *arms) if isinstance(found := own.get(section), dict)]
    return field in every or any(field in own for own in given) or section in ("optimizer", "second_phase")


def test_a_message_names_the_section_that_has_the_field(tmp_path):
    """Sizes that the network meets only when it is tried: told of the network, not of the task it is tried in."""
    for words, section, changes, message in (
        ("rotten_tomatoes,transformer,smoke", "model", {"heads": 3}, "model.heads=3 must divide"),
        ("rotten_tomatoes,transformer,smoke", "task", {"length": 300}, "model.positions=256 are fewer than the 300"),
        ("rotten_tomatoes,textcnn,smoke", "model", {"windows": (2, 3, 2)}, r"model.windows=\(2, 3, 2\) name a size tw"),
    ):
        tree = mutations.starts((("text.py", words),))[f"text.py:{words}"]
        tree[section].update(changes)
        with pytest.raises(ConfigError, match=f"^arm 'raw': {message}"):
            runner.prepare(config_lib.read(tree))


def without_effect(said):
    """Whether all that was done is to leave fields out, to copy one, to move an arm in tables, or to say 'off'."""

    def nothing(part):
        path, _, value = part.partition("=")
        return part.startswith(("without ", "left ")) or " as " in part or path.endswith(".order") or value in OFF

    return all(map(nothing, said.split("; ")))
