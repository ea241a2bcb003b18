"""The networks of published zoos, for whoever reads their parameters: see `sbjax.data.zoo_published`."""

from collections.abc import Sequence

from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.common.options import option
from sbjax.models import layers


class StridedCNN(nn.Module):
    """3x3 convolutions of stride 2 without padding, each with bias and activation; global mean; dense head.

    With channels (16, 16, 16) and grey images it has 4,970 parameters: the network of the Small CNN Zoo (Unterthiner et
    al., arXiv 2002.11448).

    Attributes:
        classes: outputs.
        channels: output channels of each convolution.
        activation: a name of `layers.ACTIVATIONS`.
    """

    classes: int
    channels: Sequence[int] = option((16, 16, 16), "output channels of each convolution", least=1)
    activation: str = layers.activation_option("relu")

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch classes"]:
        for i, features in enumerate(self.channels):
            x = layers.Conv(features, stride=2, padding=0, use_bias=True, name=f"conv_{i}")(x)
            x = layers.make_activation(self.activation, name=f"act_{i}")(x)
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


class PooledCNN(nn.Module):
    """Convolutions without padding, the first ones followed by 2x2 max-pooling; a hidden dense layer; a dense head.

    With channels (8, 6, 4), kernels of 5, 5 and 2, two poolings and grey images of 28 pixels it has 2,464 parameters:
    the small network of Schuerholt et al., arXiv 2209.14764. Entries of a map are in the order channel, row, column
    before the first dense layer, as PyTorch has them.

    Attributes:
        classes: outputs.
        channels: output channels of each convolution.
        kernels: sides of their kernels.
        pooled: how many of them are followed by a pooling.
        hidden: width of the dense layer.
        activation: a name of `layers.ACTIVATIONS`.
    """

    classes: int
    channels: Sequence[int] = option((8, 6, 4), "output channels of each convolution", least=1)
    kernels: Sequence[int] = option((5, 5, 2), "sides of their kernels", least=1)
    pooled: int = option(2, "convolutions that are followed by a pooling", least=0)
    hidden: int = option(20, "width of the dense layer", least=1)
    activation: str = layers.activation_option("tanh")

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch classes"]:
        for i, (features, size) in enumerate(zip(self.channels, self.kernels, strict=True)):
            x = layers.Conv(features, size, padding=0, use_bias=True, name=f"conv_{i}")(x)
            x = layers.max_pool_2x2(x) if i < self.pooled else x
            x = layers.make_activation(self.activation, name=f"act_{i}")(x)
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        x = layers.make_activation(self.activation, name="act_dense")(nn.Dense(self.hidden, name="dense_0")(x))
        return nn.Dense(self.classes, name="head")(x)
