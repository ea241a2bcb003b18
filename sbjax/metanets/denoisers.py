"""Networks that take noise off the parameters of other networks, told how noisy they are and which loss is wanted."""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sbjax import trees
from sbjax.common.options import option
from sbjax.metanets.blocks import from_blocks, to_blocks
from sbjax.metanets.equivariant import EquivariantLinear

WAVES = 8


def condition(level: Float[Array, " batch"], prompt: Float[Array, " batch"]) -> Float[Array, "batch features"]:
    """Both numbers, and sines and cosines of `WAVES` frequencies of the noise level.

    >>> condition(jnp.zeros(3), jnp.ones(3)).shape
    (3, 18)
    """
    level = level[:, None]
    angles = math.pi * level * trees.along(2.0 ** jnp.arange(WAVES, dtype=level.dtype), level)
    return jnp.concatenate([level, prompt[:, None], jnp.sin(angles), jnp.cos(angles)], axis=1)


class FlatDenoiser(nn.Module):
    """A residual perceptron on all parameters in a row, which knows nothing of permutations.

    Attributes:
        reading: of the networks, see `sbjax.metanets.reading`.
        width: of its hidden layers.
        depth: residual blocks.

    Called with parameters [batch, size], noise levels in (0, 1) and prompts [batch].
    """

    reading: Any
    width: int = option(256, "of the hidden layers", least=1, most=10**5)
    depth: int = option(3, "residual blocks", least=1, most=100)

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch size"], level: Float[Array, " batch"], prompt: Float[Array, " batch"]
    ) -> Float[Array, "batch size"]:
        told = nn.gelu(nn.Dense(self.width, name="told")(condition(level, prompt)))
        h = nn.Dense(self.width, name="first")(x)
        for number in range(self.depth):
            inner = nn.LayerNorm(name=f"norm_{number}")(h) + nn.Dense(self.width, name=f"told_{number}")(told)
            h = h + nn.Dense(self.width, name=f"dense_{number}")(nn.gelu(inner))
        return nn.Dense(x.shape[-1], name="last")(nn.gelu(nn.LayerNorm(name="norm")(h)))


class EquivariantDenoiser(nn.Module):
    """Equivariant layers of the networks' permutation spec: units in another order give the same in that order.

    Attributes:
        reading: of the networks, see `sbjax.metanets.reading`.
        channels: of each entry between the layers.
        depth: layers between the first and the last.

    Called as `FlatDenoiser`.
    """

    reading: Any
    channels: int = option(64, "of each entry between the layers", least=1, most=10**4)
    depth: int = option(3, "layers between the first and the last", least=1, most=100)

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch size"], level: Float[Array, " batch"], prompt: Float[Array, " batch"]
    ) -> Float[Array, "batch size"]:
        layout, told = self.reading.layout, condition(level, prompt)

        def beside(block):
            shape = (len(told), *(1,) * (block.ndim - 2), told.shape[1])
            spread = jnp.broadcast_to(told.reshape(shape), (*block.shape[:-1], told.shape[1]))
            return jnp.concatenate([block, spread], axis=-1)

        blocks = to_blocks(layout, x)
        for number in range(self.depth + 1):
            layer = EquivariantLinear(layout, self.channels, keep_features=False, name=f"layer_{number}")
            made = layer(tuple(map(beside, blocks)))
            made = tuple(nn.gelu(nn.LayerNorm(name=f"norm_{number}_{i}")(block)) for i, block in enumerate(made))
            blocks = made if number == 0 else tuple(old + new for old, new in zip(blocks, made))
        return from_blocks(layout, EquivariantLinear(layout, 1, name="last")(tuple(map(beside, blocks))))
