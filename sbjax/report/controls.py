"""Ratios of paired arms, and whether the gain of one of them survives the controls that could explain it."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from sbjax.report import roles, statistics, tables
from sbjax.report.results import Results
from sbjax.report.sections import Note, Text

NOTE = "A gain is a ratio whose interval lies below 1; it survives a control if the ratio to that control does so too."


class Ratio(NamedTuple):
    """Median of paired ratios with its 95 % interval, None where there is no number; the verdict of the denominator.

    The verdict is that of `statistics.paired` for a metric of which less is better.
    """

    value: float | None
    low: float | None
    high: float | None
    verdict: str = ""


def paired_ratio(a: Float[ArrayLike, "n"], b: Float[ArrayLike, "n"]) -> Ratio:
    """Median of b / a with its interval, on a logarithmic scale, see `statistics.paired`; zeros are left out.

    >>> found = paired_ratio([2.0, 4.0, 6.0, 2.0, 2.0], [1.0, 2.0, 3.0, 1.0, 1.0])
    >>> round(found.value, 6), round(found.high, 6), found.verdict
    (0.5, 0.5, 'better')
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [np.log(np.asarray(side, np.float64)) for side in (a, b)]
    found = statistics.paired(*logs, goal="min")
    ends = (math.exp(x) if math.isfinite(x) else None for x in (found.difference, found.low, found.high))
    return Ratio(*ends, found.verdict)


def final(results: Results, arm: str) -> dict[str, np.ndarray]:
    """Metrics of the last report of an arm, [replica]; {} for an arm that has none."""
    reports = results.reports.get(arm)
    return reports[-1].values if reports else {}


def ratio(results: Results, arm: str, metric: str, *, reference: str | None = None) -> Ratio:
    """Of an arm to another one (the reference of the run), in a metric of their last reports."""
    sides = [final(results, name).get(metric) for name in (reference or results.reference, arm)]
    return Ratio(None, None, None) if any(side is None for side in sides) else paired_ratio(*sides)


def show(found: Ratio) -> str:
    """A ratio with its interval.

    >>> show(Ratio(0.5, 0.41, 0.625)), show(Ratio(None, None, None))
    ('0.5 [0.41, 0.625]', '-')
    """
    return tables.measure({"value": found.value, "low": found.low, "high": found.high}, 3) if found.value else "-"


def survival(what: str, arm: str, reference: str, gain: Ratio, controls: Mapping[str, Ratio]) -> str:
    """Whether a gain over the reference is left against each control, in words.

    A gain is a ratio whose interval lies below 1. It survives a control if the ratio to that control does so too.

    Args:
        what: the number in which less is better.
        arm, reference: names.
        gain: of the arm to the reference.
        controls: of the arm to each control, by name.

    >>> gain, same = Ratio(0.5, 0.4, 0.6, 'better'), Ratio(1.0, 0.9, 1.1, 'no difference shown')
    >>> survival('error', 'expanded', 'raw', gain, {'zero': same})
    'error: expanded / raw 0.5 [0.4, 0.6], a gain. It does not survive zero: expanded / zero 1 [0.9, 1.1].'
    >>> print(survival('error', 'a', 'raw', same, {'zero': same}))
    error: a / raw 1 [0.9, 1.1], no gain shown: there is none that a control could take away; a / zero 1 [0.9, 1.1].
    """
    start = f"{what}: {arm} / {reference} {show(gain)}, "
    if gain.verdict != "better":
        said = {"worse": "a loss", "no difference shown": "no gain shown"}.get(
            gain.verdict, gain.verdict or "no number"
        )
        beside = "".join(f"; {arm} / {name} {show(rest)}" for name, rest in controls.items())
        return f"{start}{said}: there is none that a control could take away{beside}."
    parts = [
        f"It {'survives' if rest.verdict == 'better' else 'does not survive'} {name}: {arm} / {name} {show(rest)}."
        for name, rest in controls.items()
    ]
    return " ".join([f"{start}a gain.", *parts])


def survivals(results: Results, what: str, ratio_of: Callable[[str, str], Ratio]) -> list[Text]:
    """`survival` of every treatment that has controls, a sentence each.

    Args:
        results: with the roles of the arms.
        what: the number in which less is better.
        ratio_of: (arm, other arm) -> the ratio of the first to the second.
    """
    return [
        Text(
            survival(
                what,
                arm,
                results.reference,
                ratio_of(arm, results.reference),
                {control: ratio_of(arm, control) for control in controls},
            )
        )
        for arm, controls in roles.controlled(results).items()
    ]


def note(results: Results) -> list[Note]:
    """When a gain survives, and what the controls are; nothing where no treatment has one."""
    every = [control for controls in roles.controlled(results).values() for control in controls]
    about = roles.described(results, every)
    return [Note(f"{NOTE} {about}." if about else NOTE)] if every else []
