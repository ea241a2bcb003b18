"""Partial derivatives of a `Field` at many points, by any of the derivative modes, with or without an ansatz."""

import math
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sbjax.expansion.transform import VectorExpansion
from sbjax.models.field import Field, effective_layers
from sbjax.names import near
from sbjax.physics.ansatz import mirrored
from sbjax.physics.derivatives import MODES, mlp_partials, parse_partial, partials
from sbjax.physics.equation import Equation
from sbjax.tasks.derivative_record import recorded

FIELD_MODES = ("auto", "mlp", *MODES)
# Taylor mode is not chosen unasked: an ansatz or an activation that jet has no rule for would stop it.
PREFERRED = ("mlp", "forward", "forward_over_reverse", "nested")
NEAR = 0.1  # a share by which a measured time may be off
Derive = Callable[[dict, Float[Array, "n d"], Iterable[str]], dict[str, Float[Array, " n"]]]


def mlp_obstacle(equation: Equation, field: Field) -> str | None:
    """Why mode 'mlp' cannot be used, or None."""
    orders = [partial.orders for partial in _asked(equation)]
    if not isinstance(field, Field):
        return "its network is not the perceptron of this package"
    if not isinstance(field.expansion, VectorExpansion | None):
        return "its expansion is not a VectorExpansion"
    if field.features:
        return "the field has random features"
    if field.activation not in ("tanh", "sin"):
        return f"it knows tanh and sin, not {field.activation!r}"
    if any(sum(map(bool, order)) > 1 or sum(order) > 4 for order in orders):
        return "a partial is mixed or of an order above 4"
    return None


def choose_mode(mode: str, equation: Equation, field: Field) -> str:
    """`mode`, or for 'auto' the one that was fastest in a gradient step of this equation by a network of about this
    size, see `sbjax.tasks.derivative_record`; of several within a tenth of the fastest the first one of `PREFERRED`.

    An equation that was not measured has the rule that its likes follow: 'mlp' where it is possible, else 'forward',
    for one unknown in first derivatives alone 'forward_over_reverse'.

    Raises:
        ValueError: an unknown mode, or one that this equation and field do not allow.
    """
    if mode not in FIELD_MODES:
        raise ValueError(
            f"task.derivatives={mode!r} is unknown{near(mode, FIELD_MODES)}; known: {', '.join(FIELD_MODES)}"
        )
    obstacle = mlp_obstacle(equation, field)
    if mode == "mlp" and obstacle:
        raise ValueError(f"task.derivatives='mlp' is not possible for {equation.name}: {obstacle}; use 'auto'")
    if mode != "auto":
        return mode
    possible = [known for known in PREFERRED if known != "mlp" or not obstacle]
    measured = recorded(equation.name, field)
    measured = {known: measured[known] for known in possible if known in measured}
    if measured:
        return next(known for known, ms in measured.items() if ms <= (1 + NEAR) * min(measured.values()))
    first = all(sum(orders) <= 1 for _, orders in _asked(equation))
    return "forward_over_reverse" if first and obstacle and len(equation.unknowns) == 1 else possible[0]


def make_derive(equation: Equation, field: Field, *, mode: str = "auto", hard: bool = False) -> Derive:
    """`(variables, points [n, d], names) -> {name: [n]}`, the partials of the field as it stands in the equation.

    Args:
        equation: gives the names of coordinates and unknowns, and the ansatz.
        field: the network.
        mode: 'auto', 'mlp' (`mlp_partials`) or a mode of `sbjax.physics.derivatives.partials`.
        hard: put the field into the equation's ansatz.

    Raises:
        ValueError: as `choose_mode`; the equation has no ansatz.
    """
    if hard and equation.ansatz is None:
        raise ValueError(f"task.hard=True: {equation.name} has no ansatz; set it to False")
    mode = choose_mode(mode, equation, field)
    names_of = {"coordinates": equation.coordinates, "unknowns": equation.unknowns}

    if mode != "mlp":
        u_fn = make_solution(equation, field, hard=hard)

        def derive(variables, points, names):
            return jax.vmap(lambda x: partials(lambda y: u_fn(variables, y), x, names, mode=mode, **names_of))(points)

        return derive

    def plain(variables, points, names):
        layers = effective_layers(field, variables["params"])
        return mlp_partials(layers, points, names, activation=field.activation, **names_of)

    if not hard:
        return plain

    def raw_partials(variables, points, names):
        if equation.ansatz.mirror is None:
            return plain(variables, points, names)
        name, parity = equation.ansatz.mirror
        both = plain(variables, jnp.concatenate([points, mirrored(equation, name, points)]), names)
        i = equation.coordinates.index(name)
        signs = {partial: parity * (-1) ** parse_partial(partial, **names_of)[1][i] for partial in names}
        return {
            partial: (values[: len(points)] + signs[partial] * values[len(points) :]) / 2
            for partial, values in both.items()
        }

    def through_ansatz(variables, points, names):
        wanted = {name: parse_partial(name, **names_of) for name in names}
        highest = [max(column) for column in zip(*(orders for _, orders in wanted.values()))]
        towers = [
            [[f"{u}_{c * k}" if k else u for u in equation.unknowns] for k in range(order + 1)]
            for c, order in zip(equation.coordinates, highest)
        ]
        raw = raw_partials(variables, points, sorted({name for tower in towers for row in tower for name in row}))
        rows = [jnp.stack([jnp.stack([raw[name] for name in row], -1) for row in tower]) for tower in towers]
        along = [
            jax.vmap(lambda x, n, i=i: _along(equation.ansatz.fn, x, n, i), in_axes=(0, 1))(points, tower)
            for i, tower in enumerate(rows)
        ]

        def pick(unknown, orders):
            i = max(range(len(orders)), key=orders.__getitem__)
            return along[i][orders[i]][:, unknown]

        return {name: pick(*partial) for name, partial in wanted.items()}

    return through_ansatz


def make_solution(
    equation: Equation, field: Field, *, hard: bool = False
) -> Callable[[dict, Float[Array, " d"]], Float[Array, " unknowns"]]:
    """`(variables, x [d]) -> [unknowns]`: the field, in the equation's ansatz if `hard`."""
    if not hard:
        return field.apply
    if equation.ansatz.mirror is None:
        return lambda variables, x: equation.ansatz.fn(x, field.apply(variables, x))
    name, parity = equation.ansatz.mirror

    def solution(variables, x):
        raw = field.apply(variables, jnp.stack([x, mirrored(equation, name, x)]))
        return equation.ansatz.fn(x, (raw[0] + parity * raw[1]) / 2)

    return solution


def _asked(equation):
    """The partials that the equation and its conditions read."""
    names = {*equation.partials, *(name for condition in equation.conditions for name in condition.partials)}
    return [parse_partial(name, equation.coordinates, equation.unknowns) for name in names]


def _along(fn, x, raw, i):
    """Derivatives by coordinate i of fn(x, N(x)), of the orders 0, 1, .. for which `raw` [orders, unknowns] has those
    of N: along the line x + s e_i, N is its Taylor polynomial in s."""

    def curve(s):
        series = sum(raw[k] * s**k / math.factorial(k) for k in range(len(raw)))
        return fn(x.at[i].add(s), series)

    derivatives = [curve]
    for _ in range(len(raw) - 1):
        derivatives.append(jax.jacfwd(derivatives[-1]))
    zero = jnp.zeros((), x.dtype)
    return [derivative(zero) for derivative in derivatives]
