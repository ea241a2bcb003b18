"""A record for `docs/speed.md` of what `accelerator.py` found."""

import datetime
import pathlib
import subprocess

from sbjax.claims import records

CPU_FORM = (
    "**The CPU form: no accelerator was seen.** Small networks, two steps a round, on the CPU alone; it shows that "
    "every part runs to its end and what its lines hold. Its times are those of a machine that does other work "
    "besides; they say nothing of a GPU or a TPU, and none went into the table that `placement.replicas=auto` reads."
)


def write(path: pathlib.Path, lines: list[dict], *, cpu: bool) -> None:
    """The record of all lines to a file, by its schema.

    Args:
        path: 'results/speed/accelerator.json'.
        lines: of accelerator.jsonl.
        cpu: whether they are those of the CPU form.
    """
    found = {line["name"]: line for line in lines if line["name"] != "skipped"}
    device = found["device"]
    rows = [
        _row("largest relative error of vmapped products under jit", found["jit"]["largest_relative_error"], 1e-6),
        *(
            _row(
                f"{name} in float32 'highest', largest difference of the gradient to the CPU over its largest entry",
                line["largest_difference_of_gradient_relative_to_its_largest_entry"],
                1e-4,
            )
            for name, line in found.items()
            if name.startswith("step of") and "right" in line
        ),
    ]
    for name, line in found.items():
        for layout, numbers in line.get("layouts", {}).items():
            if "step_ms" in numbers:
                chosen = ", the fastest" if layout == line["choice"] and len(line["layouts"]) > 1 and not cpu else ""
                of = name.replace(" x ", " x small ") if cpu else name
                rows.append(_row(f"{of}: a step by {layout}{chosen}", numbers["step_ms"], None, "ms"))
    for name, line in found.items():
        if "same_bytes_killed" in line:
            same = [line["same_bytes_compiled_anew"], line["same_bytes_killed"]]
            what = f"runs of three with the same bytes (whole; compiled anew; killed and gone on with), {name}"
            rows.append(_row(what, 1 + sum(same), 3, better="more"))
    if "images" in found:
        rows.append(
            _row(f"seconds of `configs/images.py:{found['images']['words']}`", found["images"]["seconds"], None)
        )
    root = pathlib.Path(__file__).resolve().parents[1]
    commit = subprocess.run(["git", "-C", root, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    skipped = sorted({line["what"] for line in lines if line["name"] == "skipped" and "what" in line} - set(found))
    missing = f" Not measured, for want of time: {', '.join(skipped)}." if skipped else ""
    versions = ", ".join(f"{name} {version}" for name, version in device["versions"].items())
    records.save(
        path.parent.parent,
        f"{path.parent.name}/{path.stem}",
        {
            "schema": records.SCHEMA,
            "title": "A visit to an accelerator" + (", its CPU form" if cpu else ""),
            "order": 11,
            "about": "",
            "command": "python benchmarks/accelerator.py --out=DIR" + (" --device=cpu" if cpu else ""),
            "origin": {
                "how": "recorded",
                "commit": commit.stdout.strip(),
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            },
            "scale": {},
            "hardware": f"{device['devices']} x {device['device']}, {versions}",
            "columns": [
                {"key": "figure", "name": "figure"},
                {"key": "value", "name": "value", "digits": 3},
                {"key": "bar", "name": "bar", "digits": 3},
            ],
            "rows": rows,
            "notes": (CPU_FORM if cpu else "") + missing,
        },
    )


def _row(figure, value, bar, unit=None, better="less"):
    unit = {} if unit is None else {"unit": unit}
    cells = {
        "figure": figure,
        "value": {"value": value, **unit},
        "bar": None if bar is None else {"value": bar, **unit},
    }
    return {"cells": cells, "better": better}
