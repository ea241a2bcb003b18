"""A trial of an equation before training: all that it is made of is called once, and each mistake has its sentence."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sbjax.common import devices
from sbjax.common.names import writable
from sbjax.physics.derivatives import parse_partial, partials
from sbjax.physics.equation import Condition, Equation, on_face, spread
from sbjax.physics.purity import check_pure
from sbjax.physics.trial_errors import told, users_line

EXACT = 1e-3  # share of its parts that a residual may be off for an exact reference
SMOOTH = 1e-6  # floor of a numerical reference up to which its derivatives are taken at their word
SIZES = (1.0, -1.0, 0.1, 1e3, -1e3)  # of partials with which a term is looked at


def try_equation(equation: Equation) -> None:
    """Call residual, conditions, reference and hard constraint once, with abstract values; a few milliseconds.

    Residual and conditions are then evaluated at a few points, with a few sizes and signs of the partials.

    Raises:
        ValueError: a term, condition or output that is no real scalar; one that is infinite or no number at a point,
            whatever the partials are; an index beyond the coordinates; a name that is empty or used twice; a partial
            that is read but not declared; a function that jax cannot differentiate (numpy, math, `if` on a
            coordinate); one that gives other values when it is called again; a function written for a point where
            coordinates come apart. The message names part, line and remedy.

    >>> from sbjax.physics.pdes import make_equation
    >>> try_equation(make_equation('heat'))
    """
    where = f"{equation.name}: residual"
    terms: dict[str, Any] = {}

    def residual(x, *values):
        d = _Declared(equation, where, "partials", equation.partials, values)
        _bind(where, "(x, d), one point and its partials", equation.residual, (x, d))
        found = equation.residual(x, d)
        if not isinstance(found, Mapping) or not found:
            what = "no term" if isinstance(found, Mapping) else _kind(found)
            raise ValueError(f"{where} gives {what}: return the terms by name, {{'equation': ..}}")
        for name, value in found.items():
            if not isinstance(name, str) or not name or not writable(name):
                raise ValueError(f"{where} has a term called {name!a}: give it a name, such as 'equation'")
            terms[name] = _real_scalar(f"{where}: term {name!r}", value, equation)
        return list(found.values())

    jaxpr = _traced(where, equation, residual, len(equation.partials))
    for name, result in zip(terms, jaxpr.outvars):
        if not _depends(jaxpr, result, jaxpr.invars[1:]):
            raise ValueError(f"{where}: term {name!r} depends on no partial d[..], so that no solution could change it")
    for condition in equation.conditions:
        if condition.name in terms:
            raise ValueError(
                f"{where} has a term {condition.name!r}, the name of a condition, which would take its place: give "
                "the term another name"
            )
        _try_condition(equation, condition)
    _try_values(equation)
    _traced(f"{equation.name}: reference", equation, functools.partial(_outputs, equation, equation.reference.solution))
    if equation.ansatz:
        outputs = jnp.zeros(len(equation.unknowns))
        form = lambda x: equation.ansatz.fn(x, outputs)  # noqa: E731
        _traced(f"{equation.name}: ansatz", equation, functools.partial(_outputs, equation, form, what="ansatz"))
    check_pure(equation)


def try_reference(equation: Equation, points: int = 7) -> None:
    """Put the reference into the equation and its conditions, in double precision at a few points.

    What is left must be small beside sum |d residual / d partial| |partial|: at most `EXACT` of it, and 100 times the
    floor of the reference. A numerical reference that is less accurate than `SMOOTH` may be a table, whose derivatives
    mean nothing, and only its values are looked at.

    Raises:
        ValueError: it plainly solves another problem. The message names term, point and sizes.

    >>> from sbjax.physics.pdes import make_equation
    >>> try_reference(make_equation('heat'))
    """
    reference = equation.reference
    smooth = reference.kind == "exact" or reference.floor <= SMOOTH
    inside = spread(equation, points)
    with devices.double():
        values = np.asarray(jax.jit(jax.vmap(reference.solution))(inside))
        if not np.isfinite(values).all():
            i = int((~np.isfinite(values)).any(1).argmax())
            raise ValueError(
                f"{equation.name}: the reference is {values[i].tolist()} at {np.round(inside[i], 6).tolist()}, inside "
                "the domain: correct it, or cut the domain"
            )
        names = {*equation.partials, *(name for condition in equation.conditions for name in condition.partials)}
        names = {name for name in names if smooth or "_" not in name}
        typical = {name: np.nanmax(abs(v), initial=0.0) for name, v in _along(equation, names)(inside).items()}
        if names >= {*equation.partials}:
            _compare(equation, "residual", equation.residual, [(inside,)], equation.partials, typical)
        for condition in equation.conditions:
            if names >= {*condition.partials}:
                faces = [np.asarray(on_face(equation, face, inside)) for face in condition.faces]
                places = [tuple(faces)] if condition.kind == "periodic" else [(face,) for face in faces]
                residual = lambda *given, c=condition: {c.name: c.residual(*given)}  # noqa: E731
                _compare(equation, "condition", residual, places, condition.partials, typical)


def _along(equation, names):
    """Partials of the reference at points [n, d]."""
    solution, about = equation.reference.solution, {"coordinates": equation.coordinates, "unknowns": equation.unknowns}
    return jax.jit(jax.vmap(lambda x: partials(solution, x, sorted(names), **about)))


def _compare(equation, what, residual, places, names, typical) -> None:
    """What the reference leaves in a residual, beside the sum of the sizes of its parts; each partial counts at least
    with its typical size, since all may vanish at the points."""
    at = _along(equation, names)

    def sizes(x, *sides):
        exactly = lambda sides: {k: jnp.asarray(v, float) for k, v in residual(x, *sides).items()}  # noqa: E731
        slopes, rest = jax.jacfwd(exactly)(sides), exactly(jax.tree.map(jnp.zeros_like, sides))
        parts = {
            term: abs(rest[term])
            + sum(abs(row[k]) * jnp.maximum(abs(side[k]), typical[k]) for row, side in zip(rows, sides) for k in side)
            for term, rows in slopes.items()
        }
        return exactly(sides), parts

    compared = jax.jit(jax.vmap(sizes))
    for points in places:
        found, parts = compared(points[0], *map(at, points))
        for term in found:
            left, size = abs(np.asarray(found[term])), np.asarray(parts[term])
            usable = np.isfinite(left) & np.isfinite(size)
            i = int(np.where(usable, left, -1).argmax())
            if usable[i] and left[i] > (EXACT + 100 * equation.reference.floor) * size[usable].max():
                raise ValueError(
                    f"{equation.name}: the reference leaves {left[i]:.3g} in {what} {term!r} at "
                    f"{np.round(points[0][i], 6).tolist()}, whose parts add up to {size[i]:.3g}: it solves another "
                    "problem; compare signs, coefficients and values. If it is an approximation, say so: "
                    "Reference(.., kind='numerical', floor=its error)"
                )


def _try_values(equation: Equation, points: int = 5) -> None:
    """Refuse an index beyond the coordinates, and terms that are finite with none of several partials: those would end
    training at its first step. One that is finite with some of them (a logarithm of u) may be so along training."""
    where, inside = f"{equation.name}: residual", spread(equation, points)
    _check_finite(equation, where, equation.residual, inside, equation.partials)
    for condition in equation.conditions:
        named = lambda x, *d, c=condition: {"": c.residual(x, *d)}  # noqa: E731
        for face in condition.faces:
            at, told = np.asarray(on_face(equation, face, inside)), f"{equation.name}: condition {condition.name!r}"
            _check_finite(equation, told, named, at, condition.partials, 2 if condition.kind == "periodic" else 1)


def _check_finite(equation, where, residual, points, names, sides=1) -> None:
    given = lambda values: [dict(zip(names, values)) for _ in range(sides)]  # noqa: E731
    try:
        residual(points[0], *given(jnp.ones(len(names))))
    except IndexError as error:  # jax takes the last entry in silence, numpy does not
        known = ", ".join(f"x[{i}] is {name}" for i, name in enumerate(equation.coordinates))
        raise ValueError(f"{where}{users_line(error)[2]}: {error}; {known}") from error
    except Exception:  # a point of jax has methods that one of numpy has not
        pass
    trials = np.array([*(np.full(len(names), size) for size in SIZES), 0.3 + 0.2 * np.arange(len(names))], np.float32)
    at_points = jax.vmap(lambda x, values: residual(x, *given(values)), (0, None))
    found = jax.jit(jax.vmap(at_points, (None, 0)))(points.astype(np.float32), trials)
    if names and sides == 1:
        _check_slopes(where, at_points, points.astype(np.float32), trials)
    for term, values in found.items():
        never = ~np.isfinite(np.asarray(values)).any(0)
        if never.any():
            i = int(never.argmax())
            raise ValueError(
                f"{where}{f': term {term!r}' if term else ''} is {values[0][i]} at {np.round(points[i], 6).tolist()}, "
                "whatever the partials are: look for a division by zero, or a root or logarithm of a negative number"
            )


def _check_slopes(where, at_points, points, trials) -> None:
    """Refuse terms that read partials and whose slopes in all of them are 0: no training would move them."""
    slopes = jax.jit(jax.vmap(jax.jacfwd(at_points, 1), (None, 0)))(points, trials)
    for term, rows in slopes.items():
        if not np.asarray(rows).any():
            raise ValueError(
                f"{where}{f': term {term!r}' if term else ''} has slope 0 in all partials, so that training cannot "
                "lower it: look for round, sign, a comparison, a whole number or stop_gradient"
            )


def _try_condition(equation: Equation, condition: Condition) -> None:
    where = f"{equation.name}: condition {condition.name!r}"
    if not writable(condition.name):
        raise ValueError(f"{equation.name}: a condition is called {condition.name!a}, which is no UTF-8; rename it")
    if not condition.faces:
        raise ValueError(f"{where} has no face: name one, [('{equation.coordinates[0]}', 'lower')]")
    sides, n = (2 if condition.kind == "periodic" else 1), len(condition.partials)

    def residual(x, *values):
        halves = [values[side * n : (side + 1) * n] for side in range(sides)]
        d = [_Declared(equation, where, "its partials", condition.partials, half) for half in halves]
        _bind(where, "(x, d), one point and its partials", condition.residual, (x, *d))
        _real_scalar(where, condition.residual(x, *d), equation)

    _traced(where, equation, residual, sides * n)


def _outputs(equation: Equation, solution: Callable, x: Any, what: str = "reference") -> None:
    found = solution(x)
    n = len(equation.unknowns)
    gives = f"shape {jnp.shape(found)}" if isinstance(found, np.ndarray | jax.Array) else f"a {type(found).__name__}"
    if gives != f"shape {(n,)}":
        raise ValueError(
            f"{equation.name}: {what} gives {gives}, needs an array of shape {(n,)}: a number for each of "
            f"{', '.join(equation.unknowns)}"
        )
    if not jnp.issubdtype(jnp.result_type(found), jnp.floating):
        raise ValueError(f"{equation.name}: {what} gives {jnp.result_type(found)}, needs real numbers")


def _kind(found: Any) -> str:
    """What a function returned, in words: 'a single number', 'an array of shape (2,)', 'a list'."""
    if isinstance(found, int | float | complex | np.generic | np.ndarray | jax.Array):
        return f"an array of shape {jnp.shape(found)}" if jnp.shape(found) else "a single number"
    return f"a {type(found).__name__}"


class _Declared(dict):
    """The partials that a residual declares; another one is refused, and not found missing in training."""

    def __init__(self, equation, where, field, names, values):
        super().__init__(zip(names, values))
        self.equation, self.where, self.field = equation, where, field

    def get(self, name, default=None):
        return self[name]

    def __missing__(self, name):
        parse_partial(str(name), self.equation.coordinates, self.equation.unknowns)  # says what is wrong with a name
        raise ValueError(f"{self.where} reads d[{name!r}], which {self.field} do not list: write {(*self, name)!r}")


def _real_scalar(where: str, value: Any, equation: Equation) -> Any:
    if not isinstance(value, int | float | complex | np.generic | np.ndarray | jax.Array):
        raise ValueError(f"{where} is a {type(value).__name__}, needs a number")
    shape, dtype = jnp.shape(value), jnp.result_type(value)
    if shape != ():
        point = ", ".join(equation.coordinates)
        raise ValueError(
            f"{where} has shape {shape} and must be a scalar, a number at one point: the point x is [{point}], so that "
            f"x[0] is {equation.coordinates[0]}"
        )
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise ValueError(
            f"{where} is complex: write real and imaginary part as two terms, of two real unknowns such as 'u' and 'v'"
        )
    if not jnp.issubdtype(dtype, jnp.number):
        raise ValueError(f"{where} is of type {dtype}, needs a real number")
    return value


def _bind(where: str, arguments: str, function: Callable, given: tuple) -> None:
    try:
        inspect.signature(function).bind(*given)
    except TypeError as error:
        raise ValueError(f"{where} is called as {arguments}: {error}") from None
    except ValueError:  # a function without a signature
        return


def _traced(where: str, equation: Equation, function: Callable, scalars: int = 0) -> Any:
    """The jaxpr of a function of a point and of scalars."""
    point = jax.ShapeDtypeStruct((len(equation.coordinates),), np.float32)
    try:
        return jax.make_jaxpr(function)(point, *[jax.ShapeDtypeStruct((), np.float32)] * scalars).jaxpr
    except Exception as error:  # the user's own code may raise anything
        raise ValueError(told(where, equation, error)) from error


def _depends(jaxpr: Any, result: Any, sources: list) -> bool:
    live = set() if hasattr(result, "val") else {result}  # a constant is no variable
    for equation in reversed(jaxpr.eqns):
        if not live.isdisjoint(equation.outvars):
            live.update(var for var in equation.invars if not hasattr(var, "val"))
    return not live.isdisjoint(sources)
