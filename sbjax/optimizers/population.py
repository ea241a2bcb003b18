"""A population of trainings: every replica with hyper-parameters of its own, drawn from a law."""

import math
from typing import NamedTuple

import jax

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

    The loss reads the smoothing; `sbjax.optimizers.adam.population_adamw` reads the factors.

    Raises:
        ValueError: a negative or infinite number, a smoothing that reaches 1.
    """
    for name, value in law._asdict().items():
        if not (math.isfinite(value) and value >= 0) or (name == "label_smoothing" and value >= 1):
            raise ValueError(f"{name}={value} must be >= 0" + (" and < 1" if "label" in name else ""))
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
