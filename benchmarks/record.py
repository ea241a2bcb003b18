"""Record the figures of a benchmark in `results/speed/`, from which `docs/speed.md` is made.

    python benchmarks/record.py loop
    python benchmarks/record.py loop --log=loop.txt

The first one runs it, on a machine that should do nothing else; the second one takes the lines that it printed. Then
`python runs/claims.py --write`.
"""

import argparse
import datetime
import json
import pathlib
import subprocess
import sys

from sbjax.claims import records
from sbjax.frame.environment import environment

ROOT = pathlib.Path(__file__).parents[1]
KEPT = ("schema", "title", "order", "about", "command", "columns", "notes")


def main() -> None:
    """Run or read, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the benchmark, such as loop")
    parser.add_argument("--log", type=pathlib.Path, help="what it printed")
    given = parser.parse_args()
    command = [sys.executable, str(ROOT / "benchmarks" / f"{given.name}.py")]
    text = given.log.read_text() if given.log else subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    if not lines:
        sys.exit(f"error: benchmarks/{given.name}.py gave no figure")
    before = records.load(ROOT / "results" / "speed" / f"{given.name}.json")
    found = environment()
    about = f"{found['processor']}, {found['cores']} cores, jax {found['versions']['jax']}, {found['device']}"
    record = {name: before[name] for name in KEPT} | {
        "origin": {"how": "recorded", "commit": (found["commit"] or "")[:7], "date": f"{datetime.date.today()}"},
        "scale": before.get("scale", {}),
        "hardware": about,
        "rows": [_row(line) for line in lines],
    }
    print(records.save(ROOT / "results", f"speed/{given.name}", record))


def _row(line: dict) -> dict:
    """A row of the table: the figure with its details, its value and its bar."""
    unit = {"ratio": "x"}.get(line["unit"], line["unit"])
    shown = {"name", "value", "unit", "bar", "holds"}
    details = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in line.items() if name not in shown)
    figure = line["name"] + (f" ({details})" if details else "")
    cells = {"figure": figure, "value": _number(line["value"], unit), "bar": _number(line["bar"], unit)}
    return {"cells": cells, "better": "less"}


def _number(value: float, unit: str) -> dict:
    return {"value": value, **({"unit": unit} if unit else {})}


if __name__ == "__main__":
    main()
