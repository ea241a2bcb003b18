"""MobileNetV3, Large and Small (Howard et al., arXiv 1905.02244, tables 1 and 2)."""

import itertools
from collections.abc import Sequence

from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.common.options import option
from sbjax.models import layers
from sbjax.models.inverted import InvertedResidual, Norms, convolved, divisible, logits, stem

# (kernel size, expanded channels, output channels, squeeze and excitation, hard swish instead of relu, stride)
LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
SMALL = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
STEMS = ("imagenet", "cifar", "stride1", "sub_kernel")


class MobileNetV3(nn.Module):
    """A stem, inverted residual blocks `block_0`, `block_1`, .., a 1x1 convolution, two dense layers.

    Batch norm has epsilon 1e-3 and momentum 0.99; kernels start He-normal (fan-out), dense ones N(0, 0.01), as in
    torchvision's networks, whose weights `sbjax.models.from_torchvision` reads. 4,214,842 (Large) and 1,528,106 (Small)
    parameters at 10 classes.

    Attributes:
        classes: outputs.
        blocks: rows of `LARGE` or `SMALL`.
        hidden: units of the layer before the last, at width 1.
        width: multiplies all channels, rounded to multiples of 8.
        depth: multiplies the blocks of each stage, which are those of equal output channels.
        stem: 'imagenet' (3x3, stride 2), 'cifar' (stride 1), 'stride1' (stride 1, in the first block of stride 2 as
            well), or 'sub_kernel' (1x1: what 'imagenet' does with an image expanded by K = 2, see
            `layers.sub_kernel_init`).
        norm: 'batch', 'group', 'layer' or 'none'.
        dropout: rate in [0, 1) before the last layer.
        dtype: compute dtype; parameters and logits are float32 or wider.
    """

    classes: int
    blocks: Sequence[tuple[int, int, int, bool, bool, int]]
    hidden: int
    width: float = option(1.0, "multiplies all channels", above=0)
    depth: float = layers.depth_option()
    stem: str = option("cifar", "stride 2 ('imagenet') or 1; see the class", choices=STEMS)
    norm: str = layers.norm_option("batch")
    dropout: float = layers.dropout_option(0.2)
    dtype: str = layers.dtype_option()

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch classes"]:
        norms = Norms(self.norm, epsilon=1e-3, momentum=0.99)
        given = {"norms": norms, "train": train, "dtype": self.dtype}
        x = nn.hard_swish(stem(x, divisible(16 * self.width), self.stem, **given))
        stages = [list(rows) for _, rows in itertools.groupby(self.blocks, key=lambda row: row[2])]
        blocks = [row for rows in stages for row in rows[: layers.deep(len(rows), self.depth)]]
        strides = [stride for *_, stride in blocks]
        if self.stem == "stride1":
            strides[strides.index(2)] = 1
        for i, ((size, expanded, features, squeeze, swish, _), stride) in enumerate(zip(blocks, strides)):
            expanded = divisible(expanded * self.width)
            x = InvertedResidual(
                divisible(features * self.width),
                expanded,
                size,
                stride,
                divisible(expanded // 4) if squeeze else 0,
                "hard_swish" if swish else "relu",
                ("relu", "hard_sigmoid"),
                norms,
                0.0,
                self.dtype,
                name=f"block_{i}",
            )(x, train)
        x = nn.hard_swish(convolved(x, 6 * x.shape[-1], 1, name="last", **given)).mean((1, 2))
        normal, wide = nn.initializers.normal(0.01), layers.param_dtype(self.dtype)
        hidden = nn.Dense(
            divisible(self.hidden * self.width), dtype=self.dtype, param_dtype=wide, kernel_init=normal, name="hidden"
        )
        x = layers.dropout(nn.hard_swish(hidden(x)), self.dropout, train=train)
        return logits(x, self.classes, kernel_init=normal, dtype=self.dtype)
