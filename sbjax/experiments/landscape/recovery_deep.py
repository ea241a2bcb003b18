"""Parameter recovery for toy teachers with several hidden layers of tanh units and biases.

The rows of every layer are drawn as those of `recovery_toys.toy_teacher`, with the layer below for the inputs. A layer
is recovered once the one below is: then all students have it, and their upper layers learn from what it passes on by
Levenberg-Marquardt. The whole is fitted in the end.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Loaded by its first use.
import scipy
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from sbjax.experiments.landscape.recovery_toys import Family, Outcome, Program, rules, toy_teacher
from sbjax.experiments.landscape.students import Problem, deep_problem
from sbjax.landscape.expand_and_cluster import RecoveredLayers, recover_layers
from sbjax.landscape.teacher_match import TeacherMatch, match_layers
from sbjax.landscape.teacher_student import deep_tanh, init_deep_students

Network = list[tuple[Float[np.ndarray, "in out"], Float[np.ndarray, " out"]]]
"""Kernel and bias of each layer."""


class Deep:
    """Teachers of several hidden layers and one shape."""

    def __init__(self, family: Family, inputs, held_out, task: Any, steps: int):
        # Biases are parameters of their own here.
        self.family, self.inputs, self.held_out = family, inputs[:, :-1], held_out[:, :-1]
        self.task, self.steps, self.program, self.programs = task, steps, None, {}
        widths = tuple(round(task.expansion * width) for width in family.widths)
        self.widths = (family.inputs, *widths, 1)
        self.parameters = sum((below + 1) * width for below, width in itertools.pairwise(self.widths))

    def __call__(
        self, start: Key[Array, ""], key: Key[Array, ""], index: int, stop: Callable[[], bool]
    ) -> Outcome | None:
        """Teacher `index`, drawn from `key`, with students from `start`; None if stopped."""
        teacher = deep_teacher(key, self.family.widths, self.family.inputs)
        targets = np.asarray(deep_tanh(teacher, jnp.asarray(self.inputs)))[:, 0]
        starts = init_deep_students(start, self.task.students, self.widths)
        self.program = self.program or Program(starts, problem_of, self.task, self.steps)
        trained = self.program.train(starts, (jnp.asarray(self.inputs), jnp.asarray(targets)), stop)
        if trained is None:
            return None
        students, losses = trained
        rows = np.concatenate([students[0][0].transpose(0, 2, 1), students[0][1][:, :, None]], 2)
        arrays = {"rows": rows, "teacher": np.column_stack([teacher[0][0].T, teacher[0][1]])}
        found = recover_deep(students, losses, self.inputs, targets, self.task, self.steps, self.programs)
        if found is None:
            nothing = TeacherMatch(*(np.full(sum(self.family.widths), end) for end in (-1, np.inf, np.inf)), 0, 1.0)
            return Outcome(losses, (), nothing, nothing, float(np.mean(targets**2)), arrays)
        layers = list(found.layers)
        shift = np.mean(targets - np.asarray(deep_tanh(layers, jnp.asarray(self.inputs)))[:, 0])
        layers[-1] = layers[-1][0], layers[-1][1] + shift
        before = compare(layers, teacher, self.held_out)
        layers, loss = fit_layers(layers, self.inputs, targets)
        after = compare(layers, teacher, self.held_out)
        arrays["found"] = np.column_stack([layers[0][0].T, layers[0][1]])
        return Outcome(losses, found.clusterings, before, after, loss, arrays)


def deep_teacher(key: Key[Array, ""], widths: tuple[int, ...], inputs: int) -> Network:
    """A random teacher of one output.

    >>> [kernel.shape for kernel, _ in deep_teacher(jax.random.key(0), (3, 4), 2)]
    [(2, 3), (3, 4), (4, 1)]
    """
    drawn = [
        toy_teacher(jax.random.fold_in(key, layer), width, below)
        for layer, (width, below) in enumerate(zip(widths, (inputs, *widths)))
    ]
    return [(net["w"][:, :-1].T, net["w"][:, -1]) for net in drawn] + [(drawn[-1]["a"], np.zeros(1))]


def problem_of(shared) -> Problem:
    """For `Program`: the mean squared error on (inputs, targets).

    Only Levenberg-Marquardt is used, and its matrix stands for the Hessian, which would take long to compile.
    """
    problem = deep_problem(*shared)
    return problem._replace(hessian=lambda params: 2 * (j := problem.jacobian(params)) @ j.T)


def recover_deep(
    students: Network, losses, inputs, targets, task: Any, steps: int, programs: dict[Any, Program]
) -> RecoveredLayers | None:
    """Layer by layer; None if the students share no unit of one.

    Args:
        students: stacked, as trained, and their losses.
        inputs, targets: [n, d] and [n].
        task, steps: fields of the arm's task, and of Adam.
        programs: of upper layers by their shapes, filled here.
    """

    def retrain(layers, first):
        hidden = inputs
        for kernel, bias in layers[:first]:
            hidden = np.tanh(hidden @ kernel[0] + bias[0])
        upper = [tuple(map(jnp.asarray, layer)) for layer in layers[first:]]
        shape = tuple(kernel.shape for kernel, _ in upper)
        if shape not in programs:
            programs[shape] = Program(upper, problem_of, task, steps)
        trained, found = programs[shape].finish((jnp.asarray(hidden), jnp.asarray(targets)), upper)
        return layers[:first] + [tuple(layer) for layer in trained], found

    try:
        return recover_layers(students, losses, jnp.tanh, retrain, rules(task))
    except ValueError as error:
        if "share no unit" not in str(error):
            raise
        return None


def fit_layers(layers: Network, inputs, targets) -> tuple[Network, float]:
    """All parameters by Levenberg-Marquardt (MINPACK's), and the mean squared error.

    >>> with jax.enable_x64(True):
    ...     x = np.linspace(-2, 2, 20)[:, None]
    ...     start = [(np.array([[0.9]]), np.zeros(1)), (np.ones((1, 1)), np.ones(1))]
    ...     found, loss = fit_layers(start, x, np.tanh(x[:, 0]))
    >>> found[0][0].round(6).tolist(), loss < 1e-20
    ([[1.0]], True)
    """
    flat, unravel = ravel_pytree([tuple(map(jnp.asarray, layer)) for layer in layers])
    problem = problem_of((jnp.asarray(inputs), jnp.asarray(targets)))
    residuals = jax.jit(lambda flat: problem.residuals(unravel(flat)))
    jacobian = jax.jit(lambda flat: problem.jacobian(unravel(flat)).T)
    tight = 4 * np.finfo(float).eps
    found = scipy.optimize.least_squares(
        lambda flat: np.asarray(residuals(flat)),
        np.asarray(flat),
        lambda flat: np.asarray(jacobian(flat)),
        method="lm",
        xtol=tight,
        ftol=tight,
        gtol=tight,
        max_nfev=300,
    )
    return jax.tree.map(np.asarray, unravel(jnp.asarray(found.x))), 2 * float(found.cost)


def compare(layers: Network, teacher: Network, held_out) -> TeacherMatch:
    """`match_layers` with tanh, and the error of the function on new inputs."""
    right, found = (np.asarray(deep_tanh(net, jnp.asarray(held_out))) for net in (teacher, layers))
    function = float(np.sqrt(np.mean((found - right) ** 2)) / np.std(right))
    return match_layers(layers, teacher, jnp.tanh)._replace(function=function)
