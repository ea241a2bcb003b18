"""Partial derivatives of a solution by name: 'u' is the value, 'u_xxt' is d^3 u / dx^2 dt.

`partials` differentiates any function of one point in one of four modes, which agree to round-off and differ in cost.
`mlp_partials` propagates derivatives through the layers of a multi-layer perceptron explicitly.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import jet
from jax.extend.core import Primitive
from jaxtyping import Array, Float

from sbjax.common.names import near

Solution = Callable[[Float[Array, " d"]], Float[Array, " unknowns"]]
Orders = tuple[int, ...]  # order of differentiation with respect to each coordinate


class Partial(NamedTuple):
    """A parsed name: index of the unknown, order of differentiation with respect to each coordinate."""

    unknown: int
    orders: Orders


def parse_partial(name: str, coordinates: Sequence[str], unknowns: Sequence[str]) -> Partial:
    """Parse a name such as 'u_xxt'; the order of the letters does not matter.

    Raises:
        ValueError: the part before '_' is not an unknown, or the part after it is not made of coordinates.

    >>> parse_partial('v_xxt', ('x', 't'), ('u', 'v'))
    Partial(unknown=1, orders=(2, 1))
    >>> parse_partial('u_x1x5', ('x1', 'x5'), ('u',)).orders
    (1, 1)
    """
    unknown, underscore, tail = name.partition("_")
    if unknown not in unknowns:
        raise ValueError(
            f"partial {name!r}: {unknown!r} is not an unknown{near(unknown, unknowns)}; known: {', '.join(unknowns)}"
        )
    letter = "|".join(map(re.escape, sorted(coordinates, key=len, reverse=True)))
    if underscore and not re.fullmatch(f"(?:{letter})+", tail):
        raise ValueError(
            f"partial {name!r}: {tail!r} is not made of the coordinates {', '.join(coordinates)}; "
            f"write {unknown}_{coordinates[0]}{coordinates[-1]}, for example"
        )
    letters = re.findall(letter, tail)
    return Partial(list(unknowns).index(unknown), tuple(map(letters.count, coordinates)))


def partials(
    u_fn: Solution,
    x: Float[Array, " d"],
    names: Iterable[str],
    *,
    coordinates: Sequence[str],
    unknowns: Sequence[str],
    mode: str = "forward",
) -> dict[str, Float[Array, ""]]:
    """Partial derivatives of `u_fn` at the point `x`.

    Map over points outside: `jax.vmap(lambda x: partials(u_fn, x, ..))(points)`.

    Args:
        u_fn: [d] -> [unknowns], smooth.
        x: one point, [d], in the order of `coordinates`.
        names: partials, such as ('u', 'u_t', 'u_xx').
        coordinates: names of the coordinates, ('x', 't').
        unknowns: names of the outputs, ('u',).
        mode: differentiation mode; all agree to round-off.
            'nested': reverse mode, nested once per order.
            'forward_over_reverse': gradient by reverse mode, higher orders by forward mode on top; for first orders in
                many coordinates.
            'forward': nested forward mode along the needed directions, shared between terms; on CPU the fastest or
                nearly so in two coordinates, in particular with several unknowns.
            'taylor': `jax.experimental.jet`, all orders along a coordinate in one pass; for orders >= 3. Mixed partials
                add forward mode on top.

    Returns:
        {name: scalar}.

    Raises:
        ValueError: an invalid name or mode, or a wrong shape of `x` or of the output.
        NotImplementedError: mode 'taylor' for functions without a jet rule: arctan, arcsin, loops, functions with
            `jax.custom_jvp` such as `jax.nn.relu` and `softplus`. Supported are tanh, sin, exp, sigmoid, silu, gelu.

    Example:
        >>> u_fn = lambda p: jnp.array([p[0] ** 3 * p[1]])
        >>> found = partials(u_fn, jnp.array([2.0, 5.0]), ('u', 'u_t', 'u_xx', 'u_xxt'), coordinates='xt', unknowns='u')
        >>> {name: float(value) for name, value in found.items()}
        {'u': 40.0, 'u_t': 8.0, 'u_xx': 60.0, 'u_xxt': 12.0}

    Source: Taylor mode is Bettencourt, Johnson and Duvenaud, "Taylor-mode automatic differentiation for higher-order
    derivatives in JAX" (2019); its use in this setting is studied in arXiv 2412.00088.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is unknown{near(mode, MODES)}; known: {', '.join(MODES)}")
    wanted = {name: parse_partial(name, coordinates, unknowns) for name in names}
    if x.shape != (len(coordinates),):
        raise ValueError(f"x has shape {x.shape}, needs ({len(coordinates)},): one point, {', '.join(coordinates)}")
    outputs = jax.eval_shape(u_fn, x).shape
    if outputs != (len(unknowns),):
        raise ValueError(f"u_fn gives shape {outputs}, needs ({len(unknowns)},): an output for {', '.join(unknowns)}")
    found: dict[Orders, Array] = {}
    for orders in sorted({partial.orders for partial in wanted.values()}, key=lambda o: (-sum(o), o)):
        if orders not in found:  # highest first: it yields lower orders as well
            found = _FUNCTIONS[mode](u_fn, orders)(x) | found
    return {name: found[orders][unknown] for name, (unknown, orders) in wanted.items()}


# Each returns a function x -> {orders: [unknowns]} that contains at least the requested orders.


def _nested(u_fn, orders):
    def derivative(orders):
        if not any(orders):
            return u_fn
        i = max(i for i, order in enumerate(orders) if order)
        lower = derivative(_raised(orders, i, -1))
        return lambda x: jax.jacrev(lower)(x)[:, i]

    return lambda x: {orders: derivative(orders)(x)}


def _forward_over_reverse(u_fn, orders):
    zero = (0,) * len(orders)
    if not any(orders):
        return lambda x: {zero: u_fn(x)}

    def gradient(x):
        value, pullback = jax.vjp(u_fn, x)
        (jacobian,) = jax.vmap(pullback)(jnp.eye(len(value), dtype=value.dtype))
        return {zero: value} | {_raised(zero, i): jacobian[:, i] for i in range(len(x))}

    return _pushed(gradient, _directions(orders)[1:])


def _forward(u_fn, orders):
    return _pushed(lambda x: {(0,) * len(orders): u_fn(x)}, _directions(orders))


def _taylor(u_fn, orders):
    zero, axis = (0,) * len(orders), int(np.argmax(orders))
    order = orders[axis]
    if not order:
        return lambda x: {zero: u_fn(x)}

    def series(x):
        try:
            value, terms = jet.jet(u_fn, (x,), ((_unit(x, axis), *[jnp.zeros_like(x)] * (order - 1)),))
        except KeyError as error:
            if not isinstance(error.args[0], Primitive):
                raise
            raise NotImplementedError(
                f"mode='taylor': jax.experimental.jet has no rule for {error}; use another mode, 'forward' for example"
            ) from error
        except (jax.errors.UnexpectedTracerError, AttributeError) as error:
            if isinstance(error, AttributeError) and error.name != "process_primitive":  # what jax 0.12 ends with
                raise
            raise NotImplementedError(
                "mode='taylor': jax.experimental.jet fails in u_fn, as it does for functions with a custom derivative "
                "(jax.custom_jvp: jax.nn.relu, softplus); use another mode, 'forward' for example"
            ) from error
        return {zero: value} | {_raised(zero, axis, k + 1): term for k, term in enumerate(terms)}

    return _pushed(series, _directions(_raised(orders, axis, -order)))


_FUNCTIONS = {
    "nested": _nested,
    "forward_over_reverse": _forward_over_reverse,
    "forward": _forward,
    "taylor": _taylor,
}
MODES = tuple(_FUNCTIONS)


def _pushed(function, directions):
    """Add derivatives of every entry of `function` along each of the directions, by nested forward mode."""
    for i in directions:
        function = _pushed_once(function, i)
    return function


def _pushed_once(function, i):
    def pushed(x):
        values, tangents = jax.jvp(function, (x,), (_unit(x, i),))
        return {_raised(orders, i): tangent for orders, tangent in tangents.items()} | values

    return pushed


def _directions(orders):
    """Directions of differentiation with multiplicity: (2, 1) -> [0, 0, 1]."""
    return [i for i, order in enumerate(orders) for _ in range(order)]


def _raised(orders, i, by=1):
    return (*orders[:i], orders[i] + by, *orders[i + 1 :])


def _unit(x, i):
    return jnp.zeros_like(x).at[i].set(1)


def mlp_partials(
    params: Sequence[tuple[Float[Array, "_ _"], Float[Array, " _"]]],
    x: Float[Array, "*batch d"],
    names: Iterable[str],
    *,
    coordinates: Sequence[str],
    unknowns: Sequence[str],
    activation: str = "tanh",
) -> dict[str, Float[Array, "*batch"]]:
    """Partial derivatives of the perceptron x -> s(.. s(x W_1 + b_1) ..) W_L + b_L for a batch of points.

    Value and derivatives along each coordinate are multiplied by a layer's matrix and passed through the activation s
    by Faa di Bruno's formula.

    Args:
        params: (weight [inputs, outputs], bias [outputs]) of each layer; no activation after the last.
        x: points, [.., d].
        names: unmixed partials of order at most 4.
        coordinates: names of the coordinates.
        unknowns: names of the outputs.
        activation: 'tanh' or 'sin'.

    Returns:
        {name: [..]}, an input of `jax.vmap(equation.residual)(x, found)`.

    Raises:
        ValueError: a partial that is invalid, mixed or of order above 4; an unknown activation; fewer than two layers;
            layers that do not fit the coordinates and unknowns.

    Example:
        >>> params = [(jnp.ones((2, 3)), jnp.zeros(3)), (jnp.ones((3, 1)), jnp.zeros(1))]  # 3 sin(x + t)
        >>> points = jnp.array([[0.0, 0.0], [1.0, 2.0]])
        >>> found = mlp_partials(params, points, ('u', 'u_xxx'), coordinates='xt', unknowns='u', activation='sin')
        >>> [round(float(value), 3) for value in found['u_xxx']]  # -3 cos(x + t)
        [-3.0, 2.97]
    """
    if activation not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise ValueError(f"activation={activation!r} is unknown{near(activation, _ACTIVATIONS)}; known: {known}")
    if len(params) < 2:
        raise ValueError(f"params holds {len(params)} layers, needs at least 2: hidden and output (weight, bias)")
    ends = params[0][0].shape[0], params[-1][0].shape[1]
    if ends != (len(coordinates), len(unknowns)) or x.shape[-1] != len(coordinates):
        raise ValueError(
            f"params go from {ends[0]} inputs to {ends[1]} outputs and x has shape {x.shape}; there are "
            f"{len(coordinates)} coordinates and {len(unknowns)} unknowns, and both must agree"
        )
    wanted = {name: parse_partial(name, coordinates, unknowns) for name in names}
    for name, (_, orders) in wanted.items():
        if sum(map(bool, orders)) > 1 or sum(orders) > 4:
            raise ValueError(f"partial {name!r} is mixed or of order above 4; use `partials` with mode='forward'")
    highest = [max(column) for column in zip(*(orders for _, orders in wanted.values()))]

    # Points on the last axis, one matrix product per derivative: 72 ms per gradient step of Burgers at 5 x 100 on two
    # cores. With points first: 79 ms, and 146 ms with all derivatives stacked into one product.
    derivatives = _ACTIVATIONS[activation]
    (weight, bias), *rest = params
    value, *slopes = derivatives(weight.T @ x.reshape(-1, len(coordinates)).T + bias[:, None], max(highest))
    towers = [
        [slopes[k] * row[:, None] ** (k + 1) for k in range(order)] for row, order in zip(weight, highest, strict=True)
    ]
    for position, (weight, bias) in enumerate(rest):
        value = weight.T @ value + bias[:, None]
        towers = [[weight.T @ derivative for derivative in tower] for tower in towers]
        if position < len(rest) - 1:
            value, *slopes = derivatives(value, max(highest))
            towers = [_composed(slopes, tower) for tower in towers]

    def pick(unknown, orders):
        i = int(np.argmax(orders))
        return (towers[i][orders[i] - 1] if any(orders) else value)[unknown].reshape(x.shape[:-1])

    return {name: pick(*partial) for name, partial in wanted.items()}


def _composed(f, z):
    """Derivatives of f(z(s)) with respect to s from f', f'', .. and z', z'', ..: Faa di Bruno's formula to order 4."""
    y = [f[0] * order for order in z]
    if len(z) > 1:
        y[1] += f[1] * z[0] ** 2
    if len(z) > 2:
        y[2] += 3 * f[1] * z[0] * z[1] + f[2] * z[0] ** 3
    if len(z) > 3:
        y[3] += f[1] * (4 * z[0] * z[2] + 3 * z[1] ** 2) + 6 * f[2] * z[0] ** 2 * z[1] + f[3] * z[0] ** 4
    return y


def _tanh(z, order):
    """tanh and its derivatives up to `order` (at most 4)."""
    y = jnp.tanh(z)
    first = 1 - y**2
    return [y, first, -2 * y * first, (6 * y**2 - 2) * first, 8 * y * (2 - 3 * y**2) * first][: order + 1]


def _sin(z, order):
    """sin and its derivatives up to `order` (at most 4)."""
    sin, cos = jnp.sin(z), jnp.cos(z)
    return [sin, cos, -sin, -cos, sin][: order + 1]


_ACTIVATIONS = {"tanh": _tanh, "sin": _sin}
