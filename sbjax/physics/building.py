"""What equations are built from: conditions, hard constraints, exact references, checks of coefficients."""

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sbjax.physics.ansatz import Ansatz
from sbjax.physics.equation import SIDES, Condition, Face, Partials, Reference, Scalar

# A value is a number or a function of the coordinates, value(x, t).
Value = float | Callable[..., Scalar]


def both(*coordinates: str) -> tuple[Face, ...]:
    """Both faces of each coordinate.

    >>> both('x')
    (('x', 'lower'), ('x', 'upper'))
    """
    return tuple((coordinate, side) for coordinate in coordinates for side in SIDES)


def dirichlet(unknown: str, faces: Sequence[Face], value: Value) -> Condition:
    """u = value."""
    return _prescribed("dirichlet", unknown, faces, value, _name(unknown, faces))


def neumann(partial: str, faces: Sequence[Face], value: Value) -> Condition:
    """u_x = value, or a higher derivative of which a beam's ends have some. The derivative is by the coordinate: the
    outward one has the other sign on a lower face."""
    return _prescribed("neumann", partial, faces, value, _name(partial, faces))


def robin(faces: Sequence[Face], partials: Sequence[str], residual: Callable[[Array, Partials], Scalar]) -> Condition:
    """residual(x, d) = 0 for a relation between the value and its derivative."""
    return Condition(_name("robin", faces), "robin", tuple(faces), tuple(partials), residual)


def periodic(unknown: str, coordinate: str) -> Condition:
    """u at the lower end = u at the upper end."""

    def residual(x, d, d_opposite):
        return d[unknown] - d_opposite[unknown]

    return Condition(f"periodic_{unknown}_{coordinate}", "periodic", both(coordinate), (unknown,), residual)


def initial_value(unknown: str, value: Value) -> Condition:
    """u = value at the first t."""
    return _prescribed("initial_value", unknown, [("t", "lower")], value, f"initial_{unknown}")


def initial_velocity(unknown: str, value: Value) -> Condition:
    """u_t = value at the first t."""
    return _prescribed("initial_velocity", f"{unknown}_t", [("t", "lower")], value, f"initial_{unknown}_t")


def _prescribed(kind, partial, faces, value, name):
    def residual(x, d):
        return d[partial] - (value(*x) if callable(value) else value)

    return Condition(name, kind, tuple(faces), (partial,), residual)


def _name(what, faces):
    """'u_on_x' for both ends, 'u_on_x_upper' for one."""
    sides = {}
    for coordinate, side in faces:
        sides.setdefault(coordinate, []).append(side)
    return f"{what}_on_" + "_".join(c if len(found) == 2 else f"{c}_{found[0]}" for c, found in sides.items())


def hard(
    formula: str,
    conditions: Sequence[str],
    offset: Callable[..., Scalar | tuple[Scalar, ...]] | float,
    distance: Callable[..., Scalar | tuple[Scalar, ...]],
    mirror: tuple[str, int] | None = None,
) -> Ansatz:
    """u = offset + distance N for a network N: conditions that the offset meets hold whatever N is, if the distance
    vanishes on their faces, to second order in t for an initial velocity.

    The distance should be of order 1 inside, and fall to zero no slower than the solution leaves the offset: N is then
    of order 1 where u is the solution.

    Args:
        formula: one line of text.
        conditions: the names of those that are met.
        offset: of the coordinates, g(x, t), or a number; a tuple for several unknowns.
        distance: likewise.
        mirror: of `Ansatz`; offset and distance must then have parities that go with it.

    Raises:
        ValueError: (when called) raw has another number of entries.

    >>> ansatz = hard('u = 1 + x N', ['u_on_x_lower'], 1.0, lambda x: x)
    >>> ansatz.fn(jnp.array([0.5]), jnp.array([6.0])).tolist()
    [4.0]

    Source: Lagaris, Likas and Fotiadis, IEEE Trans. Neural Networks 9 (1998).
    """

    def fn(x, raw):
        values, factors = offset(*x) if callable(offset) else offset, distance(*x)
        if not isinstance(factors, tuple):
            values, factors = (values,), (factors,)
        if raw.shape != (len(factors),):
            raise ValueError(f"raw has shape {raw.shape}, needs ({len(factors)},): an output for each unknown")
        return jnp.stack([value + factor * output for value, factor, output in zip(values, factors, raw)])

    return Ansatz(fn, tuple(conditions), formula, mirror)


def lift(
    value: Callable[..., Scalar], start: Callable[..., Scalar], lower: float, upper: float
) -> Callable[..., Scalar]:
    """g = start + the line in x, the first coordinate, through value - start at both ends: on them g = value.

    If value(x, 0) = start(x, 0) at the ends, as compatible conditions have it, g(x, 0) = start(x, 0) between them; so
    for slopes in t.

    Args:
        value: of the coordinates, u(x, t); it is read at the ends only.
        start: of the coordinates.
        lower, upper: the ends.

    >>> g = lift(lambda x, t: x**2 * t, lambda x, t: 0.0, 0.0, 1.0)
    >>> g(0.5, 1.0), g(1.0, 3.0)
    (0.5, 3.0)
    """

    def lifted(x, *rest):
        weight = (x - lower) / (upper - lower)
        low, high = (value(end, *rest) - start(end, *rest) for end in (lower, upper))
        return start(x, *rest) + (1 - weight) * low + weight * high

    return lifted


def exact(formula: Callable[..., Scalar | tuple[Scalar, ...]], source: str, *, argument: float = 1.0) -> Reference:
    """A reference by formula.

    Args:
        formula: of the coordinates, u(x, t); a tuple for several unknowns.
        source: where it is from.
        argument: the largest argument of a sine, cosine or exponential in it, of whose round-off the value inherits
            `argument` times the relative part.
    """

    def solution(x):
        values = formula(*x)
        return jnp.stack(values if isinstance(values, tuple) else [values])

    floor = 4 * float(np.finfo(np.float64).eps) * max(1.0, abs(argument))
    return Reference(solution, "exact", floor, 8 * floor, source)


def positive(name: str, value: float) -> None:
    """Refuse a coefficient that is not a finite number > 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value} must be finite and > 0")


def finite(name: str, value: float) -> None:
    """Refuse a coefficient that is not finite."""
    if not math.isfinite(value):
        raise ValueError(f"{name}={value} must be finite")


def whole(name: str, value: int) -> None:
    """Refuse what is not a whole number >= 1."""
    if value != int(value) or value < 1:
        raise ValueError(f"{name}={value} must be a whole number >= 1")
