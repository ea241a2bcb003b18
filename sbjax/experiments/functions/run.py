"""A regression experiment with all of its arms in one program: from settings to the files that a report reads."""

import io
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sbjax import build
from sbjax.experiments.functions.grid import ArmNumbers, run_grid
from sbjax.files import write_atomically
from sbjax.frame import config as config_lib
from sbjax.frame.workdir import Workdir
from sbjax.optimizers import lbfgs_many as fit_many
from sbjax.tasks import regression

logger = logging.getLogger(__name__)


def check(settings: dict[str, Any]) -> dict[str, ArmNumbers]:
    """The arms of checked settings.

    Raises:
        ConfigError: something that this program cannot do: another optimiser than L-BFGS, a second phase, single
            precision, features, or arms that differ in anything but expansion, fold, first width and bias scale.
    """
    found, shared = {}, None
    for name in settings["arms"]:
        own = config_lib.arm_settings(settings, name)
        try:
            found[name], rest = _read_arm(own)
        except config_lib.ConfigError as error:
            raise config_lib.ConfigError(f"arm {name!r}: {error}") from error
        shared = rest if shared is None else shared
        if rest != shared:
            raise config_lib.ConfigError(
                f"arm {name!r}: with task.program='grid' arms differ in expansion, task.fold, first of model.widths "
                "and optimizer.first_bias_scale only; use task.program='frame'"
            )
    return found


def _read_arm(own):
    """The numbers of an arm, and all else that it needs to have in common with the others."""
    model, task = {"widths": (32, 32, 32), "activation": "tanh", **own["model"]}, own["task"]
    optimizer = build.read_optimizer(own["optimizer"])
    needed = (
        ("optimizer.name", optimizer.name, "lbfgs"),
        ("optimizer.memory_size", getattr(optimizer.options, "memory_size", fit_many.MEMORY), fit_many.MEMORY),
        ("finish.steps", own["finish"]["steps"], 0),
        ("precision.x64", own["precision"]["x64"], True),
        ("model.normalise", model.get("normalise", False), False),
        ("model.features", model.get("features", 0), 0),
        ("model.dtype", model.get("dtype", "float64"), "float64"),
    )
    for field, value, only in needed:
        if value != only:
            raise config_lib.ConfigError(
                f"{field}={value!r} must be {only!r} with task.program='grid'; or use task.program='frame'"
            )
    if not own["train_steps"] or len(model["widths"]) < 2:
        raise config_lib.ConfigError(
            f"task.program='grid' needs train_steps={own['train_steps']} > 0 and two of model.widths={model['widths']}"
        )
    build.build_task(own, build.build_data(task))
    expansion = build.build_expansion(own["expansion"])
    try:
        bias_scale = optimizer.bias_scale(expansion.constants if task["fold"] else None)
    except ValueError as error:
        raise config_lib.ConfigError(f"optimizer: {error}") from error
    numbers = ArmNumbers(expansion, model["widths"][0], task["fold"], bias_scale)
    rest = model["widths"][1:], model["activation"], {k: v for k, v in task.items() if k != "fold"}
    return numbers, rest


def run(folder: Workdir, settings: dict[str, Any], *, stop: Callable[[], bool]) -> bool:
    """Fit all arms and write `metrics.jsonl`, `arms.json` and grids; whether it came to its end."""
    from sbjax.report.results import save_arms

    section, model = settings["task"], _model(settings)
    arms = check(settings)
    target = regression.make_target(section["function"])
    points = regression.make_points(target, section["points"], section["test_points"])
    steps, replicas, records = settings["train_steps"], settings["replicas"], settings["reports"]
    number, count = 0, len(arms) * replicas

    def on_done(arm, replica, seconds):
        nonlocal number
        number += 1
        if number % max(1, count // 10) == 0:
            left = seconds / number * (count - number)
            logger.info("%s: %d of %d fits, about %.0f s left", section["function"], number, count, left)

    began = time.perf_counter()
    found = run_grid(
        points, arms, replicas=replicas, key=jax.random.key(settings["seed"]), widths=model["widths"][1:],
        activation=model["activation"], steps=steps, tolerance=section["tolerance"], records=records, on_done=on_done,
        stop=stop,
    )  # fmt: skip
    if found is None:
        return False
    seconds = time.perf_counter() - began
    flops = {name: 6.0 * result.parameters * section["points"] for name, result in found.items()}
    every = -(-steps // records)
    failures = []
    for name, result in found.items():
        folder.resume_metrics(name, [])
        for i, (losses, errors) in enumerate(zip(result.losses.T, result.errors.T)):
            step = min(i * every, steps)
            numbers = {"train/loss": losses, "test/mse": errors}
            if i == records:
                numbers |= result.numbers
            listed = {k: [float(v) if math.isfinite(v) else None for v in values] for k, values in numbers.items()}
            folder.report({"arm": name, "step": step, "flops": step * flops[name], **listed})
        for replica in np.flatnonzero(~np.isfinite(result.numbers["test/mse"])):
            failures.append({"arm": name, "replica": int(replica), "step": steps, "what": "the loss is not finite"})
        _save_drawn(folder.path, name, target, result.drawn)
        folder.add_timing(arm=name, steps=[0, steps], train_seconds=round(seconds / len(found), 3))
    save_arms(
        folder.path, arms=list(arms), reference=settings["reference"], primary="test/mse", goal="min",
        parameters={name: result.parameters for name, result in found.items()}, flops_per_step=flops,
        steps=dict.fromkeys(arms, steps), failures=failures,
    )  # fmt: skip
    return True


def _model(settings):
    fields = {"widths": (32, 32, 32), "activation": "tanh", **settings["model"]}
    return {**fields, "widths": tuple(fields["widths"])}


def _save_drawn(folder, arm, target, drawn):
    """As `Workdir.save_grid` does."""
    x = np.linspace(regression.LOWER, regression.UPPER, regression.DRAWN)
    content = io.BytesIO()
    np.savez_compressed(
        content, points=x[:, None], reference=target.values(x)[:, None], predicted=np.float32(drawn)[..., None],
        coordinates=np.array(("x",)), unknowns=np.array(("y",)),
    )  # fmt: skip
    (folder / "grids").mkdir(exist_ok=True)
    write_atomically(folder / "grids" / f"{arm}.npz", content.getvalue())
