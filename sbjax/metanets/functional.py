"""Neural functionals: equivariant layers of a permutation spec, a nonlinearity of each entry, invariants, a head."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.common.options import one_of, option
from sbjax.metanets.blocks import Layout, to_blocks
from sbjax.metanets.equivariant import EquivariantLinear, invariants
from sbjax.models import layers


class Functional(nn.Module):
    """Equivariant layers with a nonlinearity, then all linear invariants, then a perceptron.

    For multilayer perceptrons and plain convolutional networks this is the neural functional of arXiv 2302.14040; it
    takes every other network whose spec can be derived as it is. There the channels are 16, 16, 5 and the head 1000,
    1000.

    Attributes:
        outputs: numbers that are predicted.
        reading: of the networks, see `sbjax.metanets.reading`.
        channels: of the equivariant layers.
        head: hidden widths behind the invariants.
        ends: 'fixed', inputs and outputs of the network are told apart (HNP), or 'permuted' (NP), where they are told
            apart by an embedding alone.
        keep_features: keep kernel taps, and inputs and outputs where they are fixed, apart in every layer.
        embedding: length of the embedding of 'permuted' ends.
        norm: layer norm over the channels of each entry, or 'none' as published.
        activation: of each entry.

    >>> import jax, numpy as np
    >>> from sbjax.metanets import make_reading
    >>> from sbjax.symmetry import spec_from_axes
    >>> tree = {'a': np.ones((5, 3)), 'b': np.ones((3, 2))}
    >>> reading = make_reading(spec_from_axes({'a': (None, 'p'), 'b': ('p', None)}, tree), tree)
    >>> net = Functional(outputs=1, reading=reading, channels=(4, 4), head=(8,))
    >>> net.init_with_output(jax.random.key(0), jnp.ones((7, 21)))[0].shape
    (7, 1)
    """

    outputs: int
    reading: Any
    channels: Sequence[int] = option((16, 16, 5), "of the equivariant layers", least=1)
    head: Sequence[int] = option((128,), "hidden widths behind the invariants", least=1)
    ends: str = option("fixed", "inputs and outputs of the network that is read", choices=("fixed", "permuted"))
    keep_features: bool = option(False, "keep kernel taps, inputs and outputs apart in every layer")
    embedding: int = option(4, "of each input and output", least=1, most=1000, only={"ends": one_of("permuted")})
    norm: str = option("layer", "over the channels of an entry", choices=("layer", "none"))
    activation: str = layers.activation_option("relu")
    inputs: ClassVar[str] = "entries"

    @nn.compact
    def __call__(self, x: Float[Array, "batch size"], train: bool = False) -> Float[Array, "batch outputs"]:
        layout = self.reading.layout if self.ends == "fixed" else self.reading.opened
        blocks = to_blocks(layout, x)
        if self.ends == "permuted":
            tables = {
                name: self.param(f"embedding_{name}", nn.initializers.normal(1.0), (layout.sizes[name], self.embedding))
                for name in self.reading.ends
            }
            blocks = embedded(layout, blocks, tables)
        act = layers.make_activation(self.activation, name="act")
        for number, width in enumerate(self.channels):
            layer = EquivariantLinear(layout, width, keep_features=self.keep_features, name=f"layer_{number}")
            blocks = layer(blocks)
            if self.norm == "layer":
                blocks = [nn.LayerNorm(name=f"norm_{number}_{i}")(block) for i, block in enumerate(blocks)]
            blocks = tuple(map(act, blocks))
        x = invariants(layout, blocks)
        for number, width in enumerate(self.head):
            x = act(nn.Dense(width, name=f"dense_{number}")(x))
        return nn.Dense(self.outputs, name="head")(x)


def embedded(
    layout: Layout, blocks: Sequence[Float[Array, "..."]], tables: dict[str, Float[Array, "n width"]]
) -> tuple[Float[Array, "..."], ...]:
    """Blocks with rows of tables beside their features, along each axis whose permutation has a table."""
    found = []
    for block, x in zip(layout.blocks, blocks, strict=True):
        first = x.ndim - 1 - len(block.groups)
        beside = [x]
        for axis, name in enumerate(block.groups):
            if name in tables:
                table = tables[name].astype(x.dtype)
                shape = [1] * (x.ndim - 1)
                shape[first + axis] = len(table)
                beside.append(jnp.broadcast_to(table.reshape((*shape, -1)), (*x.shape[:-1], table.shape[1])))
        found.append(jnp.concatenate(beside, axis=-1))
    return tuple(found)
