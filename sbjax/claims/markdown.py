"""A record as Markdown: its cells, its table, its section of a page."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sbjax.claims import records
from sbjax.common.power import POWER, smallest_shown

_DIFFERENCES = ("against", "difference")
"""Keys of columns of paired differences, with their intervals."""


def number(x: float | None, column: Mapping[str, Any]) -> str:
    """A number as its column shows it.

    >>> number(0.00031, {'digits': 2}), number(86.2, {'decimals': 2}), number(0.5, {'decimals': 1, 'signed': True})
    ('0.00031', '86.20', '+0.5')
    >>> number(0.000021, {'digits': 3}), number(6.3e9, {'digits': 2}), number(1234567, {})
    ('2.1e-5', '6.3e9', '1,234,567')
    """
    if x is None or not math.isfinite(x):
        return "-"
    sign = "+" if column.get("signed") else ""
    if "decimals" in column:
        return f"{x:{sign},.{column['decimals']}f}"
    if "digits" not in column:
        return f"{x:{sign},}"
    shown = f"{x:{sign}.{column['digits']}g}"
    if "e" in shown and 1 <= abs(x) < 1e6:
        shown = f"{float(shown):{sign},.0f}"
    mantissa, power, exponent = shown.partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if power and "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}" if power else shown


def cell(value: Any, column: Mapping[str, Any]) -> str:
    """A cell of a record, see `sbjax.claims.records`, as text.

    >>> column = {'decimals': 1}
    >>> cell({'value': 1.25, 'low': 1, 'high': 2}, column), cell({'value': 0.269, 'spread': 0.039}, {'decimals': 3})
    ('1.2 [1.0, 2.0]', '0.269 +- 0.039')
    >>> cell({'count': 11, 'of': 12, 'low': 62, 'high': 100}, {}), cell({'low': 0.31, 'high': 0.37, 'unit': 'x'}, {})
    ('11 of 12 [62, 100]', '0.31x to 0.37x')
    >>> cell({'values': [1.4, 1.4], 'null': 1.3}, column), cell(None, column), cell('minima', column)
    ('1.4 1.4 (1.3)', '', 'minima')
    """
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, Mapping):
        return number(value, column)
    unit = value.get("unit", "")
    unit = unit if unit in ("", "x") else f" {unit}"
    shown = {name: number(value[name], column) for name in ("value", "low", "high", "spread", "null") if name in value}
    ends = f" [{shown['low']}, {shown['high']}]" if {"low", "high"} <= set(shown) else ""
    if "count" in value:
        return f"{value['count']} of {value['of']}{ends}"
    if "values" in value:
        null = f" ({shown['null']})" if "null" in shown else ""
        return " ".join(number(x, column) for x in value["values"]) + null
    if "value" not in value:
        return f"{shown['low']}{unit} to {shown['high']}{unit}"
    return f"{shown['value']}{unit}" + (f" +- {shown['spread']}" if "spread" in shown else ends)


def table(record: Mapping[str, Any]) -> str:
    """The table of a record; published rows and columns in italics, controls named as such."""
    columns = [column for column in record["columns"] if column.get("shown", True)]
    heads = [_head(column) for column in columns]
    rows = []
    for row in record["rows"]:
        cells = [cell(row["cells"].get(column["key"]), column) for column in columns]
        marks = [row.get("mark") or column.get("mark") for column in columns]
        cells = [f"*{text}*" if mark == "published" and text else text for text, mark in zip(cells, marks)]
        if row.get("mark") == "control":
            cells[0] = f"*control:* {cells[0]}"
        rows.append(cells)
    return grid(heads, rows)


def smallest(record: Mapping[str, Any]) -> str:
    """What the differences of a record could have shown where their intervals hold 0; '' where there is none.

    >>> cells = {'arm': 'wide', 'against': {'value': 0.1, 'low': -1.0, 'high': 1.0}}
    >>> column = {'key': 'against', 'name': 'minus raw', 'decimals': 1, 'unit': 'points', 'signed': True}
    >>> smallest({'columns': [{'key': 'arm', 'name': 'arm'}, column], 'rows': [{'cells': cells}]})
    'Smallest difference that could have been shown here, in 80 % of such runs, where 0 is within: wide 1.4 points.'
    """
    first, said = record["columns"][0]["key"], []
    for column in record["columns"]:
        if column["key"] not in _DIFFERENCES or not column.get("signed") or not column.get("shown", True):
            continue
        unit = f" {column['unit']}" if column.get("unit") else ""
        for row in record["rows"]:
            found = row["cells"].get(column["key"])
            if not isinstance(found, Mapping) or row.get("mark") == "published" or "low" not in found:
                continue
            if found["low"] <= 0 <= found["high"] and (least := smallest_shown(found["low"], found["high"])) > 0:
                said.append(f"{row['cells'][first]} {number(least, {**column, 'signed': False})}{unit}")
    start = (
        f"Smallest difference that could have been shown here, in {100 * POWER:.0f} % of such runs, where 0 is within"
    )
    return f"{start}: {', '.join(said)}." if said else ""


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table.

    >>> print(grid(['a', 'b'], [['1', '2 | 3']]))
    | a | b |
    | --- | --- |
    | 1 | 2 \\| 3 |
    """
    lines = [heads, ["---"] * len(heads), *([re.sub(r"(?<!\\)\|", r"\\|", text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def section(name: str, record: Mapping[str, Any]) -> str:
    """A record as a section: title, what it is, command, table, notes, and where it comes from."""
    parts = [f"## {record['title']}", record["about"]]
    if asked := records.commands(record):
        parts.append("```sh\n" + "\n".join(asked) + "\n```")
    parts += [table(record), smallest(record), record["notes"], provenance(name, record)]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def provenance(name: str, record: Mapping[str, Any]) -> str:
    """One line: scale, hardware, origin and file."""
    origin = record["origin"]
    made = f"{origin['how']}, commit {origin['commit']}, {origin['date']}"
    return "*" + "; ".join(filter(None, [scale(record), record["hardware"], made])) + f"; `results/{name}.json`.*"


def scale(record: Mapping[str, Any]) -> str:
    """The scale of a record in words.

    >>> scale({'scale': {'seeds': 5, 'epochs': 4, 'data_share': 0.2, 'words': 'small CNN'}})
    '5 seeds, 4 epochs, 20 % of the data, small CNN'
    """
    found, parts = record["scale"], []
    for name in ("seeds", "steps", "epochs"):
        if found.get(name) is not None:
            parts.append(f"{found[name]:,g} {name}" if name == "epochs" else f"{found[name]:,} {name}")
    if found.get("data_share", 1) < 1:
        parts.append(f"{100 * found['data_share']:g} % of the data")
    return ", ".join([*parts, *filter(None, [found.get("words")])])


def _head(column: Mapping[str, Any]) -> str:
    name = f"{column['name']}, {column['unit']}" if column.get("unit") else column["name"]
    return f"{name}, *published*" if column.get("mark") == "published" else name
