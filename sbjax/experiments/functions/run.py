"""A regression experiment with all of its arms in one program: from a plan to the files that a report reads."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from sbjax.common.files import plain
from sbjax.expansion.registry import make_expansion
from sbjax.experiments.functions.grid import ArmNumbers, run_grid
from sbjax.frame.errors import ConfigError, told_as
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.frame.workdir import Workdir
from sbjax.optimizers import lbfgs_many
from sbjax.report.results import save_arms
from sbjax.tasks import regression

logger = logging.getLogger(__name__)


class Shared(NamedTuple):
    """What all arms have in common: hidden layers after the first, activation, and the task without its fold."""

    widths: tuple[int, ...]
    activation: str
    task: tuple[Any, ...]


class DrawnFunction(NamedTuple):
    """Where fits are drawn."""

    points: np.ndarray
    reference: np.ndarray
    coordinates: tuple[str, ...] = ("x",)
    unknowns: tuple[str, ...] = ("y",)


def read_arm(plan: Plan, arm: ArmPlan) -> tuple[ArmNumbers, Shared]:
    """The numbers that tell an arm from the others, and all else.

    Raises:
        ConfigError: something that this program cannot do: another optimiser than L-BFGS, single precision, features.
    """
    model = {"widths": (32, 32, 32), "activation": "tanh", **arm.model}
    task, optimizer = arm.task, arm.optimizer
    memory = getattr(optimizer.options, "memory_size", lbfgs_many.MEMORY)
    needed = (
        ("optimizer.name", optimizer.name, "lbfgs"),
        ("optimizer.memory_size", memory, lbfgs_many.MEMORY),
        ("precision.x64", plan.precision.x64, True),
        ("model.name", model.get("name"), "field"),
        ("model.normalise", model.get("normalise", False), False),
        ("model.features", model.get("features", 0), 0),
        ("model.dtype", model.get("dtype", "float64"), "float64"),
    )
    for field, value, only in needed:
        if value != only:
            raise ConfigError(
                f"{field}={value!r} must be {only!r} with task.program='grid'; or use task.program='loop'"
            )
    widths = tuple(model["widths"])
    if len(widths) < 2:
        raise ConfigError(f"task.program='grid' needs two of model.widths={widths}")
    with told_as("expansion"):
        expansion = make_expansion(arm.expansion)
    numbers = ArmNumbers(expansion, widths[0], task.fold, optimizer.first_bias_scale)
    same = (task.function, task.points, task.test_points, task.tolerance)
    return numbers, Shared(widths[1:], model["activation"], same)


def run(
    folder: Workdir, plan: Plan, arms: Mapping[str, ArmNumbers], shared: Shared, *, stop: Callable[[], bool]
) -> bool:
    """Fit all arms and write `metrics.jsonl`, `arms.json` and grids; whether it came to its end."""
    section = plan.task
    target = regression.make_target(section.function)
    points = regression.make_points(target, section.points, section.test_points)
    steps, replicas, records = plan.train_steps, plan.replicas, plan.reports
    number, count = 0, len(arms) * replicas

    def on_done(arm, replica, seconds):
        nonlocal number
        number += 1
        if number % max(1, count // 10) == 0:
            left = seconds / number * (count - number)
            logger.info("%s: %d of %d fits, about %.0f s left", section.function, number, count, left)

    began = time.perf_counter()
    found = run_grid(
        points, arms, replicas=replicas, key=jax.random.key(plan.seed), widths=shared.widths,
        activation=shared.activation, steps=steps, tolerance=section.tolerance, records=records, on_done=on_done,
        stop=stop,
    )  # fmt: skip
    if found is None:
        return False
    seconds = time.perf_counter() - began
    # Of a gradient, products of the first order alone. What a fit computes is not known: line searches, and its end.
    flops = {name: 6.0 * result.parameters * section.points for name, result in found.items()}
    every = -(-steps // records)
    x = np.linspace(regression.LOWER, regression.UPPER, regression.DRAWN)
    drawn = DrawnFunction(x[:, None], target.values(x)[:, None])
    failures = []
    for name, result in found.items():
        folder.resume_metrics(name, [])
        for i, (losses, errors) in enumerate(zip(result.losses.T, result.errors.T)):
            step = min(i * every, steps)
            numbers = {"train/loss": losses, "test/mse": errors}
            if i == records:
                numbers |= result.numbers
            folder.report({"arm": name, "step": step, "flops": 0.0, **plain(numbers)})
        for replica in np.flatnonzero(~np.isfinite(result.numbers["test/mse"])):
            failures.append({"arm": name, "replica": int(replica), "step": steps, "what": "the loss is not finite"})
        folder.save_grid(name, result.drawn[..., None], drawn)
        folder.add_timing(arm=name, steps=[0, steps], train_seconds=round(seconds / len(found), 3))
    save_arms(
        folder.path, arms=list(arms), reference=plan.reference, primary="test/mse", goal="min",
        parameters={name: result.parameters for name, result in found.items()}, flops_per_step=flops,
        steps=dict.fromkeys(arms, steps), failures=failures, about=plan.about_arms(),
    )  # fmt: skip
    return True
