"""Whether a network has the derivatives that an equation asks for."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sbjax.expansion.transform import VectorExpansion
from sbjax.models import layers
from sbjax.models.field import Field
from sbjax.physics.derivatives import parse_partial
from sbjax.physics.equation import Equation, spread
from sbjax.tasks.field_partials import make_derive

FINE = 2048  # points of a line along which derivatives are compared
JUMPS = 0.02  # share of a derivative's variation that may be missing from the integral of the next one


def check_activation(equation: Equation, field: nn.Module) -> None:
    """Check that the network has the derivatives that an equation and its conditions contain.

    Of a network or an expansion of one's own, those of random weights are looked at: each must be other than zero, and
    the integral of each along a line must give the one below it, from which it lacks the jumps otherwise.

    Raises:
        ValueError: a piecewise linear activation with an equation of second order, whose derivatives say nothing about
            the network; an activation with too few derivatives for a higher one.

    >>> from sbjax.physics.pdes import make_equation
    >>> field = Field(unknowns=1, widths=(8,), lower=(0.0,), upper=(1.0,), activation='relu')
    >>> check_activation(make_equation('poisson'), field)
    Traceback (most recent call last):
    ValueError: activation='relu' has no derivatives of order 2, as in u_xx of poisson: use tanh, sin, silu or softplus
    """
    names = dict.fromkeys([*equation.partials, *(name for c in equation.conditions for name in c.partials)])
    orders = {name: sum(parse_partial(name, equation.coordinates, equation.unknowns).orders) for name in names}
    highest = max(orders, key=orders.__getitem__)
    smooth = "use tanh, sin, silu or softplus"
    if isinstance(field, Field):
        if orders[highest] > layers.ORDERS.get(field.activation, orders[highest]):
            raise ValueError(
                f"activation={field.activation!r} has no derivatives of order {orders[highest]}, as in {highest} of "
                f"{equation.name}: {smooth}"
            )
        if isinstance(field.expansion, VectorExpansion | None):
            return
    derived = [name for name, order in orders.items() if order]
    if not derived:
        return
    below = {name: _below(name, equation) for name in derived}
    lines = {name: _line(equation, below[name][1]) for name in derived}
    wanted = sorted({*derived, *(lower for lower, _ in below.values())})

    @jax.jit
    def along(key, points):
        variables = field.init(key, points[0, 0])
        # A last layer of zeros at the start says nothing about the network. Others are at the scale that they need.
        leaves, tree = jax.tree.flatten(variables)
        keys = jax.random.split(key, len(leaves))
        draws = [0.1 * jax.random.normal(k, jnp.shape(x), jnp.result_type(x)) for k, x in zip(keys, leaves)]
        moved = [jnp.where(jnp.any(x != 0), x, draw) for x, draw in zip(leaves, draws)]
        derive = make_derive(equation, field, mode="forward", hard=False)
        return jax.lax.map(lambda line: derive(tree.unflatten(moved), line, wanted), points)

    coordinates = sorted({i for _, i in below.values()})
    stacked = jnp.asarray(np.stack([_line(equation, i) for i in coordinates]), field.dtype)
    found = jax.tree.map(np.asarray, along(jax.random.key(0), stacked))
    zero = [name for name in derived if orders[name] > 1 and not found[name].any()]
    if zero:
        raise ValueError(
            f"{', '.join(zero)} of {equation.name} are zero for any weights of the network, which is piecewise "
            f"linear, or a polynomial of too low degree: {smooth} as its activation"
        )
    for name in derived:
        lower, i = below[name]
        row = coordinates.index(i)
        if _missing(found[lower][row], found[name][row], lines[name][:, i]) > JUMPS:
            raise ValueError(
                f"{name} of {equation.name} lacks the jumps of {lower}, since the network has kinks in its derivatives "
                f"of order {orders[name] - 1}: {smooth} as its activation"
            )


def _below(name: str, equation: Equation) -> tuple[str, int]:
    """The partial of one order less along a coordinate, and the index of that: 'u_xxt' -> ('u_xx', 1)."""
    unknown, orders = parse_partial(name, equation.coordinates, equation.unknowns)
    i = max(i for i, order in enumerate(orders) if order)
    tail = "".join(c * (order - (j == i)) for j, (c, order) in enumerate(zip(equation.coordinates, orders)))
    return equation.unknowns[unknown] + (f"_{tail}" if tail else ""), i


def _line(equation: Equation, i: int) -> np.ndarray:
    """Points [n, d] on a line along a coordinate, through a point inside."""
    points = np.repeat(np.asarray(spread(equation, 3))[1:2], FINE, 0)
    points[:, i] = np.linspace(equation.lower[i], equation.upper[i], FINE)
    return points


def _missing(values: np.ndarray, slopes: np.ndarray, at: np.ndarray) -> float:
    """Share of the variation of values [n] that the integral of slopes [n] lacks at jumps; 0.0 where it cannot be told.

    Jumps are missing as much with steps four times as wide. What steps leave out of a smooth function falls with their
    square, round-off grows with their number, and the variation of what they do not resolve changes.
    """
    lost, varied = [], []
    for step in (4, 1):
        v, s, x = (np.asarray(row[::step], np.float64) for row in (values, slopes, at))
        lost.append(np.abs(np.diff(v) - np.diff(x) * (s[1:] + s[:-1]) / 2).sum())
        varied.append(np.abs(np.diff(v)).sum())
    resolved = np.isfinite([*lost, *varied]).all() and varied[1] < 1.1 * varied[0]
    if not resolved or not 0.7 * lost[0] < lost[1] < 1.4 * lost[0]:
        return 0.0
    return float(lost[1] / varied[1])
