"""One report of regression grids of several functions, beside the published cuts of iterations and error."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sbjax.experiments.functions import report as grid
from sbjax.report import controls, figures, roles, statistics, suite, tables
from sbjax.report import results as results_lib
from sbjax.report.sections import Lead, Section, Table, Text
from sbjax.report.suite import SuiteReport, load_members, save_members_table, save_page
from sbjax.tasks.regression import TARGETS

MEASURES = {"iterations": "iterations", "error": "test MSE"}
PUBLISHED = "published, size 5"
CAPTION = (
    "Each expansion over raw, by size and constant: median over the functions of the median ratio over the seeds. Size "
    "1 is raw itself. Below 1 (blue): fewer iterations, smaller error; colours end at ratios of 0.1 and 10."
)
_NOTE = (
    "Ratio: of an arm to {reference}, median over the seeds of each function, then over the functions [95 % interval "
    "over functions]. Mean cut: 1 minus the ratio, mean over the functions. Published (arXiv 2602.17952), for other "
    "functions, networks and tolerances that are not all known: {iterations:.0%} fewer iterations on average, a final "
    "error {error:.1%} lower at size 5."
)


class Cut(NamedTuple):
    """Of one arm over all functions: ratios by function, their median with its interval, the mean of 1 - ratio."""

    ratios: dict[str, float]
    median: float | None
    low: float | None
    high: float | None
    smaller: int
    mean_cut: float | None
    verdict: str = ""


def cut(ratios: dict[str, float]) -> Cut:
    """A summary of ratios by function.

    >>> found = cut({'a': 0.5, 'b': 2.0, 'c': 0.25})
    >>> found.median, found.smaller, round(found.mean_cut, 4)
    (0.5, 2, 0.0833)
    """
    if not ratios:
        return Cut({}, None, None, None, 0, None)
    logs = np.log(list(ratios.values()))
    found = statistics.paired(np.zeros(len(logs)), logs, goal="min")
    ends = (math.exp(x) if math.isfinite(x) else None for x in (found.difference, found.low, found.high))
    mean_cut = float(np.mean([1 - ratio for ratio in ratios.values()]))
    return Cut(ratios, *ends, int(np.sum(logs < 0)), mean_cut, found.verdict)


def suite_report(folder: str | os.PathLike, names: Sequence[str]) -> SuiteReport:
    """Makes `results.csv`, `summary.json`, `figures/expansion_maps.png` and `report.html` of runs `folder/<name>`.

    Runs that count no iterations (`task.program='frame'`) have the report of any suite, `sbjax.report.suite`.

    Args:
        folder: the folder of the suite.
        names: of its runs, in the order in which they are shown.

    Raises:
        ValueError: no name.
    """
    folder = Path(folder)
    members = load_members(folder, names)
    runs = {m.name: m.results for m in members if m.results is not None}
    if not any(map(grid.counted, runs.values())):
        return suite.suite_report(folder, names)
    first = next(iter(runs.values()))
    arms = [arm for arm in first.arms if arm != first.reference]
    cuts = {arm: {what: _over(runs, arm, what)._asdict() for what in MEASURES} for arm in arms}
    survival = {
        arm: {
            what: {control: _over(runs, arm, what, reference=control)._asdict() for control in controls_of}
            for what in MEASURES
        }
        for arm, controls_of in roles.controlled(first).items()
    }
    summary = {
        "reference": first.reference,
        "functions": {name: {"level": grid.chosen_level(results)} for name, results in runs.items()},
        "arms": cuts,
        "over_controls": survival,
        "published": grid.PUBLISHED,
        "problems": {m.name: m.problem for m in members if m.problem is not None},
    }
    save_members_table(folder, members, what="function")
    results_lib.save_summary(folder, summary)
    drawn = []
    if any(grid.is_expansion(first.labels[arm]) for arm in arms):
        ratios = {title: {arm: cuts[arm][what]["median"] for arm in arms} for what, title in MEASURES.items()}
        drawn.append(figures.picture(folder, "expansion_maps", grid.draw_maps(ratios, first.labels), CAPTION))
    heading = f"{len(runs)} functions: expansions against {first.reference}"
    page = save_page(
        folder, title="Functions", heading=heading, sections=_sections(summary, first, drawn), members=members
    )
    return SuiteReport(_terminal(summary), page, summary)


def _over(runs, arm, what, reference=None) -> Cut:
    """Median ratios over the seeds of each function."""
    ratios = {}
    for name, results in runs.items():
        metric = grid.ERROR if what == "error" else grid.ITERATIONS + grid.chosen_level(results)
        value = controls.ratio(results, arm, metric, reference=reference).value if arm in results.arms else None
        if value:
            ratios[name] = value
    return cut(ratios)


def verdicts(summary: Mapping[str, Any]) -> list[str]:
    """Whether the gain of each treatment that has controls survives them, a sentence a measure."""
    return [
        controls.survival(
            title,
            arm,
            summary["reference"],
            _ratio(summary["arms"][arm][what]),
            {name: _ratio(own) for name, own in over[what].items()},
        )
        for arm, over in summary["over_controls"].items()
        for what, title in MEASURES.items()
    ]


def headline(summary: Mapping[str, Any]) -> str:
    """With how many arms each measure is smaller than with the reference, with how many larger, and the best."""
    arms, functions = summary["arms"], len(summary["functions"])
    if not arms:
        return "Nothing to compare: one arm alone."
    said = []
    for what, title in MEASURES.items():
        counts = dict.fromkeys(("smaller", "larger", "no difference shown", "no verdict"), 0)
        words = {"better": "smaller", "worse": "larger"}
        for own in arms.values():
            judged = words.get(own[what]["verdict"], own[what]["verdict"])
            counts[judged if judged in counts else "no verdict"] += 1
        known = {arm: own[what]["median"] for arm, own in arms.items() if own[what]["median"] is not None}
        best = min(known, key=known.get, default=None)
        listed = ", ".join(f"{word} with {count}" for word, count in counts.items() if count)
        smallest = f", smallest ratio {known[best]:.3g} with {best}" if best else ""
        said.append(f"{title}: {listed} of {len(arms)}{smallest}")
    few = (
        f" {functions} functions are too few for a verdict (fewer than {statistics.FEWEST_SEEDS})."
        if functions < statistics.FEWEST_SEEDS
        else ""
    )
    what = "function" if functions == 1 else "functions"
    return f"Against {summary['reference']}, over {functions} {what}: {'; '.join(said)}.{few}"


def _ratio(found):
    return controls.Ratio(found["median"], found["low"], found["high"], found["verdict"])


def _headers(summary):
    return ["arm", *(f"{name}: {what}" for name in MEASURES.values() for what in ("ratio", "smaller", "mean cut"))]


def _cells(found, functions):
    if found["median"] is None:
        return [tables.NONE] * 3
    ratio = tables.measure({"value": found["median"], "low": found["low"], "high": found["high"]}, 3)
    return [ratio, f"{found['smaller']} of {functions}", f"{found['mean_cut']:.1%}"]


def _rows(summary):
    functions = len(summary["functions"])
    published = [cell for cut in summary["published"].values() for cell in (tables.NONE, tables.NONE, f"{cut:.1%}")]
    return [
        [PUBLISHED, *published],
        *(
            [arm, *(cell for what in MEASURES for cell in _cells(found[what], functions))]
            for arm, found in summary["arms"].items()
        ),
    ]


def _terminal(summary):
    text = _NOTE.format(reference=summary["reference"], **summary["published"])
    said = [line for sentence in verdicts(summary) for line in tables.wrap(sentence)]
    return "\n".join([*tables.columns([_headers(summary), *_rows(summary)]), *tables.wrap(text), *said])


def _sections(summary, results, drawn):
    functions = list(summary["functions"])
    said = [Text(sentence) for sentence in verdicts(summary)]
    note = _NOTE.format(reference=summary["reference"], **summary["published"])
    table = Table(_headers(summary), _rows(summary), notes=[note])
    found = [Section("", [Lead(headline(summary)), *said, *(controls.note(results) if said else []), table, *drawn])]
    for what, title in MEASURES.items():
        rows = []
        for arm, own in summary["arms"].items():
            ratios = own[what]["ratios"]
            rows.append([arm, *(f"{ratios[name]:.3g}" if name in ratios else tables.NONE for name in functions)])
        found.append(Section(f"Ratio of {title} by function", [Table(["arm", *functions], rows)]))
    rows = []
    for name in functions:
        known = TARGETS.get(name)
        about = (known.kind, known.formula) if known else ("", "")
        rows.append([name, *about, summary["functions"][name]["level"]])
    problems = dict.fromkeys(functions) | summary["problems"]
    return [
        *found,
        Section("Functions", [Table(["function", "kind", "formula", "iterations to"], rows)]),
        suite.links_section(problems, title="Reports of the functions"),
        suite.problems_section(problems, title="Functions that could not be read", what="function"),
    ]
