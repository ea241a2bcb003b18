"""Space-time Chebyshev collocation by least squares: solves an equation in one or two coordinates without a network.

    u(x, t) = sum_jk c[j, k] T_j(x) T_k(t)

It is an independent check of every reference solution and a classical baseline for the time to a given error. Residual
and conditions are enforced at as many Chebyshev points per coordinate as the series has terms; with the conditions the
system is overdetermined, which keeps time slabs stable and pressures free of spurious modes. float64, on the CPU. Set
OPENBLAS_NUM_THREADS=1 for timings on a shared machine: on small matrices waiting threads can cost a factor of 100.

Source: Trefethen, Spectral Methods in MATLAB (2000); Driscoll and Hale, "Rectangular spectral collocation", IMA J.
Numer. Anal. 36 (2016); for `stretch` Tee and Trefethen, SIAM J. Sci. Comput. 28 (2006).
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from sbjax.common import devices
from sbjax.physics.collocation_rows import Box, continued, gauss_newton, make_rows
from sbjax.physics.derivatives import parse_partial
from sbjax.physics.equation import Equation, evaluate, spread

LONGEST = 10  # terms in t above which `search` doubles the number of slabs instead


@dataclasses.dataclass(frozen=True, eq=False)
class Solved:
    """A solution by collocation.

    Attributes:
        equation: the equation.
        boxes: time slabs in order; a single box for a stationary equation.
        coefficients: Chebyshev coefficients of each slab, [unknowns, *n].
        seconds: time to assemble and solve, without compilation.
        iterations: Gauss-Newton iterations, summed over slabs.
        residual: root mean square residual at the collocation points (conditions are weighted).
    """

    equation: Equation
    boxes: tuple[Box, ...]
    coefficients: tuple[np.ndarray, ...]
    seconds: float
    iterations: int
    residual: float

    def evaluate(self, points: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m unknowns"]:
        """Solution at points of the domain."""
        points = np.asarray(points, np.float64)
        slab: Integer[np.ndarray, " m"] = np.searchsorted([box.upper[-1] for box in self.boxes[:-1]], points[:, -1])
        found = np.empty((len(points), len(self.equation.unknowns)))
        for i in np.unique(slab):
            here = slab == i
            axes = [self.boxes[i].matrix(k, x, 0) for k, x in enumerate(points[here].T)]
            subscripts = ("mj,uj->mu", "mj,mk,ujk->mu")[len(axes) - 1]
            found[here] = np.einsum(subscripts, *axes, self.coefficients[i], optimize=True)
        return found

    def tails(self) -> tuple[float, ...]:
        """Estimated truncation error per coordinate: the largest of the last two coefficients along it in any slab,
        relative to the largest coefficient of the unknown."""
        sizes = np.abs(np.stack(self.coefficients))  # [slab, unknown, *n]
        largest = sizes.max((0, *range(2, sizes.ndim)))
        axes = range(2, sizes.ndim)
        last = [np.take(sizes, (-2, -1), axis).max((0, *axes)) for axis in axes]
        return tuple(float((row / largest).max()) for row in last)


def solve(
    equation: Equation,
    n: Sequence[int],
    *,
    slabs: int = 1,
    stretch: Sequence[float] | None = None,
    start: Callable[[Float[np.ndarray, "m d"]], Float[np.ndarray, "m unknowns"]] | None = None,
) -> Solved:
    """Solve an equation in one or two coordinates.

    A linear equation takes one iteration per slab. The cost is that of dense least squares, at least slabs * iterations
    * 4/3 (unknowns * n_1 * n_2)^3 operations.

    Args:
        equation: the equation to solve.
        n: terms of the series along each coordinate; along t, per slab.
        slabs: number of equal time slabs, solved one after another.
        stretch: a >= 0 for each coordinate; the series is in s with x = sinh(a s) / sinh(a) on [-1, 1], which resolves
            a layer of width 1 / sinh(a) in the middle. Default 0: x = s.
        start: initial guess for Gauss-Newton. Default: the initial value of each slab, constant in t; zero without one.

    Raises:
        ValueError: more than two coordinates; too few terms for the order of the equation; several slabs without t.
        RuntimeError: Gauss-Newton does not converge; use more terms or slabs, or a better start.

    Example:
        >>> from sbjax.physics.pdes import make_equation
        >>> solved = solve(make_equation('heat'), (14, 14))
        >>> solved.iterations
        1
        >>> bool(abs(solved.evaluate([[0.5, 1.0]]) - math.exp(-0.4 * math.pi**2)).max() < 1e-8)
        True
    """
    boxes = _boxes(equation, n, slabs, stretch)
    with devices.double():
        for rows in make_rows(equation, boxes[0]):
            rows.linearised(np.zeros((len(equation.unknowns), *n)))  # compiles; all slabs have these shapes
        began, found, iterations, residuals = time.perf_counter(), [], 0, []
        for i, box in enumerate(boxes):
            rows = make_rows(equation, box)
            if i:
                rows = [continued(equation, part, found[-1], boxes[i - 1]) for part in rows]
            c, steps, residual = gauss_newton(rows, _first_guess(equation, box, rows, start), equation.name)
            found.append(c)
            iterations += steps
            residuals.append(residual)
        seconds = time.perf_counter() - began
    return Solved(equation, boxes, tuple(found), seconds, iterations, float(np.sqrt(np.mean(np.square(residuals)))))


def _first_guess(equation, box, rows, start):
    axes = [box.points(i) for i in range(len(box.n))]
    values = np.zeros((len(equation.unknowns), *box.n))
    if start is not None:
        x = np.stack([c.ravel() for c in np.meshgrid(*axes, indexing="ij")], -1)
        values = np.asarray(start(x), np.float64).T.reshape(values.shape)
    for part in rows if start is None else ():
        if part.kind == "initial_value":  # its residual is u - value
            ((unknown, _),) = part.matrices[0].values()
            at_zero, _ = part.linearised(np.zeros_like(values))
            values[unknown] = (part.target - at_zero).reshape(-1, 1)
    for i, x in enumerate(axes):
        values = np.moveaxis(np.tensordot(np.linalg.inv(box.matrix(i, x, 0)), values, (1, i + 1)), 0, i + 1)
    return values


def _boxes(equation, n, slabs, stretch):
    d, n = len(equation.coordinates), tuple(n)
    if d > 2:
        raise ValueError(f"{equation.name} has {d} coordinates; collocation on a full grid takes 1 or 2")
    orders = _orders(equation)
    if len(n) != d or any(k <= order for k, order in zip(n, orders)):
        raise ValueError(
            f"n={n} must hold one number of terms for each of {', '.join(equation.coordinates)}, above the orders "
            f"{orders} of {equation.name}"
        )
    if slabs < 1 or (slabs > 1 and equation.coordinates[-1] != "t"):
        raise ValueError(f"slabs={slabs} must be >= 1, and 1 for {equation.name} if it has no coordinate t")
    stretch = (0.0,) * d if stretch is None else tuple(stretch)
    if len(stretch) != d or min(stretch) < 0:
        raise ValueError(f"stretch={stretch} must hold a number >= 0 for each of {', '.join(equation.coordinates)}")
    lower, upper = np.array(equation.lower), np.array(equation.upper)
    ends = np.linspace(lower[-1], upper[-1], slabs + 1)
    return tuple(
        Box(np.append(lower[:-1], a), np.append(upper[:-1], b), n, stretch) for a, b in itertools.pairwise(ends)
    )


def _orders(equation):
    found = [parse_partial(name, equation.coordinates, equation.unknowns).orders for name in equation.partials]
    return tuple(map(max, zip(*found)))


class Found(NamedTuple):
    """A discretisation that reached an error: solve time, terms per coordinate, slabs, the error."""

    seconds: float
    n: tuple[int, ...]
    slabs: int
    error: float


def time_to_errors(
    equation: Equation, errors: Sequence[float] = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7), **options
) -> dict[float, float | None]:
    """Time in seconds that `solve` needs for each relative L2 error; None where it was not reached.

    The time is that of the fastest single solve with a sufficient error, as if its size had been known: it excludes
    import, compilation, coarser solves and the comparison. `search` returns the sizes too.

    Args:
        equation: an equation in one or two coordinates.
        errors: relative L2 errors of the worst unknown.
        options: arguments of `search`.

    Raises:
        ValueError: as `solve`.

    >>> from sbjax.physics.pdes import make_equation
    >>> found = time_to_errors(make_equation('poisson'), (1e-3, 1e-7))
    >>> 0 < found[1e-3] < 1 and 0 < found[1e-7] < 1
    True
    """
    return {error: row and row.seconds for error, row in search(equation, errors, **options).items()}


def search(
    equation: Equation,
    errors: Sequence[float],
    *,
    limit: float = 30.0,
    stretch: Sequence[float] | None = None,
    points: int = 2000,
) -> dict[float, Found | None]:
    """Fastest discretisation that reaches each error.

    Starting small, n grows by 25 % along coordinates with the largest tails (see `Solved.tails`); once t has more than
    `LONGEST` terms the number of slabs is doubled instead. The reference serves to measure errors, not to choose n.

    Args:
        equation, errors: as in `time_to_errors`.
        limit: the search ends after a solve that took longer (seconds), or when all errors are reached.
        stretch: as in `solve`.
        points: number of points at which the solution is compared with the reference.
    """
    at = spread(equation, points)
    truth = evaluate(equation, at)
    n, slabs = tuple(order + 4 for order in _orders(equation)), 1
    best: dict[float, Found | None] = dict.fromkeys(errors)
    while True:
        began = time.perf_counter()
        try:
            solved = solve(equation, n, slabs=slabs, stretch=stretch)
        except RuntimeError:  # too coarse to converge
            tails, seconds = (1.0,) * len(n), time.perf_counter() - began
        else:
            tails, seconds = solved.tails(), solved.seconds
            error = float((np.linalg.norm(solved.evaluate(at) - truth, axis=0) / np.linalg.norm(truth, axis=0)).max())
            found = Found(seconds, n, slabs, error)
            best |= {e: found for e, row in best.items() if error <= e and (row is None or seconds < row.seconds)}
        if seconds > limit or all(best.values()):
            return best
        n = tuple(math.ceil(1.25 * k) if tail >= 0.1 * max(tails) else k for k, tail in zip(n, tails))
        if equation.coordinates[-1] == "t" and n[-1] > LONGEST:
            n, slabs = (*n[:-1], 3 * LONGEST // 4), 2 * slabs
