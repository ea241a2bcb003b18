"""A small network that learns CIFAR-10 to 94 % within an hour or two of two CPU cores.

The network and its training (`configs/speedrun.py`) follow the public speed-run recipe of Keller Jordan, arXiv
2404.00498: a frozen first layer that whitens patches, blocks that start as identities, batch norm without scales.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from sbjax import trees
from sbjax.common.options import option
from sbjax.models import layers
from sbjax.models.batch_norm import BatchNorm


class SpeedNet(nn.Module):
    """A 2x2 convolution that whitens, then groups of (3x3, 2x2 max-pooling, 3x3), the largest entry, a dense head.

    The first layer has 4 c pairs of filters, of c channels, see `whitening_filters`: they lie in the collection
    'frozen', and `from_images` sets them; only their biases are trained. The others have no biases, and batch norm
    (running statistics with momentum 0.6) has no scales. With 3 channels and 10 classes there are 1,971,352 trained
    parameters.

    Attributes:
        classes: outputs.
        channels: of the groups.
        width: multiplies them.
        dtype: compute dtype; parameters and logits are float32 or wider.
    """

    classes: int
    channels: Sequence[int] = option((64, 256, 256), "output channels of each group", least=1)
    width: float = option(1.0, "multiplies all channels", above=0)
    dtype: str = layers.dtype_option()

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch classes"]:
        wide, filters = layers.param_dtype(self.dtype), 8 * x.shape[-1]
        kernel = self.variable("frozen", "whitening", jnp.zeros, (2, 2, x.shape[-1], filters), wide).value
        bias = self.param("whitening_bias", nn.initializers.zeros, (filters,), wide)
        x = layers.conv2d(x.astype(self.dtype), kernel.astype(self.dtype), strides=(1, 1), padding=((0, 0), (0, 0)))
        x = nn.gelu(x + trees.along(bias.astype(self.dtype), x), approximate=False)
        for i, channels in enumerate(self.channels):
            features = max(1, round(channels * self.width))
            for j in range(2):
                x = layers.Conv(
                    features, use_bias=False, kernel_init=identity_first, dtype=self.dtype, name=f"conv_{i}_{j}"
                )(x)
                if j == 0 and min(x.shape[1:3]) >= 2:
                    x = layers.max_pool_2x2(x)
                norm = {"momentum": 0.6, "epsilon": 1e-12, "use_scale": False, "dtype": self.dtype}
                x = nn.gelu(BatchNorm(train=train, **norm, name=f"norm_{i}_{j}")(x), approximate=False)
        x = layers.max_over(x.reshape(len(x), -1, x.shape[-1]), 1)
        head = nn.Dense(
            self.classes,
            use_bias=False,
            kernel_init=layers.torch_uniform,
            dtype=self.dtype,
            param_dtype=wide,
            name="head",
        )
        return head(x).astype(wide) / 9

    def from_images(self, variables: dict[str, Any], images: Float[np.ndarray, "n h w c"]) -> dict[str, Any]:
        """The variables with the filters of the first layer that whiten these images."""
        old = variables["frozen"]["whitening"]
        filters = jnp.asarray(whitening_filters(images), old.dtype)
        return {**variables, "frozen": {**variables["frozen"], "whitening": filters}}


def whitening_filters(images: Float[np.ndarray, "n h w c"], *, epsilon: float = 5e-4) -> Float[np.ndarray, "2 2 c f"]:
    """Filters v / sqrt(l + epsilon) and their negatives, for the pairs (l, v) of the patches' second moments.

    Of all 2x2 patches of the images, as vectors p, the matrix is the mean of p p^T; larger l come first.

    >>> filters = whitening_filters(np.random.default_rng(0).normal(size=(8, 9, 9, 3)))
    >>> filters.shape
    (2, 2, 3, 24)
    """
    images = np.asarray(images, np.float64)
    _, height, width, channels = images.shape
    parts = [images[:, i : height - 1 + i, j : width - 1 + j] for i in (0, 1) for j in (0, 1)]
    patches = np.concatenate([part.reshape(-1, channels) for part in parts], axis=1)  # taps in front of channels
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    found = (vectors / np.sqrt(np.maximum(values, 0) + epsilon))[:, ::-1]
    return np.concatenate([found, -found], axis=1).reshape(2, 2, channels, -1)


def identity_first(key, shape, dtype=jnp.float32) -> Float[Array, "kh kw c features"]:
    """PyTorch's distribution of a convolution, but that the first filters give on a channel each, as it is.

    >>> import jax
    >>> kernel = identity_first(jax.random.key(0), (3, 3, 2, 4))
    >>> kernel[1, 1, :, :2].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    kernel = layers.torch_uniform(key, shape, dtype)
    same = min(shape[2:])
    centre = tuple(size // 2 for size in shape[:2])
    first = jnp.zeros((*shape[:3], same), dtype).at[(*centre, jnp.arange(same), jnp.arange(same))].set(1)
    return kernel.at[..., :same].set(first)
