"""Table and figures of exact counts of subspaces, beside losses along paths between global minima."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sbjax.experiments.landscape.arm_results import ArmResult, load_arms
from sbjax.experiments.landscape.figures import counts_figure, intersection_graphs, path_losses
from sbjax.landscape import counting
from sbjax.report import figures, tables
from sbjax.report.results import Results
from sbjax.report.sections import Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NOTE = (
    "Ratio: subspaces of critical points of all narrower networks over those of global minima, with h neurons more "
    "than needed in each hidden layer and one irreducible critical point at each narrower width (their number is not "
    "known). Crossing: the first width at which global minima have as many. Paths: from a network with one spare "
    "neuron a layer to itself with all other neurons permuted; arrived: ends that equal the permuted one to the bit."
)


CAPTIONS = {
    "counts": "Subspaces of global minima T(r, m) and of critical points of all narrower networks, by width m; dotted: "
    "where the former become more.",
    "count_ratios": "Left: critical points of all narrower networks over global minima, by width, with one irreducible "
    "critical point at each narrower width. Right: critical points with one neuron too few in each of L hidden layers, "
    "needed width 10. Below the line there are more global minima.",
    "intersection_graphs": "Pieces of the manifold of global minima of r needed neurons in a layer of m, and where "
    "they meet: isolated at m = r, connected from one neuron more.",
    "path_losses": "Loss between a network with one spare neuron a layer and a permuted copy of itself: along the path "
    "of constant function and along the straight line, first seed.",
}


def report(results: Results, workdir: Path) -> list[Section]:
    """Crossing widths, ratios, and losses along the paths, a row an arm; counts, ratios, graphs and paths drawn."""
    found = load_arms(workdir, results.arms)
    if not found:
        return []
    lines = {}
    for arm, one in found.items():
        lines |= {f"{arm}, path": one.arrays["path"][0], f"{arm}, straight": one.arrays["straight"][0]}
    drawn = {
        "counts": counts_figure(
            {f"needed: {_widths(one.summary['widths'])}": counts_of(one) for one in found.values()}
        ),
        "count_ratios": ratios_figure(),
        "intersection_graphs": intersection_graphs(),
        "path_losses": path_losses(lines),
    }
    pictures = [figures.picture(workdir, name, figure, CAPTIONS[name]) for name, figure in drawn.items()]
    return [Section("Subspaces and paths", [_table(found), *pictures])]


def counts_of(one: ArmResult) -> counting.Counts:
    """The counts of an arm over the widths of its first hidden layer."""
    widths = tuple((one.summary["widths"][0] + one.arrays["extra"]).tolist())
    return counting.Counts(widths, one.arrays["minima"], one.arrays["critical"])


def _table(found: Mapping[str, ArmResult]) -> Table:
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
                f"{max(one.metrics['path/loss']):.1e}",
                f"{min(one.metrics['straight/loss']):.3g}",
                f"{about['arrived']} of {about['seeds']}",
            ]
        )
    headers = ["arm", "needed widths", *(f"ratio, h = {h}" for h in steps), "crossing", "segments"]
    headers += ["largest loss on a path", "least barrier of a straight line", "arrived"]
    return Table(headers, rows, notes=[_NOTE])


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
