"""Coordinate networks: smooth functions of coordinates, for differential equations and regression."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sbjax import trees
from sbjax.common.options import MISSING, given, option
from sbjax.expansion.transform import Expansion, VectorExpansion, expand
from sbjax.models import layers


class Field(nn.Module):
    """Perceptron from coordinates [.., d] to unknowns [.., unknowns], with dense layers `dense_0`, `dense_1`, ..

    Coordinates are first scaled to [-1, 1] if `normalise`, mapped to [cos(2 pi B x), sin(2 pi B x)] if `features`, and
    expanded if `expansion` is given. This is part of the network, so derivatives are with respect to the original
    coordinates. Weights are initialised by Glorot's normal distribution, biases by zero.

    Attributes:
        unknowns: number of outputs.
        widths: hidden widths.
        lower, upper: bounds of the coordinates.
        activation: a name of `layers.ACTIVATIONS`; for equations a smooth one: tanh, sin, silu, softplus, gelu.
        normalise: scale the coordinates from their bounds to [-1, 1].
        features: number of rows of the random matrix B, frozen in the collection 'frozen', with normal entries of
            standard deviation `feature_scale`; 0 = none.
        feature_scale: frequency scale in periods per unit of the scaled coordinate.
        expansion: constants around the transformed coordinates; None = raw.
        dtype: dtype of parameters and computation.

    Source of the random features: Tancik et al., arXiv 2006.10739, eq. 3.

    >>> import jax, jax.numpy as jnp
    >>> field = Field(unknowns=1, widths=(8,), lower=(0., 0.), upper=(1., 1.), expansion=VectorExpansion(2, 2))
    >>> variables = field.init(jax.random.key(0), jnp.zeros(2))
    >>> variables['params']['dense_0']['kernel'].shape, field.apply(variables, jnp.zeros((5, 2))).shape
    ((6, 8), (5, 1))
    """

    unknowns: int
    widths: Sequence[int] = option(MISSING, "hidden widths", least=1, like=(32, 32, 32))
    lower: Sequence[float]
    upper: Sequence[float]
    activation: str = layers.activation_option("tanh")
    normalise: bool = option(False, "scale the coordinates to [-1, 1]")
    features: int = option(0, "random Fourier features, frozen; 0 = none", least=0)
    feature_scale: float = option(1.0, "deviation of their frequencies", above=0, only={"features": given()})
    expansion: Expansion | None = None
    dtype: str = layers.dtype_option(("float32", "float64"), "of parameters and computation")

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch unknowns"]:
        x = jnp.asarray(x, self.dtype)
        if self.normalise:
            centre, slope = scaling(self.lower, self.upper, self.dtype)
            x = (x - trees.along(centre, x)) * trees.along(slope, x)
        if self.features:
            shape = (x.shape[-1], self.features)
            draw = partial(nn.initializers.normal(self.feature_scale), shape=shape, dtype=self.dtype)
            frequencies = self.variable("frozen", "frequencies", lambda: draw(self.make_rng("params")))
            phases = 2 * jnp.pi * (x @ frequencies.value)
            x = jnp.concatenate([jnp.cos(phases), jnp.sin(phases)], -1)
        x = expand(self.expansion, x)
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=self.dtype, kernel_init=nn.initializers.glorot_normal())
        for i, width in enumerate(self.widths):
            x = layers.ACTIVATIONS[self.activation](dense(width, name=f"dense_{i}")(x))
        return dense(self.unknowns, name=f"dense_{len(self.widths)}")(x)


def scaling(lower: Sequence[float], upper: Sequence[float], dtype: str) -> tuple[Array, Array]:
    """Centre c and slope s of (x - c) s, which maps [lower, upper] to [-1, 1].

    >>> [part.tolist() for part in scaling((0.0,), (4.0,), 'float32')]
    [[2.0], [0.5]]
    """
    lower, upper = jnp.asarray(lower, dtype), jnp.asarray(upper, dtype)
    return (lower + upper) / 2, 2 / (upper - lower)


def effective_layers(field: Field, params: dict) -> list[tuple[Array, Array]]:
    """The field as a plain perceptron of the original coordinates: [(weight, bias), ..].

    Scaling and expansion are folded into the first layer, as by `sbjax.expansion.folding.fold`, differentiably.

    Raises:
        ValueError: random features, which are no affine map; an expansion of the user's own.
    """
    if field.features:
        raise ValueError(f"features={field.features}: a field with random features is not a plain perceptron")
    if not isinstance(field.expansion, VectorExpansion | None):
        raise ValueError(f"expansion={field.expansion!r}: only a VectorExpansion is known to be folded")
    count = len(field.widths) + 1
    (weight, bias), *rest = [(params[f"dense_{i}"]["kernel"], params[f"dense_{i}"]["bias"]) for i in range(count)]
    if field.expansion is not None:
        before, constants = field.expansion.before, jnp.asarray(field.expansion.constants, weight.dtype)
        data = slice(before, len(weight) - field.expansion.after)
        bias = bias + constants[:before] @ weight[:before] + constants[before:] @ weight[data.stop :]
        weight = weight[data]
    if field.normalise:
        centre, slope = scaling(field.lower, field.upper, field.dtype)
        weight = slope[:, None] * weight
        bias = bias - centre @ weight
    return [(weight, bias), *rest]
