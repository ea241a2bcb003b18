"""Building blocks of equations: conditions, hard constraints, exact references, checks of coefficients."""

import inspect
import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sbjax.physics.ansatz import Ansatz
from sbjax.physics.equation import SIDES, Condition, Face, Partials, Reference, Scalar

# A prescribed value: a number or a function of the coordinates, value(x, t).
Value = float | Callable[..., Scalar]


def both(*coordinates: str) -> tuple[Face, ...]:
    """Both faces of each coordinate.

    >>> both('x')
    (('x', 'lower'), ('x', 'upper'))
    """
    return tuple((coordinate, side) for coordinate in coordinates for side in SIDES)


def dirichlet(unknown: str, faces: Sequence[Face], value: Value) -> Condition:
    """Dirichlet condition u = value on `faces`."""
    return _prescribed("dirichlet", unknown, faces, value, _name(unknown, faces))


def neumann(partial: str, faces: Sequence[Face], value: Value) -> Condition:
    """Neumann condition u_x = value on `faces`, or a higher derivative (ends of a beam).

    The derivative is with respect to the coordinate; on a lower face the outward derivative has the opposite sign.
    """
    return _prescribed("neumann", partial, faces, value, _name(partial, faces))


def robin(faces: Sequence[Face], partials: Sequence[str], residual: Callable[[Array, Partials], Scalar]) -> Condition:
    """Robin condition: residual(x, d) = 0 relates u to its derivative on `faces`."""
    return Condition(_name("robin", faces), "robin", tuple(faces), tuple(partials), residual)


def periodic(unknown: str, coordinate: str) -> Condition:
    """Periodic condition: u at the lower bound of `coordinate` = u at its upper bound."""

    def residual(x, d, d_opposite):
        return d[unknown] - d_opposite[unknown]

    return Condition(f"periodic_{unknown}_{coordinate}", "periodic", both(coordinate), (unknown,), residual)


def initial_value(unknown: str, value: Value) -> Condition:
    """Initial condition u = value at the lower bound of t."""
    return _prescribed("initial_value", unknown, [("t", "lower")], value, f"initial_{unknown}")


def initial_velocity(unknown: str, value: Value) -> Condition:
    """Initial condition u_t = value at the lower bound of t."""
    return _prescribed("initial_velocity", f"{unknown}_t", [("t", "lower")], value, f"initial_{unknown}_t")


def _prescribed(kind, partial, faces, value, name):
    def residual(x, d):
        prescribed = apart("value", value, x) if callable(value) else value
        if not hasattr(prescribed, "shape") and not isinstance(prescribed, int | float | complex):
            what = "gives" if callable(value) else "is"
            raise ValueError(f"value {what} a {type(prescribed).__name__}, needs a number or a function that gives one")
        return d[partial] - prescribed

    return Condition(name, kind, tuple(faces), (partial,), residual)


def apart(what: str, function: Callable, x: Array):
    """A function of the coordinates at a point, `function(*x)`.

    Raises:
        ValueError: it does not take as many arguments as there are coordinates.

    >>> apart('value', lambda x, t: x + t, (1.0, 2.0))
    3.0
    """
    try:
        inspect.signature(function).bind(*x)
    except TypeError as error:
        raise ValueError(
            f"{what} is called with the coordinates apart, as {what}(x, t), {len(x)} numbers and not a point: {error}"
        ) from None
    except ValueError:  # a function without a signature
        pass
    return function(*x)


def _name(what, faces):
    """Name of a condition: 'u_on_x' on both faces, 'u_on_x_upper' on one."""
    if isinstance(faces, str) or any(isinstance(face, str) or len(face) != 2 for face in faces):
        raise ValueError(f"faces={faces!r} of {what!r} must be a list of pairs, such as [('x', 'lower')]")
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
    """Ansatz u = offset + distance N with a network N.

    The offset satisfies the conditions, and the distance vanishes on their faces (to second order in t for an initial
    velocity), so they hold for any N. Choose the distance of order 1 inside the domain and growing from a face at least
    as fast as u - offset: the N that represents the solution is then of order 1.

    Args:
        formula: one line of text.
        conditions: names of the conditions that are satisfied.
        offset: function of the coordinates, g(x, t), or a number; returns a tuple for several unknowns.
        distance: function of the coordinates; returns a tuple for several unknowns.
        mirror: as in `Ansatz`; offset and distance must have matching parities.

    Raises:
        ValueError: (when called) the number of network outputs is not the number of unknowns.

    >>> ansatz = hard('u = 1 + x N', ['u_on_x_lower'], 1.0, lambda x: x)
    >>> ansatz.fn(jnp.array([0.5]), jnp.array([6.0])).tolist()
    [4.0]

    Source: Lagaris, Likas and Fotiadis, IEEE Trans. Neural Networks 9 (1998).
    """

    def fn(x, raw):
        values = apart("offset", offset, x) if callable(offset) else offset
        factors = apart("distance", distance, x)
        if not isinstance(factors, tuple):
            values, factors = (values,), (factors,)
        if raw.shape != (len(factors),):
            raise ValueError(f"raw has shape {raw.shape}, needs ({len(factors)},): one output per unknown")
        return jnp.stack([value + factor * output for value, factor, output in zip(values, factors, raw)])

    return Ansatz(fn, tuple(conditions), formula, mirror)


def lift(
    value: Callable[..., Scalar], start: Callable[..., Scalar], lower: float, upper: float
) -> Callable[..., Scalar]:
    """Offset g = start + linear interpolation of value - start between the ends of x, the first coordinate.

    g = value at both ends. With compatible conditions, value(x, 0) = start(x, 0) at the ends, g(x, 0) = start(x, 0)
    everywhere; the same holds for slopes in t.

    Args:
        value: function of the coordinates, u(x, t), evaluated at the ends only.
        start: function of the coordinates with the initial values.
        lower, upper: ends of x.

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
    """Reference solution given by a formula; its error floor is round-off.

    Args:
        formula: function of the coordinates, u(x, t); returns a tuple for several unknowns.
        source: citation or method.
        argument: largest argument of a sine, cosine or exponential in the formula; relative round-off of the argument
            is amplified by this factor.
    """

    def solution(x):
        values = apart("formula", formula, x)
        return jnp.stack(values if isinstance(values, tuple) else [values])

    floor = 4 * float(np.finfo(np.float64).eps) * max(1.0, abs(argument))
    return Reference(solution, "exact", floor, 8 * floor, source)


def positive(name: str, value: float) -> None:
    """Raise ValueError unless a coefficient is finite and > 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value} must be finite and > 0")


def finite(name: str, value: float) -> None:
    """Raise ValueError unless a coefficient is finite."""
    if not math.isfinite(value):
        raise ValueError(f"{name}={value} must be finite")


def whole(name: str, value: int) -> None:
    """Raise ValueError unless a coefficient is a whole number >= 1."""
    if value != int(value) or value < 1:
        raise ValueError(f"{name}={value} must be a whole number >= 1")
