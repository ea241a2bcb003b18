"""Gradient descent with momentum."""

import dataclasses
from typing import ClassVar

import optax

from sbjax.common.options import given, option
from sbjax.optimizers.base import Optimizer, chained, clip_norm_option, kernels, length_unit, weight_decay_option


@dataclasses.dataclass(frozen=True)
class Sgd(Optimizer):
    """`optax.sgd` after clipping and an L2 penalty: weight_decay * w is added to the gradient before the momentum.

    >>> import jax.numpy as jnp
    >>> sgd = Sgd(momentum=0.0, weight_decay=0.0, clip_norm=0.5).make(1.0)
    >>> w = jnp.array([3.0, 4.0])
    >>> sgd.update(w, sgd.init(w), w)[0].round(6).tolist()
    [-0.30000001192092896, -0.4000000059604645]
    """

    name: ClassVar[str] = "sgd"
    first_bias_unit = staticmethod(length_unit)

    momentum: float = option(0.9, "share of the last step that is kept", least=0, below=1, off=0.0)
    nesterov: bool = option(True, "take the gradient where the momentum leads", off=False, only={"momentum": given()})
    weight_decay: float = weight_decay_option()
    clip_norm: float = clip_norm_option()

    def make(self, learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
        decay = [optax.add_decayed_weights(self.weight_decay, mask=kernels)] if self.weight_decay else []
        descent = optax.sgd(learning_rate, self.momentum or None, self.nesterov)
        return chained(*decay, descent, clip_norm=self.clip_norm)
