"""What came out, in one sentence: the first that a reader of a report sees, whichever way it points."""

from collections.abc import Mapping, Sequence
from typing import Any

from sbjax.common.files import plain
from sbjax.common.power import POWER, smallest_shown
from sbjax.report import roles, statistics, tables
from sbjax.report.results import Results

AT = "equal_steps"
MOST = 4
"""Treatments that get a sentence of their own."""


def headline(results: Results, summary: Mapping[str, Any]) -> list[str]:
    """The verdict on the treatments against the reference, then against their controls, a sentence each.

    Args:
        results: with the roles of the arms.
        summary: what `statistics.summarise` makes of them.
    """
    entries = {entry["arm"]: entry for entry in summary["comparisons"][AT]}
    arms = roles.treatments(results) or list(entries)
    if not arms:
        return [_alone(summary)]
    said = [sentence(summary, entries[arm]) for arm in arms[:MOST]]
    if len(arms) > 1:
        said = [_counted(summary, [entries[arm] for arm in arms]), *said]
    controls = [(arm, control) for arm, found in roles.controlled(results).items() for control in found]
    return said + [_against_control(results, summary, *pair) for pair in controls if pair[0] in arms[:MOST]]


def sentence(summary: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """One comparison: the verdict, by how much, with what interval, of how many seeds, and the corrected verdict.

    Args:
        summary: of the run.
        entry: of `summary['comparisons']`.
    """
    arm, reference, found = entry["arm"], entry["reference"], entry["comparison"]
    metric = summary["primary"]["name"]
    if found is None:
        return f"{arm} and {reference} were not compared in {metric}: {entry['reason']}."
    if not found["n"]:
        return f"{arm} and {reference} were not compared in {metric}: no seed was finished by both."
    one = _Words(metric, found, 100 * summary["confidence"])
    among = _among(found)
    if found["verdict"] in ("better", "worse"):
        side = "higher" if found["difference"] > 0 else "lower"
        return (
            f"{arm} is {found['verdict']} than {reference}: {metric} is {side} by {one.size} ({one.detail}; {among})."
        )
    if found["verdict"] == statistics.TOO_FEW:
        return (
            f"No verdict on {arm} against {reference}: {one.seeds} are too few (fewer than "
            f"{statistics.FEWEST_SEEDS}). Median difference in {metric}: {one.signed} ({one.detail})."
        )
    least = smallest_shown(found["low"], found["high"], confidence=summary["confidence"])
    said = f"No difference shown between {arm} and {reference} in {metric}: median difference {one.signed}"
    said = f"{said} ({one.detail}; {among})."
    if not least > 0:  # all differences are the same
        return said
    return (
        f"{said} The smallest difference that these seeds could have shown is about {one.bare(least)} "
        f"(in {100 * POWER:.0f} % of such runs)."
    )


class _Words:
    """A comparison in pieces of a sentence."""

    def __init__(self, metric: str, found: Mapping[str, Any], percent: float):
        unit = " points" if tables.in_percent(metric) else ""
        self.metric, self.unit = metric, unit
        self.signed = f"{tables.difference(metric, found['difference'])}{unit}"
        self.size = self.bare(abs(found["difference"]))
        self.seeds = f"{found['n']} seed" if found["n"] == 1 else f"{found['n']} seeds"
        interval = tables.interval(metric, found)
        interval = "" if interval == tables.NONE else f"{percent:g} % interval {interval}, "
        lost = tables.of_planned(found, ", ") or (f", {found['left_out']} left out" if found["left_out"] else "")
        self.detail = f"{interval}{self.seeds} paired{lost}, {tables.WHERE[AT]}"

    def bare(self, size: float) -> str:
        """A difference without its sign."""
        return f"{tables.difference(self.metric, size).lstrip('+-')}{self.unit}"


def _among(found: Mapping[str, Any]) -> str:
    if found["comparisons"] < 2:
        return "the only comparison"
    return f"corrected for {found['comparisons']} comparisons: {found['verdict_corrected']}"


def _counted(summary: Mapping[str, Any], entries: list[Mapping[str, Any]]) -> str:
    """Which treatments are better, which worse, and by how much."""
    metric, reference = summary["primary"]["name"], summary["reference"]
    groups: dict[str, list[str]] = {"better": [], "worse": [], "no difference shown": [], "no verdict": []}
    for entry in entries:
        found = entry["comparison"]
        judged = found["verdict"] if found and found["verdict"] in groups else "no verdict"
        groups[judged].append(named(entry["arm"], metric, found))
    if not groups["no verdict"]:
        del groups["no verdict"]
    unit = ", differences in points" if tables.in_percent(metric) else ""
    said = "; ".join(f"{word}: {some(names)}" for word, names in groups.items())
    return (
        f"{metric} of {len(entries)} treatments minus {reference}, {tables.WHERE[AT]}{unit}: {said} "
        f"({summary['replicas']} seeds)."
    )


def named(arm: str, metric: str, found: Mapping[str, Any] | None) -> str:
    """An arm and its difference, for a list of arms with one verdict; where the corrected one is another, it is said.

    >>> found = {'n': 8, 'difference': 0.5, 'verdict': 'better', 'verdict_corrected': 'no difference shown'}
    >>> named('expanded', 'test/loss', found)
    'expanded (+0.5, not once corrected)'
    """
    if not found or not found["n"]:
        return arm
    lost = tables.judged(found["verdict"], found["verdict_corrected"]) != found["verdict"]
    return f"{arm} ({tables.difference(metric, found['difference'])}{', not once corrected' if lost else ''})"


def some(names: Sequence[str]) -> str:
    """The first `MOST` names of a list, and how many more.

    >>> some(['a', 'b', 'c', 'd', 'e'])
    'a, b, c, d and 1 more'
    """
    rest = len(names) - MOST
    return ", ".join(names[:MOST]) + (f" and {rest} more" if rest > 0 else "") if names else "none"


def _against_control(results: Results, summary: Mapping[str, Any], arm: str, control: str) -> str:
    """A treatment against what could explain its gain."""
    entry = statistics.compare(results._replace(reference=control), arm, at=AT, goal=results.goal)
    metric, role = summary["primary"]["name"], results.roles[control]
    start = f"Against {control} ({role}), {arm} "
    found = plain(entry["comparison"])
    if found is None or not found["n"]:
        return f"{start}was not compared: {entry['reason'] or 'no seed was finished by both'}."
    one = _Words(metric, found, 100 * summary["confidence"])
    verb = {"better": "is better", "worse": "is worse", statistics.TOO_FEW: "has too few seeds for a verdict"}
    return f"{start}{verb.get(found['verdict'], 'shows no difference')}: {one.signed} ({one.detail})."


def _alone(summary: Mapping[str, Any]) -> str:
    metric, arm = summary["primary"]["name"], summary["reference"]
    last = summary["arms"][arm]["last_metrics"].get(metric)
    reached = tables.spread(metric, last)
    n = f" over {last['n']} seeds" if last else ""
    return f"One arm alone, {arm}: nothing to compare. {metric}, median [quartiles]{n}: {reached}."
