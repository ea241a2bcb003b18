"""Toy problems of parameter recovery: teachers, inputs, and the training of students."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

from sbjax.common import devices
from sbjax.experiments.landscape.students import Problem
from sbjax.frame.config import ConfigError
from sbjax.landscape.teacher_match import TeacherMatch
from sbjax.landscape.unit_clusters import Clustering, Rules
from sbjax.optimizers.polish import polish

LONGEST = 500  # steps of Adam in one dispatch, so that a run can be stopped


class Family(NamedTuple):
    """Teachers of one shape: units of the hidden layers, and inputs without the constant one."""

    widths: tuple[int, ...]
    inputs: int


def families(text: str) -> list[Family]:
    """Of '4:2,3-5:2', where the second has two hidden layers.

    Raises:
        ConfigError: anything else.

    >>> families('4:2,3-5:2')[1]
    Family(widths=(3, 5), inputs=2)
    """
    try:
        parts = [part.split(":") for part in text.split(",")]
        found = [Family(tuple(map(int, widths.split("-"))), int(inputs)) for widths, inputs in parts]
    except ValueError:
        found = [Family((0,), 0)]
    if min(min(*family.widths, family.inputs) for family in found) < 1:
        raise ConfigError(
            f"task.teachers={text!r} must be pairs widths:inputs of numbers >= 1, as '4:2' or '4:2,3-3:2', where the "
            "second has two hidden layers"
        )
    return found


class Outcome(NamedTuple):
    """One teacher.

    Attributes:
        losses: of the students.
        clusterings: of each hidden layer; empty where the students of a deep one shared nothing.
        before, after: the collapsed network beside the teacher, before and after the last fit.
        loss: after that.
        arrays: 'rows' [N, m, d] and 'outgoing' of the students, 'found' and 'teacher' [r, d], of the first layer.
    """

    losses: np.ndarray
    clusterings: tuple[Clustering, ...]
    before: TeacherMatch
    after: TeacherMatch
    loss: float
    arrays: dict[str, np.ndarray]


def rules(task: dict[str, Any]) -> Rules:
    """Those of `expand_and_cluster` from the fields of a config."""
    return Rules(gamma=task.gamma, beta=math.radians(task.beta))


def toy_teacher(key: Key[Array, ""], width: int, inputs: int, *, apart: float = 0.3) -> dict[str, np.ndarray]:
    """A random teacher {'w': [r, d + 1], 'a': [r, 1]}, the last entry of w a bias, as the module says.

    Raises:
        ValueError: no room for so many units that far apart was found.

    >>> teacher = toy_teacher(jax.random.key(0), 4, 2)
    >>> teacher['w'].shape, bool((abs(teacher['a']) >= 0.5).all())
    ((4, 3), True)
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows: list[np.ndarray] = []
    for _ in range(1000 * width):
        direction = rng.normal(size=inputs)
        weights = direction / np.linalg.norm(direction) * rng.uniform(0.5, 1.5)
        row = np.append(weights, rng.uniform(-1, 1))
        if all(min(np.linalg.norm(row - other), np.linalg.norm(row + other)) >= apart for other in rows):
            rows.append(row)
        if len(rows) == width:
            signs = rng.choice([-1.0, 1.0], width)
            return {"w": np.stack(rows), "a": (signs * rng.uniform(0.5, 1.5, width))[:, None]}
    raise ValueError(f"width={width}, inputs={inputs}: no {width} units {apart} apart were found; choose fewer units")


def draw_inputs(key: Key[Array, ""], points: int, inputs: int) -> Float[np.ndarray, "n d"]:
    """Normal with standard deviation 2, and a last column of ones.

    >>> draw_inputs(jax.random.key(0), 5, 2)[:, 2].tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return np.column_stack([2 * rng.normal(size=(points, inputs)), np.ones(points)])


class Program:
    """Training of the students of one teacher after another, compiled once for students of one shape.

    Not through `sbjax.training.fit`, which would compile anew for each teacher: there a loss belongs to the program.

    Args:
        starts: stacked students.
        problem_of: data -> the problem of one student.
        task, steps: fields of the arm's task, and of Adam.
    """

    def __init__(self, starts: PyTree, problem_of: Callable[[Any], Problem], task: Any, steps: int):
        self.steps = steps
        self.adam = optax.adam(optax.cosine_decay_schedule(task.learning_rate, self.steps))

        def advance(shared, students):
            data, count = shared
            problem = problem_of(data)
            slope = jax.grad(lambda params: jnp.sum(problem.residuals(params) ** 2))

            def step(_, carry):
                params, state = carry
                updates, state = self.adam.update(slope(params), state)
                return optax.apply_updates(params, updates), state

            local = len(jax.tree.leaves(students)[0])
            group = next(size for size in (5, 4, 3, 2, 1) if local % size == 0)
            group = group if jax.default_backend() == "cpu" else local
            return jax.lax.map(lambda s: jax.lax.fori_loop(0, count, step, s), students, batch_size=group)

        def finish(data, students):
            problem = problem_of(data)

            def one(params):
                found = polish(
                    problem.residuals,
                    params,
                    jacobian_fn=problem.jacobian,
                    hessian_fn=problem.hessian,
                    steps=task.polish_steps,
                    newton_steps=0,
                    final_steps=0,
                )
                return found.params, found.loss

            return jax.lax.map(one, students)

        self.count = len(jax.tree.leaves(starts)[0])
        self.mesh, self.cores = devices.mesh_for(self.count), devices.mesh_of_cores(self.count)
        self._advance = jax.jit(devices.per_device(advance, self.mesh, mapped=1))
        self._finish = jax.jit(devices.per_device(finish, self.cores, mapped=1))

    def train(self, starts: PyTree, data: Any, stop: Callable[[], bool]) -> tuple[PyTree, np.ndarray] | None:
        """Students after Adam and Levenberg-Marquardt and their losses; None if stopped.

        Students that diverged are replaced by zeros, which share nothing with others, and the largest number as loss.
        """
        students, done = devices.place((starts, jax.vmap(self.adam.init)(starts)), self.mesh), 0
        while done < self.steps:
            if stop():
                return None
            count = min(LONGEST, self.steps - done)
            students = self._advance((data, jnp.asarray(count, jnp.int32)), students)
            done += count
        return None if stop() else self.finish(data, devices.collect(students[0], self.count))

    def finish(self, data: Any, students: PyTree) -> tuple[PyTree, np.ndarray]:
        """The second part of `train`."""
        found, losses = devices.collect(self._finish(data, devices.place(students, self.cores)), self.count)
        sound = np.isfinite(losses)
        for leaf in jax.tree.leaves(found):
            sound &= np.isfinite(leaf.reshape(len(losses), -1)).all(1)

        def kept(leaf):
            return np.where(sound.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0)

        return jax.tree.map(kept, found), np.where(sound, losses, np.finfo(float).max)
