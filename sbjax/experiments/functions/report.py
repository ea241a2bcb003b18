"""Fits of a function: iterations and final error relative to raw, paired by seed, as heat maps and a table."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbjax.report import controls, figures, tables
from sbjax.report.controls import final, ratio, show
from sbjax.report.fields import draw_solutions
from sbjax.report.results import Results
from sbjax.report.sections import Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR = "test/mse"
ITERATIONS = "iterations/"
REACHED = "reached/"
PUBLISHED = {"iterations": 0.12, "error": 0.663}
"""Mean cut of L-BFGS iterations, and cut of the final MSE at size 5 (arXiv 2602.17952): its functions, network,
tolerance and number of seeds are not known."""

CAPTION = (
    "Each expansion over raw, by size and constant: median over the seeds of the paired ratio. Size 1 is raw itself. "
    "Below 1 (blue): fewer iterations, smaller error; colours end at ratios of 0.1 and 10. Iterations are until the "
    "training loss lies below the level that most fits of raw reach; fits that never do count with all iterations."
)
_NOTE = (
    "Median over the seeds of the ratio to {reference}, paired by seed [95 % interval]. Iterations: until the training "
    "loss lies below {level}, with the number of fits that reached it ({raw} of {seeds} of {reference}); one that did "
    "not counts with all of its iterations, so that its ratio is a bound, and 1 between two such fits. Published for "
    "other functions, networks and tolerances (arXiv 2602.17952): 12 % fewer iterations, a final error 66.3 % lower "
    "at size 5."
)


def report(results: Results, workdir: Path) -> list[Section]:
    """The fitted functions; of arms whose iterations were counted also ratios, controls and heat maps."""
    found = []
    if counted(results):
        parts = [_ratios(results), *_survivals(results), *controls.note(results)]
        if any(map(is_expansion, results.labels.values())):
            parts.append(figures.picture(workdir, "expansion_maps", expansion_maps(results), CAPTION))
        found.append(Section("Iterations and error relative to the reference", parts))
    return [*found, Section("Fitted functions", draw_solutions(results, workdir))]


def counted(results: Results) -> bool:
    """Whether the iterations to each level of the training loss were counted."""
    return bool(levels(results))


def levels(results: Results) -> list[str]:
    """Levels of the training loss whose iterations were counted, the largest first: 'loss_0.001', .."""
    names = final(results, results.reference)
    found = [name.removeprefix(ITERATIONS) for name in names if name.startswith(f"{ITERATIONS}loss_")]
    return sorted(found, key=lambda name: -float(name.removeprefix("loss_")))


def chosen_level(results: Results) -> str:
    """The smallest level that most replicas of the reference reach; the largest if there is none."""
    found = levels(results)
    values = final(results, results.reference)
    reached = [name for name in found if np.nanmean(values.get(REACHED + name, np.nan)) > 0.5]
    return (reached or found[:1])[-1]


def is_expansion(labels: Mapping[str, Any]) -> bool:
    """Whether an arm has a place in the heat maps: the labels size, place and constant.

    >>> is_expansion({'size': 5, 'place': 'middle', 'constant': '0.5'}), is_expansion({'size': 5})
    (True, False)
    """
    return {"size", "place", "constant"} <= set(labels)


def _order(constant: str) -> float:
    try:
        return {"e": math.e, "pi": math.pi}.get(constant) or float(constant)
    except ValueError:
        return math.inf


def expansion_maps(results: Results) -> "Figure":
    """Size against constant, for iterations and error and for both places of the data.

    Raises:
        ValueError: no arm has the labels size, place and constant.
    """
    level = chosen_level(results)
    metrics = {f"iterations to {level.replace('_', ' ')}": ITERATIONS + level, "final test MSE": ERROR}
    found = {
        title: {arm: ratio(results, arm, metric).value for arm in results.arms} for title, metric in metrics.items()
    }
    return draw_maps(found, results.labels)


def draw_maps(ratios: Mapping[str, Mapping[str, float | None]], labels: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """Ratios to raw by title and arm as heat maps: a row of panels a title, a panel a place of the data.

    Args:
        ratios: {title: {arm: ratio}}; arms without a place in the maps are left out, see `is_expansion`.
        labels: of the arms.

    Raises:
        ValueError: no arm has a place.
    """
    names = dict.fromkeys(arm for by_arm in ratios.values() for arm in by_arm)
    placed = {
        arm: (labels[arm]["size"], labels[arm]["place"], str(labels[arm]["constant"]))
        for arm in names
        if is_expansion(labels.get(arm, {}))
    }
    if not placed:
        raise ValueError("no arm has the labels size, place and constant; nothing to draw")
    sizes = [1, *sorted({size for size, _, _ in placed.values()})]
    constants = sorted({constant for _, _, constant in placed.values()}, key=_order)
    places = sorted({place for _, place, _ in placed.values()}, reverse=True)
    with figures.styled():
        figure = figures.new_figure((0.9 + 3.2 * len(places), 0.5 + 1.8 * len(ratios)))
        panels = figure.subplots(len(ratios), len(places), squeeze=False)
        for row, (title, by_arm) in zip(panels, ratios.items()):
            for panel, place in zip(row, places):
                values = np.full((len(sizes), len(constants)), np.nan)
                values[0] = 1.0  # raw
                for arm, (size, where, constant) in placed.items():
                    if where == place and by_arm.get(arm) is not None:
                        values[sizes.index(size), constants.index(constant)] = by_arm[arm]
                with np.errstate(divide="ignore"):
                    image = panel.imshow(np.log10(values), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
                for i, j in np.argwhere(np.isfinite(values)):
                    dark = values[i, j] <= 0.2 or values[i, j] >= 5
                    panel.text(
                        j, i, short(values[i, j]), ha="center", va="center", fontsize=7,
                        color="white" if dark else "#111111",
                    )  # fmt: skip
                panel.set_xticks(range(len(constants)), constants)
                panel.set_yticks(range(len(sizes)), [str(size) for size in sizes])
                panel.set_title(f"{title}, data {place}", fontsize=8)
                panel.set_ylabel("size")
        for panel in panels[-1]:
            panel.set_xlabel("constant")
        figure.colorbar(image, ax=panels, label="log10 ratio", shrink=0.6, extend="both")
    return figure


def short(x: float) -> str:
    """Two digits in little room.

    >>> short(0.123), short(142.0), short(2345.6)
    ('0.12', '142', '2e3')
    """
    if x < 100:
        return f"{x:.2g}" if x >= 0.01 else f"{x:.0e}".replace("e-0", "e-")
    return f"{x:.0f}" if x < 1000 else f"{x:.0e}".replace("e+0", "e")


def _metrics(results):
    level = chosen_level(results)
    return {f"iterations to {level.replace('_', ' ')}": ITERATIONS + level, "test MSE": ERROR}


def _ratios(results):
    """Every arm's ratios with their intervals."""
    level, rows, metrics = chosen_level(results), [], _metrics(results)
    for arm in results.arms:
        if arm != results.reference:
            pair = (ratio(results, arm, metric) for metric in metrics.values())
            rows.append([arm, *(show(found) for found in pair), _reached(results, arm, level)])
    headers = ["arm", *(f"{name} / {results.reference}" for name in metrics), "reached"]
    text = _NOTE.format(
        reference=results.reference,
        level=level.removeprefix("loss_"),
        raw=_reached(results, results.reference, level).split(" ")[0],
        seeds=results.replicas,
    )
    return Table(headers, rows, notes=[text])


def _survivals(results):
    return [
        text
        for name, metric in _metrics(results).items()
        for text in controls.survivals(
            results, name, lambda arm, other, metric=metric: ratio(results, arm, metric, reference=other)
        )
    ]


def _reached(results, arm, level):
    reached = final(results, arm).get(REACHED + level)
    return tables.NONE if reached is None else f"{int(np.nansum(reached))} of {results.replicas}"
