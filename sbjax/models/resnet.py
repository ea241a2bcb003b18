"""Residual networks: ResNet-8, ResNet-18 and ResNet-20 (He et al., arXiv 1512.03385)."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.asymmetry.figlu import Gate
from sbjax.models import layers
from sbjax.options import option


class Block(nn.Module):
    """Residual block: two 3x3 convolutions and a shortcut, with the last activation after the sum."""

    features: int
    stride: int
    shortcut: str
    norm: str
    activation: str | Gate
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch h2 w2 features"]:
        act = partial(layers.make_activation, self.activation)
        norm = partial(layers.make_norm, self.norm, train=train, dtype=self.dtype)
        conv = partial(layers.Conv, self.features, use_bias=self.norm == "none", dtype=self.dtype)
        y = act(name="act_0")(norm(name="norm_0")(conv(stride=self.stride, name="conv_0")(x)))
        y = norm(name="norm_1")(conv(name="conv_1")(y))
        if x.shape != y.shape:
            if self.shortcut == "projection":
                x = norm(name="norm_shortcut")(conv(kernel_size=1, stride=self.stride, name="conv_shortcut")(x))
            else:  # option A of the paper: subsample, and pad the new channels with zeros
                x = x[:, :: self.stride, :: self.stride]
                missing = self.features - x.shape[-1]
                x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)))
        return act(name="act_1")(x + y)


class ResNet(nn.Module):
    """Stages of residual blocks; each stage after the first halves the map and doubles the channels.

    Attributes:
        classes: outputs.
        stages: blocks in each stage.
        base: channels of the first stage at width 1.
        width: multiplies all channels.
        stem: 'cifar' (3x3, stride 1) or 'imagenet' (7x7, stride 2, then 3x3 max-pooling of stride 2).
        shortcut: if shapes change: 'projection' (1x1 convolution and normalisation) or 'identity' (option A).
        norm: 'batch', 'group', 'layer' or 'none'.
        dropout: rate in [0, 1) before the head.
        activation: a name of `layers.ACTIVATIONS`, or a `Gate`.
        dtype: compute dtype; parameters and logits are float32 or wider.
    """

    classes: int
    stages: Sequence[int]
    base: int
    width: float = option(1.0, "multiplies all channels", above=0)
    stem: str = option("cifar", "3x3 ('cifar') or 7x7 and pooling ('imagenet')", choices=("cifar", "imagenet"))
    shortcut: str = option("projection", "where shapes change", choices=("projection", "identity"))
    norm: str = layers.norm_option("batch")
    dropout: float = layers.dropout_option()
    activation: str | Gate = layers.activation_option("relu")
    dtype: str = layers.dtype_option()
    accepts_gate: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch classes"]:
        channels = [round(self.base * self.width) * 2**i for i in range(len(self.stages))]
        size, stride = (3, 1) if self.stem == "cifar" else (7, 2)
        x = layers.Conv(channels[0], size, stride, use_bias=self.norm == "none", dtype=self.dtype, name="conv_stem")(x)
        x = layers.make_norm(self.norm, train=train, name="norm_stem", dtype=self.dtype)(x)
        x = layers.make_activation(self.activation, name="act_stem")(x)
        if self.stem == "imagenet":
            x = layers.max_pool_3x3(x)
        for stage, (blocks, features) in enumerate(zip(self.stages, channels, strict=True)):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage_{stage}_block_{block}"
                x = Block(features, stride, self.shortcut, self.norm, self.activation, self.dtype, name=name)(x, train)
        x = layers.dropout(x.mean((1, 2)), self.dropout, train=train)
        wide = layers.param_dtype(self.dtype)
        return nn.Dense(self.classes, dtype=self.dtype, param_dtype=wide, name="head")(x).astype(wide)
