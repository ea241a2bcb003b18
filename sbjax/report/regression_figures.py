"""Heat maps and the table of a regression grid: iterations and final error relative to raw, paired by seed."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sbjax.files import write_atomically
from sbjax.report import figures, statistics, tables
from sbjax.report.markup import note, table, tag
from sbjax.report.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR = "test/mse"
ITERATIONS = "iterations/"
REACHED = "reached/"
MOST_ARMS = 12
PUBLISHED = {"iterations": 0.12, "error": 0.663}
"""Mean cut of L-BFGS iterations, and cut of the final MSE at size 5 (arXiv 2602.17952): its functions, network,
tolerance and number of seeds are not known."""

CAPTIONS = {
    "expansion_maps": "Each expansion over raw, by size and constant: median over the seeds of the paired ratio. Below "
    "1 (blue): fewer iterations, smaller error. Iterations are until the training loss lies below the level that "
    "most fits of raw reach; fits that never do count with all iterations.",
}
_NOTE = (
    "Median over the seeds of the ratio to {reference}, paired by seed [95 % interval]. Iterations: until the training "
    "loss lies below {level}, with the number of fits that reached it; one that did not counts with all of its "
    "iterations, so that a ratio between two such fits is 1. Published for other functions, networks and tolerances "
    "(arXiv 2602.17952): 12 % fewer iterations, a final error 66.3 % lower at size 5."
)


class Ratio(NamedTuple):
    """Median paired ratio of an arm to the reference with its interval; None where there is no number."""

    value: float | None
    low: float | None
    high: float | None


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


def final(results: Results, arm: str) -> dict[str, np.ndarray]:
    """Metrics of the last report, [replica]."""
    return results.reports[arm][-1].values if results.reports[arm] else {}


def ratio(results: Results, arm: str, metric: str) -> Ratio:
    """Of an arm to the reference, on a logarithmic scale, see `statistics.paired`."""
    sides = [final(results, name).get(metric) for name in (results.reference, arm)]
    if any(side is None for side in sides):
        return Ratio(None, None, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [np.log(side) for side in sides]
    found = statistics.paired(*logs, goal="min")
    return Ratio(*(math.exp(x) if math.isfinite(x) else None for x in (found.difference, found.low, found.high)))


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
    parsed = {arm: found for arm in results.arms if (found := parse_arm(arm))}
    if not parsed:
        raise ValueError("no arm is called size<n>_<place>_<constant>; nothing to draw")
    sizes = sorted({size for size, _, _ in parsed.values()})
    constants = sorted({constant for _, _, constant in parsed.values()}, key=_order)
    places = sorted({place for _, place, _ in parsed.values()}, reverse=True)
    level = chosen_level(results)
    metrics = {f"iterations to {level.replace('_', ' ')}": ITERATIONS + level, "final test MSE": ERROR}
    with figures.styled():
        figure = figures.new_figure((0.9 + 3.2 * len(places), 0.5 + 1.5 * len(metrics)))
        panels = figure.subplots(len(metrics), len(places), squeeze=False)
        for row, (title, metric) in zip(panels, metrics.items()):
            for panel, place in zip(row, places):
                values = np.full((len(sizes), len(constants)), np.nan)
                for arm, (size, where, constant) in parsed.items():
                    if where == place and (found := ratio(results, arm, metric)).value is not None:
                        values[sizes.index(size), constants.index(constant)] = found.value
                with np.errstate(divide="ignore"):
                    image = panel.imshow(np.log10(values), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
                for i, j in np.argwhere(np.isfinite(values)):
                    panel.text(j, i, f"{values[i, j]:.2g}", ha="center", va="center", fontsize=7)
                panel.set_xticks(range(len(constants)), constants)
                panel.set_yticks(range(len(sizes)), [str(size) for size in sizes])
                panel.set_title(f"{title}, data {place}", fontsize=8)
                panel.set_ylabel("size")
        for panel in panels[-1]:
            panel.set_xlabel("constant")
        figure.colorbar(image, ax=panels, label="log10 ratio", shrink=0.6)
    return figure


def save_figures(results: Results, workdir: Path) -> dict[str, Path]:
    """Draws into `workdir/figures` what there are numbers for; the paths by name."""
    if not is_grid(results) or not any(map(parse_arm, results.arms)):
        return {}
    path = Path(workdir) / "figures" / "expansion_maps.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, figures.to_png(expansion_maps(results)))
    return {path.stem: path}


def section(results: Results) -> list[str]:
    """Every arm's ratios with their intervals, as a table."""
    if not is_grid(results):
        return []
    level, rows = chosen_level(results), []
    for arm in results.arms:
        if arm != results.reference:
            reached = final(results, arm).get(REACHED + level)
            count = tables.NONE if reached is None else f"{int(np.nansum(reached))} of {results.replicas}"
            pair = (ratio(results, arm, metric) for metric in (ITERATIONS + level, ERROR))
            rows.append([arm, *(show(found) for found in pair), count])
    headers = ["arm", "iterations / reference", "test MSE / reference", "reached"]
    text = _NOTE.format(reference=results.reference, level=level.removeprefix("loss_"))
    return [tag("h2", "Iterations and error relative to the reference"), table(headers, rows), note(text)]


def show(found: Ratio) -> str:
    """A ratio with its interval.

    >>> show(Ratio(0.5, 0.41, 0.625)), show(Ratio(None, None, None))
    ('0.5 [0.41, 0.625]', '-')
    """
    return tables.measure(found._asdict() if found.value is not None else None, 3)
