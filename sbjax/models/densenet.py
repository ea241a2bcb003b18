"""DenseNet-121 (Huang et al., arXiv 1608.06993)."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.common.options import option
from sbjax.models import layers

_KERNELS = nn.initializers.he_normal()


class DenseLayer(nn.Module):
    """Normalisation, activation, 1x1 to 4 times the growth, the same again, 3x3 to the growth: new channels."""

    growth: int
    norm: str
    activation: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch h w growth"]:
        norm = partial(layers.make_norm, self.norm, train=train, dtype=self.dtype)
        conv = partial(layers.Conv, use_bias=self.norm == "none", kernel_init=_KERNELS, dtype=self.dtype)
        act = layers.ACTIVATIONS[self.activation]
        x = conv(4 * self.growth, 1, name="conv_0")(act(norm(name="norm_0")(x)))
        return conv(self.growth, 3, name="conv_1")(act(norm(name="norm_1")(x)))


class Transition(nn.Module):
    """Normalisation, activation, 1x1 to half the channels, mean over 2x2; a map of one row or column stays."""

    norm: str
    activation: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch h2 w2 half"]:
        y = layers.ACTIVATIONS[self.activation](
            layers.make_norm(self.norm, train=train, name="norm", dtype=self.dtype)(x)
        )
        bias = self.norm == "none"
        conv = layers.Conv(x.shape[-1] // 2, 1, use_bias=bias, kernel_init=_KERNELS, dtype=self.dtype, name="conv")
        # The mean commutes with a 1x1 convolution, which then has a quarter of the positions.
        return conv(layers.avg_pool_2x2(y) if min(y.shape[1:3]) > 1 else y)


class DenseNet(nn.Module):
    """Blocks of layers, each of which reads all channels before it: `block_0_layer_0`, .., `transition_0`, ..

    Kernels start He-normal (fan-in), as in torchvision's network, whose weights `sbjax.models.from_torchvision` reads.
    6,964,106 parameters with 10 classes and the ImageNet stem.

    Attributes:
        classes: outputs.
        depths: layers in each block.
        width: multiplies all channels: 32 that a layer adds, 64 of the stem.
        depth: multiplies the layers of each block.
        stem: 'imagenet' (7x7, stride 2, then 3x3 max-pooling of stride 2), 'cifar' (3x3, stride 1), or 'sub_kernel'
            (3x3 and pooling: what 'imagenet' does with an image expanded by K = 2, see `layers.sub_kernel_init`).
        norm: 'batch', 'group', 'layer' or 'none'.
        dropout: rate in [0, 1) before the head.
        activation: a name of `layers.ACTIVATIONS`.
        dtype: compute dtype; parameters and logits are float32 or wider.
    """

    classes: int
    depths: Sequence[int]
    width: float = option(1.0, "multiplies all channels", above=0)
    depth: float = layers.depth_option()
    stem: str = layers.stem_option()
    norm: str = layers.norm_option("batch")
    dropout: float = layers.dropout_option()
    activation: str = layers.activation_option("relu")
    dtype: str = layers.dtype_option()

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch classes"]:
        given = {"norm": self.norm, "activation": self.activation, "dtype": self.dtype}
        growth, act = max(1, round(32 * self.width)), layers.ACTIVATIONS[self.activation]
        norm = partial(layers.make_norm, self.norm, train=train, dtype=self.dtype)
        x = layers.stem_conv(
            2 * growth, self.stem, use_bias=self.norm == "none", kernel_init=_KERNELS, dtype=self.dtype
        )(x)
        x = act(norm(name="norm_stem")(x))
        if self.stem != "cifar":
            x = layers.max_pool_3x3(x)
        for i, depth in enumerate(self.depths):
            for j in range(layers.deep(depth, self.depth)):
                new = DenseLayer(growth, **given, name=f"block_{i}_layer_{j}")(x, train)
                x = jnp.concatenate([x, new], -1)
            if i < len(self.depths) - 1:
                x = Transition(**given, name=f"transition_{i}")(x, train)
        x = layers.dropout(act(norm(name="norm_last")(x)).mean((1, 2)), self.dropout, train=train)
        wide = layers.param_dtype(self.dtype)
        head = nn.Dense(self.classes, dtype=self.dtype, param_dtype=wide, kernel_init=layers.torch_uniform, name="head")
        return head(x).astype(wide)
