"""The zoos of a run: how accuracies are distributed, and what they go with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbjax.data import zoo as zoo_lib
from sbjax.data.zoo import Zoo
from sbjax.report import figures, tables
from sbjax.report.results import Results, load_results
from sbjax.report.sections import Section, Table
from sbjax.report.statistics import summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = {
    "networks": "networks",
    "diverged": "diverged",
    "parameters": "parameters",
    "trained": "of which trained",
    "least": "least accuracy",
    "accuracy": "median accuracy [quartiles]",
    "most": "largest accuracy",
    "deviation": "standard deviation",
    "against": "minus the reference, same draws [95 %]",
    "by_rate": "rank correlation with the learning rate",
    "by_scale": "with the scale of the start",
}
CAPTION = (
    "Left: accuracy on the test split of each network at its end. Right: against its learning rate, a dot each; lines: "
    "medians of tenths of the range."
)
_NOTE = (
    "Accuracies on the test split, in percent, of networks that have not diverged (NaN or infinite weights). "
    "Differences, in points: medians over networks of one number. Rank correlations: Spearman's, with the accuracy."
)
_PERCENT = ("least", "accuracy", "most", "deviation")


def report(results: Results, workdir: Path) -> list[Section]:
    """The table of accuracies and their distribution."""
    zoos = load(workdir, results.arms)
    if not zoos:
        return []
    found = cells(workdir, results.arms)
    heads = [column["name"] for column in found["columns"]]
    rows = [[_text(row["cells"].get(column["key"])) for column in found["columns"]] for row in found["rows"]]
    drawn = figures.picture(workdir, "zoo_accuracies", accuracies(results, zoos), CAPTION)
    return [Section("Zoos", [Table(heads, rows, notes=[_NOTE]), drawn])]


def cells(workdir: Path, arms: Sequence[str]) -> dict[str, Any]:
    """Columns and rows as a record has them, of the zoos that are finished."""
    zoos, pairs = load(workdir, arms), {}
    for one in summarise(load_results(workdir))["comparisons"]["equal_steps"] if len(zoos) > 1 else ():
        if (found := one["comparison"]) is not None:
            ends = {name: found[key] for name, key in {"value": "difference", "low": "low", "high": "high"}.items()}
            pairs[one["arm"]] = {"against": {name: round(100 * end, 4) for name, end in ends.items()}}
    rows = [{"cells": {"arm": arm, **statistics(zoo), **pairs.get(arm, {})}} for arm, zoo in zoos.items()]
    columns = [
        {"key": key, "name": name, **({"unit": "%", "decimals": 1} if key in _PERCENT else {}),
         **({"unit": "points", "decimals": 2} if key == "against" else {}),
         **({"decimals": 2} if key.startswith("by_") else {})}
        for key, name in COLUMNS.items()
    ]  # fmt: skip
    return {"columns": [{"key": "arm", "name": "arm"}, *columns], "rows": rows}


def load(workdir: Path, arms: Sequence[str]) -> dict[str, Zoo]:
    """All networks of the zoos that are finished."""
    folders = {arm: Path(workdir) / "zoo" / arm for arm in arms}
    return {arm: zoo_lib.read(path, finite=False) for arm, path in folders.items() if (path / zoo_lib.CARD).exists()}


def statistics(zoo: Zoo) -> dict[str, Any]:
    """The cells of one zoo; accuracies in percent."""
    kept = zoo.finite()
    found: dict[str, Any] = {"networks": len(zoo), "diverged": len(zoo) - len(kept), "parameters": zoo.size}
    found["trained"] = zoo.trainable_size
    if not len(kept):
        return found
    last = 100 * np.asarray(kept.accuracy[:, -1], np.float64)
    low, middle, high = np.round(np.quantile(last, (0.25, 0.5, 0.75)), 4).tolist()
    found |= {"least": round(float(last.min()), 4), "most": round(float(last.max()), 4)}
    found |= {"accuracy": {"value": middle, "low": low, "high": high}, "deviation": round(float(last.std()), 4)}
    for name, key in (("learning_rate", "by_rate"), ("init_scale", "by_scale")):
        if (correlation := rank_correlation(kept.hyperparameters[name], last)) is not None:
            found[key] = correlation
    return found


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Spearman's rank correlation; None where one of the two does not vary.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))
    1.0
    """
    import scipy.stats

    if len(set(x.tolist())) < 2 or len(set(y.tolist())) < 2:
        return None
    return round(float(scipy.stats.spearmanr(x, y).statistic), 4)


def accuracies(results: Results, zoos: Mapping[str, Zoo]) -> "Figure":
    """Distributions, and accuracy against the learning rate."""
    with figures.styled():
        figure = figures.new_figure((7.6, 2.9))
        left, right = figure.subplots(1, 2)
        for arm, zoo in zoos.items():
            kept, colour = zoo.finite(), figures.arm_colour(results, arm)
            last = 100 * kept.accuracy[:, -1]
            left.hist(last, np.linspace(0, 100, 41), histtype="step", color=colour, label=arm)
            rates = kept.hyperparameters["learning_rate"]
            right.scatter(rates, last, 2, color=colour, alpha=0.3, linewidths=0)
            if len(kept) >= 50 and rates.min() < rates.max():
                edges = np.geomspace(rates.min(), rates.max(), 11)
                place = np.clip(np.searchsorted(edges, rates, side="right") - 1, 0, 9)
                filled = [i for i in range(10) if (place == i).any()]
                right.plot(
                    [np.sqrt(edges[i] * edges[i + 1]) for i in filled],
                    [np.median(last[place == i]) for i in filled],
                    color=colour,
                )
        left.set_xlabel("accuracy [%]")
        left.set_ylabel("networks")
        right.set_xscale("log")
        right.set_xlabel("learning rate")
        right.set_ylabel("accuracy [%]")
        figures.legend(figure, [left])
    return figure


def _text(cell: Any) -> str:
    return cell if isinstance(cell, str) else tables.measure(cell, 4 if isinstance(cell, float | dict) else 7)
