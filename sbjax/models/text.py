"""Classifiers of texts: a bag of embeddings, a convolutional net, an LSTM and a small transformer.

All read places in a vocabulary, 0 where there is no word. The input expansion acts on the embeddings: constants between
or beside the features of a word, or constant tokens between the words. Padding is masked in every model: what stands in
a place without a word changes nothing. A constant token counts as a word where the word of its cell is one.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from sbjax.common.options import option
from sbjax.expansion.kinds import Expansion, SequenceExpansion
from sbjax.expansion.transform import expand
from sbjax.models import layers


class TextModel(nn.Module):
    """What the models share: embedding, expansion, mask, and a dense head on what `read` gives.

    Attributes:
        classes: outputs.
        vocabulary: entries of the embedding.
        expansion: of the embeddings [.., length, width]; None = none.
        width: of the embeddings.
        learned_fill: a trained vector in place of the constant tokens of an expansion with axis='token'; a control.
        dropout: rate before the head.
    """

    classes: int
    vocabulary: int
    expansion: Expansion | None = None
    width: int = option(64, "of the embeddings", least=1, most=10**4)
    learned_fill: bool = option(False, "train what stands in the new tokens of an expansion with axis='token'")
    dropout: float = layers.dropout_option()
    head: ClassVar[str] = "head"

    @nn.compact
    def __call__(self, tokens: Int[Array, "batch length"], train: bool = False) -> Float[Array, "batch classes"]:
        mask = tokens > 0
        # The embedding of padding is never seen: it is masked.
        table = self.param("embedding", nn.initializers.normal(0.1), (self.vocabulary, self.width), jnp.float32)
        x, mask = self.expanded(table[tokens], mask)
        x = layers.dropout(self.read(x, mask, train), self.dropout, train=train)
        return nn.Dense(self.classes, name=self.head)(x)

    def expanded(
        self, x: Float[Array, "batch length width"], mask: Bool[Array, "batch length"]
    ) -> tuple[Float[Array, "batch long wide"], Bool[Array, "batch long"]]:
        """Embeddings and mask with the expansion in them."""
        kind, words = self.expansion, mask.shape[1]
        if kind is None:
            return x, mask
        x = expand(kind, x)
        mask = jnp.repeat(mask, x.shape[1] // words, axis=1)
        if self.learned_fill:
            if not isinstance(kind, SequenceExpansion) or kind.axis != "token":
                raise ValueError("learned_fill needs an expansion of kind='sequence' with axis='token'")
            fill = self.param("fill", nn.initializers.constant(kind.fill), (self.width,), jnp.float32)
            data = (jnp.arange(x.shape[1]) % kind.factor == kind.offset)[None, :, None]
            x = jnp.where(data, x, fill.astype(x.dtype)[None, None, :])
        return x, mask

    def read(
        self, x: Float[Array, "batch length width"], mask: Bool[Array, "batch length"], train: bool
    ) -> Float[Array, "batch features"]:
        """Features of a text from its (expanded) embeddings; whatever is masked must not matter."""
        raise NotImplementedError


class BagOfEmbeddings(TextModel):
    """The mean of the embeddings of a text's words.

    >>> import jax, jax.numpy as jnp
    >>> model = BagOfEmbeddings(classes=2, vocabulary=100, width=8)
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 5), jnp.int32))
    >>> model.apply(variables, jnp.ones((3, 5), jnp.int32)).shape
    (3, 2)
    """

    head: ClassVar[str] = "dense_0"  # the first dense layer: its bias is what constant features change

    def read(self, x, mask, train):
        return masked_mean(x, mask)


class TextCNN(TextModel):
    """Convolutions of several window sizes over the words, and the largest value of each filter (arXiv 1408.5882).

    Attributes:
        windows: their sizes, in tokens.
        filters: of each window.
        dilation: of the windows; a control of the distance of words that an expansion by tokens brings.
    """

    windows: Sequence[int] = option((3, 4, 5), "sizes, in tokens", least=1, most=100)
    filters: int = option(100, "of each window", least=1, most=10**4)
    dilation: int = option(1, "of the windows", least=1, most=100)

    def read(self, x, mask, train):
        if len(set(self.windows)) < len(self.windows):
            raise ValueError(f"windows={tuple(self.windows)} name a size twice; give more filters instead")
        x = x * mask[..., None].astype(x.dtype)
        found = []
        for size in self.windows:
            y = nn.relu(Windows(self.filters, size, self.dilation, name=f"window_{size}")(x))
            # A window counts where its middle is a word; relu makes 0 the least.
            found.append(layers.max_over(jnp.where(mask[..., None], y, 0.0), 1))
        return jnp.concatenate(found, axis=-1)


class Windows(nn.Module):
    """A convolution over tokens as a product with stacked shifts: on CPU, and vmapped over replicas, one matmul.

    Attributes:
        filters: outputs.
        size: of the window.
        dilation: distance of its tokens.
    """

    filters: int
    size: int
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length filters"]:
        reach = self.dilation * (self.size - 1)
        left = reach // 2
        padded = jnp.pad(x, ((0, 0), (left, reach - left), (0, 0)))
        shifts = [padded[:, i * self.dilation : i * self.dilation + x.shape[1]] for i in range(self.size)]
        return nn.Dense(self.filters, name="dense", kernel_init=nn.initializers.he_normal())(
            jnp.concatenate(shifts, axis=-1)
        )


class LSTM(TextModel):
    """A long short-term memory; its state after the last word.

    Attributes:
        hidden: size of the state.
    """

    hidden: int = option(64, "size of the state", least=1, most=10**4)

    def read(self, x, mask, train):
        cell = nn.LSTMCell(self.hidden, name="cell")
        carry = cell.initialize_carry(jax.random.key(0), x[:, 0].shape)

        def step(cell, carry, inputs):
            token, there = inputs
            new, _ = cell(carry, token)
            return jax.tree.map(lambda a, b: jnp.where(there[:, None], a, b), new, carry), None

        scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False}, in_axes=1)
        (_, state), _ = scan(cell, carry, (x, mask))
        return state


class TextTransformer(TextModel):
    """A small transformer encoder with learned positions, layer norm first; the mean over the words.

    Attributes:
        depth: blocks.
        heads: of attention.
        positions: how many there are; at least the length of an (expanded) text.
    """

    depth: int = option(2, "blocks", least=1, most=100)
    heads: int = option(4, "of attention; divides the (expanded) width", least=1, most=100)
    positions: int = option(256, "at least the tokens of an expanded text", least=1, most=10**5)

    def read(self, x, mask, train):
        length, width = x.shape[1:]
        if width % self.heads:
            raise ValueError(f"heads={self.heads} must divide the width of the expanded embeddings, {width}")
        if length > self.positions:
            raise ValueError(f"positions={self.positions} are fewer than the {length} tokens of an expanded text")
        places = self.param("positions_table", nn.initializers.normal(0.02), (self.positions, width), jnp.float32)
        x = x + places[None, :length].astype(x.dtype)
        seen = mask[:, None, None, :]
        for i in range(self.depth):
            y = nn.LayerNorm(name=f"norm_{2 * i}")(x)
            x = x + nn.MultiHeadDotProductAttention(self.heads, name=f"attention_{i}")(y, y, mask=seen)
            y = nn.LayerNorm(name=f"norm_{2 * i + 1}")(x)
            y = nn.Dense(2 * width, name=f"dense_{2 * i}")(y)
            x = x + nn.Dense(width, name=f"dense_{2 * i + 1}")(nn.gelu(y))
        return masked_mean(nn.LayerNorm(name="norm_last")(x), mask)


def masked_mean(
    x: Float[Array, "batch length width"], mask: Bool[Array, "batch length"]
) -> Float[Array, "batch width"]:
    """The mean over the words of each text; 0 where there is none."""
    weight = mask[..., None].astype(x.dtype)
    return jnp.sum(x * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1)
