"""Neural networks for temperature-dependent quark and gluon masses."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sbjax.expansion.transform import VectorExpansion, expand
from sbjax.names import check_choice, near
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

    first: int = 16
    width: int = 32
    blocks: int = 7
    largest: float = 3.0
    expansion: VectorExpansion | None = None
    dtype: str = "float32"

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
"""Three independent `MassNet`s: T [..] (and mu_B [..]) -> masses [.., 3] in the order of `qcd.SPECIES`. Parameters have
a leading axis of size 3."""

OPTIONS = ("first", "width", "blocks", "largest", "dtype")


def make_quasi_partons(
    name: str, *, expansion: VectorExpansion | None = None, x64: bool = False, **options: Any
) -> nn.Module:
    """The mass networks by name.

    Args:
        name: 'quasi_parton'.
        expansion: as in `MassNet`.
        x64: whether jax is in double precision.
        options: first, width, blocks, largest, dtype of `MassNet`.

    Raises:
        ValueError: an unknown name or option (with similar names), an invalid value, an expansion of another kind.

    >>> import jax
    >>> masses = make_quasi_partons('quasi_parton', blocks=1)
    >>> shapes, variables = jax.eval_shape(lambda: masses.init_with_output(jax.random.key(0), jnp.ones(4)))
    >>> shapes.shape, variables['params']['dense_0']['kernel'].shape
    ((4, 3), (3, 1, 16))
    """
    if name != "quasi_parton":
        raise ValueError(
            f"name={name!r} is no network for an equation of state{near(name, ['quasi_parton'])}; use 'quasi_parton'"
        )
    if not isinstance(expansion, VectorExpansion | None):
        raise ValueError(f"expansion={expansion!r} is not for a temperature; use a VectorExpansion or None")
    for option, value in options.items():
        if option not in OPTIONS:
            raise ValueError(
                f"{option} is unknown for 'quasi_parton'{near(option, OPTIONS)}; known: {', '.join(OPTIONS)}"
            )
        least = 0 if option == "blocks" else 1
        if option in ("first", "width", "blocks") and (type(value) is not int or value < least):
            raise ValueError(f"{option}={value!r} must be a whole number >= {least}")
    if not options.get("largest", 1.0) > 0:
        raise ValueError(f"largest={options['largest']} must be a mass in GeV > 0, such as 3.0")
    dtype = options.get("dtype", "float32")
    check_choice(dtype, ("float32", "float64"), what="dtype")
    if dtype == "float64" and not x64:
        raise ValueError("dtype='float64' needs x64=True, jax in double precision")
    return QuasiPartonMasses(**options, expansion=expansion)
