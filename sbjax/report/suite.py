"""Reports of several runs together: what they left on disk, and the parts that suites of any kind share.

An experiment may have a suite report of its own; `suite_report` is that of all others.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sbjax.common.files import plain, read_lines, write_atomically
from sbjax.report import markup, statistics, tables, verdict
from sbjax.report import results as results_lib
from sbjax.report.sections import Folded, Lead, Links, Note, Section, Table, with_note
from sbjax.report.whole import said_of_changes

_AT = "equal_steps"
_NOTE = (
    "Medians of differences paired by seed at equal steps, each run by itself. 'Better' and 'worse' are said only "
    "where the bootstrap interval excludes zero; 'no difference shown' is no proof that there is none. {count} "
    "comparisons; intervals, p and 'verdict' are of each one by itself, 'corrected' is the verdict where Wilcoxon's p, "
    "corrected by Holm's procedure for all arms of a run, is at most 0.05. A verdict takes {least} seeds that "
    "finished in both arms."
)


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
    results: results_lib.Results | None
    problem: str | None
    seconds: dict[str, Seconds]


class SuiteReport(NamedTuple):
    """What a suite report leaves: a table for the terminal, the path of the page, what `summary.json` holds."""

    table: str
    path: Path
    summary: dict[str, Any]


def load_members(folder: str | os.PathLike, names: Sequence[str]) -> list[Member]:
    """The runs `folder/<name>`; one that cannot be read is a member with a problem, not an error.

    Raises:
        ValueError: no name.
    """
    if not names:
        raise ValueError(f"names={list(names)!r}: a suite has at least one run")
    members = []
    for name in names:
        path, results, problem = Path(folder) / name, None, None
        try:
            results = results_lib.load_results(path)
            if results.changed:  # its numbers would stand beside whole ones
                results, problem = None, said_of_changes(results.changed)
        except (FileNotFoundError, ValueError) as error:
            problem = str(error).replace(str(path), name)
        members.append(Member(name, results, problem, load_seconds(path) if results else {}))
    return members


def load_seconds(path: Path) -> dict[str, Seconds]:
    """Seconds by arm: sums over the lines of `timings.jsonl`, of which an arm that was resumed has several."""
    try:
        lines = read_lines(path / "timings.jsonl")
    except FileNotFoundError:
        return {}
    found: dict[str, Seconds] = {}
    for _, record in lines:
        try:
            parts = [float(x) for name, x in record.items() if name.endswith("_seconds")]
            steps, arm = record["steps"][1] - record["steps"][0], record["arm"]
            one = Seconds(float(record["train_seconds"]), math.fsum(parts), int(steps))
        except (ValueError, KeyError, TypeError, IndexError):
            continue  # of another version
        found[arm] = Seconds(*(a + b for a, b in zip(found.get(arm, (0.0, 0.0, 0)), one)))
    return found


def save_members_table(folder: Path, members: Iterable[Member], *, what: str) -> Path:
    """Writes `results.csv`, the rows of all runs with the name of the run in a first column called `what`."""
    rows = [{what: m.name, **row} for m in members if m.results for row in results_lib.table_rows(m.results)]
    return results_lib.save_rows(folder, rows, first=(what, *results_lib.FACTS))


def links_section(problems: Mapping[str, str | None], *, title: str) -> Section:
    """Links to the pages of the runs that could be read.

    Args:
        problems: by run, None where it could be read.
        title: of the section.
    """
    targets = {name: f"{name}/report.html" for name, problem in problems.items() if problem is None}
    return Section(title, [Links(targets)] if targets else [])


def problems_section(problems: Mapping[str, str | None], *, title: str, what: str) -> Section:
    """The runs that could not be read, and why.

    Args:
        problems: as in `links_section`.
        title: of the section.
        what: a run is called in the header of the table.
    """
    rows = [[name, problem] for name, problem in problems.items() if problem is not None]
    return Section(title, [Table([what, "why"], rows)] if rows else [])


def save_page(
    folder: Path, *, title: str, heading: str, sections: Sequence[Section], members: Iterable[Member] = ()
) -> Path:
    """Writes `report.html` of the sections that have parts, and returns its path.

    Below every table stands what of `members` is not trained yet.
    """
    sections = with_note(sections, not_trained(members))
    page = markup.page(title, heading, [section for section in sections if section.parts])
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def not_trained(members: Iterable[Member]) -> str:
    """How many pairs there are of those that were planned, of the runs where some are missing; '' where all are."""
    told = {m.name: results_lib.not_trained(m.results) for m in members if m.results}
    return "; ".join(f"{name}: {said}" for name, said in told.items() if said)


def suite_report(folder: str | os.PathLike, names: Sequence[str], *, first: Sequence[Section] = ()) -> SuiteReport:
    """Makes `results.csv`, `summary.json` and `report.html` of a suite from its runs `folder/<name>`.

    Every run's arms against its reference, one below the other, and links to the runs' own reports. The same input
    gives the same bytes. A run that cannot be read is shown as such.

    Args:
        folder: the folder of the suite.
        names: of its runs, in the order in which they are shown.
        first: sections that stand before all others.

    Raises:
        ValueError: no name.
    """
    folder = Path(folder)
    members = load_members(folder, names)
    summaries = {m.name: statistics.summarise(m.results) for m in members if m.results}
    problems = {m.name: m.problem for m in members}
    summary = plain({"members": {name: summaries.get(name, {"problem": problems[name]}) for name in problems}})
    save_members_table(folder, members, what="run")
    results_lib.save_summary(folder, summary)
    headers = ["run", "primary", "arm", "against", "median", "median against", "difference", "95 % interval", "p"]
    headers += ["improved", "left out", "verdict", "corrected"]
    rows = [row for name, one in summaries.items() for row in _rows(name, one)]
    medians = [
        [name, arm, tables.count(found["parameters"]), tables.spread(metric, found["last_metrics"].get(metric))]
        for name, one in summaries.items()
        for metric in (one["primary"]["name"],)
        for arm, found in one["arms"].items()
    ]
    told = [[*row[:-2], tables.judged(*row[-2:])] for row in rows]
    brief = tables.brief(headers[:-1], told, ("run", "arm", "difference", "95 % interval", "verdict"))
    full = Folded("All numbers of the comparisons", [Table(headers, rows)])
    note = Note(_NOTE.format(count=len(rows), least=statistics.FEWEST_SEEDS))
    sections = [
        *first,
        Section("", [Lead(headline(summaries)), *([Table(*brief), note, full] if rows else [])]),
        Section("Arms", [Table(["run", "arm", "parameters", "primary metric, median [quartiles]"], medians)]),
        links_section(problems, title="Reports of the runs"),
        problems_section(problems, title="Runs that could not be read", what="run"),
    ]
    path = save_page(folder, title="Suite", heading=f"{len(members)} runs", sections=sections, members=members)
    listed = tables.columns([_short([*headers[:12], tables.NONE]), *map(_short, rows)]) if rows else []
    lost = [line for name, why in problems.items() if why for line in tables.wrap(f"{name}: {why}")]
    lost = [tables.STAR] * any(line.endswith("*") for line in listed) + lost
    return SuiteReport("\n".join([*listed, *lost]), path, summary)


def headline(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Which arms are better than the reference of their run, which worse, and where no difference is shown.

    Args:
        summaries: by run, what `statistics.summarise` makes of it.
    """
    groups: dict[str, list[str]] = {"better": [], "worse": [], "no difference shown": [], "no verdict": []}
    metrics = {one["primary"]["name"] for one in summaries.values()}
    for name, one in summaries.items():
        for entry in one["comparisons"][_AT]:
            found = entry["comparison"]
            judged = found["verdict"] if found and found["verdict"] in groups else "no verdict"
            groups[judged].append(verdict.named(f"{name} {entry['arm']}", one["primary"]["name"], found))
    count = sum(map(len, groups.values()))
    if not count:
        return "Nothing to compare: one arm alone in each run, or no run that can be read."
    if not groups["no verdict"]:
        del groups["no verdict"]
    said = "; ".join(f"{word}: {verdict.some(names)}" for word, names in groups.items())
    points = ", differences in points" if all(map(tables.in_percent, metrics)) else ""
    what = f"{metrics.pop()} against" if len(metrics) == 1 else "Against"
    several = "comparison" if count == 1 else "comparisons"
    return f"{what} the reference of each run, {tables.WHERE[_AT]}{points}: {said} ({count} {several})."


def _rows(name: str, summary: Mapping[str, Any]) -> list[list[str]]:
    metric = summary["primary"]["name"]
    rows = []
    for entry in summary["comparisons"][_AT]:
        found = entry["comparison"]
        cells = tables.comparison_cells(metric, found) if found else [*[tables.NONE] * 7, entry["reason"], tables.NONE]
        rows.append([name, metric, entry["arm"], entry["reference"], *cells])
    return rows


def _short(row: Sequence[str]) -> list[str]:
    """Without the metric, the two medians and p: the terminal is narrow."""
    return [*row[:1], *row[2:4], *row[6:8], row[9], tables.starred(*row[11:13])]
