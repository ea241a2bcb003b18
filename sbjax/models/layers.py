"""Layers shared by the architecture families: convolution, normalisation, pooling, dropout, activations."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "celu": nn.celu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "identity": lambda x: x,
    "leaky_relu": nn.leaky_relu,
    "relu": nn.relu,
    "selu": nn.selu,
    "sigmoid": nn.sigmoid,
    "silu": nn.silu,
    "sin": jnp.sin,
    "softplus": nn.softplus,
    "tanh": nn.tanh,
}
NORMS = ("batch", "group", "layer", "none")

# He et al., arXiv 1502.01852: variance 2 / (kh kw out), so that the gradient keeps its scale through relu.
he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
