"""Parameter recovery: Expand-and-Cluster on toy teachers, from data to the weights of the teacher.

Arms differ in the activation; what other experiments call seeds are teachers here. The first one is
`teacher_student.two_layer_teacher`, the others are drawn: directions uniform on the sphere, norms uniform on
[0.5, 1.5], biases uniform on [-1, 1], outgoing weights uniform on [0.5, 1.5] with random signs, and no two units within
0.3 of each other (up to sign). Inputs are normal with standard deviation 2, with a constant 1 for the biases. N
students with `expansion` times the teacher's width learn by Adam and Levenberg-Marquardt, are clustered and collapsed,
and the collapsed network is fitted once more by Levenberg-Marquardt.

As a control, N students of different teachers are clustered likewise: none of their teachers must come out.

Source: arXiv 2304.12794.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

# Loaded by its first use.
import scipy
from jaxtyping import Array, Key

from sbjax import config as config_lib
from sbjax.landscape import ArmResult
from sbjax.landscape.recovery_toys import Family, Program, draw_inputs, families, fine_tune, toy_teacher
from sbjax.suggest import near
from sbjax.symmetry.expand_and_cluster import Recovered, expand_and_cluster
from sbjax.symmetry.teacher_match import TeacherMatch, align, match_teacher
from sbjax.tasks.teacher_student import ACTIVATIONS, init_students, share_below, two_layer, two_layer_teacher

FIELDS: dict[str, Any] = {
    "activation": "g",  # a name of sbjax.tasks.teacher_student.ACTIVATIONS
    "teachers": "4:2,5:3,6:4",  # width:inputs, in turn
    "students": 10,  # N, of each teacher
    "expansion": 4.0,  # width of the students over the teacher's
    "points": 500,
    "learning_rate": 0.01,  # of Adam for train_steps steps, down to 0 by a cosine
    "polish_steps": 300,  # of Levenberg-Marquardt at most
    "gamma": 0.5,  # clusters have units of this share of the students
    "beta": 30.0,  # degrees, their largest angle
}
SMOKE: dict[str, Any] = {"teachers": "2:1", "students": 4, "expansion": 2.0, "points": 30, "polish_steps": 20}
PRIMARY, GOAL = "error", "min"

RECOVERED = 0.01
"""Relative error below which a unit counts as recovered."""


class Outcome(NamedTuple):
    """One teacher.

    Attributes:
        students: {'w': [N, m, d + 1], 'a': [N, m, 1]} as trained, and their losses.
        losses: of the students.
        found: the collapsed network.
        before, after: it beside the teacher, before and after the last fit.
        params, loss: after that.
    """

    students: dict[str, np.ndarray]
    losses: np.ndarray
    found: Recovered
    before: TeacherMatch
    after: TeacherMatch
    params: dict[str, np.ndarray]
    loss: float


def check(settings: dict[str, Any]) -> None:
    """Refuse what cannot be run.

    Raises:
        ConfigError: an unknown activation, malformed teachers, or a number out of range.
    """
    task = settings["task"]
    kinds = families(task["teachers"])
    if task["activation"] not in ACTIVATIONS:
        hint = near(task["activation"], ACTIVATIONS)
        raise config_lib.ConfigError(
            f"task.activation={task['activation']!r} is unknown{hint}; known: {', '.join(ACTIVATIONS)}"
        )
    largest = max(width * (inputs + 2) + 1 for width, inputs in kinds)
    students, shared = task["students"], task["gamma"] * task["students"]
    rules = {
        "students": (students >= 2, ">= 2"),
        "gamma": (shared >= 2 and task["gamma"] <= 1, f"between 2 / students = {2 / max(students, 1):g} and 1"),
        "beta": (0 < task["beta"] < 90, "between 0 and 90 degrees"),
        "expansion": (task["expansion"] >= 1, ">= 1"),
        "points": (task["points"] >= largest, f">= {largest}, the parameters of the largest teacher"),
        "learning_rate": (task["learning_rate"] > 0, "> 0"),
        "polish_steps": (task["polish_steps"] >= 0, ">= 0"),
    }
    for name, (holds, what) in rules.items():
        if not holds:
            raise config_lib.ConfigError(f"task.{name}={task[name]} must be {what}")


def run_arm(
    settings: dict[str, Any],
    arm_settings: dict[str, Any],
    key: Key[Array, ""],
    say: Callable[[str], Any],
    stop: Callable[[], bool],
) -> ArmResult | None:
    """All teachers of one activation. The metrics:

    - `error`: median over the teacher's units of the larger relative error of incoming and outgoing weights, in the
      end; a unit that was not found counts as 1, as does an error above 1. `worst`: the largest.
    - `error_before`, `worst_before`: before the last fit.
    - `excess`: recovered units minus the teacher's.
    - `function`: root mean square error on new inputs over the standard deviation of the teacher's outputs.
    - `loss`: in the end. `student_loss`: the best student's.
    """
    task, teachers = arm_settings["task"], arm_settings["replicas"]
    kinds = families(task["teachers"])
    outcomes: dict[int, Outcome] = {}
    known: dict[int, dict[str, np.ndarray]] = {}
    controls, largest = [], 0
    for place, family in enumerate(kinds):
        members = range(place, teachers, len(kinds))
        inputs = draw_inputs(jax.random.fold_in(key, 2 * place), task["points"], family.inputs)
        held_out = draw_inputs(jax.random.fold_in(key, 2 * place + 1), task["points"], family.inputs)
        program = None
        for index in members:
            known[index] = _teacher(key, index, family)
            targets = np.asarray(two_layer(known[index], inputs, task["activation"]))[:, 0]
            width = round(task["expansion"] * family.width)
            starts = init_students(
                jax.random.fold_in(jax.random.fold_in(key, 10_000), index),
                task["students"],
                width,
                inputs=family.inputs + 1,
            )
            program = program or Program(starts, inputs, arm_settings)
            trained = program.train(starts, targets, stop)
            if trained is None:
                return None
            outcomes[index] = _recover(*trained, known[index], inputs, targets, held_out, task)
            largest = max(largest, sum(leaf[0].size for leaf in trained[0].values()))
            say(
                f"teacher {index} ({family.width} units, {family.inputs} inputs): best student {trained[1].min():.1e}, "
                f"{outcomes[index].found.width} units, error {np.median(outcomes[index].after.errors):.1e}"
            )
        controls += _control([outcomes[i] for i in members], [known[i] for i in members], task)
    order = range(teachers)
    metrics = _metrics([outcomes[i] for i in order])
    arrays = {}
    for i in order:
        arrays |= {f"rows_{i}": outcomes[i].students["w"], f"labels_{i}": outcomes[i].found.clustering.labels}
        arrays |= {f"tree_{i}": outcomes[i].found.clustering.tree, f"found_{i}": outcomes[i].params["w"]}
        arrays |= {f"teacher_{i}": known[i]["w"], f"losses_{i}": outcomes[i].losses}
        arrays |= {f"before_{i}": outcomes[i].before.errors, f"after_{i}": outcomes[i].after.errors}
    summary = {
        "activation": task["activation"],
        "students": task["students"],
        "expansion": task["expansion"],
        "teachers": [_describe(outcomes[i], kinds[i % len(kinds)]) for i in order],
        "width_right": share_below(np.abs(metrics["excess"]), 0.5)._asdict(),
        "recovered": share_below(np.maximum(metrics["worst"], np.abs(metrics["excess"])), RECOVERED)._asdict(),
        "error": _median(metrics["error"]),
        "error_before": _median(metrics["error_before"]),
        "control": controls,
    }
    return ArmResult(metrics, summary, arrays, parameters=largest)


def section(workdir, results) -> list[str]:
    """Shares and errors by activation, and by the size of the teacher."""
    from sbjax.landscape import recovery_report

    return recovery_report.section(workdir, results)


def save_figures(workdir, results) -> dict:
    """Incoming vectors, the tree, and the errors."""
    from sbjax.landscape import recovery_report

    return recovery_report.save_figures(workdir, results)


CAPTIONS = {
    "recovery_vectors": "Incoming weights of all students of the first teacher; coloured by cluster, grey: none. "
    "Crosses: the teacher's, rings: recovered; both, and mirrored students, on the side of the teacher.",
    "recovery_trees": "Average linkage of the same units; dashed: the cut.",
    "recovery_errors": "Relative error of every unit of all teachers, sorted, before (hollow) and after the last fit; "
    "1: not found.",
}


def _teacher(key, index, family):
    if index == 0 and family == (4, 2):
        fixed = two_layer_teacher()
        return fixed | {"w": np.column_stack([fixed["w"], np.zeros(4)])}
    return toy_teacher(jax.random.fold_in(jax.random.fold_in(key, 20_000), index), family.width, family.inputs)


def _cluster(students, losses, task) -> Recovered:
    sound = np.isfinite(losses) & np.isfinite(students["w"]).all((1, 2)) & np.isfinite(students["a"]).all((1, 2))
    return expand_and_cluster(
        {name: leaf[sound] for name, leaf in students.items()},
        losses[sound],
        ACTIVATIONS[task["activation"]],
        gamma=task["gamma"],
        beta=math.radians(task["beta"]),
        bias=True,
    )


def _recover(students, losses, teacher, inputs, targets, held_out, task) -> Outcome:
    activation = ACTIVATIONS[task["activation"]]
    found = _cluster(students, losses, task)
    params = align(found.params, inputs, targets[:, None], activation)
    before = match_teacher(params, teacher, activation, held_out)
    params, loss = fine_tune(params, inputs, targets, task["activation"])
    return Outcome(students, losses, found, before, match_teacher(params, teacher, activation, held_out), params, loss)


def _control(outcomes: list[Outcome], teachers, task) -> list[dict[str, int]]:
    """Clusters of students of different teachers; fewer than three teachers give none."""
    if len(outcomes) < 3:
        return []
    chosen = [(outcomes[i % len(outcomes)], i) for i in range(task["students"])]
    students = {name: np.stack([outcome.students[name][i] for outcome, i in chosen]) for name in ("w", "a")}
    found = _cluster(students, np.array([outcome.losses[i] for outcome, i in chosen]), task)
    matches = [match_teacher(found.params, teacher, ACTIVATIONS[task["activation"]]) for teacher in teachers]
    return [{"units": found.width, "recovered": max(int(np.sum(match.errors < RECOVERED)) for match in matches)}]


def _metrics(outcomes: list[Outcome]) -> dict[str, list[float]]:
    def capped(match):
        return np.minimum(match.errors, 1.0)

    return {
        "error": [float(np.median(capped(o.after))) for o in outcomes],
        "worst": [float(np.max(capped(o.after))) for o in outcomes],
        "error_before": [float(np.median(capped(o.before))) for o in outcomes],
        "worst_before": [float(np.max(capped(o.before))) for o in outcomes],
        "excess": [float(o.found.width - len(o.after.units)) for o in outcomes],
        "function": [o.after.function for o in outcomes],
        "loss": [o.loss for o in outcomes],
        "student_loss": [float(np.nanmin(o.losses)) for o in outcomes],
    }


def _describe(outcome: Outcome, family: Family) -> dict[str, Any]:
    clusters = outcome.found.clustering.clusters
    return {
        **family._asdict(),
        "recovered": outcome.found.width,
        "cut": outcome.found.clustering.height,
        "sizes": [len(cluster.members) for cluster in clusters if not cluster.reason],
        "spreads": [cluster.spread for cluster in clusters if not cluster.reason],
        "dropped": [cluster.reason for cluster in clusters if cluster.reason],
    }


def _median(values: list[float]) -> dict[str, float]:
    """With the interval of order statistics that covers 95 % whatever the distribution; NaN ends below six values."""
    ends = scipy.stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    return {"value": float(np.median(values)), "low": float(ends.low), "high": float(ends.high)}
