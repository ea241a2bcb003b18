"""Rows of the least-squares system of `sbjax.physics.collocation`, and Gauss-Newton on it.

A row is the residual of the equation or a condition at one Chebyshev point, as a function of the series' coefficients.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Float
from numpy.polynomial import chebyshev

from sbjax.physics.derivatives import parse_partial
from sbjax.physics.equation import SIDES, Equation

ITERATIONS = 25  # maximum number of Gauss-Newton iterations
TOLERANCE = 1e-10  # deviation from the linear prediction, relative to the first residual, below which a step is final
# Weight of a condition's rows. The equation's rows contain second derivatives, which grow with the number of terms:
# with equal weights an under-resolved series violates its conditions to reduce them.
WEIGHT = 300.0


class Box(NamedTuple):
    """A part of the domain with its series.

    Attributes:
        lower, upper: bounds, [d].
        n: terms along each coordinate.
        stretch: a along each coordinate: x = centre + half width * sinh(a s) / sinh(a), or linear in s if a = 0. Points
            cluster at the centre, e^a / 2a times denser than for a = 0.
    """

    lower: np.ndarray
    upper: np.ndarray
    n: tuple[int, ...]
    stretch: tuple[float, ...]

    def points(self, i: int) -> np.ndarray:
        """The n[i] Chebyshev points of the i-th coordinate."""
        s = np.cos(np.pi * (np.arange(self.n[i]) + 0.5) / self.n[i])
        a = self.stretch[i]
        return self.lower[i] + (self.upper[i] - self.lower[i]) * (1 + (np.sinh(a * s) / np.sinh(a) if a else s)) / 2

    def matrix(self, i: int, x: Float[np.ndarray, " m"], order: int) -> Float[np.ndarray, "m n"]:
        """Derivatives of order `order` of the basis functions of the i-th coordinate, at points x.

        With S = sinh(a) and z = (x - centre) / half width, s = asinh(S z) / a satisfies (1 + S^2 z^2) s'' = -S^2 z s';
        differentiating this k times gives a recurrence for all derivatives of s.
        """
        a, scale = self.stretch[i], 2 / (self.upper[i] - self.lower[i])
        z = scale * (x - self.lower[i]) - 1
        if not a:
            return _terms(z, self.n[i], order) * scale**order
        sinh = math.sinh(a)
        s = [np.arcsinh(sinh * z) / a, sinh / a / np.sqrt(1 + (sinh * z) ** 2)]
        for k in range(order - 1):
            lower = k**2 * s[k] if k else 0.0
            s.append(-(sinh**2) * ((2 * k + 1) * z * s[k + 1] + lower) / (1 + (sinh * z) ** 2))
        return _chained(s, [_terms(s[0], self.n[i], k) for k in range(order + 1)], order) * scale**order


def _terms(s, n, order):
    slopes = chebyshev.chebder(np.eye(n), order)
    return chebyshev.chebvander(s, len(slopes) - 1) @ slopes


def _chained(s, f, order):
    """d^order f(s(z)) / dz^order from derivatives of s and f: Faa di Bruno's formula with Bell polynomials."""
    bell = [[np.ones_like(s[0])] + [np.zeros_like(s[0])] * order]  # bell[m][k]
    for m in range(1, order + 1):
        row = [np.zeros_like(s[0])]
        for k in range(1, order + 1):
            row.append(
                sum(math.comb(m - 1, j) * s[j + 1] * bell[m - 1 - j][k - 1] for j in range(m - k + 1)) + 0 * s[0]
            )
        bell.append(row)
    return sum(bell[order][k][:, None] * f[k] for k in range(order + 1))


class Rows(NamedTuple):
    """One residual function at its collocation points.

    Attributes:
        fn: (x [d], d, ..) -> scalars; d maps names of partials to values.
        x: points, [m, d].
        matrices: for each argument d of `fn`: name of partial -> (unknown, one basis matrix per coordinate).
        kind: kind of the condition, or 'equation'.
        target: value that the residual should have, [terms, m].
    """

    fn: Callable
    x: np.ndarray
    matrices: tuple[dict[str, tuple[int, tuple[np.ndarray, ...]]], ...]
    kind: str
    target: float | np.ndarray = 0.0

    def linearised(self, c: Float[np.ndarray, "unknowns *n"]):
        """Residuals [terms, m] and, for each argument d, their derivatives with respect to each partial, [terms, m]."""
        d = [
            {name: _apply(axes, c[unknown]).ravel() for name, (unknown, axes) in matrices.items()}
            for matrices in self.matrices
        ]
        values, slopes = _algebra(self.fn, self.x, d)
        return np.asarray(values), jax.tree.map(np.asarray, slopes)

    @property
    def weight(self) -> float:
        return 1.0 if self.kind == "equation" else WEIGHT


def make_rows(equation: Equation, box: Box) -> list[Rows]:
    """Rows of the equation at all grid points, followed by those of its conditions on their faces."""
    full = [box.points(i) for i in range(len(box.n))]

    def on(face):
        i = equation.coordinates.index(face[0])
        bound = np.array([(box.lower, box.upper)[SIDES.index(face[1])][i]])
        return [*full[:i], bound, *full[i + 1 :]]

    found = [_rows(equation, box, equation.residual, equation.partials, "equation", full)]
    for condition in equation.conditions:
        faces = list(map(on, condition.faces))
        # A periodic condition couples its two faces in one residual.
        for sides in [faces] if condition.kind == "periodic" else [[face] for face in faces]:
            found.append(_rows(equation, box, condition.residual, condition.partials, condition.kind, *sides))
    return found


def continued(equation: Equation, rows: Rows, c: Float[np.ndarray, "unknowns *n"], before: Box) -> Rows:
    """Replace the target of an initial condition by its residual at the end of the previous slab, so that the solution
    continues."""
    if not rows.kind.startswith("initial"):
        return rows
    axes = [*(before.points(i) for i in range(len(before.n) - 1)), before.upper[-1:]]
    return rows._replace(target=_rows(equation, before, rows.fn, rows.matrices[0], rows.kind, axes).linearised(c)[0])


def _rows(equation, box, fn, names, kind, *sides):
    def matrices(axes):
        found = {}
        for name in names:
            unknown, orders = parse_partial(name, equation.coordinates, equation.unknowns)
            found[name] = unknown, tuple(box.matrix(i, x, order) for i, (x, order) in enumerate(zip(axes, orders)))
        return found

    x = np.stack([c.ravel() for c in np.meshgrid(*sides[0], indexing="ij")], -1)
    return Rows(fn, x, tuple(map(matrices, sides)), kind)


def gauss_newton(
    rows: list[Rows], c: Float[np.ndarray, "unknowns *n"], name: str
) -> tuple[Float[np.ndarray, "unknowns *n"], int, float]:
    """Minimise |residuals|^2 over the coefficients by Gauss-Newton with step halving.

    Stops at the first full step whose residual agrees with the linear prediction: one iteration for a linear equation.

    Args:
        rows: residual functions.
        c: initial coefficients.
        name: of the equation, for errors.

    Returns:
        Coefficients, number of iterations, root mean square residual.

    Raises:
        RuntimeError: no step reduces the residual, or no convergence within `ITERATIONS`.
    """
    values, jacobian = _system(rows, c)
    scale = size = np.linalg.norm(values)
    for iteration in range(1, ITERATIONS + 1):
        step = _least_squares(jacobian, -values)
        promised = values + jacobian @ step
        for halving in range(8):
            tried = c + step.reshape(c.shape) / 2**halving
            left = _system(rows, tried, slopes=False)
            linear = halving == 0 and np.linalg.norm(left - promised) <= TOLERANCE * scale
            if linear or np.linalg.norm(left) < size:
                break
        else:
            raise RuntimeError(f"{name}: no step reduces the residual {size:.1e}; raise n or slabs, or give a start")
        c, size = tried, np.linalg.norm(left)
        if linear:
            return c, iteration, size / math.sqrt(len(values))
        values, jacobian = _system(rows, c)
    raise RuntimeError(f"{name}: residual {size:.1e} after {ITERATIONS} iterations; raise n or slabs, or give a start")


def _least_squares(a, b):
    """Least squares by QR; by SVD if the matrix is rank-deficient."""
    work = int(scipy.linalg.lapack.dgels_lwork(*a.shape, 1)[0])
    _, x, info = scipy.linalg.lapack.dgels(a, b, lwork=work)
    return x[: a.shape[1]] if info == 0 else scipy.linalg.lstsq(a, b)[0]


def _system(rows, c, slopes=True):
    """Weighted residuals and, if `slopes`, their Jacobian [rows, coefficients] in Fortran order for LAPACK."""
    parts = [part.linearised(c) for part in rows]
    values = np.concatenate([part.weight * (found - part.target).ravel() for part, (found, _) in zip(rows, parts)])
    if not slopes:
        return values
    jacobian = np.zeros((len(values), c.size), order="F")
    ends = itertools.accumulate((found.size for found, _ in parts), initial=0)
    for part, start, (found, by_side) in zip(rows, ends, parts):
        terms, m = found.shape
        for matrices, by_name in zip(part.matrices, by_side):
            for name, (unknown, axes) in matrices.items():
                whole = part.weight * functools.reduce(np.kron, axes)
                columns = slice(unknown * c[0].size, (unknown + 1) * c[0].size)
                for k in range(terms):
                    if by_name[name][k].any():
                        jacobian[start + k * m : start + (k + 1) * m, columns] += by_name[name][k][:, None] * whole
    return values, jacobian


def _apply(axes, c):
    return axes[0] @ c if len(axes) == 1 else axes[0] @ c @ axes[1].T


@functools.partial(jax.jit, static_argnums=0)
def _algebra(fn, x, d):
    def terms(x, d):
        return jnp.stack(jax.tree.leaves(fn(x, *d)))

    return jax.vmap(terms, out_axes=1)(x, d), jax.vmap(jax.jacfwd(terms, argnums=1), out_axes=1)(x, d)
