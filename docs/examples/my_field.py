"""A network of your own for an equation or a function: sine activations on scaled coordinates."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn


class Siren(nn.Module):
    """sin(frequency (W x + b)), then plain sine layers."""

    unknowns: int
    widths: Sequence[int] = (32, 32)
    frequency: float = 3.0

    @nn.compact
    def __call__(self, x):
        x = self.frequency * x
        for width in self.widths:
            x = jnp.sin(nn.Dense(width)(x))
        return nn.Dense(self.unknowns)(x)
