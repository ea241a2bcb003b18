"""What a record of results is, and how it is checked, loaded and saved.

A record is one table of results, `results/<experiment>/<name>.json`:

`title`
    one line;
`order`
    its place on the page of the experiment, a whole number; 0 where it is left out;
`about`
    what was trained and what the numbers are, in Markdown; above the table;
`command`
    what makes it, a shell command or a list of them; [] where there is none;
`origin`
    `{"how", "commit", "date"}`: how is 'recorded' (made from a workdir, or by benchmarks/record.py) or 'entered by
    hand'; the commit is that of the code, or, of a table entered by hand, the one it was first written down in;
`scale`
    any of `seeds`, `steps`, `epochs`, `data_share` (0 to 1), `words` (anything else);
`hardware`
    what it ran on;
`columns`
    a list of `{"key", "name"}` with, of numbers, `decimals` (after the point) or `digits` (significant ones), `unit`,
    `signed` (a plus before positive numbers), `mark` where the whole column is of one kind, and `shown` false where it
    is kept as data and left out of tables;
`rows`
    a list of `{"cells": {key: cell}}`, with `mark` where a row is not an arm of ours: 'published' or 'control'; further
    fields of a row, such as `seeds` (the number of every seed), are kept and not shown;
`notes`
    Markdown under the table: what was found, and what limits it.

A cell is a number, a text, null, or one of

- `{"value", "low", "high"}`: a number with an interval, which `about` names;
- `{"value", "spread"}`: mean and standard deviation;
- `{"count", "of"}`, also with `low` and `high`, the interval of the share in percent;
- `{"low", "high"}`: from, to;
- `{"values", "null"}`: several numbers in the order that the column says, and what independent draws give;

each of these, and `{"value"}`, also with `unit`, where the rows of a column differ in theirs.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from sbjax.common.files import write_json
from sbjax.common.names import near

SCHEMA = 1
HOW = ("recorded", "entered by hand")
MARKS = ("published", "control")
_FIELDS = ("schema", "title", "order", "about", "command", "origin", "scale", "hardware", "columns", "rows", "notes")
_SCALE = {"seeds": int, "steps": int, "epochs": (int, float), "data_share": (int, float), "words": str}
_COLUMN = {
    **{"key": str, "name": str, "unit": str, "mark": str},
    **{"decimals": int, "digits": int, "signed": bool, "shown": bool},
}
_CELLS = (
    {"value"},
    {"value", "low", "high"},
    {"value", "spread"},
    {"count", "of"},
    {"count", "of", "low", "high"},
    {"low", "high"},
    {"values"},
    {"values", "null"},
)

Record = dict[str, Any]


class RecordError(ValueError):
    """A record or a claim that is not what `results/` may hold."""


def check(record: Mapping[str, Any], where: str = "record") -> None:
    """Refuse a record that a page could not be made from.

    Args:
        record: as the module describes it.
        where: what messages call it, such as its path.

    Raises:
        RecordError: with place, field, value and remedy.

    >>> check({'schema': 1, 'title': 'x', 'colums': []}, 'results/a/b.json')
    Traceback (most recent call last):
        ...
    sbjax.claims.records.RecordError: results/a/b.json: colums is unknown, did you mean 'columns'?
    """
    if not isinstance(record, Mapping) or record.get("schema") != SCHEMA:
        raise RecordError(f"{where}: schema must be {SCHEMA}; write records with sbjax.claims.records.save")
    for name in record:
        if name not in _FIELDS:
            raise RecordError(f"{where}: {name} is unknown{near(name, _FIELDS)}")
    for name in ("title", "about", "hardware", "notes"):
        if not isinstance(record.get(name), str):
            raise RecordError(f"{where}: {name}={record.get(name)!r} must be a text; '' where there is none")
    _check_origin(record.get("origin"), where)
    _typed(record.get("scale"), _SCALE, f"{where}: scale")
    command = record.get("command")
    if not isinstance(command, str) and not (isinstance(command, list) and all(isinstance(c, str) for c in command)):
        raise RecordError(f"{where}: command={command!r} must be a shell command or a list of them")
    keys = _check_columns(record.get("columns"), where)
    if not isinstance(record.get("rows"), list) or not record["rows"]:
        raise RecordError(f"{where}: rows must be a list with at least one row")
    for number, row in enumerate(record["rows"]):
        _check_row(row, keys, f"{where}: rows[{number}]")


def commands(record: Mapping[str, Any]) -> list[str]:
    """The shell commands of a record."""
    command = record["command"]
    return [command] if isinstance(command, str) else list(command)


def load(path: str | os.PathLike) -> Record:
    """The record of a file.

    Raises:
        RecordError: it is no JSON, or no record.
    """
    path = pathlib.Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{path}: is no JSON ({error})") from error
    check(record, str(path))
    return record


def load_all(folder: str | os.PathLike) -> dict[str, Record]:
    """All records under `results/`, by 'experiment/name': experiments by name, records by their order.

    Raises:
        FileNotFoundError: there is no such folder.
        RecordError: a file in it is no record.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"results={str(folder)!r} is not a directory; start this in a clone of the repository")
    found = {f"{path.parent.name}/{path.stem}": load(path) for path in sorted(folder.glob("*/*.json"))}
    return dict(sorted(found.items(), key=lambda item: (item[0].split("/")[0], item[1].get("order", 0), item[0])))


def save(folder: str | os.PathLike, name: str, record: Mapping[str, Any]) -> pathlib.Path:
    """Check a record and write it to `folder/<name>.json`, where name is 'experiment/name'. Returns the path.

    Raises:
        RecordError: the record, or a name that is not two words with a slash between.
    """
    parts = name.split("/")
    if len(parts) != 2 or not all(part.replace("_", "").isalnum() for part in parts):
        raise RecordError(f"--as={name!r} must be EXPERIMENT/NAME, such as pdes/fifteen")
    check(record, name)
    return write_json(pathlib.Path(folder) / f"{name}.json", record)


def _check_origin(origin: Any, where: str) -> None:
    if not isinstance(origin, Mapping) or not {"how", "commit", "date"} <= set(origin):
        raise RecordError(f"{where}: origin={origin!r} must have how, commit and date")
    if origin["how"] not in HOW:
        raise RecordError(f"{where}: origin.how={origin['how']!r} must be one of {', '.join(HOW)}")


def _check_columns(columns: Any, where: str) -> list[str]:
    if not isinstance(columns, list) or not columns:
        raise RecordError(f"{where}: columns must be a list with at least one column")
    for number, column in enumerate(columns):
        _typed(column, _COLUMN, f"{where}: columns[{number}]")
        if not {"key", "name"} <= set(column):
            raise RecordError(f"{where}: columns[{number}]={column!r} must have key and name")
        _check_mark(column, f"{where}: columns[{number}]")
    keys = [column["key"] for column in columns]
    if len(set(keys)) < len(keys):
        raise RecordError(f"{where}: columns have the keys {keys}, one of them twice")
    return keys


def _check_row(row: Any, keys: list[str], where: str) -> None:
    if not isinstance(row, Mapping) or not isinstance(row.get("cells"), Mapping):
        raise RecordError(f"{where} must be an object with cells")
    _check_mark(row, where)
    for key, cell in row["cells"].items():
        if key not in keys:
            raise RecordError(f"{where}.cells.{key} is no column{near(key, keys)}; columns: {', '.join(keys)}")
        if not _is_cell(cell):
            raise RecordError(f"{where}.cells.{key}={cell!r} is no cell; see sbjax.claims.records")


def _check_mark(of: Mapping[str, Any], where: str) -> None:
    if of.get("mark") not in (None, *MARKS):
        raise RecordError(f"{where}.mark={of['mark']!r} must be one of {', '.join(MARKS)}, or left out")


def _is_cell(cell: Any) -> bool:
    if cell is None or isinstance(cell, str) or _is_number(cell):
        return True
    if not isinstance(cell, Mapping) or set(cell) - {"unit"} not in _CELLS:
        return False
    numbers = [*cell.get("values", ()), *(cell[name] for name in cell if name not in ("values", "unit"))]
    return all(_is_number(number) or number is None for number in numbers)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _typed(found: Any, fields: Mapping[str, Any], where: str) -> None:
    if not isinstance(found, Mapping):
        raise RecordError(f"{where}={found!r} must be an object")
    for name, value in found.items():
        if name not in fields:
            raise RecordError(f"{where}.{name} is unknown{near(name, fields)}; known: {', '.join(fields)}")
        if not isinstance(value, fields[name]) or (isinstance(value, bool) and fields[name] is not bool):
            raise RecordError(f"{where}.{name}={value!r} has the wrong type")
