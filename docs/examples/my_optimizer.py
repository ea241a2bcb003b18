"""Two optimisers of one's own: Lion, written out, and sharpness-aware descent.

    python runs/train.py --config=configs/quickstart.py:smoke --workdir=/tmp/lion \
        --config.optimizer.name=docs/examples/my_optimizer.py:Lion --config.optimizer.learning_rate=1e-3
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from sbjax import option
from sbjax.optimizers import Optimizer


@dataclasses.dataclass(frozen=True)
class Lion(Optimizer):
    """The sign of a mean of gradients: every weight moves by the learning rate (Chen et al., arXiv 2302.06675).

    w -= learning_rate * (sign(b1 m + (1 - b1) g) + weight_decay * w),    m = b2 m + (1 - b2) g
    """

    b1: float = option(0.9, "share of the mean in the step's direction", least=0, below=1)
    b2: float = option(0.99, "share of the mean that a step keeps", least=0, below=1)
    weight_decay: float = option(0.0, "decay of all weights", least=0)

    def make(self, learning_rate):
        """`learning_rate` is an optax schedule: leave it to optax to count the steps."""

        def init(params):
            return optax.tree.zeros_like(params)

        def update(grads, mean, params=None):
            direction = jax.tree.map(lambda m, g: jnp.sign(self.b1 * m + (1 - self.b1) * g), mean, grads)
            return direction, jax.tree.map(lambda m, g: self.b2 * m + (1 - self.b2) * g, mean, grads)

        return optax.chain(
            optax.GradientTransformation(init, update),
            optax.add_decayed_weights(self.weight_decay),
            optax.scale_by_learning_rate(learning_rate),
        )

    def first_bias_unit(self, constants):
        """All steps are of one size, so a sum of 1 + n weights with factors c moves so many times as far as one."""
        return 1 + sum(abs(c) for c in constants)


def sharpness_aware(learning_rate, *, radius: float = 0.05, momentum: float = 0.9):
    """Descent along the gradient at the highest point of a ball around w (Foret et al., arXiv 2010.01412)."""
    descent = optax.sgd(learning_rate, momentum)

    def update(grads, state, params, *, value_fn, **extra):
        del extra
        scale = radius / (optax.tree.norm(grads) + 1e-12)
        uphill = jax.tree.map(lambda w, g: w + scale * g, params, grads)
        return descent.update(jax.grad(value_fn)(uphill), state, params)

    return optax.GradientTransformationExtraArgs(descent.init, update)
