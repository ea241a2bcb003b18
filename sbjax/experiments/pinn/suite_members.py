"""What a suite of differential equations has beside its runs: panels, and a classical solver's seconds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sbjax.common.files import FileError, read_json
from sbjax.report import statistics
from sbjax.report.suite import Member

GROUP = 5
"""Equations without a panel of their own are shown in panels of so many."""


def load_classical(folder: Path) -> dict[str, dict[float, float | None]] | None:
    """`classical.json`: {equation: {error: seconds, or null if not reached}}; None where there is no such file.

    Raises:
        FileError: the file holds something else.
    """
    path = folder / "classical.json"
    remedy = (
        'it holds {equation: {error: seconds or null}}, such as {"heat": {"1e-3": 0.2}}; mend it, or remove it and '
        "measure again: python runs/report.py --classical"
    )
    try:
        found = read_json(path, {str: {str: (float, None)}}, remedy=remedy)
        return {name: {float(error): x for error, x in times.items()} for name, times in found.items()}
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise (
            error if isinstance(error, FileError) else FileError(f"{path} cannot be used ({error}); {remedy}")
        ) from error


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


def panels(members: Sequence[Member]) -> dict[str, str]:
    """The panel of each equation; groups of five in order for a user's own, and for a name that says nothing.

    A run that cannot be read is taken for the equation of its name.
    """
    from sbjax.physics.pdes import EQUATIONS, make_equation

    found = {}
    for place, member in enumerate(members):
        equation = member.results.config["task"].get("equation") if member.results else member.name
        known = equation in EQUATIONS
        found[member.name] = make_equation(equation).group if known else f"group {place // GROUP + 1}"
    return found
