"""What a run leaves in its workdir, and the tables made from it.

Read here:

`config.json`
    `{"config": {..}, "environment": {..}, "overrides": [..]}` and, where the config came from a file,
    `"config_file": "configs/x.py:smoke"`, from which the report makes the command that repeats the run; of a run that
    was trained longer than its config says, `"extended": steps`; `"started"`, when, as text.
`metrics.jsonl`
    One line a report of an arm: `{"arm", "step", "epoch" (may be absent), "flops", "test/accuracy": [..], ..}`. `flops`
    counts the training FLOPs of one replica so far. A metric is a list with one entry a replica, null from where that
    replica stopped; `{"value", "low", "high"}` is a number of all replicas together; anything else is passed over. Of
    two lines with the same arm and step (a run that was resumed) the later one counts.
`arms.json`
    What `save_arms` writes: facts and numbers of a whole arm, among them what it is for (`order`, `role`, `labels`).

Written here, atomically and byte for byte the same for the same input: `arms.json`, `results.csv`, `summary.json`.
"""

import csv
import io
import math
import os
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from sbjax.common.files import FileError, read_json, read_lines, write_atomically, write_json
from sbjax.report import roles
from sbjax.report.whole import changed_since_finished

Goal = Literal["max", "min"]

LACKING = "lacking.json"
"""`{"arms": [..]}` of which nothing was trained yet: no cell of theirs in a sweep is done. Only where there are any."""

_NOT_METRICS = ("arm", "step", "epoch", "flops")

FACTS = ("arm", "replica", "status", "step", "flops")
"""Columns of `results.csv` before the metrics."""

_FACTS = {str: (int, float, None)}
CONFIG = {
    "config": {"task?": {"kind?": str}, "arms?": {str: dict}},
    "environment?": {str: (dict, str, int, float, None)},
    "overrides?": [str],
    "config_file?": (str, None),
    "extended?": int,
    "format?": int,
    "started?": (str, None),
    "continued?": [dict],
}
"""The form of `config.json`, see `sbjax.common.files.misfit`."""
ARMS = {
    "arms": [str],
    "reference": str,
    "primary": {"name": str, "goal": str},
    "parameters?": _FACTS,
    "flops_per_step?": _FACTS,
    "steps?": _FACTS,
    "failures?": [{"arm": str, "replica": int, "step?": int}],
    "metrics?": {
        str: {str: (int, float, None, {"value": (float, None), "low?": (float, None), "high?": (float, None)})}
    },
    "about?": {str: {"order?": int, "role?": str, "labels?": {str: (str, float, bool)}}},
}
"""The form of `arms.json`."""
_LINE = {"arm": str, "step": int, "flops": float, "epoch?": (float, None)}


class Report(NamedTuple):
    """One line of `metrics.jsonl`: an arm at a step.

    `values[metric]` is float64 `[replica]`, NaN where stopped; `measures[name]` a number of all replicas together, as
    `{'value', 'low', 'high'}`.
    """

    step: int
    epoch: float | None
    flops: float
    values: dict[str, np.ndarray]
    measures: dict[str, dict[str, float | None]]


class Results(NamedTuple):
    """Everything a report is made from. Dicts by arm are in the order of `arms`; reports are in the order of steps."""

    arms: tuple[str, ...]
    reference: str
    primary: str
    goal: Goal
    replicas: int
    reports: dict[str, tuple[Report, ...]]
    parameters: dict[str, int]
    flops_per_step: dict[str, float]
    steps: dict[str, int]
    failures: tuple[dict[str, Any], ...]
    metrics: dict[str, dict[str, Any]]
    roles: dict[str, str]
    """'reference', 'treatment' or 'control of WHAT', see `sbjax.report.roles`."""
    labels: dict[str, dict[str, str | float]]
    config: dict[str, Any]
    environment: dict[str, Any]
    overrides: tuple[str, ...]
    config_file: str | None
    extended: int = 0
    started: str | None = None
    """When training began."""
    continued: tuple[dict[str, Any], ...] = ()
    """Environments in which the run was gone on with, where they differ from the first."""
    missing: Mapping[str, frozenset[int]] = types.MappingProxyType({})
    """Replicas by arm that were not trained yet: their cells of a sweep are not done."""
    lacking: tuple[str, ...] = ()
    """Arms of which no replica was trained yet; they are not among `arms`."""
    changed: tuple[str, ...] = ()
    """Files of a finished run that hold something else now than when it finished."""


def load_results(workdir: str | os.PathLike) -> Results:
    """Reads `config.json`, `metrics.jsonl` and `arms.json` of a workdir.

    An unfinished last line of `metrics.jsonl` (the run was killed while writing it) is left out.

    Raises:
        FileNotFoundError: the workdir or one of the files is missing, or no arm has a report.
        FileError: a file is malformed, with its line, or arms differ in their number of replicas.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise FileNotFoundError(f"workdir={str(workdir)!r} is not a directory; give the workdir of a training run")
    settings = read_json(workdir / "config.json", CONFIG)
    about = read_json(workdir / "arms.json", ARMS)
    arms, reference, primary = tuple(about["arms"]), about["reference"], about["primary"]
    primary, goal = primary["name"], primary["goal"]
    try:
        _check(arms, reference, goal)
    except ValueError as error:
        raise FileError(f"{workdir / 'arms.json'}: {error}") from error
    reports, replicas = _load_reports(workdir, arms)

    def by_arm(name: str) -> dict[str, Any]:
        return {arm: about[name][arm] for arm in arms if arm in about.get(name, {})}

    facts = {arm: about.get("about", {}).get(arm, {}) for arm in arms}
    failures = tuple(about.get("failures", ()))
    missing = {arm: frozenset(one["replica"] for one in failures if _is_missing(one, arm)) for arm in arms}

    return Results(
        arms=arms,
        reference=reference,
        primary=primary,
        goal=goal,
        replicas=replicas,
        reports=reports,
        parameters=by_arm("parameters"),
        flops_per_step=by_arm("flops_per_step"),
        steps=by_arm("steps"),
        failures=tuple(one for one in failures if not _is_missing(one, one["arm"])),
        metrics={arm: about.get("metrics", {}).get(arm, {}) for arm in arms},
        roles={arm: own.get("role") or roles.default(arm, reference) for arm, own in facts.items()},
        labels={arm: dict(own.get("labels", {})) for arm, own in facts.items()},
        config=settings.get("config", {}),
        environment=settings.get("environment", {}),
        overrides=tuple(str(override) for override in settings.get("overrides", ())),
        config_file=settings.get("config_file"),
        extended=settings.get("extended", 0),
        started=settings.get("started"),
        continued=tuple(settings.get("continued", ())),
        missing={arm: found for arm, found in missing.items() if found},
        lacking=tuple(read_json(workdir / LACKING, {"arms": [str]})["arms"]) if (workdir / LACKING).exists() else (),
        changed=changed_since_finished(workdir),
    )


def not_trained(results: Results) -> str:
    """How many pairs there are of those that were planned, for small print; '' where all are.

    'not all trained yet: wide 7 of 10 pairs, deep 0 of 10 pairs'
    """
    there = {arm: results.replicas - len(found) for arm, found in results.missing.items()} | dict.fromkeys(
        results.lacking, 0
    )
    said = ", ".join(f"{arm} {count} of {results.replicas} pairs" for arm, count in there.items())
    return said and f"not all trained yet: {said}"


def save_arms(
    workdir: str | os.PathLike,
    *,
    arms: Sequence[str],
    reference: str,
    primary: str,
    goal: Goal = "max",
    parameters: Mapping[str, int],
    flops_per_step: Mapping[str, float],
    steps: Mapping[str, int],
    failures: Sequence[Mapping[str, Any]] = (),
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
    about: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Writes `arms.json`, the facts of whole arms, and returns its path.

    Args:
        workdir: the folder of the run; made if missing.
        arms: names in the order in which tables and figures show them.
        reference: the arm the others are compared with.
        primary: the metric that is compared, such as 'test/accuracy'.
        goal: 'max' or 'min', the good direction of the primary metric.
        parameters: trained parameters of one replica, by arm.
        flops_per_step: training FLOPs of one step of one replica, by arm.
        steps: training steps, by arm.
        failures: one `{"arm", "replica", "step", "what"}` for each replica that stopped; a negative step says that it
            was not trained yet.
        metrics: by arm, numbers of a whole arm such as `{"replica_distance/marginal": 0.012}`; a number may also be
            `{"value", "low", "high"}`.
        about: by arm, what it is for: `{"order", "role", "labels"}`, each of which may be left out, see
            `sbjax.report.roles`. An arm without a role is the reference or a treatment.

    Raises:
        ValueError: an arm named twice, a reference that is no arm, an unknown goal, a role or a label that cannot be,
            or numbers of an unknown arm.
    """
    arms = tuple(arms)
    _check(arms, reference, goal)
    given = {"parameters": parameters, "flops_per_step": flops_per_step, "steps": steps, "metrics": metrics or {}}
    given["about"] = about or {}
    for field, values in given.items():
        if unknown := sorted(set(values) - set(arms)):
            raise ValueError(f"{field} has entries for {unknown}, not among arms={list(arms)}; name the arm there")
    for arm, own in given["about"].items():
        roles.check(arm, own, reference=reference)
    content = {"arms": arms, "reference": reference, "primary": {"name": primary, "goal": goal}}
    content |= {field: {arm: values[arm] for arm in arms if arm in values} for field, values in given.items()}
    content["metrics"] = {arm: dict(sorted(numbers.items())) for arm, numbers in content["metrics"].items()}
    content["failures"] = [dict(failure) for failure in failures]
    return write_json(Path(workdir) / "arms.json", content)


def save_table(workdir: str | os.PathLike, results: Results) -> Path:
    """Writes `results.csv`: one row an arm and replica, all read at the last report of the arm.

    Columns: arm, replica, status ('done', 'diverged' where the replica stopped, or 'missing' where it was not trained
    yet), step and flops of that report, then every metric in alphabetical order; a cell is empty where there is no
    finite number.
    """
    return save_rows(workdir, table_rows(results), first=FACTS)


def table_rows(results: Results) -> list[dict[str, Any]]:
    """The rows of `results.csv` as {column: cell}, '' where there is no finite number."""
    rows = []
    for arm, report in ((arm, results.reports[arm][-1]) for arm in results.arms if results.reports[arm]):
        stopped, missing = stopped_replicas(results, arm), results.missing.get(arm, ())
        for replica in range(results.replicas):
            status = "missing" if replica in missing else "diverged" if replica in stopped else "done"
            facts = (arm, replica, status, report.step, repr(report.flops))
            numbers = {name: float(values[replica]) for name, values in report.values.items()}
            cells = {name: repr(x) if math.isfinite(x) else "" for name, x in numbers.items()}
            rows.append(dict(zip(FACTS, facts)) | cells)
    return rows


def save_rows(workdir: str | os.PathLike, rows: Sequence[Mapping[str, Any]], *, first: Sequence[str]) -> Path:
    """Writes `results.csv`: the columns `first`, then all others of the rows in alphabetical order."""
    others = sorted({name for row in rows for name in row} - set(first))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*first, *others], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = Path(workdir) / "results.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())
    return path


def save_summary(workdir: str | os.PathLike, summary: Mapping[str, Any]) -> Path:
    """Writes `summary.json`, what `statistics.summarise` returns."""
    return write_json(Path(workdir) / "summary.json", summary)


def stopped_replicas(results: Results, arm: str) -> frozenset[int]:
    """Replicas of an arm that have a failure on record, or no finite primary metric in its last report."""
    stopped = {failure["replica"] for failure in results.failures if failure["arm"] == arm}
    if results.reports[arm]:
        last = results.reports[arm][-1].values
        if results.primary in last:
            stopped |= set(np.flatnonzero(~np.isfinite(last[results.primary])).tolist())
    return frozenset(stopped - results.missing.get(arm, frozenset()))


def _is_missing(failure: Mapping[str, Any], arm: str) -> bool:
    return failure["arm"] == arm and failure.get("step", 0) < 0


def _check(arms: tuple[str, ...], reference: str, goal: str) -> None:
    if not arms or len(set(arms)) < len(arms):
        raise ValueError(f"arms={list(arms)} must name at least one arm and none twice")
    if reference not in arms:
        raise ValueError(f"reference={reference!r} is not among arms={list(arms)}; choose one of them")
    if goal not in ("max", "min"):
        raise ValueError(f"goal={goal!r} of the primary metric is unknown; use 'max' or 'min'")


def _load_reports(workdir: Path, arms: tuple[str, ...]) -> tuple[dict[str, tuple[Report, ...]], int]:
    """Reports by arm, and the number of replicas."""
    path = workdir / "metrics.jsonl"
    by_step: dict[str, dict[int, Report]] = {arm: {} for arm in arms}
    replicas = None
    for number, record in read_lines(path, _LINE):
        where = f"{path} line {number}"
        try:
            arm, report = record["arm"], _report(record)
        except (ValueError, KeyError, TypeError) as error:
            raise FileError(f"{where} is no report ({type(error).__name__}: {error}); remove the line") from error
        if arm not in by_step:
            raise FileError(f"{where}: arm={arm!r} is not among the arms {list(arms)} of arms.json; add it there")
        for name, values in report.values.items():
            replicas = len(values) if replicas is None else replicas
            if len(values) != replicas:
                raise FileError(
                    f"{where}: {name} has {len(values)} replicas, the reports before it {replicas}; "
                    "arms are compared seed by seed and need the same replicas"
                )
        by_step[arm][report.step] = report
    if replicas is None:
        raise FileNotFoundError(f"{path} holds no report of any replica; give the workdir of a run that has reported")
    return {arm: tuple(by_step[arm][step] for step in sorted(by_step[arm])) for arm in arms}, replicas


def _numbers(entries: Sequence[Any]) -> np.ndarray:
    if any(isinstance(entry, str | bool) for entry in entries):
        raise TypeError(f"{entries!r} must be numbers")
    return np.array(entries, np.float64)


def _report(record: Mapping[str, Any]) -> Report:
    values = {
        name: _numbers([np.nan if entry is None else entry for entry in value])
        for name, value in record.items()
        if name not in _NOT_METRICS and isinstance(value, list)
    }
    epoch = record.get("epoch")
    measures = {name: value for name, value in record.items() if isinstance(value, dict) and "value" in value}
    return Report(
        int(record["step"]), None if epoch is None else float(epoch), float(record["flops"]), values, measures
    )
