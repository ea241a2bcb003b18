"""Numbers of each network that a monitor took along training: sharpness, symmetry-breaking distances.

Curves beside those of the losses, and a table with a row for each arm and number: at the first and the last step where
it was taken, how it grew, and how it compares with the reference arm seed by seed, at the end and along the way.
"""

from pathlib import Path
from typing import Any

import numpy as np

from sbjax.report import figures, sections, tables
from sbjax.report.cells import median
from sbjax.report.ratios import ratio
from sbjax.report.results import Report, Results

SHARPNESS = "train/sharpness"
NAMES = {
    SHARPNESS: "sharpness",
    "symmetry/permutation": "distance to units alike",
    "symmetry/permutation_share": "the same, share of the norm",
    "symmetry/pair": "nearest two units",
    "symmetry/unit": "least unit",
}
"""Metrics of a monitor's numbers, and what a table calls them."""

COLUMNS = {
    "first": "at the first step",
    "last": "at the last step",
    "growth": "last over first",
    "over": "over the reference, last step",
    "along": "over the reference, along training",
}

NOTE = (
    "At the first and last step: median and quartiles over seeds. Ratios: medians of pairs of one seed, with 95 % "
    "intervals; along training: of geometric means over all steps after the first. Sharpness is a lower bound of the "
    "largest eigenvalue of the Hessian of the training loss, from a fixed number of products on fixed batches."
)


def names(results: Results) -> list[str]:
    """The numbers that some arm has."""
    found = {name for reports in results.reports.values() for report in reports for name in report.values}
    return [name for name in NAMES if name in found]


def draw(results: Results, workdir: Path) -> list[sections.Figure]:
    """Curves of what was taken at two steps or more, written into `workdir/figures`."""
    drawn = []
    for title, chosen, caption in (
        ("sharpness_curves", [SHARPNESS], "Largest eigenvalue of the Hessian of the training loss, a lower bound."),
        (
            "breaking_curves",
            [name for name in NAMES if name != SHARPNESS],
            "Symmetry-breaking distances: to networks whose units are all alike, and the share of the norm; of the "
            "nearest two units (0 = copies); of the least unit (0 = no weights).",
        ),
    ):
        shown = [name for name in chosen if any(len(_taken(results, arm, name)) > 1 for arm in results.arms)]
        if shown:
            caption = f"{caption} Line: median over the seeds; band: quartiles."
            drawn.append(figures.picture(workdir, title, _curves(results, shown), caption))
    return drawn


def rows(results: Results) -> list[dict[str, Any]]:
    """A row for each number and arm: `{"number", "arm", ..}` with cells of records under the keys of `COLUMNS`."""
    found = []
    for name in names(results):
        base = _taken(results, results.reference, name)
        for arm in results.arms:
            taken = _taken(results, arm, name)
            if not taken:
                continue
            first, last = taken[0].values[name], taken[-1].values[name]
            row = {"number": NAMES[name], "arm": arm, "first": median(first), "last": median(last)}
            if len(taken) > 1:
                row["growth"] = ratio(first, last)
            if arm != results.reference and [r.step for r in base] == [r.step for r in taken]:
                row["over"] = ratio(base[-1].values[name], last)
                if len(taken) > 1:
                    row["along"] = ratio(_mean(base, name), _mean(taken, name))
            found.append(row)
    return found


def section(results: Results) -> sections.Section:
    """The table of a report, without parts where there are no such numbers."""
    made = rows(results)
    if not made:
        return sections.Section("Along training", [])
    heads = ["number", "arm", *COLUMNS.values()]
    body = [[row["number"], row["arm"], *(tables.measure(row.get(key)) for key in COLUMNS)] for row in made]
    return sections.Section("Along training", [sections.Table(heads, body, notes=[NOTE])])


def _taken(results: Results, arm: str, name: str) -> list[Report]:
    """The reports of an arm in which some replica has a number."""
    return [r for r in results.reports[arm] if name in r.values and np.isfinite(r.values[name]).any()]


def _mean(taken: list[Report], name: str) -> np.ndarray:
    """Geometric mean over the steps after the first, for each replica."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.exp(np.mean([np.log(report.values[name]) for report in taken[1:]], 0))


def _curves(results: Results, shown: list[str]):
    with figures.styled():
        figure = figures.new_figure((0.9 + 2.6 * len(shown), 2.7))
        panels = figure.subplots(1, len(shown), squeeze=False)[0]
        in_epochs = all(report.epoch is not None for reports in results.reports.values() for report in reports)
        for panel, name in zip(panels, shown):
            for arm in results.arms:
                figures.curve(panel, results, arm, name, in_epochs=in_epochs)
            panel.set_xlabel("epoch" if in_epochs else "step")
            panel.set_ylabel(NAMES[name])
            if figures.spans_a_decade(np.concatenate([np.asarray(line.get_ydata()) for line in panel.lines])):
                panel.set_yscale("log")
        figures.legend(figure, panels)
    return figure
