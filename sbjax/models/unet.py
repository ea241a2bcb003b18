"""A U-Net: from an image to a map of the same height and width."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.common.options import option
from sbjax.expansion.kinds import Expansion
from sbjax.models import layers


class UNet(nn.Module):
    """Levels of two 3x3 convolutions each, halved by max-pooling on the way down; on the way up, the map below, each
    pixel as a block of 2x2, beside the map of this level; a 1x1 convolution as head.

    Level l has width * 2^l channels. With one input channel, batch norm and 2 outputs there are 487,730 parameters at
    width 16 and 4 levels. Sides that 2^(depth - 1) does not divide are filled up with copies of the border, which are
    cut off at the end.

    Attributes:
        outputs: channels of the map.
        sites: an image expansion whose data sites are all that is wanted: the head runs there only, which
            gives those of the whole map: it looks at one place at a time.
        width: channels of the first level.
        depth: levels.
        norm: 'batch', 'group', 'layer' or 'none'.
        activation: a name of `layers.ACTIVATIONS`.
        dtype: compute dtype; parameters and outputs are float32 or wider.

    Source of the form: Ronneberger, Fischer, Brox, arXiv 1505.04597; here with padded convolutions, and pixels repeated
    where they have transposed convolutions.
    """

    outputs: int
    sites: Expansion | None = None
    width: int = option(16, "channels of the first level; each level below has twice as many", least=1, most=10**4)
    depth: int = option(4, "levels", least=1, most=10)
    norm: str = layers.norm_option("batch")
    activation: str = layers.activation_option("relu")
    dtype: str = layers.dtype_option()

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch h2 w2 outputs"]:
        height, width = x.shape[1:3]
        multiple = 2 ** (self.depth - 1)
        missing = [(0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0)]
        x = jnp.pad(x, missing, mode="edge") if any(after for _, after in missing) else x
        maps = []
        for level in range(self.depth):
            x = self._level(x if level == 0 else layers.max_pool_2x2(x), level, "down", train)
            maps.append(x)
        for level in reversed(range(self.depth - 1)):
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = self._level(jnp.concatenate([maps[level], x], axis=-1), level, "up", train)
        x = x[:, :height, :width]
        x = x if self.sites is None else self.sites.contract(x)
        wide = layers.param_dtype(self.dtype)
        return nn.Dense(self.outputs, dtype=self.dtype, param_dtype=wide, name="head")(x).astype(wide)

    def _level(self, x, level, way, train):
        for i in range(2):
            name = f"{way}_{level}_{i}"
            x = layers.Conv(self.width * 2**level, use_bias=self.norm == "none", dtype=self.dtype, name=f"conv_{name}")(
                x
            )
            x = layers.make_norm(self.norm, train=train, name=f"norm_{name}", dtype=self.dtype)(x)
            x = layers.ACTIVATIONS[self.activation](x)
        return x
