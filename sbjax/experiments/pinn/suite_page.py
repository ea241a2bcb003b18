"""The page of a suite: the result in words, shares, every equation, seconds, figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from sbjax.report import suite, tables
from sbjax.report.corrected import FEWEST_SEEDS
from sbjax.report.sections import Figure, Folded, Lead, Note, Part, Section, Table, Text

COMPARED = (
    "median",
    "reference median",
    "log10 ratio",
    "interval",
    "p",
    "improved",
    "left out",
    "verdict",
    "corrected",
)
_VERBS = {"better": "improves on", "worse": "does worse than", "no difference shown": "shows no difference from"}
_SHARES_NOTE = (
    "Two readings of 'a share of the equations improves': equations whose median over seeds improves, and pairs of an "
    "equation and a seed that improve. Share: (improved + tied / 2) / all. Intervals: bootstrap over whole equations. "
    "The verdict is on the pairs: 'better' or 'worse' only where the interval excludes 50 %; 'no difference shown' is "
    "no proof that there is none. Seeds that stopped in one of the two arms are left out and counted. Final "
    "train/loss: the mean over the steps since the report before, with each equation's own weights. A verdict takes "
    f"{FEWEST_SEEDS} equations, one on a single equation as many seeds."
)
RATIO_NOTE = (
    "log10 ratio: median over seeds of log10(arm / reference), with its bootstrap interval; -1 = ten times smaller. "
    "p: two-sided Wilcoxon signed-rank test of the logarithms. Intervals, p and 'verdict' are of single comparisons; "
    "'corrected': the same verdict where p, corrected by Holm's procedure for all comparisons of a metric in a run, "
    "is at most 0.05."
)
_TIME_NOTE = (
    "Seconds of wall time, all replicas in one program: of training steps, and in brackets with compilation (which "
    "includes each program's first steps), evaluation and saving."
)
_REACHED_NOTE = (
    "Seconds of training, all replicas in one program, up to the first report at which the median over the replicas "
    "still running is below the error: its share of the steps times the arm's training seconds, as if all steps took "
    "the same time. -: not reached, or not timed."
)
_CLASSICAL_NOTE = "Classical: one solve by a classical method, from classical.json; -: not reached or not tried."
_NO_CLASSICAL_NOTE = "No classical solver was timed here: python runs/report.py --classical --workdir=WORKDIR does it."


def suite_sections(summary: Mapping[str, Any], drawn: Sequence[Figure]) -> list[Section]:
    """The whole page.

    Args:
        summary: what `suite_statistics.summarise_suite` returns.
        drawn: the figures.
    """
    members, published = summary["members"], summary["published"]
    problems = {name: member["problem"] for name, member in members.items()}
    said = [sentence(summary, metric, one) for metric, readings in summary["readings"].items() for one in readings]
    beside = (
        f"Published: '{published['statement']}' ({published['source']}), which can be read in two ways; all other "
        "numbers on this page are of the runs below."
    )
    return [
        Section("", [Lead(headline(summary)), *map(Text, said), Note(beside)]),
        Section("Shares that improve", _shares(summary)),
        *_medians(summary),
        *_pairs(summary),
        Section("Wall time", _seconds(summary)),
        *([reached(summary["primary"]["name"], summary["arms"], members)] if summary["primary"] else []),
        Section("Figures", drawn),
        suite.links_section(problems, title="Reports of the equations"),
        suite.problems_section(problems, title="Equations that could not be read", what="equation"),
    ]


def title_of(summary: Mapping[str, Any]) -> str:
    """'expanded, ones against raw'."""
    others = [arm for arm in summary["arms"] if arm != summary["reference"]]
    return f"{', '.join(others)} against {summary['reference']}" if others else summary["reference"] or "Suite"


def headline(summary: Mapping[str, Any]) -> str:
    """The result of the first other arm in the primary metric, in one sentence, whichever way it points."""
    if not summary["pairs"]:
        return "One arm alone, or no run that can be read: nothing to compare."
    metric = summary["primary"]["name"]
    first = summary["pairs"][0][0]
    parts = []
    for reading in summary["readings"][metric]:
        if reading["arm"] == first:
            verb = _VERBS.get(reading["verdict"])
            counts = f"{reading['runs_improved']} of {reading['runs']} equations, {_percent(reading)} of the pairs"
            what = f"{verb} {reading['reference']}" if verb else f"cannot be judged against {reading['reference']}"
            parts.append(f"{what} ({counts})")
    return f"In {metric}, {first} " + ", and ".join(parts) + "."


def sentence(summary: Mapping[str, Any], metric: str, reading: Mapping[str, Any]) -> str:
    """Both readings of one pair of arms in plain words, the same for good and bad news."""
    start = f"{reading['arm']} against {reading['reference']}, final {metric}: "
    if not reading["runs"]:
        return f"{start}not compared, since no equation has both."
    change = "lower" if summary["metrics"][metric] == "min" else "higher"
    interval = _interval(reading["share_pairs"])
    interval = "" if interval == tables.NONE else f", {100 * summary['confidence']:g} % interval {interval}"
    runs = f" ({reading['runs_tied']} tied)" if reading["runs_tied"] else ""
    pairs = f" ({reading['pairs_tied']} tied)" if reading["pairs_tied"] else ""
    left = f" {_many(reading['left_out'], 'pair')} left out, stopped in one of the arms." if reading["left_out"] else ""
    missing = f" {_many(reading['not_compared'], 'equation')} not compared." if reading["not_compared"] else ""
    return (
        f"{start}the median over seeds is {change} on {reading['runs_improved']} of {reading['runs']} equations{runs}, "
        f"{100 * reading['share_runs']['value']:.0f} %; {reading['pairs_improved']} of {reading['pairs']} pairs of "
        f"equation and seed are {change}{pairs}, {_percent(reading)}"
        f"{interval}: {reading['verdict']}.{left}{missing}"
    )


def _shares(summary: Mapping[str, Any]) -> list[Part]:
    header, *rows = share_rows(summary)
    note = f"{_SHARES_NOTE} {len(rows)} comparisons, each by itself."
    if not rows:
        return []
    short = [[f"{row[1]} against {row[2]}, {row[0]}", row[4].replace(" ", "\n", 1), row[6]] for row in rows]
    brief = Table(["arm", "pairs improved", "verdict"], short, notes=[note])
    return [brief, Folded("All numbers of the shares", [Table(header, rows)])]


def share_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """A row a metric and pair of arms, below a header: both readings with their intervals in percent."""
    rows = [["final", "arm", "against", "equations improved", "pairs improved", "left out", "verdict"]]
    for metric, readings in summary["readings"].items():
        for reading in readings:
            cells = []
            for what in ("runs", "pairs"):
                tied = f" +{reading[f'{what}_tied']} tied" if reading[f"{what}_tied"] else ""
                found = reading[f"share_{what}"]
                percent = "" if found["value"] is None else f" {100 * found['value']:.0f} % {_interval(found)}"
                cells.append(f"{reading[f'{what}_improved']}/{reading[what]}{tied}{percent}")
            rows.append(
                [metric, reading["arm"], reading["reference"], *cells, str(reading["left_out"]), reading["verdict"]]
            )
    return rows


def _medians(summary: Mapping[str, Any]) -> list[Section]:
    found = []
    for metric in summary["metrics"]:
        rows = [
            [name, member["panel"], *(_median(member, arm, metric) for arm in summary["arms"])]
            for name, member in summary["members"].items()
        ]
        table = Table(["equation", "panel", *summary["arms"]], rows)
        found.append(Section(f"Final {metric}, median [quartiles] over seeds", [table]))
    return found


def _median(member: Mapping[str, Any], arm: str, metric: str) -> str:
    found = member["arms"].get(arm)
    if found is None:
        return "no such arm" if member["problem"] is None else "not read"
    stopped = f" ({found['stopped']} of {member['replicas']} stopped)" if found["stopped"] else ""
    described = found.get(metric) or {"median": None}
    if described["median"] is None:
        return f"{tables.NONE}{stopped}"
    return f"{described['median']:.3g} [{described['q1']:.2g}, {described['q3']:.2g}]{stopped}"


def _pairs(summary: Mapping[str, Any]) -> list[Section]:
    """A table a pair of arms and metric; all but the primary metric folded away."""
    if not summary["pairs"]:
        return []
    primary = summary["primary"]["name"]
    others = [metric for metric in summary["metrics"] if metric != primary]
    folded = [Folded(f"Final {metric} by equation", _pairs_of(summary, metric)) for metric in others]
    return [Section(f"Final {primary} by equation", [*_pairs_of(summary, primary), Note(RATIO_NOTE), *folded])]


def _pairs_of(summary: Mapping[str, Any], metric: str) -> list[Table]:
    found = []
    for place, (arm, reference) in enumerate(summary["pairs"]):
        rows = [
            [name, *comparison_cells(member["comparisons"][metric][place])]
            for name, member in summary["members"].items()
        ]
        note = f"{len(rows)} of the {len(rows) * len(summary['pairs'])} comparisons in this metric."
        found.append(Table(["equation", *COMPARED], rows, title=f"{arm} against {reference}", notes=[note]))
    return found


def comparison_cells(row: Mapping[str, Any]) -> list[str]:
    """What `suite_statistics.compare` says, in the columns `COMPARED`."""
    if row["reason"] is not None:
        return [*[tables.NONE] * 7, f"not compared: {row['reason']}", tables.NONE]
    numbers = (f"{row[side]:.2e}" for side in ("median", "reference_median"))
    logs = (ratio(row["log_ratio"]), ratio_interval(row), tables.p_value(row["p_value"]))
    return [*numbers, *logs, tables.improved(row), str(row["left_out"]), row["verdict"], row["verdict_corrected"]]


def _seconds(summary: Mapping[str, Any]) -> list[Part]:
    rows, totals = [], dict.fromkeys(summary["arms"], 0.0)
    for name, member in summary["members"].items():
        cells = []
        for arm in summary["arms"]:
            spent = member["arms"].get(arm, {}).get("seconds")
            cells.append(f"{spent['train']:.3g} ({spent['total']:.3g})" if spent else tables.NONE)
            totals[arm] += spent["total"] if spent else 0.0
        rows.append([name, *cells])
    if not any(totals.values()):
        return []
    rows.append(["all, in brackets", *(f"{total:.3g}" for total in totals.values())])
    return [Table(["equation", *summary["arms"]], rows, notes=[_TIME_NOTE])]


def reached(metric: str, arms: Sequence[str], members: Mapping[str, Mapping[str, Any]]) -> Section:
    """Seconds to each error, of the arms and of a classical solver; without parts where no error was reached.

    Args:
        metric: whose error.
        arms: columns.
        members: by name, `times` and `classical` as `summarise_suite` gives them.
    """
    with_classical = any(member["classical"] for member in members.values())
    rows = []
    for name, member in members.items():
        for error, by_arm in member["times"].items():
            cells = [_short(by_arm.get(arm)) for arm in arms]
            classical = [_short((member["classical"] or {}).get(error))] if with_classical else []
            rows.append([name, f"{float(error):g}", *cells, *classical])
    headers = ["equation", f"{metric} below", *arms, *(["classical"] if with_classical else [])]
    notes = [_REACHED_NOTE, _CLASSICAL_NOTE if with_classical else _NO_CLASSICAL_NOTE]
    return Section("Time to an error", [Table(headers, rows, notes=notes)] if rows else [])


def ratio(x: float | None) -> str:
    """A log10 ratio to two decimals, with its sign."""
    return tables.NONE if x is None else f"{x:+.2f}"


def ratio_interval(row: Mapping[str, Any]) -> str:
    """The interval of a log10 ratio."""
    return tables.NONE if row["low"] is None else f"[{ratio(row['low'])}, {ratio(row['high'])}]"


def _interval(share: Mapping[str, Any]) -> str:
    return tables.NONE if share["low"] is None else f"[{100 * share['low']:.0f}, {100 * share['high']:.0f}]"


def _percent(reading: Mapping[str, Any]) -> str:
    value = reading["share_pairs"]["value"]
    return tables.NONE if value is None else f"{100 * value:.0f} %"


def _many(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _short(seconds: float | None) -> str:
    return tables.NONE if seconds is None else f"{seconds:.3g}"
