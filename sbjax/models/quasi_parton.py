"""Neural networks for temperature-dependent quark and gluon masses."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.common.options import option
from sbjax.expansion.transform import Expansion, expand
from sbjax.models import layers
from sbjax.physics.qcd import SPECIES


def torch_bias(fan_in: int) -> nn.initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the default of PyTorch's linear layer."""
    bound = fan_in**-0.5
    uniform = nn.initializers.uniform(2 * bound)
    return lambda key, shape, dtype=jnp.float32: uniform(key, shape, dtype) - bound


class MassNet(nn.Module):
    """Temperatures [..] in GeV -> one mass [..] in GeV.

    Dense layers in - `first` - `width`, `blocks` residual blocks x + W_2 sigmoid(W_1 x + b_1) + b_2, dense layers
    `width` - `first` - 1; swish after every layer and block except the last, whose sigmoid is scaled to (0, `largest`).
    Weights are initialised by He's uniform distribution, biases by U(+-1/sqrt(fan in)).

    Attributes:
        first: width of the outermost hidden layers.
        width: width of the residual blocks.
        blocks: number of residual blocks.
        largest: upper bound of the masses in GeV.
        expansion: constants around the input; None = raw. Part of the network, so that derivatives are with respect to
            the temperature.
        dtype: dtype of parameters and computation.

    Source: code of arXiv 2211.07994 (version with error propagation).
    """

    first: int = option(16, "width of the outermost hidden layers", least=1)
    width: int = option(32, "width of the residual blocks", least=1)
    blocks: int = option(7, "residual blocks", least=0, most=100)
    largest: float = option(3.0, "GeV, above every mass", above=0)
    expansion: Expansion | None = None
    dtype: str = layers.dtype_option(("float32", "float64"), "of parameters and computation")

    @nn.compact
    def __call__(self, T: Float[Array, "*shape"], mu_B: Float[Array, "*shape"] | None = None) -> Float[Array, "*shape"]:
        def dense(name, units, x):
            return nn.Dense(
                units,
                name=name,
                dtype=self.dtype,
                param_dtype=self.dtype,
                kernel_init=nn.initializers.he_uniform(),
                bias_init=torch_bias(x.shape[-1]),
            )(x)

        coordinates = [T] if mu_B is None else [T, jnp.broadcast_to(mu_B, jnp.shape(T))]
        x = expand(self.expansion, jnp.stack([jnp.asarray(c, self.dtype) for c in coordinates], -1))
        x = nn.swish(dense("dense_0", self.first, x))
        x = nn.swish(dense("dense_1", self.width, x))
        for i in range(self.blocks):
            y = nn.sigmoid(dense(f"block_{i}_in", self.width, x))
            x = nn.swish(x + dense(f"block_{i}_out", self.width, y))
        x = nn.swish(dense("dense_2", self.first, x))
        return self.largest * nn.sigmoid(dense("dense_3", 1, x)[..., 0])


QuasiPartonMasses = nn.vmap(
    MassNet,
    in_axes=None,
    out_axes=-1,
    axis_size=len(SPECIES),
    variable_axes={"params": 0},
    split_rngs={"params": True},
)
"""Three independent `MassNet` in one: T [..] (and mu_B [..]) -> masses [.., 3] in the order of `qcd.SPECIES`; every
parameter has a leading axis of 3."""
