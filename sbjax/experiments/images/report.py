"""What reports of image runs have beside the page of any run: lines between networks, and of a suite the grid.

The grid is that of figure 1 of arXiv 2409.06402: a row a set of images, a column a network, test accuracy against the
epoch, every arm a line. What is published of a cell is drawn where it is a number, and said where it is not.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sbjax.experiments.connectivity.report import report
from sbjax.report import figures, tables
from sbjax.report import suite as suite_lib
from sbjax.report.results import Results
from sbjax.report.sections import Note, Section, Table
from sbjax.report.suite import SuiteReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["report", "suite_report"]

SETS = ("cifar10", "cifar100", "imagenet_r", "imagenet100")
NETWORKS = ("resnet18", "resnet50", "densenet121", "mobilenet_v3", "efficientnet_b0")
# Accuracies in percent, of the arm `expanded`; second hand.
PUBLISHED = {("cifar10", "resnet18"): 94.0}
_CAPTION = (
    "Test accuracy during training, a row a set of images and a column a network. Line: median over the seeds; band: "
    "quartiles. Dashed grey: published for expanded images, second hand, where a number is known: that of ResNet-18 on "
    "CIFAR-10, whose training is not known. Everywhere else the published figure has curves without numbers, the "
    "expanded one above the raw one."
)
_NOTE = "Published: arXiv 2409.06402, figure 1. A cell that stands for no run was not run."


def suite_report(folder: Path, names: Sequence[str]) -> SuiteReport:
    """The report of any suite, and in front of it the grid, where the runs differ in their set or their network."""
    members = suite_lib.load_members(folder, names)
    cells = {cell_of(m.results): m.results for m in members if m.results is not None and m.results.config.get("model")}
    if len(cells) < 2:
        return suite_lib.suite_report(folder, names)
    figure = figures.picture(folder, "grid", draw_grid(cells), _CAPTION)
    table = Table(
        ["set", "network", "raw", "expanded", "published, expanded", "scale"], [_row(*one) for one in cells.items()]
    )
    section = Section("Sets and networks", [figure, table, Note(_NOTE)])
    return suite_lib.suite_report(folder, names, first=[section])


def cell_of(results: Results) -> tuple[str, str]:
    """The set and the network of a run."""
    dataset = str(results.config["task"].get("dataset", ""))
    return dataset.removeprefix("folder:"), str(results.config["model"].get("name", ""))


def draw_grid(cells: Mapping[tuple[str, str], Results]) -> "Figure":
    """Panels of accuracy against the epoch, by set and network; cells without a run stay empty and say so."""
    sets = _ordered({dataset for dataset, _ in cells}, SETS)
    networks = _ordered({network for _, network in cells}, NETWORKS)
    with figures.styled():
        figure = figures.new_figure((0.6 + 1.9 * len(networks), 0.7 + 1.6 * len(sets)))
        panels = figure.subplots(len(sets), len(networks), squeeze=False)
        for row, dataset in zip(panels, sets):
            for panel, network in zip(row, networks):
                _draw(panel, cells.get((dataset, network)), PUBLISHED.get((dataset, network)))
                panel.set_title(f"{dataset}, {network}", fontsize=7)
        for panel in panels[:, 0]:
            panel.set_ylabel("test accuracy (%)")
        figures.legend(figure, panels.ravel())
    return figure


def _draw(panel, results, published):
    if results is None:
        panel.text(0.5, 0.5, "not run", ha="center", va="center", transform=panel.transAxes)
        panel.set_xticks([])
        panel.set_yticks([])
        return
    in_epochs = all(one.epoch is not None for reports in results.reports.values() for one in reports)
    for arm in results.arms:
        figures.curve(panel, results, arm, results.primary, in_epochs=in_epochs)
    if published is not None:
        panel.axhline(published, color="0.5", linestyle="--", linewidth=1, label="published, expanded")
    panel.set_xlabel("epoch" if in_epochs else "step")


def _row(cell: tuple[str, str], results: Results) -> list[str]:
    known = PUBLISHED.get(cell)
    said = f"{known:g} % (second hand)" if known is not None else "above raw, no number"
    task, model = results.config["task"], results.config["model"]
    size, share = task.get("image_size") or "stored size", task.get("train_share", 1.0)
    last = results.reports[results.arms[0]][-1]
    length = f"{last.epoch:.3g} epochs" if last.epoch is not None else f"{last.step} steps"
    scale = (
        f"stem {model.get('stem', 'none')}, {size}, {100 * share:g} % of the set, {length}, {results.replicas} seeds"
    )
    return [*cell, *(_median(results, arm) for arm in ("raw", "expanded")), said, scale]


def _median(results, arm) -> str:
    reports = results.reports.get(arm, [])
    values = reports[-1].values.get(results.primary) if reports else None
    if values is None or not np.isfinite(values).any():
        return tables.NONE
    return f"{100 * np.nanmedian(values):.2f} %"


def _ordered(names, known) -> list[str]:
    """As the published figure has them, others behind."""

    def place(name):
        return next((i for i, start in enumerate(known) if name.startswith(start)), len(known)), name

    return sorted(names, key=place)
