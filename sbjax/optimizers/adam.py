"""Adam, and AdamW with factors on its learning rate and decay that a replica may have of its own."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from sbjax.optimizers.base import (
    Optimizer,
    b1_option,
    b2_option,
    chained,
    clip_norm_option,
    kernels,
    step_unit,
    weight_decay_option,
)


@dataclasses.dataclass(frozen=True)
class Adam(Optimizer):
    """`optax.adam` after clipping, without decay."""

    name: ClassVar[str] = "adam"
    first_bias_unit = staticmethod(step_unit)

    b1: float = b1_option()
    b2: float = b2_option()
    clip_norm: float = clip_norm_option()

    def make(self, learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
        return chained(optax.adam(learning_rate, self.b1, self.b2), clip_norm=self.clip_norm)


@dataclasses.dataclass(frozen=True)
class AdamW(Optimizer):
    """`population_adamw` after clipping: decay apart from the gradient, and factors that a replica draws."""

    name: ClassVar[str] = "adamw"
    reads_population: ClassVar[bool] = True
    first_bias_unit = staticmethod(step_unit)

    b1: float = b1_option()
    b2: float = b2_option()
    weight_decay: float = weight_decay_option()
    clip_norm: float = clip_norm_option()

    def make(self, learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
        adamw = population_adamw(learning_rate, self.b1, self.b2, self.weight_decay, mask=kernels)
        return chained(adamw, clip_norm=self.clip_norm)


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
