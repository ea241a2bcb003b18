"""Inverted residual blocks with squeeze and excitation, which MobileNetV3 and EfficientNet share."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.models import layers


class Norms(NamedTuple):
    """How maps are normalised: kind and constants, see `layers.make_norm`."""

    kind: str
    epsilon: float = 1e-5
    momentum: float = 0.9


class SqueezeExcite(nn.Module):
    """Every channel times a gate, a perceptron of the means of all channels (Hu et al., arXiv 1709.01507).

    Attributes:
        squeezed: hidden units.
        activation, gate: names of `layers.ACTIVATIONS`, of the hidden units and of the gate.
        dtype: compute dtype.
    """

    squeezed: int
    activation: str
    gate: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c"]:
        wide = layers.param_dtype(self.dtype)
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=wide, kernel_init=layers.he_normal_fan_out)
        y = layers.ACTIVATIONS[self.activation](dense(self.squeezed, name="reduce")(x.mean((1, 2))))
        return x * layers.ACTIVATIONS[self.gate](dense(x.shape[-1], name="restore")(y))[:, None, None]


class InvertedResidual(nn.Module):
    """1x1 to more channels, depthwise convolution, squeeze and excitation, 1x1 to few channels without activation.

    The input is added where the map keeps its shape; in training the rest is left out for a whole image at rate `drop`
    (stochastic depth, Huang et al., arXiv 1603.09382), and scaled by 1 / (1 - drop) where it is not.

    Attributes:
        features: output channels.
        expanded: channels inside; as many as the input has = no first convolution.
        kernel_size, stride: of the depthwise convolution.
        squeezed: hidden units of squeeze and excitation; 0 = none.
        activation: a name of `layers.ACTIVATIONS`.
        excitation: (activation, gate) of `SqueezeExcite`.
        norms: normalisation.
        drop: rate in [0, 1).
        dtype: compute dtype.
    """

    features: int
    expanded: int
    kernel_size: int
    stride: int
    squeezed: int
    activation: str
    excitation: tuple[str, str]
    norms: Norms
    drop: float
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch h2 w2 features"]:
        act = layers.ACTIVATIONS[self.activation]
        conv, y = partial(convolved, norms=self.norms, train=train, dtype=self.dtype), x
        if self.expanded != x.shape[-1]:
            y = act(conv(y, self.expanded, 1, name="expand"))
        y = act(conv(y, self.expanded, self.kernel_size, self.stride, name="depthwise", groups=self.expanded))
        if self.squeezed:
            y = SqueezeExcite(self.squeezed, *self.excitation, self.dtype, name="squeeze")(y)
        y = conv(y, self.features, 1, name="project")
        if x.shape != y.shape:
            return y
        if self.drop:
            y = nn.Dropout(self.drop, broadcast_dims=(1, 2, 3), deterministic=not train)(y)
        return x + y


def convolved(
    x: Array, features: int, size: int, stride: int = 1, *, name: str, norms: Norms, train: bool, dtype: str, **given
) -> Array:
    """Convolution `conv_NAME` and normalisation `norm_NAME`, in the module that calls."""
    conv = layers.Conv(features, size, stride, use_bias=norms.kind == "none", dtype=dtype, name=f"conv_{name}", **given)
    constants = {"epsilon": norms.epsilon, "momentum": norms.momentum}
    return layers.make_norm(norms.kind, train=train, name=f"norm_{name}", dtype=dtype, **constants)(conv(x))


def stem(x: Array, features: int, kind: str, **given) -> Array:
    """3x3 of stride 2 ('imagenet') or 1 ('cifar', 'stride1'), or 1x1 ('sub_kernel', see `layers.sub_kernel_init`)."""
    if kind == "sub_kernel":
        return convolved(x, features, 1, kernel_init=layers.sub_kernel_init(3), name="stem", **given)
    return convolved(x, features, 3, 2 if kind == "imagenet" else 1, name="stem", **given)


def divisible(channels: float) -> int:
    """The multiple of 8 next to a number of channels, at least 8 and not below 90 % of it.

    >>> [divisible(c) for c in (3, 18, 20, 22.5, 240.)]
    [8, 24, 24, 24, 240]
    """
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


def logits(x: Array, classes: int, *, kernel_init: nn.initializers.Initializer, dtype: str) -> Float[Array, "batch n"]:
    """The dense layer `head`, in the module that calls."""
    wide = layers.param_dtype(dtype)
    return nn.Dense(classes, dtype=dtype, param_dtype=wide, kernel_init=kernel_init, name="head")(x).astype(wide)


def uniform_fan_out(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Uniform on [-1 / sqrt(out), 1 / sqrt(out)], for EfficientNet's last layer."""
    return nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")(key, shape, dtype)
