"""Metanetworks that do not know the architecture: statistics, a flat perceptron, a set of scalars, one-dimensional
convolutions; and predictions from hyper-parameters alone, the control.

Each is called with standardised inputs [batch, inputs]; `inputs` of the class says of what. Widths are those of arXiv
2405.20231, whose counts of parameters they reproduce.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.common.options import option
from sbjax.metanets.pooling import largest
from sbjax.models import layers


class Columns(nn.Module):
    """A perceptron on a few numbers of each network: dense, ReLU, layer norm, as `Flat`.

    Attributes:
        outputs: numbers that are predicted.
        reading: of the networks, see `sbjax.metanets.reading`.
        widths: hidden widths.
    """

    outputs: int
    reading: Any
    widths: Sequence[int] = option((256, 256), "hidden widths", least=1)

    @nn.compact
    def __call__(self, x: Float[Array, "batch inputs"], train: bool = False) -> Float[Array, "batch outputs"]:
        for number, width in enumerate(self.widths):
            x = nn.LayerNorm(name=f"norm_{number}")(nn.relu(nn.Dense(width, name=f"dense_{number}")(x)))
        return nn.Dense(self.outputs, name="head")(x)


class StatNN(Columns):
    """A perceptron on seven statistics of each array: invariant, and blind to all else.

    Source: arXiv 2002.11448; 119,297 parameters for the 29 arrays of a ResNet-8, as in arXiv 2405.20231.
    """

    inputs: ClassVar[str] = "statistics"


class HyperParameters(Columns):
    """A perceptron on the hyper-parameters that a network was trained with. It reads no weight: the control."""

    widths: Sequence[int] = option((64, 64), "hidden widths", least=1)
    inputs: ClassVar[str] = "hyperparameters"


class Flat(nn.Module):
    """A perceptron on all entries in a row, which knows nothing of permutations: dense, ReLU, layer norm, dense.

    Attributes:
        outputs, reading: as in `Columns`.
        widths: hidden widths.
    """

    outputs: int
    reading: Any
    widths: Sequence[int] = option((64,), "hidden widths", least=1)
    inputs: ClassVar[str] = "entries"

    @nn.compact
    def __call__(self, x: Float[Array, "batch size"], train: bool = False) -> Float[Array, "batch outputs"]:
        x = x[:, self.reading.kept.nonzero()[0]]
        for number, width in enumerate(self.widths):
            x = nn.LayerNorm(name=f"norm_{number}")(nn.relu(nn.Dense(width, name=f"dense_{number}")(x)))
        return nn.Dense(self.outputs, name="head")(x)


class DeepSets(nn.Module):
    """The mean over all entries of a perceptron of each: invariant under every permutation of entries, across arrays.

    Attributes:
        outputs, reading: as in `Columns`.
        width: of all layers; 8,897 parameters at 64, as in arXiv 2405.20231.
    """

    outputs: int
    reading: Any
    width: int = option(64, "of all layers", least=1, most=10**4)
    inputs: ClassVar[str] = "entries"

    @nn.compact
    def __call__(self, x: Float[Array, "batch size"], train: bool = False) -> Float[Array, "batch outputs"]:
        return readout(x[:, self.reading.kept.nonzero()[0], None], self.width, self.outputs, before=2)


class DMC(nn.Module):
    """One-dimensional convolutions over the entries in a row, with batch norm, ReLU and pooling, then a set read-out.

    Attributes:
        outputs, reading: as in `Columns`.
        channels: of the convolutions; ten layers have 105,357 parameters with the read-out, as in arXiv 2405.20231.
        kernel_size: entries that a convolution sees.
        pool: entries that become one after each convolution, as long as there are so many.

    Source: Eilertsen et al., arXiv 2002.05688; channels from the published count, where its layers stand is ours.
    """

    outputs: int
    reading: Any
    channels: Sequence[int] = option((2, 4, 8, 16, 32, 64, 64, 64, 64, 64), "of the convolutions", least=1)
    kernel_size: int = option(5, "entries that a convolution sees", least=1, most=99)
    pool: int = option(2, "entries that become one after each convolution", least=1, most=99)
    inputs: ClassVar[str] = "entries"

    @nn.compact
    def __call__(self, x: Float[Array, "batch size"], train: bool = False) -> Float[Array, "batch outputs"]:
        x = x[:, self.reading.kept.nonzero()[0], None]
        for number, width in enumerate(self.channels):
            x = nn.Dense(width, name=f"conv_{number}")(_windows(x, self.kernel_size))
            x = nn.relu(layers.make_norm("batch", train=train, name=f"norm_{number}", dtype="float32")(x))
            if x.shape[1] >= 2 * self.pool:
                kept = x.shape[1] - x.shape[1] % self.pool
                x = largest(x[:, :kept].reshape(len(x), -1, self.pool, width), 2)
        return readout(x, self.channels[-1], self.outputs, before=1)


def readout(x: Float[Array, "batch n c"], width: int, outputs: int, *, before: int) -> Float[Array, "batch outputs"]:
    """A perceptron of each element, the mean over elements, and a perceptron of that; layer norm before every ReLU."""
    for number in range(before):
        x = nn.relu(nn.LayerNorm(name=f"element_norm_{number}")(nn.Dense(width, name=f"element_{number}")(x)))
    x = x.mean(1)
    x = nn.relu(nn.LayerNorm(name="set_norm")(nn.Dense(width, name="set")(x)))
    return nn.Dense(outputs, name="head")(x)


def _windows(x: Float[Array, "batch n c"], size: int) -> Float[Array, "batch n size_c"]:
    """Windows of a row with zeros at its ends: a convolution as a product, which is fast on CPU also under `vmap`."""
    before = (size - 1) // 2
    padded = jnp.pad(x, ((0, 0), (before, size - 1 - before), (0, 0)))
    return jnp.concatenate([padded[:, start : start + x.shape[1]] for start in range(size)], axis=-1)
