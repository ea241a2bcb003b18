"""Plain feed-forward networks in the two forms used by the constructions of critical points and paths.

{'w': [m, din], 'a': [m, dout]} for f(x) = sum_i a_i sigma(w_i . x), and the parameters of an `sbjax.models.mlp.MLP`
without normalisation, {'dense_0': {'kernel': [din, m], 'bias': [m]}, 'dense_1': ..}, with or without biases.
"""

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sbjax import trees
from sbjax.common import devices

Network = Mapping[str, Any]
"""Parameters in one of the two forms."""

Activation = Callable[[Array], Array]
Loss = Callable[[Array, Array], Array]


class Layer(NamedTuple):
    """x -> x @ kernel + bias.

    Attributes:
        kernel: [in, out].
        bias: [out], or None.
    """

    kernel: Float[Array, "in out"]
    bias: Float[Array, "out"] | None


def to_layers(params: Network) -> tuple[Layer, ...]:
    """The layers of a network of either form, first to last.

    Raises:
        ValueError: another form, shapes of kernels and biases that do not fit, or fewer than two layers.

    >>> [layer.kernel.shape for layer in to_layers({'w': np.ones((4, 2)), 'a': np.ones((4, 1))})]
    [(2, 4), (4, 1)]
    """
    if set(params) == {"w", "a"}:
        layers = (Layer(params["w"].T, None), Layer(params["a"], None))
    else:
        names = sorted(params, key=lambda name: (len(name), name))
        if names != [f"dense_{i}" for i in range(len(names))] or len(names) < 2:
            raise ValueError(
                f"params has the entries {names}: give {{'w', 'a'}} or two or more layers 'dense_0', 'dense_1', .. "
                "of an MLP without normalisation"
            )
        layers = tuple(Layer(params[name]["kernel"], params[name].get("bias")) for name in names)
    shapes = [layer.kernel.shape for layer in layers]
    fits = all(len(shape) == 2 for shape in shapes)
    if not fits or any(before[1] != after[0] for before, after in itertools.pairwise(shapes)):
        raise ValueError(f"params has kernels of shapes {shapes}: give [in, out] with matching consecutive layers")
    biases = [None if layer.bias is None else np.shape(layer.bias) for layer in layers]
    if any(bias not in (None, shape[1:]) for bias, shape in zip(biases, shapes)):
        raise ValueError(f"params has biases of shapes {biases} beside kernels of {shapes}: give [out]")
    return layers


def from_layers(layers: Sequence[Layer], like: Network) -> dict[str, Any]:
    """Convert layers to the form of the network `like`.

    >>> two = {'w': np.ones((4, 2)), 'a': np.ones((4, 1))}
    >>> from_layers(to_layers(two), two)['w'].shape
    (4, 2)
    """
    if set(like) == {"w", "a"}:
        return {"w": layers[0].kernel.T, "a": layers[1].kernel}
    return {
        f"dense_{i}": {"kernel": layer.kernel} | ({} if layer.bias is None else {"bias": layer.bias})
        for i, layer in enumerate(layers)
    }


def forward(params: Network, x: Float[Array, "n din"], activation: Activation) -> Float[Array, "n dout"]:
    """Outputs of the network, with the activation after every layer except the last.

    >>> forward({'w': jnp.ones((3, 2)), 'a': jnp.ones((3, 1))}, jnp.ones((1, 2)), lambda z: z).tolist()
    [[6.0]]
    """
    layers = to_layers(params)
    for layer in layers[:-1]:
        x = activation(affine(layer, x))
    return affine(layers[-1], x)


def affine(layer: Layer, x: Float[Array, "n in"]) -> Float[Array, "n out"]:
    """x @ kernel + bias."""
    z = jnp.matmul(x, layer.kernel, precision=jax.lax.Precision.HIGHEST)
    return z if layer.bias is None else z + trees.along(layer.bias, z)


def mean_squared_error(outputs: Float[Array, "n dout"], y: Float[Array, "n dout"]) -> Float[Array, ""]:
    """1/N sum_x |f(x) - y|^2, without the factor 1/2.

    >>> mean_squared_error(jnp.ones((2, 3)), jnp.zeros((2, 3))).item()
    3.0
    """
    return jnp.sum((outputs - y) ** 2) / len(y)


def check_data(params: Network, x: Float[Array, "n din"], y: Float[Array, "n dout"]) -> None:
    """Check the shapes of data against a network.

    Raises:
        ValueError: x is not [n, din], or y is not [n, dout].
    """
    layers = to_layers(params)
    want = ((len(x), layers[0].kernel.shape[0]), (len(x), layers[-1].kernel.shape[1]))
    if (x.shape, y.shape) != want:
        raise ValueError(f"x has shape {x.shape} and y {y.shape}: this network takes {want[0]} and {want[1]}")


def hidden_layer(params: Network, layer: int) -> tuple[tuple[Layer, ...], int]:
    """The layers, and `layer` as a non-negative index of a hidden layer (0 is the first, -1 the last).

    Raises:
        ValueError: there is no such hidden layer.
    """
    layers = to_layers(params)
    hidden = len(layers) - 1
    if not -hidden <= layer < hidden:
        raise ValueError(f"layer={layer} does not exist: the network has hidden layers 0 .. {hidden - 1}")
    return layers, layer % hidden


def activation_symmetry(activation: Activation) -> str | None:
    """Symmetry of an activation, detected on a grid in double precision; None if it has none.

    Such a symmetry makes units equivalent that are not copies (w and -w), so that the network has more symmetries than
    copies and cancelling groups. One of: 'affine', 'odd', 'even', 'positively homogeneous', 'odd up to a constant'
    (sigmoid), 'even up to a linear function' (softplus, GELU, SiLU).

    >>> activation_symmetry(jnp.tanh), activation_symmetry(jax.nn.sigmoid)
    ('odd', 'odd up to a constant')
    >>> activation_symmetry(lambda z: jax.nn.sigmoid(4 * z) + jax.nn.softplus(z))
    """
    z = np.linspace(0, 3, 61)
    with devices.double():
        plus, minus, double, double_minus = (
            np.asarray(activation(jnp.asarray(c * z)), np.float64) for c in (1, -1, 2, -2)
        )
    scale = 1e-12 * max(1.0, np.abs(double).max(), np.abs(double_minus).max())

    def zero(values):
        return np.abs(values).max() <= scale

    def linear(values):
        return zero(values * z[-1] - values[-1] * z)

    odd, even = plus + minus, plus - minus
    cases = {
        "affine": linear(plus - plus[0]) and zero(odd - odd[0]),
        "odd": zero(odd),
        "even": zero(even),
        "positively homogeneous": zero(double - 2 * plus) and zero(double_minus - 2 * minus),
        "odd up to a constant": zero(odd - odd[0]),
        "even up to a linear function": linear(even),
    }
    return next((name for name, holds in cases.items() if holds), None)


def warn_of_symmetry(activation: Activation, consequence: str, *, known: Sequence[str] = ()) -> str | None:
    """`activation_symmetry`, with a warning that names the symmetry and its consequence unless it is in `known`."""
    found = activation_symmetry(activation)
    if found and found not in known:
        warnings.warn(f"the activation is {found}: {consequence}", UserWarning, stacklevel=3)
    return found
