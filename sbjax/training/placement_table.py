"""What was measured of laying replicas on an accelerator: a file with a row for each device and class of program.

    {"format": 1, "command": .., "rows": [
      {"device": "NVIDIA H200", "program": "convolution", "dtype": "bfloat16", "replicas": 10, "choice": "map",
       "milliseconds": {"map": .., "sequential": .., "vmap": ..}, "jax": "0.11.2", "measured": "2026-12-01"}, ..]}

`device` is jax's `device_kind`. The file of the package is `placement_table.json` beside this module; another one is
named by the environment variable SBJAX_PLACEMENT_TABLE. `python benchmarks/accelerator.py` measures and adds rows.
"""

import functools
import json
import logging
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from sbjax.common.files import write_atomically
from sbjax.common.names import expanded

logger = logging.getLogger(__name__)

FORMAT = 1
COMMAND = "python benchmarks/accelerator.py"
OWN = pathlib.Path(__file__).with_suffix(".json")
VARIABLE = "SBJAX_PLACEMENT_TABLE"
CHOICES = ("vmap", "map", "sequential")
PROGRAMS = ("convolution", "many rows", "dense")
_KEYS = {"device": str, "program": str, "dtype": str, "replicas": int, "choice": str}

Row = Mapping[str, Any]


def path() -> pathlib.Path:
    """Of the table: $SBJAX_PLACEMENT_TABLE, else that of the package."""
    given = os.environ.get(VARIABLE)
    return expanded(given) if given else OWN


def load(file: str | os.PathLike | None = None) -> list[Row]:
    """The rows of a table, of `path()` if no file is given.

    Raises:
        ValueError: no such file, or not a table; the message names file, row and field.

    >>> load(OWN)
    []
    """
    file = path() if file is None else file
    where = f"{VARIABLE}={file}" if os.environ.get(VARIABLE) else f"placement table {file}"
    try:
        found = json.loads(pathlib.Path(file).read_text())
    except OSError as error:
        raise ValueError(f"{where}: {error.strerror}; unset the variable, or measure one with `{COMMAND}`") from None
    except ValueError as error:
        raise ValueError(f"{where} is no JSON ({error}); measure it anew with `{COMMAND}`") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("rows"), list):
        raise ValueError(f"{where} is no table of format {FORMAT} with 'rows'; measure it anew with `{COMMAND}`")
    for number, row in enumerate(found["rows"]):
        _check(row, f"{where}: rows[{number}]")
    return found["rows"]


def save(file: str | os.PathLike, rows: Sequence[Row]) -> None:
    """Add rows to a table; those of the same device, class, dtype and number of replicas are replaced.

    Raises:
        ValueError: a row that `load` would refuse, or a file that is no table.
    """
    for number, row in enumerate(rows):
        _check(row, f"rows[{number}]")
    kept = {_key(row): row for row in (load(file) if os.path.exists(file) else [])} | {_key(row): row for row in rows}
    ordered = [kept[key] for key in sorted(kept)]
    write_atomically(
        pathlib.Path(file), json.dumps({"format": FORMAT, "command": COMMAND, "rows": ordered}, indent=1) + "\n"
    )


def choice(device: str, program: str, dtype: str, replicas: int, rows: Sequence[Row] | None = None) -> str | None:
    """'vmap', 'map' or 'sequential' as measured; None where nothing was.

    Of several rows that of the number of replicas that is nearest in ratio; of two as near, the smaller.

    Args:
        device: its `device_kind`.
        program: 'convolution', 'many rows' or 'dense'.
        dtype: of matrix products and convolutions.
        replicas: on one device.
        rows: None = those of `load()`.

    >>> one = {"device": "Q", "program": "dense", "dtype": "float32", "replicas": 4, "choice": "map"}
    >>> choice("Q", "dense", "float32", 8, [one, one | {"replicas": 20, "choice": "vmap"}])
    'map'
    >>> choice("other", "dense", "float32", 9, [one])
    """
    rows = load() if rows is None else rows
    apt = [row for row in rows if (row["device"], row["program"], row["dtype"]) == (device, program, dtype)]
    if not apt:
        return None
    return min(apt, key=lambda row: (abs(math.log(row["replicas"] / replicas)), row["replicas"]))["choice"]


@functools.cache
def tell_unmeasured(device: str, program: str, dtype: str) -> None:
    """Say once that a layout rests on no measurement."""
    logger.info(
        "placement.replicas=auto: nothing was measured for %s programs in %s on %s, so replicas are vectorised. "
        "`%s` measures it (20 minutes); or set placement.replicas",
        program, dtype, device, COMMAND,
    )  # fmt: skip


def _key(row):
    return tuple(row[name] for name in ("device", "program", "dtype", "replicas"))


def _check(row, where):
    if not isinstance(row, dict):
        raise ValueError(f"{where}={row!r} must be an object with {', '.join(_KEYS)}; measure it anew with `{COMMAND}`")
    for name, kind in _KEYS.items():
        if not isinstance(row.get(name), kind) or isinstance(row.get(name), bool):
            raise ValueError(f"{where}: {name}={row.get(name)!r} must be {kind.__name__}; measure it with `{COMMAND}`")
    for name, known in (("choice", CHOICES), ("program", PROGRAMS)):
        if row[name] not in known:
            raise ValueError(f"{where}: {name}={row[name]!r} must be one of {', '.join(known)}")
    if row["replicas"] < 1:
        raise ValueError(f"{where}: replicas={row['replicas']} must be >= 1")
