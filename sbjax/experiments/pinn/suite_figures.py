"""Split violins of a suite: the reference to the left, another arm to the right, an equation each."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

# `scipy.stats` takes most of a second to import and is loaded by its first use, not by this line.
import scipy

from sbjax.report import figures
from sbjax.report.suite import Member

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HALF = 0.4
"""Width of the fattest half of a violin; equations stand 1 apart."""


def final_values(members: Sequence[Member], metric: str, *, normalise: bool) -> dict[str, dict[str, np.ndarray]]:
    """{member: {arm: [replica]}} of a metric at each arm's last report, NaN where a replica stopped.

    `normalise` divides by the largest finite value over the arms and seeds of that member.
    """
    found = {}
    for member in members:
        by_arm = {}
        for arm in member.results.arms if member.results else ():
            reports = member.results.reports[arm]
            values = reports[-1].values.get(metric) if reports else None
            by_arm[arm] = np.array([]) if values is None else np.where(np.isfinite(values), values, np.nan)
        everything = np.concatenate([np.array([]), *by_arm.values()])
        largest = np.nanmax(everything) if np.isfinite(everything).any() else 0.0
        if normalise and largest > 0:
            by_arm = {arm: values / largest for arm, values in by_arm.items()}
        found[member.name] = by_arm
    return found


def violins(
    members: Sequence[Member], panels: Mapping[str, str], metric: str, *, sides: tuple[str, str], normalise: bool
) -> "Figure":
    """A panel for every panel of equations; a split violin and all seeds for each equation, a bar at each median.

    The axis is logarithmic where the values span a decade; densities are those of what is drawn, of the logarithm then.
    An arm that has no finite value is marked 'none'.

    Args:
        members: as `load_members`.
        panels: of the members by name, as `suite_members.panels`.
        metric: what is drawn.
        sides: the arms to the left and to the right.
        normalise: as in `final_values`.

    Raises:
        ValueError: neither arm has a finite value in any member.
    """
    from matplotlib.patches import Patch

    values = final_values(members, metric, normalise=normalise)
    drawn = [by_arm[side] for by_arm in values.values() for side in sides if side in by_arm]
    finite = np.concatenate([np.array([]), *drawn])
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        raise ValueError(f"no run has a finite {metric} of {' or '.join(sides)}; nothing to draw")
    positive = finite[finite > 0]
    logarithmic = len(positive) > 0 and figures.spans_a_decade(positive)
    groups: dict[str, list[str]] = {}
    for member in members:
        groups.setdefault(panels[member.name], []).append(member.name)
    colours = figures.COLOURS[:2]
    with figures.styled():
        columns = min(len(groups), 3)
        rows = -(-len(groups) // columns)
        figure = figures.new_figure((1.0 + 3.1 * columns, 0.3 + 3.0 * rows))
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for panel in axes.flat[len(groups) :]:
            panel.set_visible(False)
        if logarithmic:
            axes[0, 0].set_yscale("log")
        for panel, (title, names) in zip(axes.flat, groups.items()):
            for place, name in enumerate(names):
                for side, arm, colour in zip((-1, 1), sides, colours):
                    _half(panel, place, side, values[name].get(arm, np.array([])), colour, logarithmic=logarithmic)
            panel.set_xticks(range(len(names)), names, rotation=30, ha="right")
            panel.set_xlim(-0.6, len(names) - 0.4)
            panel.set_title(title, fontsize=8)
        label = metric.replace("/", " ")
        for panel in axes[:, 0]:
            panel.set_ylabel(f"final {label} / largest of the equation" if normalise else f"final {label}")
        handles = [Patch(color=colour, alpha=0.4, label=arm) for arm, colour in zip(sides, colours)]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def density(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(heights, density with maximum 1) of Gaussian kernels of Scott's width, between the least and the largest value.

    None where there is nothing to smooth: fewer than three values, or all the same.
    """
    spread = np.std(values, ddof=1) if len(values) > 2 else 0.0
    if spread <= 1e-6 * np.max(np.abs(values), initial=0.0):
        return None
    kernels = scipy.stats.gaussian_kde(values)
    heights = np.linspace(values.min(), values.max(), 101)
    found = kernels(heights)
    return heights, found / found.max()


def _half(panel: "Axes", place: int, side: int, values: np.ndarray, colour: str, *, logarithmic: bool) -> None:
    shown = np.isfinite(values) & ((values > 0) | (not logarithmic))
    if not shown.any():
        where = {"transform": panel.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        panel.text(place + 0.2 * side, 0.02, "none", color=colour, rotation=90, fontsize=7, **where)
        return
    # Every seed keeps its place, so that the two halves mirror each other seed by seed.
    offsets = side * np.linspace(0.06, 0.3, len(values))
    panel.plot(place + offsets[shown], values[shown], "o", color=colour, markersize=2, zorder=3)
    panel.plot([place, place + side * _HALF], [np.median(values[shown])] * 2, color=colour, linewidth=2, zorder=4)
    smooth = density(np.log10(values[shown]) if logarithmic else values[shown])
    if smooth is not None:
        heights = 10 ** smooth[0] if logarithmic else smooth[0]
        edge = place + side * _HALF * smooth[1]
        panel.fill_betweenx(heights, place, edge, color=colour, alpha=0.3, linewidth=0, zorder=1)
