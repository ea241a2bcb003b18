"""Multi-layer perceptron."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.asymmetry.figlu import Gate
from sbjax.common.options import option
from sbjax.models import layers


class MLP(nn.Module):
    """Dense layers `dense_0`, `dense_1`, .. with normalisation, activation and dropout after all except the last.

    Attributes:
        classes: outputs.
        widths: hidden widths.
        norm: 'batch', 'group', 'layer' or 'none'.
        dropout: rate in [0, 1).
        activation: a name of `layers.ACTIVATIONS`, or a `Gate`.
        dtype: compute dtype; parameters and logits are float32 or wider.

    >>> import jax, jax.numpy as jnp
    >>> mlp = MLP(classes=10, widths=(32,), norm='none')
    >>> variables = mlp.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    >>> mlp.apply(variables, jnp.zeros((5, 8, 8, 1))).shape
    (5, 10)
    """

    classes: int
    widths: Sequence[int] = option((128, 128), "hidden widths", least=1)
    norm: str = layers.norm_option("none")
    dropout: float = layers.dropout_option()
    activation: str | Gate = layers.activation_option("relu")
    dtype: str = layers.dtype_option()
    accepts_gate: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."], train: bool = False) -> Float[Array, "batch classes"]:
        wide = layers.param_dtype(self.dtype)
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=wide)
        x = x.reshape(len(x), -1).astype(self.dtype)
        for i, width in enumerate(self.widths):
            x = dense(width, kernel_init=nn.initializers.he_normal(), name=f"dense_{i}")(x)
            x = layers.make_norm(self.norm, train=train, name=f"norm_{i}", dtype=self.dtype)(x)
            x = layers.make_activation(self.activation, name=f"act_{i}")(x)
            x = layers.dropout(x, self.dropout, train=train)
        return dense(self.classes, name=f"dense_{len(self.widths)}")(x).astype(wide)
