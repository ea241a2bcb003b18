"""The families of `relu_minima` at a real number k of units: where a saddle becomes a minimum.

Gradient and Hessian see the numbers of units and coordinates of a class only as factors of sums, so that both go on to
real k. Vectors are given by their coordinates 1, 2, 3, 4, any other one of the first k - 1 and the last one, counted 1,
1, 1, 1, k - 5 and 1 times; units and targets by their numbers 1, 2, 3, 4 (counted k - 4 times) and k.

The directions that decide are the antisymmetric matrices V on the first k - 1 units and coordinates whose rows sum to
zero: one irreducible representation of the permutations of these, of dimension (k - 2) (k - 3) / 2, which appears once.
E_12 - E_21 + E_23 - E_32 + E_31 - E_13 is in it, and one entry of the Hessian's product with it is the eigenvalue.

Source of the question: arXiv 2210.06088, which names such fractional dimensions; the formulas are worked out here.
"""

import numpy as np
import scipy.optimize
from jaxtyping import Float

from sbjax.landscape.relu_minima import critical_point


def real_point(family: str, k: float) -> Float[np.ndarray, "5"]:
    """The critical point of a family at real k >= 5: diagonal, others, last column, last row, corner.

    Raises:
        ValueError: an unknown family, k < 5, or no convergence.

    >>> w = critical_point('II', 8).weights
    >>> bool(np.allclose(real_point('II', 8.0), [w[0, 0], w[0, 1], w[0, -1], w[-1, 0], w[-1, -1]]))
    True
    """
    if not 5 <= k < np.inf:
        raise ValueError(f"k={k} must be >= 5")
    w = critical_point(family, round(k)).weights
    c = np.array([w[0, 0], w[0, 1], w[0, -1], w[-1, 0], w[-1, -1]])
    found = scipy.optimize.root(real_gradient, c, args=(k,), tol=1e-15)
    size = np.abs(real_gradient(found.x, k)).max()
    if not size < 1e-11:
        raise ValueError(f"family={family!r}, k={k}: the gradient stayed at {size:.1e}")
    return found.x


def real_gradient(c: Float[np.ndarray, "5"], k: float) -> Float[np.ndarray, "5"]:
    """Entries (1, 1), (1, 2), (1, k), (k, 1) and (k, k) of the gradient."""
    units, targets, weights, counts = _vectors(c, k)
    slopes = []
    for a in (units[0], units[-1]):
        parts = [
            sign * count * (np.sqrt(b @ (weights * b)) * np.sin(t) * a / np.sqrt(a @ (weights * a)) + (np.pi - t) * b)
            for sign, vectors in ((1, units), (-1, targets))
            for b, count in zip(vectors, counts)
            for t in [_angle(a, b, weights)]
        ]
        slopes.append(sum(parts) / (2 * np.pi))
    return np.array([slopes[0][0], slopes[0][1], slopes[0][5], slopes[1][0], slopes[1][5]])


def alternating_eigenvalue(c: Float[np.ndarray, "5"], k: float) -> float:
    """Eigenvalue of the Hessian on antisymmetric directions whose rows sum to zero.

    >>> from sbjax.landscape.relu_minima import spectrum
    >>> found = alternating_eigenvalue(real_point('I', 6.0), 6.0)
    >>> round(found, 5), round(float(spectrum(critical_point('I', 6).weights)[0]), 5)
    (-0.00583, -0.00583)
    """
    units, targets, weights, counts = _vectors(c, k)
    a = units[0]
    own = 0.5
    for sign, vectors in ((1, units), (-1, targets)):
        for number, (b, count) in enumerate(zip(vectors, counts)):
            if sign > 0 and number == 0:
                continue
            t = _angle(a, b, weights)
            size = np.sqrt(b @ (weights * b)) * np.sin(t) / (2 * np.pi * np.sqrt(a @ (weights * a)))
            n = _perpendicular(a, b, weights)
            own += sign * count * size * (1 + n[1] * (n[1] - n[2]))
    second, third = (_cross(a, units[number], weights) for number in (1, 2))
    return float(own + second[1, 2] - second[1, 0] + third[1, 0] - third[1, 1])


def turning_point(family: str, low: float, high: float) -> float:
    """The k between `low` and `high` at which that eigenvalue is zero.

    Raises:
        ValueError: it has the same sign at both ends.

    >>> 6 < turning_point('I', 6.0, 7.0) < 7
    True
    """

    def value(k):
        return alternating_eigenvalue(real_point(family, k), k)

    if value(low) * value(high) > 0:
        raise ValueError(f"family={family!r}: the eigenvalue has one sign from k={low} to k={high}")
    return float(scipy.optimize.brentq(value, low, high, xtol=1e-10))


def _vectors(c, k):
    diagonal, others, column, row, corner = c
    units = np.full((5, 6), others)
    units[:, 5] = column
    units[range(4), range(4)] = diagonal
    units[4], units[4, 5] = row, corner
    targets = np.eye(6)[[0, 1, 2, 3, 5]]
    return units, targets, np.array([1, 1, 1, 1, k - 5, 1]), np.array([1, 1, 1, k - 4, 1])


def _angle(a, b, weights):
    cosine = a @ (weights * b) / np.sqrt((a @ (weights * a)) * (b @ (weights * b)))
    return np.arccos(np.clip(cosine, -1.0, 1.0))


def _perpendicular(a, b, weights):
    """Unit part of b orthogonal to a; 0 if they are parallel."""
    part = b - (a @ (weights * b)) / (a @ (weights * a)) * a
    size = np.sqrt(part @ (weights * part))
    return part / size if size > 1e-9 * np.sqrt(b @ (weights * b)) else 0.0 * part


def _cross(a, b, weights):
    """The block of the Hessian between two units, but for coordinates that are counted several times."""
    t = _angle(a, b, weights)
    one, other = (v / np.sqrt(v @ (weights * v)) for v in (a, b))
    found = (np.pi - t) * np.eye(6) + np.outer(one, _perpendicular(a, b, weights))
    return (found + np.outer(other, _perpendicular(b, a, weights))) / (2 * np.pi)
