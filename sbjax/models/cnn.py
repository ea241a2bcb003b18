"""A small convolutional network."""

from collections.abc import Sequence
from typing import ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.asymmetry.figlu import Gate
from sbjax.common.options import option
from sbjax.models import layers


class CNN(nn.Module):
    """Blocks of 3x3 convolution, normalisation, activation and 2x2 max-pooling; global mean; dropout; dense head.

    Maps smaller than 4x4 are not pooled. With channels (32, 64, 64) and one input channel it has 56,554 parameters for
    any image size.

    Attributes:
        classes: outputs.
        channels: output channels of each block.
        norm: 'batch', 'group', 'layer' or 'none'.
        dropout: rate in [0, 1) before the head.
        activation: a name of `layers.ACTIVATIONS`, or a `Gate`.
        dtype: compute dtype; parameters and logits are float32 or wider.
    """

    classes: int
    channels: Sequence[int] = option((32, 64, 64), "output channels of each block", least=1)
    norm: str = layers.norm_option("batch")
    dropout: float = layers.dropout_option()
    activation: str | Gate = layers.activation_option("relu")
    dtype: str = layers.dtype_option()
    accepts_gate: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch classes"]:
        for i, features in enumerate(self.channels):
            x = layers.Conv(features, use_bias=self.norm == "none", dtype=self.dtype, name=f"conv_{i}")(x)
            x = layers.make_norm(self.norm, train=train, name=f"norm_{i}", dtype=self.dtype)(x)
            x = layers.make_activation(self.activation, name=f"act_{i}")(x)
            if min(x.shape[1:3]) >= 4:
                x = layers.max_pool_2x2(x)
        x = layers.dropout(x.mean((1, 2)), self.dropout, train=train)
        wide = layers.param_dtype(self.dtype)
        return nn.Dense(self.classes, dtype=self.dtype, param_dtype=wide, name="head")(x).astype(wide)
