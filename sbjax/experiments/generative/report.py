"""What is said of sampled networks: whether they have the loss that was asked for, and whether they are new."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from sbjax import rng, trees
from sbjax.common.files import plain, read_json, write_json
from sbjax.experiments.generative.nearest import nearest
from sbjax.frame.arms import Arm
from sbjax.report import statistics
from sbjax.report.cells import median, text
from sbjax.report.figures import COLOURS, new_figure, picture, styled
from sbjax.report.results import Results, load_results
from sbjax.report.roles import is_control
from sbjax.report.sections import Note, Section, Table
from sbjax.tasks import generative as task_lib
from sbjax.training.fit import Fitted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "generative"
NEAR = 5
BASELINES = {
    "nearest": "nearest training network by loss",
    "mean": f"mean of the {NEAR} nearest by loss",
    "noisy": "nearest by loss, with noise",
}
"""What needs no generative model."""
COLUMNS: dict[str, dict[str, Any]] = {
    "arm": {"name": "arm"},
    "parameters": {"name": "parameters"},
    "r2": {"name": "R^2 of log-losses about the prompted ones", "digits": 3},
    "against": {"name": "minus the reference", "digits": 3, "signed": True},
    "distance": {"name": "distance to the nearest training network", "digits": 3},
    "novelty": {"name": "the same over that of held-out networks", "digits": 3},
    "closer": {"name": "closer than any held-out network, %", "digits": 3},
}
_NOTE = (
    "Networks sampled at the last step for losses of held-out networks, each seed by itself: median and quartiles; "
    "differences are medians over seeds with their interval of 95 %. Distances are root mean squares of standardised "
    "parameters, to the nearest training network in any order of its hidden units. About 1 over held-out networks: "
    "sampled ones are as new as those of another training; near 0: they are copies. Rows without parameters need no "
    "generative model; the noise brings the nearest network as far away as held-out ones are."
)
_CAPTION = "Loss of sampled networks against the prompted one, the first seed of each arm; the line is equality."
_FORM = {
    "prompted": [float],
    "achieved": [[float]],
    "distance": [[(float, None)]],
    "held_out": [float],
    "baselines": {name: {"achieved": [float], "distance": [float]} for name in BASELINES},
}


def measure(found: task_lib.Checkpoints, task: Any, arm: Arm, fitted: Fitted) -> dict[str, Any]:
    """Numbers of an arm that is trained, as plain numbers for JSON.

    Returns:
        `{'prompted': [prompt], 'achieved': [replica][prompt], 'distance': [replica][prompt], 'held_out': [prompt],
        'baselines': {name: {'achieved': [prompt], 'distance': [prompt]}}}`, losses and distances.
    """
    made, layout = task_lib.prepare(found, task.train_share), found.reading.layout
    train, losses = made.entries["train"], made.prompts["train"]
    rows = task_lib.spread(made.prompts["test"], task.prompts)
    prompts = made.prompts["test"][rows]
    each = jax.jit(lambda entries: jax.lax.map(found.loss_of, made.restore(entries)))

    def achieved(entries):
        return np.minimum(np.nan_to_num(np.asarray(each(entries)), nan=task_lib.LARGEST), task_lib.LARGEST)

    @jax.jit
    def sampled(variables):
        denoise = lambda *given: arm.task.model.apply(variables, *given)  # noqa: E731
        key = rng.stream(jax.random.key(0), "test")
        return task_lib.make_sampler(denoise, task.sampling_steps, train.shape[1])(key, jnp.asarray(prompts))

    replicas = len(jax.tree.leaves(fitted.variables)[0])
    sets = [np.asarray(sampled(trees.take(fitted.variables, replica))) for replica in range(replicas)]
    held_out = nearest(layout, made.entries["test"][rows], train)
    order = np.abs(losses[None] - prompts[:, None]).argsort(1, kind="stable")
    closest = train[order[:, 0]]
    noise = np.random.default_rng(0).normal(size=closest.shape) * held_out[:, None]
    others = {"nearest": closest, "mean": train[order[:, :NEAR]].mean(1), "noisy": closest + noise}
    distances = [nearest(layout, one, train) if np.isfinite(one).all() else np.full(len(one), np.nan) for one in sets]
    return plain({
        "prompted": np.exp(made.level + made.scale * prompts).tolist(),
        "achieved": [achieved(one).tolist() for one in sets],
        "distance": [[float(x) if np.isfinite(x) else None for x in one] for one in distances],
        "held_out": held_out.tolist(),
        "baselines": {
            name: {"achieved": achieved(one).tolist(), "distance": nearest(layout, one, train).tolist()}
            for name, one in others.items()
        },
    })  # fmt: skip


def save_arm(workdir: Path, arm: str, found: Mapping[str, Any]) -> None:
    """Write `generative/<arm>.json`."""
    (workdir / FOLDER).mkdir(exist_ok=True)
    write_json(workdir / FOLDER / f"{arm}.json", found)


def load(workdir: Path, arms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `measure` found, by arm; arms without it are left out.

    Raises:
        FileError: a file is damaged.
    """
    paths = {arm: workdir / FOLDER / f"{arm}.json" for arm in arms}
    return {arm: read_json(path, _FORM) for arm, path in paths.items() if path.exists()}


def r_squared(prompted: Sequence[float], achieved: Sequence[float]) -> float:
    """Of log-losses about the prompted ones: 1 - sum (y - p)^2 / sum (p - mean p)^2.

    >>> r_squared([0.1, 1.0, 10.0], [0.1, 1.0, 10.0])
    1.0
    """
    wanted, found = np.log(np.asarray(prompted, float)), np.log(np.asarray(achieved, float))
    return float(1 - np.sum((wanted - found) ** 2) / np.sum((wanted - wanted.mean()) ** 2))


def cells(workdir: Path, arms: Sequence[str]) -> dict[str, Any]:
    """Columns and rows as a record has them: the arms, then what needs no generative model."""
    results = load_results(workdir)
    measured = load(workdir, arms)
    scores = {arm: np.array([r_squared(own["prompted"], one) for one in own["achieved"]])
              for arm, own in measured.items()}  # fmt: skip
    rows = []
    for arm, own in measured.items():
        row = {"arm": arm, "parameters": results.parameters.get(arm), "r2": median(scores[arm])}
        row |= _newness(np.array(own["distance"], float), np.array(own["held_out"]))
        if arm != results.reference and results.reference in scores:
            one = statistics.paired(scores[results.reference], scores[arm])
            row["against"] = {"value": one.difference, "low": one.low, "high": one.high}
        rows.append({"cells": row, "seeds": scores[arm].tolist()})
        rows[-1] |= {"mark": "control"} if is_control(results, arm) else {}
    for name, about in BASELINES.items() if measured else ():
        own = next(iter(measured.values()))
        one = own["baselines"][name]
        row = {"arm": about, "r2": r_squared(own["prompted"], one["achieved"])}
        rows.append(
            {"cells": row | _newness(np.array([one["distance"]]), np.array(own["held_out"])), "mark": "control"}
        )
    return {"columns": [{"key": key, **column} for key, column in COLUMNS.items()], "rows": rows}


def report(results: Results, workdir: Path) -> list[Section]:
    """The table and the figure."""
    found = cells(workdir, results.arms)
    if not found["rows"]:
        return []
    rows = [[text(row["cells"].get(key)) for key in COLUMNS] for row in found["rows"]]
    table = Table([column["name"] for column in COLUMNS.values()], rows)
    figure = picture(workdir, "prompts", draw(load(workdir, results.arms)), _CAPTION)
    return [Section("Networks that were asked for", [table, Note(_NOTE), figure])]


def draw(measured: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """A panel an arm: achieved against prompted loss."""
    across = min(4, len(measured))
    down = -(-len(measured) // across)
    with styled():
        figure = new_figure((0.4 + 2.0 * across, 0.4 + 2.0 * down))
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for panel, (arm, own) in zip(panels, measured.items()):
            prompted, achieved = np.array(own["prompted"]), np.array(own["achieved"][0])
            ends = [prompted.min(), prompted.max()]
            panel.loglog(ends, ends, color="0.6", linewidth=1)
            panel.loglog(prompted, achieved, ".", color=COLOURS[0], markersize=3)
            panel.set_title(arm, fontsize=7)
            panel.set_xlabel("prompted loss")
            panel.set_ylabel("loss")
        for panel in panels[len(measured) :]:
            panel.set_visible(False)
    return figure


def _newness(distance: np.ndarray, held_out: np.ndarray) -> dict[str, Any]:
    """Cells of distances [seed, prompt]: medians over prompts, then over seeds."""
    medians = np.median(distance, axis=1)
    closer = 100 * (distance < held_out.min()).mean(1)
    if len(distance) == 1:
        one = {"distance": medians[0], "novelty": medians[0] / np.median(held_out), "closer": closer[0]}
        return {name: float(value) for name, value in one.items()}
    return {
        "distance": median(medians),
        "novelty": median(medians / np.median(held_out)),
        "closer": median(closer),
    }
