"""Table and figures of exact counts of subspaces, beside losses along paths between global minima."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sbjax.experiments.landscape.experiment import ArmResult
from sbjax.landscape import counting
from sbjax.report import figures, tables
from sbjax.report.markup import note, table, tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NOTE = (
    "Ratio: subspaces of critical points of all narrower networks over those of global minima, with h neurons more "
    "than needed in each hidden layer and one irreducible critical point at each narrower width (their number is not "
    "known). Crossing: the first width at which global minima have as many. Paths: from a network with one spare "
    "neuron a layer to itself with all other neurons permuted; arrived: ends that equal the permuted one to the bit."
)


def counts_section(found: Mapping[str, ArmResult]) -> list[str]:
    """A row an arm."""
    if not found:
        return []
    steps = list(dict.fromkeys(h for one in found.values() for h in one.summary["ratio"]))
    rows = []
    for arm, one in found.items():
        about = one.summary
        rows.append(
            [
                arm,
                _widths(about["widths"]),
                *(tables.measure(about["ratio"].get(h), 3) for h in steps),
                _widths(about["crossing"]) if about["crossing"] else f"above {about['widest']}",
                str(about["segments"]),
                f"{max(one.metrics['path_loss']):.1e}",
                f"{min(one.metrics['straight_loss']):.3g}",
                f"{about['arrived']} of {about['seeds']}",
            ]
        )
    headers = ["arm", "needed widths", *(f"ratio, h = {h}" for h in steps), "crossing", "segments"]
    headers += ["largest loss on a path", "least barrier of a straight line", "arrived"]
    return [tag("h2", "Subspaces and paths"), table(headers, rows), note(_NOTE)]


def counts_figure(found: Mapping[str, ArmResult]) -> "Figure":
    """log10 of both counts by the width of the first hidden layer, a panel an arm."""
    with figures.styled():
        figure = figures.new_figure((0.6 + 2.4 * len(found), 2.7))
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for panel, one in zip(panels, found.values()):
            widths = one.summary["widths"][0] + one.arrays["extra"]
            for name, label, i in (("minima", "global minima", 0), ("critical", "critical points", 1)):
                heights = one.arrays[name] / np.log(10)
                panel.plot(widths, heights, figures.DASHES[i], color=figures.COLOURS[i], label=label)
            if one.summary["crossing"]:
                panel.axvline(one.summary["crossing"][0], color="grey", linewidth=0.7, linestyle=":", label="crossing")
            panel.set_title(f"needed: {_widths(one.summary['widths'])}", fontsize=8)
            panel.set_xlabel("width m")
        panels[0].set_ylabel("log10 number of subspaces")
        figures.legend(figure, panels[:1])
    return figure


def ratios_figure(
    needed: Sequence[int] = (4, 6, 10, 20, 30), *, widest: int = 60, deep: int = 10, layers: Sequence[int] = (1, 2, 3)
) -> "Figure":
    """Critical points over global minima by width: several needed widths, and several numbers of hidden layers.

    Left: sum_{s<r} G(s, m) / T(r, m). Right: prod_l G(r - 1, m) / T(r, m) for r = `deep` in every hidden layer.

    Args:
        needed: r of the left panel, each at least 2.
        widest: m goes up to this.
        deep: r of the right panel.
        layers: numbers of hidden layers there.

    Raises:
        ValueError: as `sbjax.landscape.counting.counts`.

    >>> figure = ratios_figure((4,), widest=12)
    >>> [len(panel.lines) for panel in figure.axes]
    [2, 4]

    Source: arXiv 2105.12221.
    """
    with figures.styled():
        figure = figures.new_figure((7.0, 2.7))
        left, right = figure.subplots(1, 2)
        styles = list(zip(figures.COLOURS, figures.DASHES * 2))
        for r, (colour, dash) in zip(needed, styles):
            found = counting.counts(r, max(widest, r))
            heights = (found.critical - found.minima) / np.log(10)
            left.plot(found.widths, heights, dash, color=colour, label=f"r = {r}")
        widths = np.arange(deep, max(widest // 2, deep + 2))
        single = np.array([counting.log(counting.ratio(deep, int(m))) for m in widths]) / np.log(10)
        for number, (colour, dash) in zip(layers, styles):
            right.plot(widths, number * single, dash, color=colour, label=f"L = {number}")
        for panel in (left, right):
            panel.axhline(0, color="grey", linewidth=0.7)
            panel.set_xlabel("width m")
            panel.legend(fontsize=6)
        left.set_ylabel("log10 ratio")
    return figure


def _widths(widths: Sequence[int]) -> str:
    return "-".join(map(str, widths))
