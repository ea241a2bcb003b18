"""The table and figures of networks on images by their width."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sbjax.experiments.landscape.arm_results import ArmResult, load_arms
from sbjax.report import figures
from sbjax.report.results import Results
from sbjax.report.sections import Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERS = {
    "train/loss": "loss",
    "gradient_squared": "squared norm of the gradient",
    "update_squared": "squared norm of Adam's update",
}


CAPTIONS = {
    "width_sweep": "After the last step, against the width: dots are runs, the line is their median. The loss is that "
    "of training, on the images of the test split.",
    "width_curves": "During training: median over the runs, band from the least to the largest. The loss is that of "
    "training, on the images of the test split.",
}


def report(results: Results, workdir: Path) -> list[Section]:
    """Loss, gradient and update at the end by width, as a table and drawn."""
    found = load_arms(workdir, results.arms)
    if not found:
        return []
    every = list(found.values())
    drawn = {"width_sweep": width_sweep(every), "width_curves": width_curves(every)}
    pictures = [figures.picture(workdir, name, figure, CAPTIONS[name]) for name, figure in drawn.items()]
    return [Section("Width and what is left of the loss", [_table(found), *pictures])]


def _table(found):
    rows, facts = [], None
    for arm, one in found.items():
        facts = one.summary
        ends = {name: one.arrays[name][-1] for name in ("loss", "gradient_squared", "update_squared", "accuracy")}
        ends["accuracy"] = 100 * ends["accuracy"]
        rows.append([arm, str(facts["width"]), str(facts["runs"]), *map(_spread, ends.values())])
    headers = ["arm", "width", "runs", "training loss", "squared gradient", "squared update", "training accuracy, %"]
    about = (
        f"After the last step, median [least, largest] of the runs. The batch is {facts['images']} images of the test "
        f"split, on which the networks are trained as in the published experiment; {facts['pixels']} of "
        f"{facts['inputs']} pixels are not 0 in all of them."
    )
    return Table(headers, rows, notes=[about])


def width_sweep(found: list[ArmResult]) -> "Figure":
    """The three numbers after the last step against the width, both axes logarithmic."""
    return _panels(found, _draw_sweep, "width")


def width_curves(found: list[ArmResult]) -> "Figure":
    """The three numbers against the step, a line a width."""
    return _panels(found, _draw_curves, "step")


def _spread(values):
    return f"{np.median(values):.4g} [{np.min(values):.4g}, {np.max(values):.4g}]"


def _panels(found, draw, label):
    with figures.styled():
        figure = figures.new_figure((8.2, 2.7))
        panels = figure.subplots(1, len(NUMBERS))
        for panel, (name, title) in zip(panels, NUMBERS.items()):
            draw(panel, found, name.removeprefix("train/"))
            panel.set_yscale("log")
            panel.set_xlabel(label)
            panel.set_title(title, fontsize=8)
        if panels[0].get_legend_handles_labels()[1]:
            figures.legend(figure, [panels[0]])
    return figure


def _draw_sweep(panel, found, name):
    widths = [arm.summary["width"] for arm in found]
    ends = [arm.arrays[name][-1] for arm in found]
    for width, values in zip(widths, ends):
        panel.plot([width] * len(values), values, "o", color=figures.COLOURS[5], markersize=3)
    panel.plot(widths, [np.median(values) for values in ends], color=figures.COLOURS[0])
    panel.set_xscale("log")


def _draw_curves(panel, found, name):
    for i, arm in enumerate(found):
        colour, curve = figures.COLOURS[i % len(figures.COLOURS)], arm.arrays[name]
        panel.plot(np.median(curve, 1), color=colour, label=f"m = {arm.summary['width']}")
        panel.fill_between(np.arange(len(curve)), curve.min(1), curve.max(1), color=colour, alpha=0.2, linewidth=0)
