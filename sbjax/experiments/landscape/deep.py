"""Students of three hidden layers with biases that learn from a deep tanh teacher of width 4.

Data and teacher are those of arXiv 2105.12221: the teacher was fitted by the authors to
sin(2x) + x + cos(3y) - 0.4 (y - 1)^2 on the 41 x 41 grid.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from sbjax import rng, trees
from sbjax.common.options import option
from sbjax.experiments.landscape import students
from sbjax.experiments.landscape.arm_results import ArmResult
from sbjax.experiments.landscape.experiment import LandscapeExperiment
from sbjax.experiments.landscape.two_layer import DEEP_ZERO, ZERO, check
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.landscape import teacher_student as ts
from sbjax.metrics.shares import share_below


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    experiment: str = option("deep", "which experiment on the loss landscape")
    width: int = option(4, "of each of the three hidden layers of the students; the teacher's is 4", least=1, most=1000)
    side: int = option(41, "of the grid of inputs on [-5, 5]^2", least=2, most=1000)
    learning_rate: float = option(1e-3, "of Adam, for train_steps steps", above=0)
    polish_steps: int = option(1000, "Levenberg-Marquardt steps at most", least=0)
    newton_steps: int = option(1000, "damped Newton steps at most, after these", least=0)


SMOKE: dict[str, Any] = {"side": 9, "polish_steps": 10, "newton_steps": 2}
PRIMARY = "train/loss"
HIDDEN = 3


def needs(plan: Plan, arm: ArmPlan) -> dict[str, int]:
    """Bytes at least, see `LandscapeExperiment`."""
    return students.least_bytes(plan.replicas, 2 * arm.task.width**2, arm.task.side**2)


def run_arm(
    plan: Plan, arm: ArmPlan, key: Key[Array, ""], log: Callable[[str], Any], stop: Callable[[], bool]
) -> ArmResult | None:
    """Train and polish the students of one width."""
    task, seeds = arm.task, plan.replicas
    inputs = ts.grid_inputs(task.side)
    targets = np.asarray(ts.deep_tanh(ts.deep_teacher(), inputs))
    problem = students.deep_problem(inputs, targets[:, 0])
    starts = ts.init_deep_students(rng.stream(key, "students"), seeds, (2, *[task.width] * HIDDEN, 1))
    trained = students.train_adam(
        problem, starts, steps=plan.train_steps, learning_rate=task.learning_rate, log=log, stop=stop
    )
    polished = trained and students.polish_students(
        problem, trained.params, steps=task.polish_steps, newton_steps=task.newton_steps, log=log, stop=stop
    )
    if polished is None:
        return None
    losses = np.asarray(polished.loss)
    names = [f"{name}_{layer}" for layer in range(HIDDEN + 1) for name in ("kernel", "bias")]
    arrays = {
        "steps": np.array(trained.steps),
        "adam_losses": trained.losses,
        **dict(zip(names, jax.tree.leaves(polished.params), strict=True)),
    }
    metrics = {
        "train/loss": losses.tolist(),
        "train/gradient": polished.gradient.tolist(),
        "train/adam_loss": trained.losses[-1].tolist(),
    }
    summary = {
        "width": task.width,
        "shares": {f"{bar:g}": share_below(losses, bar)._asdict() for bar in (ZERO, DEEP_ZERO)},
        "quantiles": {f"{q:g}": float(np.quantile(losses, q)) for q in (0, 0.25, 0.5, 0.75, 1)},
        "critical": float(np.mean(polished.gradient < 1e-8)),
        "polish_steps": int(np.max(polished.steps)),
    }
    return ArmResult(metrics, summary, arrays, trees.size(jax.tree.map(lambda leaf: leaf[0], starts)))


EXPERIMENT = LandscapeExperiment(Fields, primary=PRIMARY, smoke=SMOKE, check_arm=check, needs=needs, run_arm=run_arm)
