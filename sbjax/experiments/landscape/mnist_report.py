"""The table and figures of networks on images by their width."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sbjax.experiments.landscape.experiment import ArmResult, load_arms
from sbjax.report.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERS = {
    "train/loss": "loss",
    "gradient_squared": "squared norm of the gradient",
    "update_squared": "squared norm of Adam's update",
}


def section(workdir: Path, results: Results) -> list[str]:
    """Loss, gradient and update at the end by width, as a table."""
    from sbjax.report.markup import note, table, tag

    rows, facts = [], None
    for arm, found in load_arms(workdir, results.arms).items():
        facts = found.summary
        ends = {name: found.arrays[name][-1] for name in ("loss", "gradient_squared", "update_squared", "accuracy")}
        ends["accuracy"] = 100 * ends["accuracy"]
        rows.append([arm, str(facts["width"]), str(facts["runs"]), *map(_spread, ends.values())])
    if not rows:
        return []
    headers = ["arm", "width", "runs", "training loss", "squared gradient", "squared update", "training accuracy, %"]
    about = (
        f"After the last step, median [least, largest] of the runs. The batch is {facts['images']} images of the test "
        f"split, on which the networks are trained as in the published experiment; {facts['pixels']} of "
        f"{facts['inputs']} pixels are not 0 in all of them."
    )
    return [tag("h2", "Width and what is left of the loss"), table(headers, rows), note(about)]


def save_figures(workdir: Path, results: Results) -> dict[str, Path]:
    """Draws what there is of `CAPTIONS` into `workdir/figures`; the paths by name."""
    from sbjax.files import write_atomically
    from sbjax.report import figures

    found, paths = list(load_arms(workdir, results.arms).values()), {}
    if found:
        for name, draw in (("width_sweep", width_sweep), ("width_curves", width_curves)):
            paths[name] = Path(workdir) / "figures" / f"{name}.png"
            paths[name].parent.mkdir(parents=True, exist_ok=True)
            write_atomically(paths[name], figures.to_png(draw(found)))
    return paths


def width_sweep(found: list[ArmResult]) -> "Figure":
    """The three numbers after the last step against the width, both axes logarithmic."""
    return _panels(found, _draw_sweep, "width")


def width_curves(found: list[ArmResult]) -> "Figure":
    """The three numbers against the step, a line a width."""
    return _panels(found, _draw_curves, "step")


def _spread(values):
    return f"{np.median(values):.4g} [{np.min(values):.4g}, {np.max(values):.4g}]"


def _panels(found, draw, label):
    from sbjax.report import figures

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
    from sbjax.report import figures

    widths = [arm.summary["width"] for arm in found]
    ends = [arm.arrays[name][-1] for arm in found]
    for width, values in zip(widths, ends):
        panel.plot([width] * len(values), values, "o", color=figures.COLOURS[5], markersize=3)
    panel.plot(widths, [np.median(values) for values in ends], color=figures.COLOURS[0])
    panel.set_xscale("log")


def _draw_curves(panel, found, name):
    from sbjax.report import figures

    for i, arm in enumerate(found):
        colour, curve = figures.COLOURS[i % len(figures.COLOURS)], arm.arrays[name]
        panel.plot(np.median(curve, 1), color=colour, label=f"m = {arm.summary['width']}")
        panel.fill_between(np.arange(len(curve)), curve.min(1), curve.max(1), color=colour, alpha=0.2, linewidth=0)
