"""A small pre-norm transformer on sequences of vectors, in the forms whose parameter symmetries differ.

Names of its layers are those of `sbjax.models.text.TextTransformer`, so that
`sbjax.symmetry.attention_layout.layout_of` reads both.
"""

import functools
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from sbjax import trees
from sbjax.common.options import MISSING, check_instance, option

ACTIVATIONS = {"gelu": nn.gelu, "relu": nn.relu, "tanh": nn.tanh}


class Transformer(nn.Module):
    """Tokens [.., length, features] -> logits [.., classes]: a dense embedding, blocks, a norm, the mean, a head.

    Attributes:
        classes: outputs.
        width: of the residual stream.
        depth: blocks of attention and two dense layers.
        heads: of attention.
        size: of a head; 0 = width / heads.
        hidden: units of a block's dense layers; 0 = twice the width.
        norm: 'rms' or 'layer'.
        eps: added to the mean square by the norms.
        activation: of the dense layers.
        positions: 'learned' (a table added to the embeddings) or 'rope' (rotations of queries and keys).
        rope_base: of the frequencies, see `rope_frequencies`.
        bias: whether dense and attention layers have biases. A layer norm has one if they do.

    >>> import jax
    >>> net = Transformer(classes=3, width=8, depth=1, positions='rope')
    >>> x = jnp.ones((2, 4, 5))
    >>> net.apply(net.init(jax.random.key(0), x), x).shape
    (2, 3)
    """

    classes: int = option(MISSING, "outputs", least=1, like=1)
    width: int = option(32, "of the residual stream", least=1, most=10**4)
    depth: int = option(2, "blocks", least=1, most=100)
    heads: int = option(4, "of attention", least=1, most=100)
    size: int = option(0, "of a head; 0 = width / heads", least=0, most=10**4)
    hidden: int = option(0, "units of a block's dense layers; 0 = twice the width", least=0, most=10**5)
    norm: str = option("rms", "before each layer", choices=("rms", "layer"))
    eps: float = option(1e-6, "added to the mean square by the norms", least=0, most=1)
    activation: str = option("relu", "of the dense layers", choices=tuple(ACTIVATIONS))
    positions: str = option("learned", "how tokens know their place", choices=("learned", "rope"))
    rope_base: float = option(100.0, "of the frequencies; 1 = all the same", least=1, most=1e6)
    bias: bool = option(False, "biases in dense and attention layers, and in layer norms")
    head: ClassVar[str] = "head"

    @nn.compact
    def __call__(self, x: Float[Array, "*batch length features"]) -> Float[Array, "*batch classes"]:
        check_instance(self)
        if x.ndim < 2 or not x.shape[-2]:
            raise ValueError(f"x has shape {x.shape}: give tokens [.., length, features], one or more")
        if not self.size and self.width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width}, or size be given")
        size = self.size or self.width // self.heads
        hidden, length = self.hidden or 2 * self.width, x.shape[-2]
        dtype = trees.promoted(x, jnp.float32)
        dense = functools.partial(nn.Dense, dtype=dtype)
        x = dense(self.width, use_bias=False, name="embedding")(x)
        attention = nn.dot_product_attention
        if self.positions == "learned":
            table = self.param("positions_table", nn.initializers.normal(0.1), (length, self.width), jnp.float32)
            x = x + trees.along(table.astype(dtype), x)
        else:
            angles = np.arange(length)[:, None] * np.array(rope_frequencies(size, self.rope_base))

            def attention(query, key, value, **options):
                return nn.dot_product_attention(rotate(query, angles), rotate(key, angles), value, **options)

        for i in range(self.depth):
            y = self._norm(f"norm_{2 * i}")(x)
            x = x + nn.MultiHeadDotProductAttention(
                self.heads,
                qkv_features=size * self.heads,
                use_bias=self.bias,
                dtype=dtype,
                attention_fn=attention,
                name=f"attention_{i}",
            )(y, y)
            y = self._norm(f"norm_{2 * i + 1}")(x)
            y = ACTIVATIONS[self.activation](dense(hidden, use_bias=self.bias, name=f"dense_{2 * i}")(y))
            x = x + dense(self.width, use_bias=self.bias, name=f"dense_{2 * i + 1}")(y)
        return dense(self.classes, name=self.head)(self._norm("norm_last")(x).mean(-2))

    def _norm(self, name):
        if self.norm == "rms":
            norm = nn.RMSNorm(epsilon=self.eps, name=name)
        else:
            norm = nn.LayerNorm(epsilon=self.eps, use_bias=self.bias, use_fast_variance=False, name=name)

        def call(x):
            with trees.promoting():  # inputs in float64, scales in float32
                return norm(x)

        return call


def rope_frequencies(size: int, base: float = 100.0) -> tuple[float, ...]:
    """Frequencies base^(-2p / size) of the planes of a head of that size; the base is small as the sequences here are.

    Raises:
        ValueError: an odd size, a base that is not positive and finite.

    >>> rope_frequencies(4)
    (1.0, 0.1)
    """
    if not 0 < base < float("inf"):
        raise ValueError(f"base={base} of the frequencies must be > 0 and finite")
    if size % 2 or size < 2:
        raise ValueError(f"size={size} of a head must be even with positions='rope', which turn planes")
    return tuple(base ** (-2 * p / size) for p in range(size // 2))


def rotate(
    x: Float[Array, "*batch length heads size"], angles: Float[np.ndarray, "length planes"]
) -> Float[Array, "*batch length heads size"]:
    """Planes (2p, 2p + 1) of the last axis turned by their angles at each place.

    Source: rotary position embedding, arXiv 2104.09864, equation 34.

    >>> rotate(jnp.array([[[1.0, 0.0]]]), np.array([[np.pi / 2]])).round(6).tolist()
    [[[0.0, 1.0]]]
    """
    if (angles.shape[0], 2 * angles.shape[1]) != (x.shape[-3], x.shape[-1]):
        raise ValueError(f"angles have shape {angles.shape}: x of shape {x.shape} needs one for each place and plane")
    parts = (jnp.asarray(part, x.dtype)[:, None] for part in (np.cos(angles), np.sin(angles)))
    cos, sin = (trees.along(part, x) for part in parts)
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)
