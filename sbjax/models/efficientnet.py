"""EfficientNet-B0 (Tan and Le, arXiv 1905.11946, table 1)."""

from collections.abc import Sequence

from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.common.options import option
from sbjax.models import layers
from sbjax.models.inverted import InvertedResidual, Norms, convolved, divisible, logits, stem, uniform_fan_out
from sbjax.models.mobilenet import STEMS

# (expansion, kernel size, stride, output channels, blocks)
B0 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class EfficientNet(nn.Module):
    """A stem, stages of inverted residual blocks `stage_0_block_0`, .., a 1x1 convolution, a dense layer.

    Batch norm has epsilon 1e-5 and momentum 0.9, and strided convolutions one row of zeros on each side, as in
    torchvision's B0, whose weights `sbjax.models.from_torchvision` reads; the original network has 1e-3, 0.99 and zeros
    on one side. Kernels start He-normal (fan-out), the last one uniform on +-1 / sqrt(classes). 4,020,358 parameters at
    10 classes.

    Attributes:
        classes: outputs.
        stages: rows of `B0`.
        width: multiplies all channels, rounded to multiples of 8.
        depth: multiplies the blocks of each stage.
        stem: 'imagenet' (3x3, stride 2), 'cifar' (stride 1), 'stride1' (stride 1, in the first stage of stride 2 as
            well), or 'sub_kernel' (1x1: what 'imagenet' does with an image expanded by K = 2, see
            `layers.sub_kernel_init`).
        stochastic_depth: rate at which the last block is left out in training; from 0 it grows linearly with depth.
        norm: 'batch', 'group', 'layer' or 'none'.
        dropout: rate in [0, 1) before the last layer.
        dtype: compute dtype; parameters and logits are float32 or wider.
    """

    classes: int
    stages: Sequence[tuple[int, int, int, int, int]]
    width: float = option(1.0, "multiplies all channels", above=0)
    depth: float = layers.depth_option()
    stem: str = option("cifar", "stride 2 ('imagenet') or 1; see the class", choices=STEMS)
    stochastic_depth: float = option(0.2, "rate at which the last block is left out in training", least=0, below=1)
    norm: str = layers.norm_option("batch")
    dropout: float = layers.dropout_option(0.2)
    dtype: str = layers.dtype_option()

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"], train: bool = False) -> Float[Array, "batch classes"]:
        norms = Norms(self.norm)
        given = {"norms": norms, "train": train, "dtype": self.dtype}
        x = nn.silu(stem(x, divisible(32 * self.width), self.stem, **given))
        strides = [stage[2] for stage in self.stages]
        if self.stem == "stride1":
            strides[strides.index(2)] = 1
        number, total = 0, sum(layers.deep(stage[4], self.depth) for stage in self.stages)
        for i, ((expansion, size, _, features, blocks), stride) in enumerate(zip(self.stages, strides)):
            for block in range(layers.deep(blocks, self.depth)):
                inputs = x.shape[-1]
                x = InvertedResidual(
                    divisible(features * self.width),
                    inputs if expansion == 1 else divisible(inputs * expansion),
                    size,
                    stride if block == 0 else 1,
                    max(1, inputs // 4),
                    "silu",
                    ("silu", "sigmoid"),
                    norms,
                    self.stochastic_depth * number / total,
                    self.dtype,
                    name=f"stage_{i}_block_{block}",
                )(x, train)
                number += 1
        x = nn.silu(convolved(x, 4 * x.shape[-1], 1, name="last", **given)).mean((1, 2))
        x = layers.dropout(x, self.dropout, train=train)
        return logits(x, self.classes, kernel_init=uniform_fan_out, dtype=self.dtype)
