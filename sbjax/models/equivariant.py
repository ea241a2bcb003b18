"""Group-equivariant convolutional networks for the symmetries of a square grid (Cohen and Welling, arXiv 1602.07576).

A group element g is a 2x2 matrix acting on (row, column) about the centre of the image. It moves

    images                        (L_g x)(p) = x(g^-1 p)
    maps [batch, h, w, g, c]      (L_g x)(p, u) = x(g^-1 p, g^-1 u),

and a layer is equivariant where layer(L_g x) = L_g layer(x). 'p4' is the four rotations, L_g = `jnp.rot90` r times for
element r; 'p4m' has the mirror images too: elements 4 + r exchange left and right first.

Every convolution is one plain convolution with all transformed copies of its filters, so that it is as fast as `conv2d`
and no more parameters are stored than one copy has.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from sbjax.models import layers
from sbjax.models.convolution import conv2d
from sbjax.names import near
from sbjax.options import option

GROUPS = ("p4", "p4m")
READOUTS = ("invariant", "sign")


class GroupCNN(nn.Module):
    """`CNN` with group convolutions: logits(L_g x) = logits(x) for every g, or, as a control, chi(g) logits(x).

    Blocks of 3x3 lifting or group convolution, normalisation, activation and 2x2 max-pooling; global mean; contraction
    over g; dropout; dense head. A map is pooled only where both sides are even and at least 4: leaving out an odd row
    would shift the grid off its centre, and rotating would then give another result. Sides that are 8 times something
    are thus the cheap ones (28 pools to 14, 7, 7; 27 not at all).

    The contraction is (1/g) sum_u w(u) x(u) with w = 1 ('invariant') or w = chi ('sign', see `character`). A mean and
    not a maximum: it does over g what the global mean does over space, adds no nonlinearity that `CNN` lacks, and
    leaves w, and a bias, as the only differences between the readouts. The sign readout is wrongly equivariant: all
    that follows is linear and the head has no bias, so a quarter turn negates every logit, which fits no labelling that
    rotation keeps.

    A group layer of c channels has g c^2 k^2 parameters and the FLOPs of a plain layer of g c channels. For as many
    parameters as a plain layer of C channels, c = C / sqrt(g), and FLOPs are g times those: 4 times for 'p4' with half
    the channels, 8 times for 'p4m' (the lifting layer: sqrt(g) times). With 10 classes and one input channel 'p4' with
    the default channels has 55,930 parameters and 'p4m' with (12, 22, 22) has 54,306; `CNN` has 56,554.

    Attributes:
        classes: outputs.
        channels: output channels of each block, each of them a function on the group.
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
        x = (x.mean((1, 2)) * jnp.asarray(weights, x.dtype)[:, None]).mean(1)
        x = layers.dropout(x, self.dropout, train=train)
        wide = layers.param_dtype(self.dtype)
        head = nn.Dense(self.classes, use_bias=not sign, dtype=self.dtype, param_dtype=wide, name="head")
        return head(x).astype(wide)


class LiftingConv(nn.Module):
    """y(p, g) = sum_q x(p + q) kernel(g^-1 q), from images to maps on the group; zeros around the image.

    Parameters: 'kernel' [k, k, in, features], 'bias' [features].

    Attributes:
        features: output channels.
        group: 'p4' or 'p4m'.
        kernel_size: side k of the square kernel, odd.
        use_bias: add a bias, the same for every g.
        dtype: compute dtype; parameters are float32 or wider.

    Raises:
        ValueError: an unknown group, an even kernel size, a shape that does not fit.

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
        # As of a plain convolution with g times the features, which is what it computes.
        init = nn.initializers.variance_scaling(2.0 / len(elements(self.group)), "fan_out", "normal")
        return _convolve(self, x, x.shape[3:], init)


class GroupConv(nn.Module):
    """y(p, g) = sum_{q, u} x(p + q, u) kernel(g^-1 q, g^-1 u), between maps on the group; zeros around the image.

    Parameters: 'kernel' [k, k, g, in, features], 'bias' [features].

    Attributes:
        features: output channels.
        group: 'p4' or 'p4m'.
        kernel_size: side k of the square kernel, odd.
        use_bias: add a bias, the same for every g.
        dtype: compute dtype; parameters are float32 or wider.

    Raises:
        ValueError: an unknown group, an even kernel size, a shape that does not fit.

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
        # Of the shape [k, k, g, in, out] the fan out is k k g out, as it should be.
        return _convolve(self, x.reshape(*x.shape[:3], -1), x.shape[3:], layers.he_normal_fan_out)


def make_norm(kind: str, *, train: bool, name: str, dtype: Any = jnp.float32) -> Callable:
    """`layers.make_norm` as a function of a map [batch, h, w, g, c], with statistics over (h, w, g).

    One mean, variance, scale and shift for all g of a channel: with one for each g, the norm would not commute with
    the permutation of g.
    """
    norm = layers.make_norm(kind, train=train, name=name, dtype=dtype)
    return lambda x: norm(x.reshape(*x.shape[:2], -1, x.shape[4])).reshape(x.shape)


def filter_bank(kernel: Float[Array, "k k *g in out"], group: str) -> Float[Array, "k k g_in out_g"]:
    """All transformed copies of a kernel: bank[q, (u, i), (g, o)] = kernel[g^-1 q, g^-1 u, i, o]; lifting has no u.

    Args:
        kernel: [k, k, in, out] for a lifting, [k, k, g, in, out] for a group convolution.
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
        # (g^-1 q)_i is + or - one of the coordinates of q: reverse the axes with a minus, then exchange them or not.
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
    """Matrices of the group on (row, column), the identity first.

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
    """table[a, b] = number of the element a b.

    >>> multiplication_table('p4').tolist()
    [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]
    """
    g = elements(group)
    products = g[:, None] @ g
    return (products[:, :, None] == g).all((-2, -1)).argmax(-1)


def character(group: str) -> Int[np.ndarray, " g"]:
    """chi(g) = 1 where g keeps the axes and -1 where it exchanges rows and columns: chi(a b) = chi(a) chi(b).

    On rotations 1, -1, 1, -1; left-right and up-down mirroring have 1, mirroring at a diagonal has -1.

    >>> character('p4m').tolist()
    [1, -1, 1, -1, 1, -1, 1, -1]
    """
    g = np.abs(elements(group))
    return g[:, 0, 0] - g[:, 0, 1]


def _convolve(module: LiftingConv | GroupConv, x: Array, inputs: tuple[int, ...], init: Callable) -> Array:
    """[batch, h, w, (g) in] -> [batch, h, w, g, features] with the parameters of `module`; inputs: (in,) or (g, in)."""
    size, features, wide = module.kernel_size, module.features, layers.param_dtype(module.dtype)
    if size % 2 == 0:
        raise ValueError(f"kernel_size={size} must be odd: an even kernel has no centre to turn about")
    kernel = module.param("kernel", init, (size, size, *inputs, features), wide)
    # Cast last, so that gradients are summed over the group in the parameters' dtype.
    bank = filter_bank(kernel, module.group).astype(module.dtype)
    y = conv2d(x.astype(module.dtype), bank, padding=((size // 2,) * 2,) * 2)
    y = y.reshape(*y.shape[:3], -1, features)
    if module.use_bias:
        y = y + module.param("bias", nn.initializers.zeros, (features,), wide).astype(module.dtype)
    return y
