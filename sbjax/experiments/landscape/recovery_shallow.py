"""Parameter recovery for toy teachers with one hidden layer of units of any activation."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Loaded by its first use.
import scipy
from jaxtyping import Array, Float, Key

from sbjax.experiments.landscape.recovery_toys import Family, Outcome, Program, rules, toy_teacher
from sbjax.experiments.landscape.students import two_layer_problem
from sbjax.landscape.expand_and_cluster import expand_and_cluster
from sbjax.landscape.teacher_match import align, match_teacher
from sbjax.landscape.teacher_student import ACTIVATIONS, init_students, two_layer, two_layer_teacher


class Shallow:
    """Teachers of one hidden layer and one shape."""

    def __init__(self, family: Family, inputs, held_out, task: Any, steps: int):
        self.family, self.inputs, self.held_out, self.task, self.steps = family, inputs, held_out, task, steps
        self.program = None
        self.width = round(task.expansion * family.widths[0])
        self.parameters = self.width * (family.inputs + 2)

    def __call__(
        self, start: Key[Array, ""], key: Key[Array, ""], index: int, stop: Callable[[], bool]
    ) -> Outcome | None:
        """Teacher `index`, drawn from `key`, with students from `start`; None if stopped."""
        task, (width,) = self.task, self.family.widths
        activation = ACTIVATIONS[task.activation]
        teacher = toy_teacher(key, width, self.family.inputs)
        if index == 0 and self.family == ((4,), 2):
            fixed = two_layer_teacher()
            teacher = fixed | {"w": np.column_stack([fixed["w"], np.zeros(4)])}
        targets = np.asarray(two_layer(teacher, self.inputs, task.activation))[:, 0]
        starts = init_students(start, task.students, self.width, inputs=self.family.inputs + 1)
        self.program = self.program or Program(
            starts, lambda targets: two_layer_problem(self.inputs, targets, task.activation), task, self.steps
        )
        trained = self.program.train(starts, jnp.asarray(targets), stop)
        if trained is None:
            return None
        students, losses = trained
        found = expand_and_cluster(students, losses, activation, rules(task), bias=True)
        params = align(found.params, self.inputs, targets[:, None], activation)
        before = match_teacher(params, teacher, activation, self.held_out)
        params, loss = fine_tune(params, self.inputs, targets, task.activation)
        after = match_teacher(params, teacher, activation, self.held_out)
        arrays = {"rows": students["w"], "outgoing": students["a"], "found": params["w"], "teacher": teacher["w"]}
        arrays["passed"] = teacher["a"]
        return Outcome(losses, (found.clustering,), before, after, loss, arrays)


def fine_tune(
    params: dict[str, np.ndarray], inputs: Float[np.ndarray, "n d"], targets: Float[np.ndarray, " n"], activation: str
) -> tuple[dict[str, np.ndarray], float]:
    """All parameters of `teacher_match.evaluate` by Levenberg-Marquardt (MINPACK's), and the mean squared error.

    >>> with jax.enable_x64(True):
    ...     x = np.column_stack([np.linspace(-2, 2, 20), np.ones(20)])
    ...     start = {'w': np.array([[0.9, 0.1]]), 'a': np.array([[1.2]]), 'constant': np.zeros(1)}
    ...     found, loss = fine_tune(start, x, np.tanh(x[:, 0]), 'tanh')
    >>> bool(np.allclose(found['w'], [[1.0, 0.0]])), loss < 1e-20
    (True, True)
    """
    names, root = sorted(params), math.sqrt(len(inputs))
    cuts = np.cumsum([params[name].size for name in names])[:-1]
    slope = jax.jit(lambda z: jax.jvp(ACTIVATIONS[activation], (z,), (jnp.ones_like(z),)))

    def unpack(flat):
        return {name: part.reshape(params[name].shape) for name, part in zip(names, np.split(flat, cuts))}

    def residuals(flat):
        now = unpack(flat)
        outputs = np.asarray(slope(inputs @ now["w"].T)[0]) @ now["a"][:, 0] + now["constant"][0]
        return (outputs + (inputs @ now["linear"][:, 0] if "linear" in now else 0) - targets) / root

    def jacobian(flat):
        now = unpack(flat)
        h, dh = map(np.asarray, slope(inputs @ now["w"].T))
        by_w = (dh * now["a"][:, 0])[:, :, None] * inputs[:, None]
        columns = {"a": h, "constant": np.ones((len(inputs), 1)), "linear": inputs, "w": by_w.reshape(len(inputs), -1)}
        return np.hstack([columns[name] for name in names]) / root

    start = np.concatenate([params[name].ravel() for name in names])
    tight = 4 * np.finfo(float).eps
    found = scipy.optimize.least_squares(residuals, start, jacobian, method="lm", xtol=tight, ftol=tight, gtol=tight)
    return unpack(found.x), 2 * float(found.cost)
