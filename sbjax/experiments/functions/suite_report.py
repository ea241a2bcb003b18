"""One report of regression grids of several functions, beside the published cuts of iterations and error."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sbjax.experiments.functions import report as grid
from sbjax.experiments.pinn.suite_members import Member
from sbjax.files import write_atomically
from sbjax.report import controls, figures, statistics, tables
from sbjax.report import results as results_lib
from sbjax.report.markup import figures as embed
from sbjax.report.markup import links, note, page, table, tag
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


def build_grid_suite(folder: Path, members: Sequence[Member]) -> tuple[str, Path, dict[str, Any]]:
    """Makes `results.csv`, `summary.json`, `figures/expansion_maps.png` and `report.html`.

    Returns:
        The table for the terminal, the path of the page, and the summary.

    Raises:
        ValueError: no run can be read.
    """
    runs = {m.name: m.results for m in members if m.results is not None}
    if not runs:
        raise ValueError(f"{folder}: no run can be read: {[m.problem for m in members]}")
    first = next(iter(runs.values()))
    arms = [arm for arm in first.arms if arm != first.reference]
    cuts = {arm: {what: _over(runs, arm, what)._asdict() for what in MEASURES} for arm in arms}
    present = [name for name in grid.CONTROLS if name in arms and grid.EXPANDED in arms]
    survival = {
        what: {name: _over(runs, grid.EXPANDED, what, reference=name)._asdict() for name in present}
        for what in MEASURES
    }
    summary = {
        "reference": first.reference,
        "functions": {name: {"level": grid.chosen_level(results)} for name, results in runs.items()},
        "arms": cuts,
        "over_controls": survival,
        "published": grid.PUBLISHED,
        "problems": {m.name: m.problem for m in members if m.problem is not None},
    }
    rows = [{"function": name, **row} for name, results in runs.items() for row in results_lib.table_rows(results)]
    results_lib.save_rows(folder, rows, first=("function", *results_lib.FACTS))
    results_lib.save_summary(folder, summary)
    images = {}
    if any(map(grid.parse_arm, arms)):
        ratios = {title: {arm: cuts[arm][what]["median"] for arm in arms} for what, title in MEASURES.items()}
        images["expansion_maps"] = figures.to_png(grid.draw_maps(ratios))
        (folder / "figures").mkdir(exist_ok=True)
        write_atomically(folder / "figures" / "expansion_maps.png", images["expansion_maps"])
    write_atomically(folder / "report.html", _page(summary, images))
    return _terminal(summary), folder / "report.html", summary


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
    """Whether the gain of `regression_figures.EXPANDED` survives the controls, a sentence a measure."""
    if not any(summary["over_controls"].values()):
        return []
    found = []
    for what, title in MEASURES.items():
        gain = _ratio(summary["arms"][grid.EXPANDED][what])
        rest = {name: _ratio(own) for name, own in summary["over_controls"][what].items()}
        found.append(controls.survival(title, grid.EXPANDED, summary["reference"], gain, rest))
    return found


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


def _page(summary, images):
    functions = list(summary["functions"])
    said = verdicts(summary)
    body = [
        tag("h1", f"{len(functions)} functions: expansions against {summary['reference']}"),
        *(tag("p", sentence) for sentence in said),
        *([note(grid.CONTROL_NOTE)] if said else []),
        table(_headers(summary), _rows(summary)),
        note(_NOTE.format(reference=summary["reference"], **summary["published"])),
        *embed(images, {"expansion_maps": CAPTION}),
    ]
    for what, title in MEASURES.items():
        rows = []
        for arm, found in summary["arms"].items():
            ratios = found[what]["ratios"]
            rows.append([arm, *(f"{ratios[name]:.3g}" if name in ratios else tables.NONE for name in functions)])
        body += [tag("h2", f"Ratio of {title} by function"), table(["arm", *functions], rows)]
    rows = []
    for name in functions:
        known = TARGETS.get(name)
        rows.append(
            [name, known.kind if known else "", known.formula if known else "", summary["functions"][name]["level"]]
        )
    body += [tag("h2", "Functions"), table(["function", "kind", "formula", "iterations to"], rows)]
    body.append(links({name: f"{name}/report.html" for name in functions}))
    if summary["problems"]:
        body += [tag("h2", "Functions that could not be read"), table(["function", "why"], summary["problems"].items())]
    return page("Functions", body)
