"""Toy problems of parameter recovery: teachers, inputs, the training of students, and the last fit."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

# Loaded by its first use.
import scipy
from jaxtyping import Array, Float, Key

from sbjax.config import ConfigError
from sbjax.landscape.students import Spread, two_layer_problem
from sbjax.tasks.teacher_student import ACTIVATIONS
from sbjax.training.gradient_flow import polish

LONGEST = 500  # steps of Adam in one dispatch, so that a run can be stopped


class Family(NamedTuple):
    """Teachers of one shape: units and inputs, without the constant one."""

    width: int
    inputs: int


def families(text: str) -> list[Family]:
    """Of '4:2,5:3'.

    Raises:
        ConfigError: anything else.

    >>> families('4:2,5:3')[1]
    Family(width=5, inputs=3)
    """
    try:
        found = [Family(*map(int, part.split(":"))) for part in text.split(",")]
    except (TypeError, ValueError):
        found = [Family(0, 0)]
    if min(min(family) for family in found) < 1:
        raise ConfigError(f"task.teachers={text!r} must be pairs width:inputs of numbers >= 1, as '4:2,5:3'")
    return found


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


def fine_tune(
    params: dict[str, np.ndarray], inputs: Float[np.ndarray, "n d"], targets: Float[np.ndarray, " n"], activation: str
) -> tuple[dict[str, np.ndarray], float]:
    """All parameters of `teacher_match.evaluate` by Levenberg-Marquardt (MINPACK's), and the mean squared error.

    >>> with jax.enable_x64(True):
    ...     x = draw_inputs(jax.random.key(0), 20, 1)
    ...     start = {'w': np.array([[0.9, 0.1]]), 'a': np.array([[1.2]]), 'constant': np.zeros(1)}
    ...     found, loss = fine_tune(start, x, np.tanh(x[:, 0]), 'tanh')
    >>> found['w'].round(6).tolist(), loss < 1e-20
    ([[1.0, 0.0]], True)
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


class Program:
    """Training of the students of one teacher after another, compiled once for teachers of one shape."""

    def __init__(self, starts, inputs, settings):
        task, self.steps, activation = settings["task"], settings["train_steps"], settings["task"]["activation"]
        self.adam = optax.adam(optax.cosine_decay_schedule(task["learning_rate"], self.steps))

        def advance(shared, students):
            targets, count = shared
            problem = two_layer_problem(inputs, targets, activation)
            slope = jax.grad(lambda params: jnp.sum(problem.residuals(params) ** 2))

            def step(_, carry):
                params, state = carry
                updates, state = self.adam.update(slope(params), state)
                return optax.apply_updates(params, updates), state

            local = len(students[0]["w"])
            group = next(size for size in (5, 4, 3, 2, 1) if local % size == 0)
            return jax.lax.map(lambda s: jax.lax.fori_loop(0, count, step, s), students, batch_size=group)

        def finish(targets, students):
            problem = two_layer_problem(inputs, targets, activation)

            def one(params):
                found = polish(
                    problem.residuals,
                    params,
                    jacobian_fn=problem.jacobian,
                    hessian_fn=problem.hessian,
                    steps=task["polish_steps"],
                    newton_steps=0,
                    final_steps=0,
                )
                return found.params, found.loss

            return jax.lax.map(one, students)

        self.spread = Spread(starts)
        self.advance, self.finish = self.spread.compiled(advance), self.spread.compiled(finish)

    def train(self, starts, targets, stop):
        """Students and losses; None if stopped."""
        students, done = self.spread.placed((starts, jax.vmap(self.adam.init)(starts))), 0
        while done < self.steps:
            if stop():
                return None
            count = min(LONGEST, self.steps - done)
            students = self.advance((jnp.asarray(targets), jnp.asarray(count, jnp.int32)), students)
            done += count
        if stop():
            return None
        return self.spread.collected(self.finish(jnp.asarray(targets), students[0]))
