"""Heat maps and the table of a regression grid: iterations and final error relative to raw, paired by seed."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sbjax.files import write_atomically
from sbjax.report import controls, figures, tables
from sbjax.report.controls import final, ratio, show
from sbjax.report.markup import note, table, tag
from sbjax.report.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR = "test/mse"
ITERATIONS = "iterations/"
REACHED = "reached/"
MOST_ARMS = 12
EXPANDED, CONTROLS = "size5_middle_pi", ("matched", "widened")
PUBLISHED = {"iterations": 0.12, "error": 0.663}
"""Mean cut of L-BFGS iterations, and cut of the final MSE at size 5 (arXiv 2602.17952): its functions, network,
tolerance and number of seeds are not known."""

CAPTIONS = {
    "expansion_maps": "Each expansion over raw, by size and constant: median over the seeds of the paired ratio. Size "
    "1 is raw itself. Below 1 (blue): fewer iterations, smaller error; colours end at ratios of 0.1 and 10. Iterations "
    "are until the training loss lies below the level that most fits of raw reach; fits that never do count with all "
    "iterations.",
}
_NOTE = (
    "Median over the seeds of the ratio to {reference}, paired by seed [95 % interval]. Iterations: until the training "
    "loss lies below {level}, with the number of fits that reached it ({raw} of {seeds} of {reference}); one that did "
    "not counts with all of its iterations, so that its ratio is a bound, and 1 between two such fits. Published for "
    "other functions, networks and tolerances (arXiv 2602.17952): 12 % fewer iterations, a final error 66.3 % lower "
    "at size 5."
)
CONTROL_NOTE = (
    "A gain is a ratio whose interval lies below 1; it survives a control if the ratio to that control does so too. "
    "matched: raw input with the starting values and the unit of the bias that the constants of size5_middle_pi amount "
    "to. widened: raw input with a first layer of about as many parameters."
)


def is_grid(results: Results) -> bool:
    """Whether the run is a regression whose arms count their iterations."""
    task = results.config.get("task")
    return isinstance(task, Mapping) and task.get("kind") == "regression" and bool(levels(results))


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


def few_arms(results: Results) -> Results:
    """For figures with a panel or a line an arm: of many expansions only those with pi in the middle."""
    if len(results.arms) <= MOST_ARMS or not is_grid(results):
        return results
    shown = [arm for arm in results.arms if (found := parse_arm(arm)) is None or found[1:] == ("middle", "pi")]
    return results._replace(arms=tuple(shown))


def parse_arm(name: str) -> tuple[int, str, str] | None:
    """Size, place and constant of 'size5_middle_0_5'; None for another arm.

    >>> parse_arm('size5_middle_0_5'), parse_arm('raw')
    ((5, 'middle', '0.5'), None)
    """
    found = re.fullmatch(r"size(\d+)_(middle|first)_(.+)", name)
    return (int(found[1]), found[2], found[3].replace("_", ".")) if found else None


def _order(constant: str) -> float:
    try:
        return {"e": math.e, "pi": math.pi}.get(constant) or float(constant)
    except ValueError:
        return math.inf


def expansion_maps(results: Results) -> "Figure":
    """Size against constant, for iterations and error and for both places of the data.

    Raises:
        ValueError: no arm has a name as `parse_arm` reads.
    """
    level = chosen_level(results)
    metrics = {f"iterations to {level.replace('_', ' ')}": ITERATIONS + level, "final test MSE": ERROR}
    found = {
        title: {arm: ratio(results, arm, metric).value for arm in results.arms} for title, metric in metrics.items()
    }
    return draw_maps(found)


def draw_maps(ratios: Mapping[str, Mapping[str, float | None]]) -> "Figure":
    """Ratios to raw by title and arm as heat maps: a row of panels a title, a panel a place of the data.

    Args:
        ratios: {title: {arm: ratio}}; arms whose names `parse_arm` does not read are left out.

    Raises:
        ValueError: no arm has such a name.
    """
    parsed = {arm: found for by_arm in ratios.values() for arm in by_arm if (found := parse_arm(arm))}
    if not parsed:
        raise ValueError("no arm is called size<n>_<place>_<constant>; nothing to draw")
    sizes = [1, *sorted({size for size, _, _ in parsed.values()})]
    constants = sorted({constant for _, _, constant in parsed.values()}, key=_order)
    places = sorted({place for _, place, _ in parsed.values()}, reverse=True)
    with figures.styled():
        figure = figures.new_figure((0.9 + 3.2 * len(places), 0.5 + 1.8 * len(ratios)))
        panels = figure.subplots(len(ratios), len(places), squeeze=False)
        for row, (title, by_arm) in zip(panels, ratios.items()):
            for panel, place in zip(row, places):
                values = np.full((len(sizes), len(constants)), np.nan)
                values[0] = 1.0  # raw
                for arm, (size, where, constant) in parsed.items():
                    if where == place and by_arm.get(arm) is not None:
                        values[sizes.index(size), constants.index(constant)] = by_arm[arm]
                with np.errstate(divide="ignore"):
                    image = panel.imshow(np.log10(values), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
                for i, j in np.argwhere(np.isfinite(values)):
                    dark = values[i, j] <= 0.2 or values[i, j] >= 5
                    panel.text(
                        j, i, short(values[i, j]), ha="center", va="center", fontsize=7,
                        color="white" if dark else "black",
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


def save_figures(results: Results, workdir: Path) -> dict[str, Path]:
    """Draws into `workdir/figures` what there are numbers for; the paths by name."""
    if not is_grid(results) or not any(map(parse_arm, results.arms)):
        return {}
    path = Path(workdir) / "figures" / "expansion_maps.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, figures.to_png(expansion_maps(results)))
    return {path.stem: path}


def section(results: Results) -> list[str]:
    """Every arm's ratios with their intervals as a table, and whether the gain survives the controls."""
    if not is_grid(results):
        return []
    level, rows = chosen_level(results), []
    metrics = {f"iterations to {level.replace('_', ' ')}": ITERATIONS + level, "test MSE": ERROR}
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
    parts = [tag("h2", "Iterations and error relative to the reference"), table(headers, rows), note(text)]
    present = [name for name in CONTROLS if name in results.arms]
    if EXPANDED in results.arms and present:
        for name, metric in metrics.items():
            rest = {control: ratio(results, EXPANDED, metric, reference=control) for control in present}
            gain = ratio(results, EXPANDED, metric)
            parts.append(tag("p", controls.survival(name, EXPANDED, results.reference, gain, rest)))
        parts.append(note(CONTROL_NOTE))
    return parts


def _reached(results, arm, level):
    reached = final(results, arm).get(REACHED + level)
    return tables.NONE if reached is None else f"{int(np.nansum(reached))} of {results.replicas}"
