"""One reader for what a run leaves: every damage is a sentence with file, line and remedy."""

import errno
import json
import pathlib
import random

import numpy as np
import pytest

from sbjax.common import files
from sbjax.common.names import expanded

FORM = {"name": str, "counts": {str: int}, "note?": (str, None), "rows": [float]}
GOOD = {"name": "x", "counts": {"a": 1}, "rows": [1, 2.5]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read .JSONDecodeError"),
        (b"\xff\xfe\x00", "cannot be read .UnicodeDecodeError"),
        (b"[" * 100_000, "cannot be read"),
        (b"null", "holds a NoneType and no object"),
        (b"[]", "holds a list and no object"),
        (b"{}", "name is missing"),
        ({**GOOD, "name": 3}, "name=3 must be a str"),
        ({**GOOD, "counts": {"a": 1.5}}, r"counts.a=1.5 must be an int"),
        ({**GOOD, "counts": {"a": True}}, r"counts.a=True must be an int"),
        ({**GOOD, "rows": [1, None]}, r"rows\[1\]=None must be a float"),
        ({**GOOD, "note": []}, r"note=\[\] must be a str"),
    ],
)
def test_json_that_cannot_be_used_is_named(tmp_path, content, words):
    path = tmp_path / "arms.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(files.FileError, match=rf"arms\.json.*{words}.*move it away") as caught:
        files.read_json(path, FORM)
    assert "\n" not in str(caught.value)
    line = tmp_path / "lines.jsonl"
    line.write_bytes(json.dumps(GOOD).encode() + b"\n" + path.read_bytes() + b"\n")
    if content:  # an empty line is none
        with pytest.raises(files.FileError, match=r"lines\.jsonl line 2 cannot be used"):
            files.read_lines(line, FORM)


def test_what_is_whole_is_read(tmp_path):
    files.write_json(tmp_path / "a.json", GOOD)
    assert files.read_json(tmp_path / "a.json", FORM) == GOOD
    files.append_line(tmp_path / "b.jsonl", GOOD)
    with open(tmp_path / "b.jsonl", "a") as file:
        file.write('{"name": "cut o')
    assert files.read_lines(tmp_path / "b.jsonl", FORM) == [(1, GOOD)]
    with pytest.raises(FileNotFoundError, match=r"has no c\.json"):
        files.read_json(tmp_path / "c.json")


@pytest.mark.parametrize(("last", "kept"), [('{"name": "cut o', 0), ('{"n": 2}', 1), ("", 0)])
def test_a_line_after_one_that_was_cut_off_is_whole(tmp_path, last, kept):
    """As a full disk or a kill leaves it: the next line would have been glued to it."""
    path = tmp_path / "b.jsonl"
    files.append_line(path, {"n": 1})
    with open(path, "a") as file:
        file.write(last)
    files.append_line(path, {"n": 3})
    assert [one["n"] for _, one in files.read_lines(path)] == [1, *[2] * kept, 3]


def test_arrays_with_any_byte_changed_are_right_or_refused(tmp_path):
    arrays = {"x": np.arange(300.0), "name": np.array(["u"])}
    path = tmp_path / "grid.npz"
    np.savez_compressed(path, **arrays)
    whole, rng = path.read_bytes(), random.Random(0)
    for cut in range(60):
        damaged = bytearray(whole)
        place = rng.randrange(len(whole))
        damaged[place] ^= 1 + rng.randrange(255)
        path.write_bytes(bytes(damaged) if cut % 3 else whole[:place])
        try:
            found = files.read_arrays(path, ("x", "name"))
        except files.FileError:
            continue
        np.testing.assert_array_equal(found["x"], arrays["x"])
    np.savez(path, x=np.array([object()], dtype=object))
    with pytest.raises(files.FileError, match="holds Python objects"):
        files.read_arrays(path)


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*status\.json"):
        files.write_atomically(tmp_path / "status.json", "x")
    assert list(tmp_path.iterdir()) == []


def test_paths_are_those_that_a_shell_would_make(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RUNS", "/data/runs")
    assert expanded("~/a") == tmp_path / "a"
    assert expanded("$RUNS/b") == pathlib.Path("/data/runs/b")
    for path, words in (
        ("$NOT_SET_HERE/a", r"\$NOT_SET_HERE, which is not set"),
        ("~nobody_of_this_name/a", "~nobody_of_this_name, which is not set"),
        ("a\0b", "NUL"),
        ("\udcc3\udcbc", "PYTHONUTF8=1"),
    ):
        with pytest.raises(ValueError, match=words):
            expanded(path)
    (tmp_path / "$odd").mkdir()
    assert expanded(tmp_path / "$odd").name == "$odd"  # it is there
