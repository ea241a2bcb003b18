"""The table of a record about lines between networks: barriers, matching, and neurons that can be told apart."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sbjax.claims.records import RecordError

BARRIER = "midpoint_over_mean_of_ends"
_OF_NEURONS = {
    "swap": {"name": "swap cost / own cost", "digits": 3},
    "swappable": {"name": "pairs that can be swapped", "unit": "%", "decimals": 0},
    "residual": {"name": "out of reach", "unit": "%", "decimals": 0},
    "in_place": {"name": "units in place", "unit": "%", "decimals": 0},
    "dimension": {"name": "k", "digits": 3},
    "coherence": {"name": "nu", "digits": 3},
}


def lines(folder: pathlib.Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Columns and rows from `interpolation/`: a row an arm, and after it the same re-based.

    Barriers are mean and standard deviation over pairs of the test loss in the middle minus the mean of the ends, and
    the drop of the accuracy there in points; `seeds` of a row are the barriers of its pairs. Numbers of neurons are
    medians with quartiles, of means over hidden layers, over replicas or pairs.

    Raises:
        RecordError: the run has no barriers.
    """
    from sbjax.experiments.connectivity import report
    from sbjax.report.results import load_results
    from sbjax.report.roles import is_control

    results = load_results(folder)
    found = report.load_lines(folder, results.arms)
    rows = report.pairs_of(found)
    if not rows:
        raise RecordError(f"{folder}: no barriers; --table=lines is for runs with interpolation.between='pairs'")
    known = {name: x for name, x in report.published(results.config).items() if "/" not in name}
    measured = any("identifiability" in one for one in found.values())
    columns: dict[str, dict[str, Any]] = {
        "arm": {"name": "arm"},
        "parameters": {"name": "trained parameters"},
        "accuracy": {"name": "test accuracy", "unit": "%", "decimals": 1},
        "barrier": {"name": "barrier", "digits": 3},
        "drop": {"name": "drop of accuracy", "unit": "points", "decimals": 2},
        **({"published": {"name": "barrier", "mark": "published", "digits": 4}} if known else {}),
        **(_OF_NEURONS if measured else {}),
    }
    table = []
    for name, row in rows.items():
        arm = name if name in found else name.removesuffix("_rebased")
        heights = np.array(row["heights"]["test/loss"][BARRIER], float)
        cells = {
            "arm": name,
            "parameters": results.parameters.get(arm),
            "accuracy": 100 * row["summary"]["test/accuracy/mean_of_ends"]["mean"],
            "barrier": _spread(heights),
            "drop": _spread(100 * np.array(row["heights"]["test/accuracy"][BARRIER], float)),
        }
        if known:
            cells["published"] = dict(zip(("value", "spread"), known[name])) if name in known else None
        if name in found and "identifiability" in found[name]:
            cells |= _neurons(found[name]["identifiability"])
        mark = {"mark": "control"} if is_control(results, arm) else {}
        table.append({"cells": cells, "seeds": heights.tolist(), **mark})
    return [{"key": key, **column} for key, column in columns.items()], table


def _spread(values: np.ndarray) -> dict[str, float | None]:
    kept = values[np.isfinite(values)]
    return {"value": kept.mean() if len(kept) else None, "spread": kept.std(ddof=1) if len(kept) > 1 else None}


def _neurons(found: Mapping[str, Any]) -> dict[str, Any]:
    layers = list(found["layers"].values())
    cells = {}
    for name, column in _OF_NEURONS.items():
        values = found["swap"] if name == "swap" else np.mean([layer[name] for layer in layers], axis=0)
        low, middle, high = (100 if column.get("unit") else 1) * np.quantile(values, [0.25, 0.5, 0.75])
        cells[name] = {"value": middle, "low": low, "high": high}
    return cells
