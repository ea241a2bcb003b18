"""Group-equivariant convolutional networks for the symmetries of a square grid (Cohen and Welling, arXiv 1602.07576).

A group element g is a 2x2 matrix acting on (row, column) about the centre of the image. It acts on

    images                        (L_g x)(p) = x(g^-1 p)
    maps [batch, h, w, g, c]      (L_g x)(p, u) = x(g^-1 p, g^-1 u),

and a layer is equivariant if layer(L_g x) = L_g layer(x). 'p4' consists of the four rotations, with L_g = `jnp.rot90`
applied r times for element r; 'p4m' includes reflections: elements 4 + r first exchange left and right.

A group convolution is one plain convolution with all transformed copies of its filters: as fast as `conv2d`, with the
parameters of a single copy.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from sbjax import trees
from sbjax.common.names import near
from sbjax.common.options import option
from sbjax.models import layers
from sbjax.models.convolution import conv2d

GROUPS = ("p4", "p4m")
READOUTS = ("invariant", "sign")


class GroupCNN(nn.Module):
    """`CNN` with group convolutions: logits(L_g x) = logits(x) for every g, or chi(g) logits(x) as a control.

    Blocks of 3x3 lifting or group convolution, normalisation, activation and 2x2 max-pooling; global mean; contraction
    over g; dropout; dense head. A map is pooled only if both sides are even and at least 4, since dropping an odd row
    would shift the centre of rotation. Sides that are multiples of 8 are therefore cheapest (28 is pooled to 14, 7, 7;
    27 never).

    The contraction is (1/g) sum_u w(u) x(u) with w = 1 ('invariant') or w = chi ('sign', see `character`). It is a mean
    like the global mean over space, so it adds no nonlinearity that `CNN` lacks, and the two readouts differ only in w
    and the bias. The 'sign' readout has the wrong equivariance: the layers after it are linear and without bias, so a
    quarter turn negates every logit, which is incompatible with rotation-invariant labels.

    A group layer with c channels has g c^2 k^2 parameters and the FLOPs of a plain layer with g c channels. With the
    number of parameters of a plain layer with C channels, c = C / sqrt(g), it needs g times the FLOPs: 4 times for
    'p4', 8 times for 'p4m' (lifting layer: sqrt(g) times). With 10 classes and one input channel, 'p4' with the default
    channels has 55,930 parameters and 'p4m' with (12, 22, 22) has 54,306; `CNN` has 56,554.

    Attributes:
        classes: outputs.
        channels: output channels of each block; each channel is a function on the group.
        norm: 'batch', 'group', 'layer' or 'none'; statistics are shared over g.
        dropout: rate in [0, 1) before the head.
        activation: a name of `layers.ACTIVATIONS`.
        dtype: compute dtype; parameters and logits are float32 or wider.
        group: 'p4' or 'p4m'.
        readout: 'invariant' or 'sign'.

    Raises:
        ValueError: an unknown group or readout.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    >>> model = GroupCNN(classes=3, channels=(4, 4), norm='none')
    >>> variables = model.init(jax.random.key(1), x)
    >>> same = model.apply(variables, jnp.rot90(x, axes=(1, 2)))
    >>> bool(jnp.allclose(same, model.apply(variables, x), atol=1e-5))
    True
    """

    classes: int
    channels: Sequence[int] = option((16, 32, 32), "output channels of each block, functions on the group", least=1)
    norm: str = layers.norm_option("batch")
    dropout: float = layers.dropout_option()
    activation: str = layers.activation_option("relu")
    dtype: str = layers.dtype_option()
    group: str = option("p4", "of symmetries", choices=GROUPS)
    readout: str = option("invariant", "contraction over the group; 'sign' is the control", choices=READOUTS)

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch classes"]:
        if self.readout not in READOUTS:
            known = ", ".join(READOUTS)
            raise ValueError(f"readout={self.readout!r} is unknown{near(self.readout, READOUTS)}; known: {known}")
        sign = self.readout == "sign"
        weights = character(self.group) if sign else np.ones(len(elements(self.group)))
        for i, features in enumerate(self.channels):
            conv = GroupConv if i else LiftingConv
            x = conv(features, self.group, use_bias=self.norm == "none", dtype=self.dtype, name=f"conv_{i}")(x)
            x = make_norm(self.norm, train=train, name=f"norm_{i}", dtype=self.dtype)(x)
            x = layers.ACTIVATIONS[self.activation](x)
            if min(x.shape[1:3]) >= 4 and all(side % 2 == 0 for side in x.shape[1:3]):
                pooled = layers.max_pool_2x2(x.reshape(*x.shape[:3], -1))
                x = pooled.reshape(*pooled.shape[:3], *x.shape[3:])
        x = (x.mean((1, 2)) * jnp.asarray(weights, x.dtype)[None, :, None]).mean(1)
        x = layers.dropout(x, self.dropout, train=train)
        wide = layers.param_dtype(self.dtype)
        head = nn.Dense(self.classes, use_bias=not sign, dtype=self.dtype, param_dtype=wide, name="head")
        return head(x).astype(wide)


class LiftingConv(nn.Module):
    """y(p, g) = sum_q x(p + q) kernel(g^-1 q), from images to maps on the group, with zero padding.

    Parameters: 'kernel' [k, k, in, features], 'bias' [features].

    Attributes:
        features: output channels.
        group: 'p4' or 'p4m'.
        kernel_size: side k of the square kernel, odd.
        use_bias: add a bias, the same for every g.
        dtype: compute dtype; parameters are float32 or wider.

    Raises:
        ValueError: an unknown group, an even kernel size, a wrong shape.

    >>> import jax
    >>> LiftingConv(5).init_with_output(jax.random.key(0), jnp.ones((2, 8, 8, 3)))[0].shape
    (2, 8, 8, 4, 5)
    """

    features: int
    group: str = "p4"
    kernel_size: int = 3
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w g features"]:
        if x.ndim != 4:
            raise ValueError(f"x has shape {x.shape}: give images [batch, h, w, c]")
        # He initialisation of the plain convolution with g times the features that is computed.
        init = nn.initializers.variance_scaling(2.0 / len(elements(self.group)), "fan_out", "normal")
        return _convolve(self, x, x.shape[3:], init)


class GroupConv(nn.Module):
    """y(p, g) = sum_{q, u} x(p + q, u) kernel(g^-1 q, g^-1 u), between maps on the group, with zero padding.

    Parameters: 'kernel' [k, k, g, in, features], 'bias' [features].

    Attributes:
        features: output channels.
        group: 'p4' or 'p4m'.
        kernel_size: side k of the square kernel, odd.
        use_bias: add a bias, the same for every g.
        dtype: compute dtype; parameters are float32 or wider.

    Raises:
        ValueError: an unknown group, an even kernel size, a wrong shape.

    >>> import jax
    >>> GroupConv(5).init_with_output(jax.random.key(0), jnp.ones((2, 8, 8, 4, 3)))[0].shape
    (2, 8, 8, 4, 5)
    """

    features: int
    group: str = "p4"
    kernel_size: int = 3
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w g c"]) -> Float[Array, "batch h w g features"]:
        size = len(elements(self.group))
        if x.ndim != 5 or x.shape[3] != size:
            raise ValueError(f"x has shape {x.shape}: give maps [batch, h, w, {size}, c] for group={self.group!r}")
        # For the shape [k, k, g, in, out] the fan out is k k g out, as required.
        return _convolve(self, x.reshape(*x.shape[:3], -1), x.shape[3:], layers.he_normal_fan_out)


def make_norm(kind: str, *, train: bool, name: str, dtype: Any = jnp.float32) -> Callable:
    """`layers.make_norm` for maps [batch, h, w, g, c], with statistics over (h, w, g).

    Mean, variance, scale and shift of a channel are shared over g; otherwise the norm would not commute with the action
    on g.
    """
    norm = layers.make_norm(kind, train=train, name=name, dtype=dtype)
    return lambda x: norm(x.reshape(*x.shape[:2], -1, x.shape[4])).reshape(x.shape)


def filter_bank(kernel: Float[Array, "k k *g in out"], group: str) -> Float[Array, "k k g_in out_g"]:
    """All transformed copies of a kernel: bank[q, (u, i), (g, o)] = kernel[g^-1 q, g^-1 u, i, o] (no u for lifting).

    Args:
        kernel: [k, k, in, out] for a lifting convolution, [k, k, g, in, out] for a group convolution.
        group: 'p4' or 'p4m'.

    Returns:
        [k, k, in, g out] or [k, k, g in, g out], the group axis before the channels.

    Raises:
        ValueError: an unknown group.

    >>> filter_bank(jnp.array([[1, 2], [3, 4]])[:, :, None, None], 'p4')[:, :, 0, 1].tolist()
    [[2, 4], [1, 3]]
    """
    table = multiplication_table(group)
    copies = []
    for g in elements(group):
        # (g^-1 q)_i is + or - a coordinate of q: flip the axes with a minus sign, then swap axes if needed.
        inverse = g.T
        copy = jnp.flip(kernel, [axis for axis in (0, 1) if inverse[axis].sum() < 0])
        copy = copy.swapaxes(0, 1) if inverse[0, 0] == 0 else copy
        copies.append(copy)
    if kernel.ndim == 5:
        inverses = (table == 0).argmax(1)
        copies = [copy[:, :, table[inverse]] for copy, inverse in zip(copies, inverses)]
    bank = jnp.stack(copies, -2)
    return bank.reshape(*kernel.shape[:2], -1, len(copies) * kernel.shape[-1])


def elements(group: str) -> Int[np.ndarray, "g 2 2"]:
    """Matrices of the group elements acting on (row, column), the identity first.

    Raises:
        ValueError: an unknown group.

    >>> elements('p4')[1].tolist(), elements('p4m')[4].tolist()
    ([[0, -1], [1, 0]], [[1, 0], [0, -1]])
    """
    if group not in GROUPS:
        raise ValueError(f"group={group!r} is unknown{near(group, GROUPS)}; known: {', '.join(GROUPS)}")
    quarter, mirror = np.array([[0, -1], [1, 0]]), np.diag([1, -1])
    rotations = np.stack([np.linalg.matrix_power(quarter, r) for r in range(4)])
    return rotations if group == "p4" else np.concatenate([rotations, rotations @ mirror])


def multiplication_table(group: str) -> Int[np.ndarray, "g g"]:
    """Multiplication table: table[a, b] = index of the element a b.

    >>> multiplication_table('p4').tolist()
    [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]
    """
    g = elements(group)
    products = g[:, None] @ g
    return (products[:, :, None] == g).all((-2, -1)).argmax(-1)


def character(group: str) -> Int[np.ndarray, " g"]:
    """The character chi(g) = 1 if g maps rows to rows, -1 if it exchanges rows and columns: chi(a b) = chi(a) chi(b).

    Rotations have 1, -1, 1, -1; left-right and up-down reflections 1, diagonal reflections -1.

    >>> character('p4m').tolist()
    [1, -1, 1, -1, 1, -1, 1, -1]
    """
    g = np.abs(elements(group))
    return g[:, 0, 0] - g[:, 0, 1]


def _convolve(module: LiftingConv | GroupConv, x: Array, inputs: tuple[int, ...], init: Callable) -> Array:
    """[batch, h, w, (g) in] -> [batch, h, w, g, features] with the parameters of `module`; inputs: (in,) or (g, in)."""
    size, features, wide = module.kernel_size, module.features, layers.param_dtype(module.dtype)
    if size % 2 == 0:
        raise ValueError(f"kernel_size={size} must be odd: an even kernel has no central pixel to rotate about")
    kernel = module.param("kernel", init, (size, size, *inputs, features), wide)
    # Cast after building the bank, so that gradients are summed over the group in the parameters' dtype.
    bank = filter_bank(kernel, module.group).astype(module.dtype)
    y = conv2d(x.astype(module.dtype), bank, padding=((size // 2,) * 2,) * 2)
    y = y.reshape(*y.shape[:3], -1, features)
    if module.use_bias:
        bias = module.param("bias", nn.initializers.zeros, (features,), wide).astype(module.dtype)
        y = y + trees.along(bias, y)
    return y
