"""What is said of metanetworks: R^2 and Kendall's tau at the report that validation chooses, and what explains them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from sbjax import trees
from sbjax.common.files import plain, read_json, write_json
from sbjax.frame.arms import Arm
from sbjax.report.cells import difference, median, text
from sbjax.report.figures import COLOURS, new_figure, picture, styled
from sbjax.report.results import Results, load_results
from sbjax.report.roles import is_control
from sbjax.report.sections import Note, Section, Table
from sbjax.tasks import metanets as task_lib
from sbjax.training.fit import Fitted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "metanets"
COLUMNS: dict[str, dict[str, Any]] = {
    "arm": {"name": "arm"},
    "networks": {"name": "networks, test"},
    "read": {"name": "entries read"},
    "parameters": {"name": "parameters"},
    "deviation": {"name": "deviation of the target", "digits": 3},
    "r2": {"name": "R^2", "digits": 3},
    "tau": {"name": "tau", "digits": 3},
    "against": {"name": "R^2 minus that of its partner", "digits": 3, "signed": True},
    "against_tau": {"name": "tau minus that of its partner", "digits": 3, "signed": True},
    "partner": {"name": "partner"},
    "error": {"name": "RMS error", "digits": 3},
    "permuted": {"name": "R^2, units permuted", "digits": 3},
    "ridge_hyperparameters": {"name": "R^2, ridge of hyper-parameters", "digits": 3},
    "ridge_statistics": {"name": "R^2, ridge of statistics", "digits": 3},
}
_NOTE = (
    "On test networks, at the report with the best R^2 of the validation networks, each replica by itself: median and "
    "quartiles. Differences are medians over seeds with their interval of 95 %, from the partner: the arm that the "
    "label 'against' names, or the reference. The RMS error is in units of the target, R^2 of its variance: arms that "
    "read other networks are to be compared by both. 'Units permuted': the same trained metanetwork on the test "
    "networks with hidden units in another order. Ridge regressions have no metanetwork: of hyper-parameters and their "
    "products, no weight is read."
)
_CAPTION = "Predicted against true target of the test networks, the first replica of each arm, at the last step."
_FORM = {
    "networks": int,
    "read": int,
    "deviation": float,
    "ridge_hyperparameters": float,
    "ridge_statistics": float,
    "truth": [float],
    "predicted": [[(float, None)]],
}


def measure(nets: task_lib.Nets, task: Any, arm: Arm, fitted: Fitted) -> dict[str, Any]:
    """Numbers of an arm that is trained, as plain numbers for JSON.

    Returns:
        `{'networks', 'read', 'deviation', 'ridge_hyperparameters', 'ridge_statistics', 'truth': [network], 'predicted':
        [replica][network]}` of the test networks.
    """
    parts = task_lib.parts_of(len(nets.accuracy), task.train_share)
    y = task_lib.targets(nets, parts, task.target)
    level, scale = y[parts.train].mean(), y[parts.train].std()
    columns = {
        "hyperparameters": task_lib.products(nets.columns),
        "statistics": task_lib.standardised(task_lib.statistics(nets.reading, nets.entries), parts.train, None),
    }
    ridges = {
        f"ridge_{name}": r_squared(y[parts.test], task_lib.ridge(x, y, parts)[parts.test])
        for name, x in columns.items()
    }
    data, first = arm.task.data, parts.test.start - parts.validation.start
    rows = data["held_inputs"][first : first + parts.test.stop - parts.test.start]
    call = jax.jit(lambda variables, rows: arm.task.model.apply(variables, rows, train=False)[:, 0])
    predicted = []
    for replica in range(len(jax.tree.leaves(fitted.variables)[0])):
        one = trees.take(fitted.variables, replica)
        one = {name: tree for name, tree in one.items() if name != "hyper"}
        pieces = [rows[i : i + task.eval_batch_size] for i in range(0, len(rows), task.eval_batch_size)]
        found = np.concatenate([np.asarray(call(one, jnp.asarray(piece))) for piece in pieces])
        predicted.append([float(x) if np.isfinite(x) else None for x in level + scale * found])
    return plain({
        "networks": len(y[parts.test]),
        "read": int(nets.reading.kept.sum()),
        "deviation": float(y[parts.test].std()),
        **ridges,
        "truth": y[parts.test].tolist(),
        "predicted": predicted,
    })  # fmt: skip


def r_squared(truth: np.ndarray, predicted: np.ndarray) -> float:
    """R^2 in double precision, see `sbjax.metrics.agreement.explained`."""
    return float(1 - np.sum((truth - predicted) ** 2) / np.sum((truth - truth.mean()) ** 2))


def save_arm(workdir: Path, arm: str, found: Mapping[str, Any]) -> None:
    """Write `metanets/<arm>.json`."""
    (workdir / FOLDER).mkdir(exist_ok=True)
    write_json(workdir / FOLDER / f"{arm}.json", found)


def load(workdir: Path, arms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `measure` found, by arm; arms without it are left out.

    Raises:
        FileError: a file is damaged.
    """
    paths = {arm: workdir / FOLDER / f"{arm}.json" for arm in arms}
    return {arm: read_json(path, _FORM) for arm, path in paths.items() if path.exists()}


def chosen(results: Results, arm: str) -> dict[str, np.ndarray]:
    """Test numbers of each replica at the report where its validation R^2 is best: {'r2', 'tau', 'permuted'}.

    Reports before the first step do not count. NaN where a replica stopped before the first one.
    """
    reports = [one for one in results.reports[arm] if one.step > 0 and "validation/r2" in one.values]
    names = {"r2": "test/r2", "tau": "test/tau", "permuted": "test/r2_permuted"}
    if not reports:
        return {name: np.full(results.replicas, np.nan) for name in names}
    scores = np.stack([one.values["validation/r2"] for one in reports])
    best = np.where(np.isfinite(scores), scores, -np.inf).argmax(0)
    seen = np.isfinite(scores).any(0)
    found = {name: np.stack([one.values[metric] for one in reports]) for name, metric in names.items()}
    return {name: np.where(seen, np.take_along_axis(x, best[None], 0)[0], np.nan) for name, x in found.items()}


def cells(workdir: Path, arms: Sequence[str]) -> dict[str, Any]:
    """Columns and rows as a record has them."""
    results = load_results(workdir)
    measured = load(workdir, arms)
    numbers = {arm: chosen(results, arm) for arm in results.arms}
    rows = []
    for arm in [arm for arm in arms if arm in measured]:
        own, partner = measured[arm], _partner(results, arm)
        row = {
            name: own[name] for name in ("networks", "read", "deviation", "ridge_hyperparameters", "ridge_statistics")
        }
        row |= {"arm": arm, "parameters": results.parameters.get(arm)}
        row |= {name: median(numbers[arm][name]) for name in ("r2", "tau", "permuted")}
        row["error"] = own["deviation"] * float(np.sqrt(max(0.0, 1 - np.nanmedian(numbers[arm]["r2"]))))
        if partner != arm:
            row |= {"partner": partner, "against": difference(numbers[partner]["r2"], numbers[arm]["r2"])}
            row["against_tau"] = difference(numbers[partner]["tau"], numbers[arm]["tau"])
        rows.append({"cells": row, "seeds": [float(x) for x in numbers[arm]["r2"]]})
        rows[-1] |= {"mark": "control"} if is_control(results, arm) else {}
    return {"columns": [{"key": key, **column} for key, column in COLUMNS.items()], "rows": rows}


def report(results: Results, workdir: Path) -> list[Section]:
    """The table and the figure."""
    found = cells(workdir, results.arms)
    if not found["rows"]:
        return []
    keys = [key for key in COLUMNS if any(key in row["cells"] for row in found["rows"])]
    rows = [[text(row["cells"].get(key)) for key in keys] for row in found["rows"]]
    table = Table([COLUMNS[key]["name"] for key in keys], rows)
    figure = picture(workdir, "predictions", draw(load(workdir, results.arms)), _CAPTION)
    return [Section("How well networks are read", [table, Note(_NOTE), figure])]


def draw(measured: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """A panel an arm: predicted against true."""
    across = min(4, len(measured))
    down = -(-len(measured) // across)
    with styled():
        figure = new_figure((0.4 + 1.9 * across, 0.4 + 1.9 * down))
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for panel, (arm, own) in zip(panels, measured.items()):
            truth, predicted = np.array(own["truth"]), np.array(own["predicted"][0], float)
            ends = [truth.min(), truth.max()]
            panel.plot(ends, ends, color="0.6", linewidth=1)
            panel.plot(truth, predicted, ".", color=COLOURS[0], markersize=2)
            panel.set_title(arm, fontsize=7)
            panel.set_xlabel("true")
            panel.set_ylabel("predicted")
        for panel in panels[len(measured) :]:
            panel.set_visible(False)
    return figure


def _partner(results: Results, arm: str) -> str:
    """The arm that another one is compared with."""
    named = results.labels.get(arm, {}).get("against")
    return str(named) if named in results.arms else results.reference
