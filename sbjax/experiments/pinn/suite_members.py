"""The runs of a suite as they lie on disk: results, seconds, and a classical solver's seconds beside them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sbjax.report import statistics
from sbjax.report.results import Results, load_results

GROUP = 5
"""Members that are no differential equations are shown in panels of so many."""


class Seconds(NamedTuple):
    """Wall time of one arm, all replicas in one program.

    Attributes:
        train: of training steps, without the first ones of each program, which count as compilation.
        total: with compilation, evaluation and saving.
        steps: how many steps were timed.
    """

    train: float
    total: float
    steps: int


class Member(NamedTuple):
    """One run of a suite; without `results` there is a `problem` in words. `seconds` are by arm."""

    name: str
    panel: str
    results: Results | None
    problem: str | None
    seconds: dict[str, Seconds]


def load_members(folder: Path, names: Sequence[str]) -> list[Member]:
    """The runs `folder/<name>`; one that cannot be read is a member with a problem, not an error."""
    members = []
    for place, name in enumerate(names):
        path, results, problem = folder / name, None, None
        try:
            results = load_results(path)
        except (FileNotFoundError, ValueError) as error:
            problem = str(error).replace(str(path), name)
        members.append(Member(name, _panel(name, results, place), results, problem, load_seconds(path)))
    return members


def load_classical(folder: Path) -> dict[str, dict[float, float | None]] | None:
    """`classical.json`: {equation: {error: seconds, or null if not reached}}; None where there is no such file.

    Raises:
        ValueError: the file holds something else.
    """
    path = folder / "classical.json"
    if not path.exists():
        return None
    try:
        found = {
            name: {float(error): None if x is None else float(x) for error, x in times.items()}
            for name, times in json.loads(path.read_text()).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be used ({error}); it holds {{equation: {{error: seconds or null}}}}, such as "
            '{"heat": {"1e-3": 0.2}}; mend or remove it'
        ) from error
    return found


def times_to(
    member: Member, metric: str, classical: Mapping[float, float | None] | None
) -> dict[float, dict[str, float | None]]:
    """{error: {arm: seconds of training}} for 1e-1, 1e-2, ..., as far as some arm gets, and the errors of `classical`.

    The seconds are those up to the first report at which the median of `metric` over the replicas still running is
    below the error: its step times the arm's mean time of a step; None if that never happened or was not timed.
    """
    results = member.results
    medians = {
        arm: [
            (report.step, statistics.describe(report.values[metric]).median)
            for report in results.reports[arm]
            if report.step > 0 and metric in report.values
        ]
        for arm in results.arms
    }
    reached = [median for curve in medians.values() for _, median in curve if np.isfinite(median)]
    errors, k = set(classical or ()), 1
    while reached and min(reached) < float(f"1e-{k}") and k <= 15:
        errors.add(float(f"1e-{k}"))
        k += 1

    def seconds(arm: str, error: float) -> float | None:
        step = next((step for step, median in medians[arm] if median < error), None)
        spent = member.seconds.get(arm)
        return None if step is None or spent is None or not spent.steps else step * spent.train / spent.steps

    return {error: {arm: seconds(arm, error) for arm in results.arms} for error in sorted(errors, reverse=True)}


def _panel(name: str, results: Results | None, place: int) -> str:
    """The panel of an equation; groups of five in order for anything else, and for a name that says nothing."""
    from sbjax.physics.pdes import EQUATIONS, make_equation

    task = results.config.get("task", {}) if results is not None else {"kind": "pinn", "equation": name}
    equation = task.get("equation") if isinstance(task, dict) and task.get("kind") == "pinn" else None
    return make_equation(equation).group if equation in EQUATIONS else f"group {place // GROUP + 1}"


def load_seconds(path: Path) -> dict[str, Seconds]:
    """Seconds by arm: sums over the lines of `timings.jsonl`, of which an arm that was resumed has several."""
    try:
        lines = (path / "timings.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return {}
    found: dict[str, Seconds] = {}
    for line in lines:
        try:
            record: dict[str, Any] = json.loads(line)
            parts = [float(x) for name, x in record.items() if name.endswith("_seconds")]
            steps, arm = record["steps"][1] - record["steps"][0], record["arm"]
            one = Seconds(float(record["train_seconds"]), math.fsum(parts), int(steps))
        except (ValueError, KeyError, TypeError, IndexError):
            continue  # cut off in the middle of writing
        found[arm] = Seconds(*(a + b for a, b in zip(found.get(arm, (0.0, 0.0, 0)), one)))
    return found
