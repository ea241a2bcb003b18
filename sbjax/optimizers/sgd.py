"""Gradient descent with momentum."""

import dataclasses
from typing import ClassVar

import jax
import optax
from jaxtyping import PyTree

from sbjax.optimizers.base import Optimizer, chained, clip_norm_option, kernels, length_unit, weight_decay_option
from sbjax.optimizers.look_ahead import look_ahead
from sbjax.options import given, option


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
    norm_bias_scale: float = option(1.0, "multiplies the learning rate of biases of normalisations", above=0, off=1.0)
    look_ahead_steps: int = option(0, "steps between averages with a slow copy, see `look_ahead`; 0 = none", least=0,
                                   off=0)  # fmt: skip
    look_ahead_decay: float = option(0.95, "of that copy, in a step at the end", least=0, below=1,
                                     only={"look_ahead_steps": given()})  # fmt: skip

    def make(self, learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
        decay = [optax.add_decayed_weights(self.weight_decay, mask=kernels)] if self.weight_decay else []
        descent = optax.sgd(learning_rate, self.momentum or None, self.nesterov)
        own = [optax.masked(optax.scale(self.norm_bias_scale), norm_biases)] if self.norm_bias_scale != 1 else []
        return chained(*decay, descent, *own, clip_norm=self.clip_norm)

    def over(
        self, optimizer: optax.GradientTransformationExtraArgs, train_steps: int
    ) -> optax.GradientTransformationExtraArgs:
        if not self.look_ahead_steps:
            return optimizer
        given = {"every_steps": self.look_ahead_steps, "decay": self.look_ahead_decay}
        return look_ahead(optimizer, **given, train_steps=train_steps)


def norm_biases(params: PyTree) -> PyTree:
    """Mask of the arrays 'bias' of layers whose name begins with 'norm'.

    >>> norm_biases({'norm_0': {'bias': 0, 'scale': 0}, 'dense': {'bias': 0}})
    {'dense': {'bias': False}, 'norm_0': {'bias': True, 'scale': False}}
    """

    def chosen(path, _):
        names = [str(getattr(part, "key", part)) for part in path]
        return names[-1:] == ["bias"] and len(names) > 1 and names[-2].startswith("norm")

    return jax.tree_util.tree_map_with_path(chosen, params)
