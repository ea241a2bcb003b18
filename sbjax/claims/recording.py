"""A record from the workdir of a finished run or suite."""

import contextlib
import datetime
import fnmatch
import math
import os
import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sbjax.claims import published, recording_lines, records
from sbjax.claims.records import SCHEMA, Record, RecordError
from sbjax.common.files import plain, read_json
from sbjax.common.names import expanded

Rows = tuple[list[dict[str, Any]], list[dict[str, Any]]]  # columns and rows
TABLES = ("arms", "shares", "pooled", "cells", "lines", "along")
_CALIBRATION = {
    "calibration_loss": {"name": "test log loss", "digits": 3},
    "calibration_error": {"name": "calibration error", "decimals": 4},
    "calibration_floor": {"name": "its floor", "decimals": 4},
    "calibration_averaged": {"name": "accuracy, seeds averaged", "unit": "%", "decimals": 2},
}
_SHARE = {"key": "share_pairs", "name": "pairs improved [95 %]", "unit": "%", "decimals": 0}


def record(
    workdir: str | os.PathLike,
    name: str,
    *,
    table: str = "arms",
    show: Sequence[str] | None = None,
    root: str | os.PathLike = ".",
    **texts: str,
) -> str:
    """Write `results/<name>.json` from a workdir; what was done, as text.

    Args:
        workdir, table, show: as `record_of`.
        name: 'experiment/name' of the record.
        root: of the repository.
        texts: `title`, `about`, `notes`, `hardware`; the first three are kept from an earlier record unless given.

    Raises:
        RecordError: as `record_of`, or there is no title.
    """
    folder = pathlib.Path(root) / "results"
    path = folder / f"{name}.json"
    before = records.load(path) if path.exists() else {}
    kept = {field: before[field] for field in ("title", "about", "notes", "order") if field in before}
    given = kept | texts
    if not given.get("title"):
        raise RecordError(f"--title is missing: one line that says what {name} is")
    found = record_of(workdir, table=table, show=show, folder_name=name.split("/")[-1], **given)
    saved = records.save(folder, name, found)
    lost = published.lost(folder)
    warning = f"\nclaims that name what it no longer has, to be put right in results/claims.json: {', '.join(lost)}"
    return f"{saved}: {len(found['rows'])} rows; now: python runs/claims.py --write" + (warning if lost else "")


def record_of(
    workdir: str | os.PathLike,
    *,
    title: str,
    about: str = "",
    notes: str = "",
    hardware: str = "",
    table: str = "arms",
    show: Sequence[str] | None = None,
    folder_name: str = "run",
    order: int = 0,
) -> Record:
    """A record of the last reports of a run, or of all runs of a suite.

    Args:
        workdir: of a finished run, or a folder with `suite.json`.
        title, about, notes, order: what the record says in words; `about` also tells what intervals are.
        hardware: what it ran on; '' takes what `config.json` says.
        table: 'arms', a row an arm (of a suite: a row a run and arm); of a suite of equations, 'shares', a row a pair
            of arms: how many runs and pairs improve; of folds of one set of texts, 'pooled', a row an arm over all;
            of kind 'exact', 'cells', a row an arm: the cells of its table; of a run with lines between its networks,
            'lines', a row an arm: barriers, and neurons that can be told apart; 'along', a row for each arm and number
            that a monitor took of each network, such as sharpness.
        show: patterns of the metrics of arms that tables show, such as 'replica_distance/marginal'; None shows all. The
            others are kept as data.
        folder_name: what the command calls its workdir.

    Raises:
        RecordError: the run is not finished, or has no such table.
        FileNotFoundError: no such folder or file.
    """
    from sbjax.report import results as results_lib
    from sbjax.report import whole

    folder = expanded(workdir)
    listed = (folder / "suite.json").exists()
    members = read_json(folder / "suite.json", {"members": [str]})["members"] if listed else []
    runs = {name: folder / name for name in members} or {"": folder}
    for path in runs.values():
        status = read_json(path / "status.json", whole.STATUS)["status"]
        if status not in ("done", "diverged"):
            raise RecordError(f"{path}: status={status!r}; start the run again, it goes on where it stopped")
    first = next(iter(runs.values()))
    if table not in TABLES:
        raise RecordError(f"--table={table!r} must be one of {', '.join(TABLES)}")
    made = {
        "shares": lambda: _shares(folder),
        "pooled": lambda: _pooled(folder, first),
        "cells": lambda: _cells(folder),
        "lines": lambda: recording_lines.lines(folder),
        "along": lambda: _along(folder),
        "arms": lambda: _arms(runs, show),
    }
    changed = [f"{run}/{name}".lstrip("/") for run, path in runs.items() for name in whole.changed_since_finished(path)]
    with whole.told_of_changes(folder, changed), _told_of_form(folder):
        columns, rows = made[table]()
    settings = read_json(first / "config.json", results_lib.CONFIG)
    config, environment = settings["config"], settings.get("environment", {})
    finished = datetime.datetime.fromtimestamp((first / "status.json").stat().st_mtime, datetime.UTC)
    return _rounded({
        "schema": SCHEMA,
        "title": title,
        "order": order,
        "about": about or "At the last report, median [quartiles]; differences and ratios are medians of pairs [95 %].",
        "command": _command(settings, folder_name),
        "origin": {
            "how": "recorded",
            "commit": str(environment.get("commit", "unknown"))[:7],
            "date": finished.date().isoformat(),
        },
        "scale": _scale(config, len(members)),
        "hardware": hardware or _hardware(environment),
        "columns": columns,
        "rows": rows,
        "notes": notes,
    })  # fmt: skip


@contextlib.contextmanager
def _told_of_form(folder: pathlib.Path) -> Iterator[None]:
    """Say of a file that lacks what a table needs that it is the folder."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise RecordError(
            f"{folder}: its files do not have what the table needs ({type(error).__name__}: {error}); start the "
            "command of the run again, which makes them anew"
        ) from error


def _arms(runs: Mapping[str, pathlib.Path], show: Sequence[str] | None) -> Rows:
    from sbjax.claims.readings import of_one, of_two
    from sbjax.experiments.calibration import report as calibration
    from sbjax.report.results import load_results
    from sbjax.report.roles import is_control

    rows, columns = [], {}
    for run, path in runs.items():
        results = load_results(path)
        percent = results.primary.endswith("accuracy")
        times, shown = (100, {"decimals": 2}) if percent else (1, {"digits": 3})
        how, name = ("difference", "minus") if results.goal == "max" else ("ratio", "over")
        columns |= {
            "arm": {"name": "arm"},
            "parameters": {"name": "parameters"},
            "primary": {"name": results.primary, **shown, **({"unit": "%"} if percent else {})},
            "against": {"name": f"{name} {results.reference}", **shown, **({"unit": "points"} if percent else {})},
            "improved": {"name": "seeds improved"},
        }
        columns["against"] |= {"signed": True} if how == "difference" else {}
        for arm in results.arms:
            if not results.reports[arm] or results.primary not in results.reports[arm][-1].values:
                continue
            values = results.reports[arm][-1].values[results.primary]
            cells = {"arm": arm, "parameters": results.parameters.get(arm), "primary": of_one(values, "median", times)}
            if arm != results.reference:
                base = results.reports[results.reference][-1].values[results.primary]
                cells["against"] = of_two(base, values, how, times)
                better = values < base if results.goal == "min" else values > base
                cells["improved"] = {"count": int(better.sum()), "of": len(values)}
            if calibrated := calibration.load(path, [arm]):
                columns |= _CALIBRATION
                cells |= _calibration(calibrated[arm])
            for metric, found in sorted(results.metrics[arm].items()):
                hidden = show is not None and not any(fnmatch.fnmatchcase(metric, pattern) for pattern in show)
                columns[metric] = {"name": metric, "digits": 3} | ({"shown": False} if hidden else {})
                cells[metric] = _measure(found)
            row = {"cells": {"run": run, **cells} if run else cells, "seeds": [times * float(x) for x in values]}
            rows.append(row | ({"mark": "control"} if is_control(results, arm) else {}))
    if "" not in runs:
        columns = {"run": {"name": "run"}, **columns}
    return [{"key": key, **column} for key, column in columns.items()], rows


def _calibration(found: Mapping[str, Any]) -> dict[str, Any]:
    """Cells of one arm of what `sbjax.experiments.calibration` measured: an error never without its floor."""
    from sbjax.claims.readings import of_one

    each = {name: np.array([one[name] for one in found["replicas"]], float) for name in ("loss", "error", "floor")}
    cells = {f"calibration_{name}": of_one(values, "median", 1) for name, values in each.items()}
    if found["ensemble"]:
        cells["calibration_averaged"] = 100 * found["ensemble"]["accuracy"]
    return cells


def _shares(folder: pathlib.Path) -> Rows:
    summary = read_json(folder / "summary.json")
    if not summary.get("readings"):
        raise RecordError(f"{folder / 'summary.json'}: no shares; --table=shares is for suites of equations")
    columns = [
        {"key": "metric", "name": "final"},
        {"key": "arm", "name": "arm"},
        {"key": "against", "name": "against"},
        {"key": "runs", "name": "runs improved"},
        _SHARE,
        {"key": "verdict", "name": "verdict"},
    ]
    rows = []
    for metric, listed in summary["readings"].items():
        for found in listed:
            share = {name: 100 * found["share_pairs"][name] for name in ("value", "low", "high")}
            cells = {"metric": metric, "arm": found["arm"], "against": found["reference"], _SHARE["key"]: share}
            cells |= {"runs": {"count": found["runs_improved"], "of": found["runs"]}, "verdict": found["verdict"]}
            rows.append({"cells": cells})
    return columns, rows


def _pooled(folder: pathlib.Path, first: pathlib.Path) -> Rows:
    from sbjax.claims.readings import of_one
    from sbjax.report.results import load_results
    from sbjax.report.roles import is_control

    pooled = read_json(folder / "summary.json").get("pooled")
    if not pooled:
        raise RecordError(f"{folder / 'summary.json'}: no folds together; --table=pooled is for folds of one set")
    results, percent = load_results(first), {"decimals": 2, "unit": "%"}
    points = {"decimals": 3, "unit": "points", "signed": True}
    columns = [
        {"key": "arm", "name": "arm"},
        {"key": "parameters", "name": "parameters"},
        {"key": "primary", "name": "accuracy over all texts", **percent},
        {"key": "against", "name": f"minus {pooled['reference']}, over seeds", **points},
        {"key": "documents", "name": "the same, over texts", **points},
        {"key": "improved", "name": "seeds improved"},
        {"key": "verdict", "name": "corrected"},
    ]
    rows = []
    for arm, values in pooled["accuracy"].items():
        cells = {"arm": arm, "parameters": results.parameters.get(arm), "primary": of_one(values, "median", 100)}
        if arm in pooled["comparisons"]:
            one, texts = pooled["comparisons"][arm], pooled["documents"][arm]
            cells["against"] = {"value": 100 * one["difference"], "low": 100 * one["low"], "high": 100 * one["high"]}
            cells["documents"] = {name: 100 * texts[name] for name in ("value", "low", "high")}
            cells["improved"] = {"count": one["improved"], "of": one["n"]}
            cells["verdict"] = one["verdict_corrected"]
        row = {"cells": cells, "seeds": [100 * x for x in values]}
        rows.append(row | ({"mark": "control"} if is_control(results, arm) else {}))
    return columns, rows


def _cells(folder: pathlib.Path) -> Rows:
    """The table of an experiment of kind 'exact': its own columns, cells as records have them."""
    from sbjax.experiments import registry
    from sbjax.report.results import load_results
    from sbjax.report.roles import is_control

    results, experiment = load_results(folder), registry.of_workdir(folder)
    if not hasattr(experiment, "cells"):
        raise RecordError(f"{folder}: --table=cells is for experiments of kind 'exact', not of {experiment.name!r}")
    found = experiment.cells(folder, results.arms)
    for row in found["rows"]:
        if row["cells"]["arm"] in results.arms and is_control(results, row["cells"]["arm"]):
            row["mark"] = "control"
    return found["columns"], found["rows"]


def _along(folder: pathlib.Path) -> Rows:
    """What a monitor took of each network along training: a row for each number and arm."""
    from sbjax.report import along
    from sbjax.report.results import load_results
    from sbjax.report.roles import is_control

    results = load_results(folder)
    made = along.rows(results)
    if not made:
        raise RecordError(f"{folder}: --table=along needs numbers of a monitor, such as monitor.kinds='sharpness'")
    columns = [{"key": "number", "name": "number"}, {"key": "arm", "name": "arm"}]
    columns += [{"key": key, "name": name, "digits": 3} for key, name in along.COLUMNS.items()]
    rows = [{"cells": row} | ({"mark": "control"} if is_control(results, row["arm"]) else {}) for row in made]
    return columns, rows


def _measure(found: Any) -> Any:
    if isinstance(found, Mapping):
        found = {name: found.get(name) for name in ("value", "low", "high")}
        return found if found["low"] is not None else {"value": found["value"]}
    return found if isinstance(found, int | float) and math.isfinite(found) else None


def _rounded(tree: Any) -> Any:
    """Plain numbers of nine digits, more than any of them means; None for what is not finite."""
    if isinstance(tree, Mapping):
        return {name: _rounded(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_rounded(value) for value in tree]
    tree = plain(tree)
    return float(f"{tree:.9g}") if isinstance(tree, float) else tree


def _command(saved: Mapping[str, Any], folder_name: str) -> str:
    if not saved.get("config_file"):
        return ""
    words = [f"--config={saved['config_file']}"]
    words += [f"--config.{shlex.quote(str(override))}" for override in saved.get("overrides", ())]
    extended = saved.get("extended", 0)
    words += [f"--workdir=/tmp/{folder_name}", *([f"--extend={extended}"] if extended else [])]
    return " ".join(["python runs/train.py", *words])


def _scale(config: Mapping[str, Any], runs: int) -> dict[str, Any]:
    task = config.get("task", {})
    found = {"seeds": config.get("replicas"), "steps": config.get("train_steps"), "epochs": config.get("train_epochs")}
    found["data_share"] = task.get("train_share") if isinstance(task, Mapping) else None
    second = config.get("second_phase", {}).get("steps") if isinstance(config.get("second_phase"), Mapping) else None
    words = [f"{runs} runs"] * bool(runs) + [f"{second} steps of a second phase"] * bool(second)
    return {name: value for name, value in found.items() if value} | ({"words": ", ".join(words)} if words else {})


def _hardware(environment: Mapping[str, Any]) -> str:
    devices, kind = environment.get("devices", 1), environment.get("device", "an unknown device")
    platform = str(environment.get("platform", ""))
    system = " x86-64" if "x86_64" in platform else ""
    return f"{devices} x {kind}" if kind != "cpu" else f"{devices}{system} CPU devices"
