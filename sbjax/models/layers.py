"""Layers shared by the architecture families: convolution, normalisation, pooling, dropout, activations."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from sbjax import trees
from sbjax.asymmetry.figlu import Gate, figlu
from sbjax.common.options import option
from sbjax.models.batch_norm import BatchNorm
from sbjax.models.convolution import conv2d

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "celu": nn.celu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "hard_sigmoid": nn.hard_sigmoid,
    "hard_swish": nn.hard_swish,
    "identity": lambda x: x,
    "leaky_relu": nn.leaky_relu,
    "relu": nn.relu,
    "selu": nn.selu,
    "sigmoid": nn.sigmoid,
    "silu": nn.silu,
    "sin": jnp.sin,
    "softplus": nn.softplus,
    "tanh": nn.tanh,
}
# Highest order of differentiation that an activation is of use for; others have all orders. Above it, derivatives are
# zero between kinks or lack the jump of the order before.
ORDERS = {"hard_sigmoid": 1, "hard_swish": 1, "identity": 1, "leaky_relu": 1, "relu": 1, "celu": 2, "elu": 2, "selu": 1}
NORMS = ("batch", "group", "layer", "none")
DTYPES = ("float32", "bfloat16", "float16", "float64")

# He et al., arXiv 1502.01852: variance 2 / (kh kw out), which preserves the scale of gradients through relu.
he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# PyTorch's default for dense layers: uniform on +-1 / sqrt(fan-in).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def sub_kernel_init(size: int, full: Callable = he_normal_fan_out) -> Callable:
    """Rows and columns 1, 3, .. of a kernel that `full` draws with sides of `size`.

    A convolution of stride 2 meets the pixels of an image that is expanded by K = 2 with these taps only; the others
    meet the fill. With the same key, a network with this stem starts at the same function of the raw image.

    >>> import jax
    >>> sub_kernel_init(7)(jax.random.key(0), (3, 3, 3, 8)).shape
    (3, 3, 3, 8)
    """

    def init(key, shape, dtype=jnp.float32):
        return full(key, (size, size, *shape[2:]), dtype)[1::2, 1::2]

    return init


# Options that the architectures share, as fields of their classes.


def norm_option(default: str) -> Any:
    """`norm`, see `make_norm`."""
    return option(default, "normalisation", choices=NORMS)


def stem_option() -> Any:
    """`stem`, see `stem_conv`."""
    said = "3x3 ('cifar'), 7x7 and pooling ('imagenet'), or its 'sub_kernel'"
    return option("cifar", said, choices=("cifar", "imagenet", "sub_kernel"))


def depth_option() -> Any:
    """`depth`, see `deep`."""
    return option(1.0, "multiplies the blocks of each stage", above=0, most=50)


def dropout_option(default: float = 0.0) -> Any:
    """`dropout`."""
    return option(default, "rate of dropout", least=0, below=1)


def activation_option(default: str) -> Any:
    """`activation`."""
    return option(default, "activation function", choices=tuple(ACTIVATIONS))


def dtype_option(choices: tuple[str, ...] = DTYPES, what: str = "of the computation; parameters are wider") -> Any:
    """`dtype`."""
    return option("float32", what, choices=choices)


class Conv(nn.Module):
    """Convolution computed by `conv2d`, with the parameters of `nn.Conv`: 'kernel' [kh, kw, in, out], 'bias'.

    Attributes:
        features: output channels.
        kernel_size: side of the square kernel.
        stride: step in both directions.
        padding: zeros on each side; None = (kernel_size - 1) // 2.
        use_bias: add a bias; not needed before a normalisation.
        groups: number of groups; as many as input channels = depthwise.
        kernel_init: distribution of the kernel at the start.
        dtype: compute dtype; parameters are float32 or wider.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None
    use_bias: bool = False
    groups: int = 1
    kernel_init: Callable = he_normal_fan_out
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 features"]:
        size = self.kernel_size
        shape = (size, size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, param_dtype(self.dtype))
        pad = (size - 1) // 2 if self.padding is None else self.padding
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = conv2d(x, kernel, strides=(self.stride,) * 2, padding=((pad, pad),) * 2, groups=self.groups)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), param_dtype(self.dtype))
            y = y + trees.along(bias.astype(self.dtype), y)
        return y


def stem_conv(features: int, stem: str, *, kernel_init: Callable = he_normal_fan_out, **given: Any) -> Conv:
    """The first convolution of ResNets and DenseNets, `conv_stem`.

    'cifar': 3x3, stride 1. 'imagenet': 7x7, stride 2; 3x3 max-pooling of stride 2 comes later. 'sub_kernel': 3x3,
    stride 1, with that pooling: what 'imagenet' does with an image expanded by K = 2, but for a constant; see
    `sub_kernel_init`."""
    size, stride = (7, 2) if stem == "imagenet" else (3, 1)
    kernel_init = sub_kernel_init(7, kernel_init) if stem == "sub_kernel" else kernel_init
    return Conv(features, size, stride, kernel_init=kernel_init, name="conv_stem", **given)


def make_norm(
    kind: str,
    *,
    train: bool,
    name: str,
    dtype: Any = jnp.float32,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
) -> Callable:
    """A normalisation as a function of an array [..., channels].

    'batch' keeps running statistics in `batch_stats`. 'layer' on vectors is the usual layer norm; on images it
    normalises over (height, width, channel) with one scale and shift per channel (a group norm with one group), as
    usual for ResNets. 'group' uses the largest number of groups up to 32 with at least two channels each. `epsilon` is
    added to all variances, `momentum` is that of running statistics.
    """
    if kind == "batch":
        return BatchNorm(train=train, momentum=momentum, epsilon=epsilon, dtype=dtype, name=name)
    if kind == "none":
        return lambda x: x

    def grouped(x):
        given = {"epsilon": epsilon, "dtype": dtype, "param_dtype": param_dtype(dtype), "name": name}
        with trees.promoting():  # means in float32 are taken off inputs in fewer bits
            if kind == "layer" and x.ndim == 2:
                return nn.LayerNorm(**given)(x)
            return nn.GroupNorm(1 if kind == "layer" else number_of_groups(x.shape[-1]), **given)(x)

    return grouped


class GatedActivation(nn.Module):
    """`figlu` with a matrix 'mixing' [d, d] in the collection 'frozen', independent of the keys of `init`."""

    gate: Gate

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        def matrix():
            return jnp.asarray(self.gate.matrix("/".join(self.path), x.shape[-1]), param_dtype(x.dtype))

        return figlu(x, self.variable("frozen", "mixing", matrix).value.astype(x.dtype))


def make_activation(activation: str | Gate, *, name: str) -> Callable[[Array], Array]:
    """An activation as a function of an array; a `Gate` becomes a layer called `name`."""
    return ACTIVATIONS[activation] if isinstance(activation, str) else GatedActivation(activation, name=name)


def deep(blocks: int, depth: float) -> int:
    """Blocks of a stage that has so many at depth 1: rounded, at least one.

    >>> deep(6, 1.0), deep(6, 0.25), deep(1, 0.25)
    (6, 2, 1)
    """
    return max(1, round(blocks * depth))


def param_dtype(dtype: Any) -> jnp.dtype:
    """Dtype of parameters and logits: float32, or float64 if the compute dtype is float64.

    >>> param_dtype('bfloat16').name
    'float32'
    """
    return trees.wide_dtype(dtype)


def number_of_groups(channels: int) -> int:
    """Largest divisor of `channels` up to 32 with at least two channels per group; 1 if there is none.

    >>> number_of_groups(64), number_of_groups(16), number_of_groups(3)
    (32, 8, 1)
    """
    return max(g for g in range(1, 33) if channels % g == 0 and (g == 1 or channels // g >= 2))


def max_pool_2x2(x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c"]:
    """2x2 max-pooling; an odd last row or column is dropped. Of equal entries the first one gets the gradient.

    By slices, since the backward pass of `reduce_window` is six times slower on CPU. The gradient of `max` would divide
    by the number of entries that equal it, which XLA may compute again with other round-off, and then finds none: NaN.
    """
    for axis in (2, 1):
        x = lax.slice_in_dim(x, 0, x.shape[axis] // 2 * 2, axis=axis)
        x = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
        x = _first_of_largest(*(lax.index_in_dim(x, i, axis + 1, keepdims=False) for i in (0, 1)))
    return x


def max_pool_3x3(x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c"]:
    """3x3 max-pooling of stride 2, with one border of minus infinity: `flax.linen.max_pool` of a ResNet's stem.

    Of equal entries the first one gets the gradient, and NaN stays, as there. As maxima of even and odd rows and
    columns, ten times faster on CPU than the backward pass of `reduce_window`.

    >>> max_pool_3x3(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    for axis in (2, 1):
        if x.shape[axis] % 2:
            x = _lowest(x, axis, 0, 1)
        x = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
        even, odd = (lax.index_in_dim(x, i, axis + 1, keepdims=False) for i in (0, 1))
        before = _lowest(lax.slice_in_dim(odd, 0, odd.shape[axis] - 1, axis=axis), axis, 1, 0)
        x = _first_of_largest(_first_of_largest(before, even), odd)
    return x


def max_over(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Largest entry along an axis; of equal ones the first one gets the gradient, see `max_pool_2x2`.

    >>> max_over(jnp.array([[1.0, 3.0], [2.0, 0.0]]), 0).tolist()
    [2.0, 3.0]
    """
    largest = jnp.argmax(lax.stop_gradient(x), axis, keepdims=True)
    return jnp.take_along_axis(x, largest, axis).squeeze(axis)


def _lowest(x, axis, before, after):
    pad = [(0, 0)] * x.ndim
    pad[axis] = (before, after)
    return jnp.pad(x, pad, constant_values=-jnp.inf)


def _first_of_largest(a, b):
    return jnp.where((a >= b) | jnp.isnan(a), a, b)


def avg_pool_2x2(x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c"]:
    """2x2 mean-pooling; an odd last row or column is dropped. A map of one row or column is pooled to none."""
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def dropout(x: Array, rate: float, *, train: bool) -> Array:
    """Inverted dropout; at rate 0 no random key is consumed."""
    return nn.Dropout(rate, deterministic=not train)(x) if rate else x
