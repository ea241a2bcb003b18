"""Differential equations on a box, as pure functions of one point.

An `Equation` holds pointwise residuals as functions of partial derivatives; `sbjax.physics.derivatives` computes these.
`make_residual` and `make_condition` combine the two.

    u_fn    a trial solution: point [d] -> [unknowns]
    d       partials at a point by name: {'u': .., 'u_t': .., 'u_xx': ..}
    face    a side of the box, ('x', 'lower'): x at its lower bound
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from sbjax.common import devices
from sbjax.common.names import near
from sbjax.physics.ansatz import Ansatz
from sbjax.physics.derivatives import Solution, parse_partial, partials

Scalar = Float[Array, ""]
Partials = Mapping[str, Scalar]
Face = tuple[str, str]

GROUPS = ("stationary", "linear", "nonlinear", "spare")
KINDS = ("dirichlet", "neumann", "robin", "periodic", "initial_value", "initial_velocity")
SIDES = ("lower", "upper")


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """A reference solution with a certified error.

    Attributes:
        solution: [d] -> [unknowns] in jax, defined on the whole domain and differentiable inside. `evaluate` returns
            its values in float64 for any jax precision.
        kind: 'exact' (a formula, accurate to round-off) or 'numerical'.
        floor: certified bound on its relative L2 error over the domain in float64; measured errors below it are
            meaningless.
        floor_max: certified bound on its maximum absolute error.
        source: citation or method.
    """

    solution: Solution
    kind: str
    floor: float
    floor_max: float
    source: str

    def __post_init__(self):
        if self.kind not in ("exact", "numerical"):
            raise ValueError(f"reference.kind={self.kind!r} must be 'exact' or 'numerical'")
        for field in ("floor", "floor_max"):
            if not 0 < getattr(self, field) < math.inf:
                raise ValueError(
                    f"reference.{field}={getattr(self, field)} must be finite and > 0: every reference has an error, "
                    "at least round-off"
                )


@dataclasses.dataclass(frozen=True, eq=False)
class Condition:
    """A boundary or initial condition, residual = 0 on its faces. Made by the functions of `sbjax.physics.building`.

    Attributes:
        name: such as 'u_on_x'.
        kind: one of `KINDS`.
        faces: the faces it holds on; two opposite ones if periodic.
        partials: names of the partials that `residual` uses.
        residual: `(x, d) -> scalar` at a point [d] of a face; if periodic `(x, d, d_opposite) -> scalar` with the
            partials on the lower and on the upper face.
    """

    name: str
    kind: str
    faces: tuple[Face, ...]
    partials: tuple[str, ...]
    residual: Callable[..., Scalar]

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(
                f"condition {self.name!r}: kind={self.kind!r} is unknown{near(self.kind, KINDS)}; "
                f"known: {', '.join(KINDS)}"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Equation:
    """A boundary or initial value problem on a box.

    Attributes:
        name: name in the registry.
        group: class of equations it belongs to: 'stationary', 'linear', 'nonlinear' or 'spare'.
        formula: one line of text.
        coordinates: ('x', 't'); time, if any, is last and called 't'.
        unknowns: ('u',) or ('u', 'v', 'p'), without underscores.
        lower, upper: bounds of the coordinates.
        partials: names of the partials that `residual` uses, ('u_t', 'u_xx').
        residual: `(x, d) -> {term: scalar}`, pointwise; zero where the equation holds.
        conditions: boundary and initial conditions.
        reference: reference solution with a certified error.
        numbers: coefficients, {'nu': 0.1}.
        source: citation of the problem.
        ansatz: satisfies some of the conditions exactly; None if no simple ansatz exists that does not already contain
            the solution.

    Raises:
        ValueError: inconsistent bounds, names or faces; the message names the field and a remedy.
    """

    name: str
    group: str
    formula: str
    coordinates: tuple[str, ...]
    unknowns: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    partials: tuple[str, ...]
    residual: Callable[[Float[Array, " d"], Partials], dict[str, Scalar]]
    conditions: tuple[Condition, ...]
    reference: Reference
    numbers: Mapping[str, float]
    source: str
    ansatz: Ansatz | None = None

    def __post_init__(self):
        if self.group not in GROUPS:
            raise ValueError(
                f"{self.name}.group={self.group!r} is unknown{near(self.group, GROUPS)}; known: {', '.join(GROUPS)}"
            )
        for field in ("coordinates", "unknowns"):
            names = getattr(self, field)
            odd = [name for name in names if not isinstance(name, str) or not name or "_" in name]
            twice = [name for name in names if names.count(name) > 1]
            if isinstance(names, str) or not names or odd or twice:
                raise ValueError(
                    f"{self.name}.{field}={names!r} must be a tuple of distinct names without underscores, such as "
                    + ("('x', 't')" if field == "coordinates" else "('u', 'v')")
                )
        for field in ("lower", "upper"):
            bounds = getattr(self, field)
            if len(bounds) != len(self.coordinates):
                raise ValueError(
                    f"{self.name}.{field}={bounds} must hold one number per coordinate: {', '.join(self.coordinates)}"
                )
        for coordinate, lower, upper in zip(self.coordinates, self.lower, self.upper):
            for field, bound in (("lower", lower), ("upper", upper)):
                if not math.isfinite(bound):
                    raise ValueError(f"{self.name}.{field}={bound} of {coordinate!r} must be finite: cut the domain")
            if not lower < upper:
                raise ValueError(
                    f"{self.name}.lower={lower} of {coordinate!r} must lie below its upper={upper}: swap or move one"
                )
        names = [condition.name for condition in self.conditions]
        if taken := sorted({"interior", "step"} & {*names}):
            raise ValueError(f"{self.name}: a condition is called {taken[0]!r}, which a batch calls its own; rename it")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{self.name}: two conditions are called {twice[0]!r}; give one another name")
        listed = [(f"{self.name}.partials", self.partials)]
        listed += [(f"{self.name}: condition {one.name!r}.partials", one.partials) for one in self.conditions]
        for where, used in listed:
            if twice := sorted({name for name in used if used.count(name) > 1}):
                raise ValueError(f"{where} has {twice[0]!r} twice; leave one out")
        for name in self.partials:
            parse_partial(name, self.coordinates, self.unknowns)
        for condition in self.conditions:
            for name in condition.partials:
                parse_partial(name, self.coordinates, self.unknowns)
            for face in condition.faces:
                _bound(self, face)
            if len({*condition.faces}) < len(condition.faces):
                raise ValueError(
                    f"{self.name}: condition {condition.name!r} names a face twice, which would weigh it so"
                )
        if not isinstance(self.reference, Reference):
            raise ValueError(f"{self.name}.reference={self.reference!r} must be a Reference, with its error")
        for name in self.ansatz.conditions if self.ansatz else ():
            if name not in names:
                raise ValueError(
                    f"{self.name}.ansatz.conditions: {name!r} is no condition{near(name, names)}; "
                    f"known: {', '.join(names)}"
                )
        if self.ansatz and self.ansatz.mirror:
            name, parity = self.ansatz.mirror
            if name not in self.coordinates or parity not in (-1, 1):
                raise ValueError(
                    f"{self.name}.ansatz.mirror={self.ansatz.mirror} must name one of {', '.join(self.coordinates)} "
                    "and a parity, 1 or -1"
                )


def make_residual(
    equation: Equation, mode: str = "forward"
) -> Callable[[Solution, Float[Array, " d"]], dict[str, Scalar]]:
    """The residual as a function of a trial solution and a point: `(u_fn, x [d]) -> {term: scalar}`.

    Args:
        equation: the equation.
        mode: derivative mode, see `sbjax.physics.derivatives.partials`.

    Raises:
        ValueError: (when called) the outputs of `u_fn` do not match the unknowns; an unknown mode.

    Example:
        >>> from sbjax.physics.pdes import make_equation
        >>> heat = make_equation('heat')  # u_t = 0.4 u_xx
        >>> residual = make_residual(heat)
        >>> u_fn = lambda p: jnp.stack([p[0] ** 2 + p[1]])
        >>> {term: round(float(value), 6) for term, value in residual(u_fn, jnp.array([0.5, 0.5])).items()}
        {'equation': 0.2}
    """

    def residual(u_fn, x):
        return equation.residual(x, _partials(equation, u_fn, x, equation.partials, mode))

    return residual


def make_condition(
    equation: Equation, name: str, mode: str = "forward"
) -> Callable[[Solution, Float[Array, " d"]], Scalar]:
    """The residual of a condition as a function of a trial solution and a point: `(u_fn, x [d]) -> scalar`.

    The point lies on a face of the condition, see `on_face`; for a periodic condition on either of its two faces.

    Args:
        equation: the equation.
        name: name of the condition.
        mode: as in `make_residual`.

    Raises:
        ValueError: no condition of that name; as `make_residual`.
    """
    known = {condition.name: condition for condition in equation.conditions}
    if name not in known:
        raise ValueError(f"{equation.name} has no condition {name!r}{near(name, known)}; it has {', '.join(known)}")
    condition = known[name]

    def residual(u_fn, x):
        at = functools.partial(_partials, equation, u_fn, names=condition.partials, mode=mode)
        if condition.kind == "periodic":
            return condition.residual(x, *(at(on_face(equation, face, x)) for face in condition.faces))
        return condition.residual(x, at(x))

    return residual


def _partials(equation, u_fn, x, names, mode):
    return partials(u_fn, x, names, coordinates=equation.coordinates, unknowns=equation.unknowns, mode=mode)


# Points


def on_face(equation: Equation, face: Face, x: Float[ArrayLike, "*batch d"]) -> Float[Array, "*batch d"]:
    """Project points on a face by setting its coordinate to the bound.

    >>> from sbjax.physics.pdes import make_equation
    >>> on_face(make_equation('burgers'), ('x', 'upper'), jnp.array([0.25, 0.5])).tolist()
    [1.0, 0.5]
    """
    i, bound = _bound(equation, face)
    return jnp.asarray(x).at[..., i].set(bound)


def spread(equation: Equation, n: int) -> np.ndarray:
    """n deterministic quasi-random points in the box, none on its boundary: [n, d] in float64.

    x_k = lower + (upper - lower) frac(1/2 + k / g^(1, .., d)) with g^(d + 1) = g + 1 (Roberts' sequence, a
    generalisation of the golden ratio).

    >>> from sbjax.physics.pdes import make_equation
    >>> spread(make_equation('heat'), 2).round(3).tolist()
    [[0.255, 0.07], [0.01, 0.64]]
    """
    d = len(equation.coordinates)
    g = 2.0
    for _ in range(60):
        g = (1 + g) ** (1 / (d + 1))
    unit = (0.5 + np.arange(1, n + 1)[:, None] * g ** -np.arange(1.0, d + 1)) % 1
    lower, upper = np.asarray(equation.lower), np.asarray(equation.upper)
    return lower + (upper - lower) * unit


def evaluate(equation: Equation, points: Float[ArrayLike, "n d"]) -> np.ndarray:
    """The reference solution at points of the domain, [n, unknowns] in float64 on the CPU for any jax precision.

    Args:
        equation: the equation.
        points: concrete points [n, d], inside the domain or on its boundary.

    Raises:
        ValueError: a wrong shape, or a point outside the domain or NaN.

    >>> from sbjax.physics.pdes import make_equation
    >>> evaluate(make_equation('heat'), [[0.5, 0.0], [0.5, 1.0]]).round(6).tolist()
    [[1.0], [0.019296]]
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != len(equation.coordinates):
        d = len(equation.coordinates)
        raise ValueError(f"points has shape {points.shape}, needs [n, {d}]: columns {', '.join(equation.coordinates)}")
    lower, upper = np.asarray(equation.lower), np.asarray(equation.upper)
    slack = 1e-6 * (upper - lower)  # for points rounded to float32
    if (outside := ~((points >= lower - slack) & (points <= upper + slack)).all(1)).any():
        i = int(outside.argmax())
        raise ValueError(
            f"points[{i}]={points[i].tolist()} lies outside of {equation.name}: {equation.lower} to {equation.upper}; "
            "the reference is defined inside only"
        )
    with devices.double():
        return np.asarray(_map(equation.reference.solution, np.clip(points, lower, upper)))


@functools.partial(jax.jit, static_argnums=0)
def _map(solution, points):
    return jax.lax.map(solution, points, batch_size=4096)


def check_conditions(equation: Equation, points: int = 16) -> None:
    """Check that prescribed values are finite, at `points` points per face (residuals with all partials zero).

    Raises:
        ValueError: a value is not finite; the message names condition, point and value.
    """
    for condition in equation.conditions:
        zeros = dict.fromkeys(condition.partials, 0.0)
        for face in condition.faces:
            for x in on_face(equation, face, spread(equation, points)):
                value = condition.residual(x, *[zeros] * (2 if condition.kind == "periodic" else 1))
                if not np.isfinite(value):
                    raise ValueError(
                        f"{equation.name}: condition {condition.name!r} is {float(value)} at "
                        f"{np.round(x, 6).tolist()} and cannot be satisfied; correct its value or the domain"
                    )


def _bound(equation, face):
    coordinate, side = face
    if coordinate not in equation.coordinates or side not in SIDES:
        known = ", ".join(equation.coordinates)
        raise ValueError(
            f"{equation.name}: face {face!r} does not exist; take one of {known} and 'lower' or 'upper': ('x', 'lower')"
        )
    i = equation.coordinates.index(coordinate)
    return i, (equation.lower, equation.upper)[SIDES.index(side)][i]
