"""A network of your own: depthwise-separable convolutions. It is plain Flax and knows nothing of sbjax."""

from collections.abc import Sequence

from flax import linen as nn


class Depthwise(nn.Module):
    """Blocks of a 3x3 convolution of each channel by itself, a 1x1 convolution over channels, and pooling."""

    classes: int
    channels: Sequence[int] = (16, 32)

    @nn.compact
    def __call__(self, x, train: bool = False):
        for features in self.channels:
            x = nn.Conv(x.shape[-1], (3, 3), feature_group_count=x.shape[-1], use_bias=False)(x)
            x = nn.Conv(features, (1, 1), use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=not train)(x)
            x = nn.avg_pool(nn.relu(x), (2, 2), (2, 2))
        return nn.Dense(self.classes)(x.mean((1, 2)))
