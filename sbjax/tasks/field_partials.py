"""Partial derivatives of a `Field` at many points, in a chosen derivative mode, with or without an ansatz."""

import math
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sbjax.common.names import check_choice
from sbjax.expansion.transform import VectorExpansion
from sbjax.models.field import Field, effective_layers
from sbjax.physics.ansatz import mirrored
from sbjax.physics.derivatives import MODES, mlp_partials, parse_partial, partials
from sbjax.physics.equation import Equation
from sbjax.tasks.derivative_record import recorded

FIELD_MODES = ("auto", "mlp", *MODES)
# 'taylor' is never chosen automatically: it fails for an ansatz or activation without a jet rule.
PREFERRED = ("mlp", "forward", "forward_over_reverse", "nested")
NEAR = 0.1  # relative uncertainty of a measured time
Derive = Callable[[dict, Float[Array, "n d"], Iterable[str]], dict[str, Float[Array, " n"]]]


def mlp_obstacle(equation: Equation, field: Field) -> str | None:
    """Reason why mode 'mlp' cannot differentiate this field for this equation; None if it can."""
    orders = [partial.orders for partial in _required_partials(equation)]
    if not isinstance(field, Field):
        return "its network is not the perceptron of this package"
    if not isinstance(field.expansion, VectorExpansion | None):
        return "its expansion is not a VectorExpansion"
    if field.features:
        return "the field has random features"
    if field.activation not in ("tanh", "sin"):
        return f"the activation is {field.activation!r}, not tanh or sin"
    if any(sum(map(bool, order)) > 1 or sum(order) > 4 for order in orders):
        return "a partial derivative is mixed or of order above 4"
    return None


def choose_mode(mode: str, equation: Equation, field: Field) -> str:
    """Resolve 'auto' to a derivative mode; any other mode is checked and returned.

    'auto' picks the fastest mode recorded for this equation and a network of similar size, see
    `sbjax.tasks.derivative_record`. Among modes within 10 % of the fastest, the first one in `PREFERRED` wins. For an
    equation without a record: 'forward_over_reverse' if 'mlp' is impossible and the equation has one unknown and first
    derivatives only; otherwise 'mlp' where possible, else 'forward'.

    Raises:
        ValueError: an unknown mode, or 'mlp' where it is not supported.
    """
    check_choice(mode, FIELD_MODES, what="derivatives")
    obstacle = mlp_obstacle(equation, field)
    if mode == "mlp" and obstacle:
        raise ValueError(f"derivatives='mlp' is not possible for {equation.name}: {obstacle}; use 'auto'")
    if mode != "auto":
        return mode
    possible = [known for known in PREFERRED if known != "mlp" or not obstacle]
    measured = recorded(equation.name, field)
    measured = {known: measured[known] for known in possible if known in measured}
    if measured:
        return next(known for known, ms in measured.items() if ms <= (1 + NEAR) * min(measured.values()))
    first = all(sum(orders) <= 1 for _, orders in _required_partials(equation))
    return "forward_over_reverse" if first and obstacle and len(equation.unknowns) == 1 else possible[0]


def make_derive(equation: Equation, field: Field, *, mode: str = "auto", hard: bool = False) -> Derive:
    """A function `(variables, points [n, d], names) -> {name: [n]}` for partial derivatives of the solution.

    Args:
        equation: names of coordinates and unknowns, and the ansatz.
        field: the network.
        mode: 'auto', 'mlp' (`mlp_partials`) or a mode of `sbjax.physics.derivatives.partials`.
        hard: the solution is the equation's ansatz applied to the field, instead of the field itself.

    Raises:
        ValueError: as `choose_mode`; `hard` for an equation without an ansatz.
    """
    if hard and equation.ansatz is None:
        raise ValueError(f"hard=True: {equation.name} has no ansatz; set hard=False")
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
    """A function `(variables, x [d]) -> [unknowns]`: the field, passed through the equation's ansatz if `hard`."""
    if not hard:
        return field.apply
    if equation.ansatz.mirror is None:
        return lambda variables, x: equation.ansatz.fn(x, field.apply(variables, x))
    name, parity = equation.ansatz.mirror

    def solution(variables, x):
        raw = field.apply(variables, jnp.stack([x, mirrored(equation, name, x)]))
        return equation.ansatz.fn(x, (raw[0] + parity * raw[1]) / 2)

    return solution


def _required_partials(equation):
    """(unknown, orders) of every partial derivative used by the equation and its conditions."""
    names = {*equation.partials, *(name for condition in equation.conditions for name in condition.partials)}
    return [parse_partial(name, equation.coordinates, equation.unknowns) for name in names]


def _along(fn, x, raw, i):
    """Derivatives of fn(x, N(x)) with respect to coordinate i, orders 0, 1, .., given those of N in `raw` [orders,
    unknowns]: on the line x + s e_i, N is replaced by its Taylor polynomial in s."""

    def curve(s):
        series = sum(raw[k] * s**k / math.factorial(k) for k in range(len(raw)))
        return fn(x.at[i].add(s), series)

    derivatives = [curve]
    for _ in range(len(raw) - 1):
        derivatives.append(jax.jacfwd(derivatives[-1]))
    zero = jnp.zeros((), x.dtype)
    return [derivative(zero) for derivative in derivatives]
