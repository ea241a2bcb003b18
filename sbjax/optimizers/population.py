"""A population of trainings: every replica with hyper-parameters of its own, drawn from a law."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from sbjax import rng
from sbjax.tasks.task import Task

COLLECTION = "hyper"


class Population(NamedTuple):
    """Laws of hyper-parameters; 0 = the same for all replicas.

    Attributes:
        learning_rate: decades: the learning rate is multiplied by 10^-U(0, learning_rate).
        weight_decay: decades, likewise.
        label_smoothing: the smoothing is drawn from U(0, label_smoothing).
    """

    learning_rate: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0


def with_population(task: Task, law: Population) -> Task:
    """The task with variables['hyper'] = {'learning_rate', 'weight_decay': factors, 'label_smoothing': a number},
    which depend on the replica alone: replica r has the same ones in every arm.

    The loss reads the smoothing; `population_adamw` reads the factors.

    Raises:
        ValueError: a negative or infinite number, a smoothing that reaches 1.
    """
    for name, value in law._asdict().items():
        if not (math.isfinite(value) and value >= 0) or (name == "label_smoothing" and value >= 1):
            raise ValueError(f"population.{name}={value} must be >= 0" + (" and < 1" if "label" in name else ""))
    if not any(law):
        return task

    def init(key):
        shares = jax.random.uniform(rng.stream(key, COLLECTION), (3,))
        hyper = {
            "learning_rate": 10 ** (-law.learning_rate * shares[0]),
            "weight_decay": 10 ** (-law.weight_decay * shares[1]),
            "label_smoothing": law.label_smoothing * shares[2],
        }
        return {**task.init(key), COLLECTION: hyper}

    return task._replace(init=init)


def population_adamw(
    learning_rate: optax.ScalarOrSchedule, b1: float, b2: float, weight_decay: float, mask: PyTree = None
) -> optax.GradientTransformationExtraArgs:
    """AdamW whose learning rate and decay are multiplied by `hyper['learning_rate']` and `hyper['weight_decay']`, an
    extra argument of `update`; without it, `optax.adamw`.

    >>> w, ones = jnp.ones(2), {'learning_rate': 1.0, 'weight_decay': 1.0}
    >>> optimizer = population_adamw(0.1, 0.9, 0.999, 0.5)
    >>> updates, _ = optimizer.update(w, optimizer.init(w), w, hyper=ones)
    >>> [round(float(u), 4) for u in updates]
    [-0.15, -0.15]
    """
    adam = optax.scale_by_adam(b1, b2)
    rate = optax.scale_by_learning_rate(learning_rate)
    decay = optax.add_decayed_weights(weight_decay, mask)

    def init(params):
        return adam.init(params), rate.init(params), decay.init(params)

    def update(updates, state, params=None, *, hyper=None, **extra):
        del extra
        hyper = hyper or {"learning_rate": 1.0, "weight_decay": 1.0}
        updates, adam_state = adam.update(updates, state[0], params)
        decayed, decay_state = decay.update(jax.tree.map(jnp.zeros_like, updates), state[2], params)
        updates = jax.tree.map(lambda u, d: u + hyper["weight_decay"] * d, updates, decayed)
        updates, rate_state = rate.update(updates, state[1], params)
        updates = jax.tree.map(lambda u: hyper["learning_rate"] * u, updates)
        return updates, (adam_state, rate_state, decay_state)

    return optax.GradientTransformationExtraArgs(init, update)
