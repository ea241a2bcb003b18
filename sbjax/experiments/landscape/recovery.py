"""Parameter recovery: Expand-and-Cluster on toy teachers, from data to the weights of the teacher.

Arms differ in the activation or the depth; what other experiments call seeds are teachers here. The first one, of four
units and two inputs, is `teacher_student.two_layer_teacher`. Others are drawn: directions uniform on the sphere, norms
uniform on [0.5, 1.5], biases uniform on [-1, 1], outgoing weights uniform on [0.5, 1.5] with random signs, and no two
units within 0.3 of each other (up to sign). Inputs are normal with standard deviation 2, with a constant 1 for the
biases. N students with `expansion` times the teacher's width learn by Adam and Levenberg-Marquardt, are clustered and
collapsed, and the collapsed network is fitted once more by Levenberg-Marquardt.

As a control, N students of different teachers are clustered likewise: no whole teacher must come out.

Source: arXiv 2304.12794.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

# Loaded by its first use.
import scipy
from jaxtyping import Array, Key

from sbjax.common.options import option
from sbjax.experiments.landscape import students
from sbjax.experiments.landscape.arm_results import ArmResult
from sbjax.experiments.landscape.experiment import LandscapeExperiment
from sbjax.experiments.landscape.recovery_deep import Deep
from sbjax.experiments.landscape.recovery_shallow import Shallow
from sbjax.experiments.landscape.recovery_toys import Family, Outcome, draw_inputs, families, rules
from sbjax.frame.errors import ConfigError
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.landscape.expand_and_cluster import expand_and_cluster
from sbjax.landscape.teacher_match import match_teacher
from sbjax.landscape.teacher_student import ACTIVATIONS
from sbjax.metrics.shares import share


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    experiment: str = option("recovery", "which experiment on the loss landscape")
    activation: str = option("g", "of teachers and students", choices=tuple(ACTIVATIONS))
    teachers: str = option("4:2,5:3,6:4", 'widths:inputs, in turn; "3-3:2" has two hidden layers, of tanh only')
    students: int = option(10, "N, of each teacher", least=2, most=10**5)
    expansion: float = option(4.0, "width of the students over the teacher's", least=1, most=1000)
    points: int = option(400, "inputs on which students are trained", least=1, most=10**6)
    learning_rate: float = option(0.01, "of Adam for train_steps steps, down to 0 by a cosine", above=0)
    polish_steps: int = option(300, "of Levenberg-Marquardt at most", least=0)
    gamma: float = option(0.5, "clusters have units of this share of the students", above=0, most=1)
    beta: float = option(30.0, "degrees, their largest angle", above=0, below=90)


SMOKE: dict[str, Any] = {"teachers": "2:1", "students": 4, "expansion": 2.0, "points": 30, "polish_steps": 20}
PRIMARY = "units/error"

RECOVERED = 0.01
"""Relative error below which a unit counts as recovered."""


def check(plan: Plan, arm: ArmPlan) -> None:
    """Refuse teachers that cannot be recovered.

    Raises:
        ConfigError: malformed teachers, layers that go with tanh alone, too few points or students in a cluster.
    """
    task = arm.task
    kinds = families(task.teachers)
    if task.activation != "tanh" and any(len(family.widths) > 1 for family in kinds):
        raise ConfigError(
            f"task.teachers={task.teachers!r} has several hidden layers, which go with task.activation='tanh', not "
            f"with {task.activation!r}"
        )
    if task.gamma * task.students < 2:
        raise ConfigError(f"task.gamma={task.gamma} must be between 2 / students = {2 / task.students:g} and 1")
    largest = max(_parameters(family) for family in kinds)
    if task.points < largest:
        raise ConfigError(f"task.points={task.points} must be >= {largest}, the parameters of the largest teacher")


def needs(plan: Plan, arm: ArmPlan) -> dict[str, int]:
    """Bytes at least, see `LandscapeExperiment`."""
    task = arm.task
    sizes = [int(task.expansion * family.widths[0]) * (family.inputs + 1) for family in families(task.teachers)]
    return students.least_bytes(task.students, max(sizes), task.points)


def run_arm(
    plan: Plan, arm: ArmPlan, key: Key[Array, ""], log: Callable[[str], Any], stop: Callable[[], bool]
) -> ArmResult | None:
    """All teachers of one activation. The metrics:

    - `error`: median over the teacher's units of the larger relative error of incoming and outgoing weights, in the
      end; a unit that was not found counts as 1, as does an error above 1. `worst`: the largest.
    - `error_before`, `worst_before`: before the last fit.
    - `excess`: recovered units minus the teacher's.
    - `function`: root mean square error on new inputs over the standard deviation of the teacher's outputs.
    - `loss`: in the end. `student_loss`: the best student's.
    """
    task, teachers = arm.task, plan.replicas
    kinds = families(task.teachers)
    outcomes: dict[int, Outcome] = {}
    controls, largest = [], 0
    for place, family in enumerate(kinds):
        members = range(place, teachers, len(kinds))
        inputs, held_out = (
            draw_inputs(jax.random.fold_in(key, 2 * place + part), task.points, family.inputs) for part in (0, 1)
        )
        solve = (Deep if len(family.widths) > 1 else Shallow)(family, inputs, held_out, task, plan.train_steps)
        for index in members:
            own = [jax.random.fold_in(jax.random.fold_in(key, stream), index) for stream in (10_000, 20_000)]
            outcome = solve(*own, index, stop)
            if outcome is None:
                return None
            outcomes[index] = outcome
            largest = max(largest, solve.parameters)
            log(
                f"teacher {index} (units {family.widths}, {family.inputs} inputs): best student "
                f"{outcome.losses.min():.1e}, {outcome.after.excess} units too many, {outcome.after.missing} missing, "
                f"error {np.median(outcome.after.errors):.1e}"
            )
        if len(family.widths) == 1:
            controls += _control([outcomes[i] for i in members], task)
    found = [outcomes[i] for i in range(teachers)]
    metrics = _metrics(found)
    arrays = {}
    for i, outcome in enumerate(found):
        arrays |= {f"{name}_{i}": part for name, part in outcome.arrays.items()}
        arrays |= {f"losses_{i}": outcome.losses, f"before_{i}": outcome.before.errors}
        arrays |= {f"after_{i}": outcome.after.errors}
        if outcome.clusterings:
            arrays |= {f"labels_{i}": outcome.clusterings[0].labels, f"tree_{i}": outcome.clusterings[0].tree}
    right = np.array([outcome.after.excess + outcome.after.missing == 0 for outcome in found])
    summary = {
        "activation": task.activation,
        "students": task.students,
        "expansion": task.expansion,
        "teachers": [_describe(outcome, kinds[i % len(kinds)]) for i, outcome in enumerate(found)],
        "width_right": share(right, method="exact")._asdict(),
        "recovered": share(right & (np.array(metrics["units/worst"]) < RECOVERED), method="exact")._asdict(),
        "error": _median(metrics["units/error"]),
        "error_before": _median(metrics["units/error_before"]),
        "control": controls,
    }
    return ArmResult(metrics, summary, arrays, parameters=largest)


def _parameters(family: Family) -> int:
    widths = (family.inputs, *family.widths, 1)
    return sum((below + 1) * width for below, width in itertools.pairwise(widths))


def _control(outcomes: list[Outcome], task) -> list[dict[str, int]]:
    """Clusters of students of different teachers; fewer than three teachers give none."""
    if len(outcomes) < 3:
        return []
    chosen = [(outcomes[i % len(outcomes)], i) for i in range(task.students)]
    students = {"w": np.stack([o.arrays["rows"][i] for o, i in chosen])}
    students["a"] = np.stack([o.arrays["outgoing"][i] for o, i in chosen])
    losses, activation = np.array([o.losses[i] for o, i in chosen]), ACTIVATIONS[task.activation]
    found = expand_and_cluster(students, losses, activation, rules(task), bias=True)
    teachers = [{"w": o.arrays["teacher"], "a": o.arrays["passed"]} for o in outcomes]
    matches = [match_teacher(found.params, teacher, activation) for teacher in teachers]
    return [{"units": found.width, "recovered": int(sum(match.errors.max() < RECOVERED for match in matches))}]


def _metrics(outcomes: list[Outcome]) -> dict[str, list[float]]:
    def capped(match):
        return np.minimum(match.errors, 1.0)

    return {
        "units/error": [float(np.median(capped(o.after))) for o in outcomes],
        "units/worst": [float(np.max(capped(o.after))) for o in outcomes],
        "units/error_before": [float(np.median(capped(o.before))) for o in outcomes],
        "units/worst_before": [float(np.max(capped(o.before))) for o in outcomes],
        "units/excess": [float(o.after.excess - o.after.missing) for o in outcomes],
        "test/function": [o.after.function for o in outcomes],
        "train/loss": [o.loss for o in outcomes],
        "students/loss": [float(np.min(o.losses)) for o in outcomes],
    }


def _describe(outcome: Outcome, family: Family) -> dict[str, Any]:
    clusters = [cluster for clustering in outcome.clusterings for cluster in clustering.clusters]
    return {
        "size": f"{'-'.join(map(str, family.widths))}, {family.inputs}",
        "recovered": [len(clustering.kept) for clustering in outcome.clusterings],
        "cut": [clustering.height for clustering in outcome.clusterings],
        "sizes": [len(cluster.members) for cluster in clusters if not cluster.reason],
        "spreads": [cluster.spread for cluster in clusters if not cluster.reason],
        "dropped": [cluster.reason for cluster in clusters if cluster.reason],
    }


def _median(values: list[float]) -> dict[str, float]:
    """With the interval of order statistics that covers 95 % whatever the distribution; NaN ends below six values."""
    ends = scipy.stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    return {"value": float(np.median(values)), "low": float(ends.low), "high": float(ends.high)}


EXPERIMENT = LandscapeExperiment(Fields, primary=PRIMARY, smoke=SMOKE, check_arm=check, needs=needs, run_arm=run_arm)
