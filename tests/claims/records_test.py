"""Records: what may stand in `results/`."""

import copy
import json
import pathlib

import pytest

from sbjax.claims import records
from sbjax.common.files import to_json

RESULTS = pathlib.Path(__file__).parents[2] / "results"
RECORD = {
    "schema": 1,
    "title": "A table",
    "about": "",
    "command": "python runs/train.py --config=configs/quickstart.py",
    "origin": {"how": "recorded", "commit": "abc", "date": "2026-01-01"},
    "scale": {"seeds": 5},
    "hardware": "",
    "columns": [{"key": "arm", "name": "arm"}, {"key": "x", "name": "x", "decimals": 1}],
    "rows": [{"cells": {"arm": "raw", "x": {"value": 1.0, "low": 0.5, "high": 2.0}}}],
    "notes": "",
}


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_of_results_is_whole_and_in_one_form(path):
    text = path.read_text()
    assert text == to_json(json.loads(text))
    if path.parent != RESULTS:
        records.load(path)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (("schema",), 2, "schema must be 1"),
        (("titel",), "x", "titel is unknown, did you mean 'title'?"),
        (("title",), None, "title=None must be a text"),
        (("command",), 3, "command=3 must be a shell command"),
        (("origin",), {}, "origin={} must have how, commit and date"),
        (("origin", "how"), "guessed", "origin.how='guessed' must be one of recorded, entered by hand"),
        (("scale", "seeds"), "5", "scale.seeds='5' has the wrong type"),
        (("scale", "seed"), 5, "scale.seed is unknown, did you mean 'seeds'?"),
        (("columns",), [], "at least one column"),
        (("columns", 1, "key"), "arm", "one of them twice"),
        (("columns", 1, "decimal"), 1, "decimal is unknown, did you mean 'decimals'?"),
        (("columns", 1, "mark"), "ours", "mark='ours' must be one of published, control"),
        (("rows",), [], "at least one row"),
        (("rows", 0, "mark"), "ours", r"rows\[0\].mark='ours'"),
        (("rows", 0, "cells", "y"), 1, "cells.y is no column"),
        (("rows", 0, "cells", "x"), True, "cells.x=True is no cell"),
        (("rows", 0, "cells", "x"), {"value": 1, "low": 0}, "is no cell"),
        (("rows", 0, "cells", "x"), {"value": "1"}, "is no cell"),
    ],
)
def test_what_is_no_record_is_refused(at, value, said):
    record = copy.deepcopy(RECORD)
    place = record
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    with pytest.raises(records.RecordError, match=said):
        records.check(record)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    path = records.save(tmp_path, "images/table", RECORD)
    assert path == tmp_path / "images" / "table.json"
    assert records.load_all(tmp_path) == {"images/table": RECORD}
    later = {**RECORD, "order": 1}
    records.save(tmp_path, "images/before", later)
    assert list(records.load_all(tmp_path)) == ["images/table", "images/before"]  # by order, not by name


@pytest.mark.parametrize("name", ["table", "a/b/c", "../x", "images/a table", "/x"])
def test_a_name_is_an_experiment_and_a_word(name, tmp_path):
    with pytest.raises(records.RecordError, match=r"must be EXPERIMENT/NAME"):
        records.save(tmp_path, name, RECORD)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_and_a_missing_folder_are_told(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.json").write_text("{")
    with pytest.raises(records.RecordError, match=r"b\.json: is no JSON"):
        records.load_all(tmp_path)
    with pytest.raises(FileNotFoundError, match="clone of the repository"):
        records.load_all(tmp_path / "none")
