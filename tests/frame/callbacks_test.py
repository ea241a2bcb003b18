"""Callbacks observe: in their order, once a report, and a fault of theirs stops nothing."""

import pathlib

import pytest

from sbjax.frame.callbacks import Callbacks, Event
from sbjax.frame.errors import ConfigError

CODE = """
seen = []

def record(event):
    seen.append((event.arm, event.step))

def broken(event):
    seen.append("broken")
    raise ValueError("mine")

class Counts:
    def __init__(self):
        self.count = 0

    def __call__(self, event):
        self.count += 1
        seen.append(self.count)

class Fails:
    def __init__(self):
        raise KeyError("mine")

class Wants:
    def __init__(self, more):
        pass

def no_event(): pass


def two(event, step): pass


value = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own_callbacks.py"
    path.write_text(CODE)
    return path


def event(step):
    return Event("raw", step, {"test/loss": [1.0, None]}, pathlib.Path("/tmp"))


def test_all_are_told_and_a_broken_one_only_once(file, caplog):
    from sbjax.common.names import import_path

    callbacks = Callbacks(f"{file}:record, {file}:broken, {file}:Counts")
    for step in (0, 10):
        callbacks(event(step))
    assert import_path(f"{file}:seen") == [("raw", 0), "broken", 1, ("raw", 10), 2]
    assert "own_callbacks.py:broken failed at step 0 of arm raw; it is not called again" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{file}:Fails", "KeyError: 'mine'"),
        ("{file}:Wants", "TypeError: .*missing 1 required positional argument"),
        ("{file}:recrd", "has no 'recrd', did you mean 'record'"),
        ("{file}:value", "cannot be called"),
        ("{file}:no_event", "is called with one `Event`: too many positional arguments"),
        ("{file}:two", "is called with one `Event`: missing a required argument: 'step'"),
        ("record", "must be 'module:function'"),
        ("no_such_module_here:f", "there is no module 'no_such_module_here'"),
        ("nowhere.py:f", "there is no file 'nowhere.py'"),
    ],
)
def test_what_cannot_be_called_is_refused(file, name, message):
    with pytest.raises(ConfigError, match=message):
        Callbacks(name.format(file=file))
