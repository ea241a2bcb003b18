"""Residual networks: ResNet-8, ResNet-18, ResNet-20, ResNet-50 and ResNet-110 (He et al., arXiv 1512.03385)."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.asymmetry.figlu import Gate
from sbjax.common.options import option
from sbjax.models import layers


class Block(nn.Module):
    """Residual block: convolutions and a shortcut, with the last activation after the sum.

    Two 3x3 convolutions, or with `bottleneck` a 1x1, a 3x3 that has the stride, and a 1x1 to four times the features.
    """

    features: int
    stride: int
    shortcut: str
    norm: str
    activation: str | Gate
    dtype: str
    bottleneck: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch h2 w2 features"]:
        act = partial(layers.make_activation, self.activation)
        norm = partial(layers.make_norm, self.norm, train=train, dtype=self.dtype)
        conv = partial(layers.Conv, use_bias=self.norm == "none", dtype=self.dtype)
        plan = [(self.features, 3, self.stride), (self.features, 3, 1)]
        if self.bottleneck:
            plan = [(self.features, 1, 1), (self.features, 3, self.stride), (4 * self.features, 1, 1)]
        y, last = x, len(plan) - 1
        for i, (features, size, stride) in enumerate(plan):
            y = norm(name=f"norm_{i}")(conv(features, size, stride, name=f"conv_{i}")(y))
            y = y if i == last else act(name=f"act_{i}")(y)
        if x.shape != y.shape:
            if self.shortcut == "projection":
                x = norm(name="norm_shortcut")(conv(y.shape[-1], 1, self.stride, name="conv_shortcut")(x))
            else:  # option A of the paper: subsample, and pad the new channels with zeros
                x = x[:, :: self.stride, :: self.stride]
                missing = y.shape[-1] - x.shape[-1]
                x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)))
        return act(name=f"act_{last}")(x + y)


class ResNet(nn.Module):
    """Stages of residual blocks; each stage after the first halves the map and doubles the channels.

    Attributes:
        classes: outputs.
        stages: blocks in each stage.
        base: channels of the first stage at width 1.
        bottleneck: blocks of three convolutions, with four times as many channels between them.
        width: multiplies all channels.
        depth: multiplies the blocks of each stage.
        stem: 'cifar' (3x3, stride 1), 'imagenet' (7x7, stride 2, then 3x3 max-pooling of stride 2), or 'sub_kernel'
            (3x3 and pooling: what 'imagenet' does with an image expanded by K = 2, see `layers.sub_kernel_init`).
        shortcut: if shapes change: 'projection' (1x1 convolution and normalisation) or 'identity' (option A).
        norm: 'batch', 'group', 'layer' or 'none'.
        dropout: rate in [0, 1) before the head.
        activation: a name of `layers.ACTIVATIONS`, or a `Gate`.
        dtype: compute dtype; parameters and logits are float32 or wider.
    """

    classes: int
    stages: Sequence[int]
    base: int
    bottleneck: bool = False
    width: float = option(1.0, "multiplies all channels", above=0)
    depth: float = layers.depth_option()
    stem: str = layers.stem_option()
    shortcut: str = option("projection", "where shapes change", choices=("projection", "identity"))
    norm: str = layers.norm_option("batch")
    dropout: float = layers.dropout_option()
    activation: str | Gate = layers.activation_option("relu")
    dtype: str = layers.dtype_option()
    accepts_gate: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch classes"]:
        channels = [round(self.base * self.width) * 2**i for i in range(len(self.stages))]
        x = layers.stem_conv(channels[0], self.stem, use_bias=self.norm == "none", dtype=self.dtype)(x)
        x = layers.make_norm(self.norm, train=train, name="norm_stem", dtype=self.dtype)(x)
        x = layers.make_activation(self.activation, name="act_stem")(x)
        if self.stem != "cifar":
            x = layers.max_pool_3x3(x)
        for stage, (blocks, features) in enumerate(zip(self.stages, channels, strict=True)):
            for block in range(layers.deep(blocks, self.depth)):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage_{stage}_block_{block}"
                given = (self.shortcut, self.norm, self.activation, self.dtype, self.bottleneck)
                x = Block(features, stride, *given, name=name)(x, train)
        x = layers.dropout(x.mean((1, 2)), self.dropout, train=train)
        wide = layers.param_dtype(self.dtype)
        # ResNet-50 starts as torchvision's does.
        start = {"kernel_init": layers.torch_uniform} if self.bottleneck else {}
        return nn.Dense(self.classes, dtype=self.dtype, param_dtype=wide, name="head", **start)(x).astype(wide)
