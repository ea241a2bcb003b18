"""Two-layer ReLU networks that learn k orthonormal units from Gaussian inputs: everything in closed form.

L(W) = 1/2 E_(x ~ N(0, 1)) ( sum_i relu(w_i . x) - sum_(j <= k) relu(e_j . x) )^2 with W [n, d], d = k, and all outgoing
weights 1. With t the angle between a and b,

    K(a, b) = E relu(a.x) relu(b.x) = |a| |b| (sin t + (pi - t) cos t) / (2 pi),

so that loss, gradient and Hessian need no samples. Arrays have the network in their last two axes; axes before them are
batches.

Spurious minima come in families by their isotropy, the permutations of units and coordinates that leave them as they
are:

- 'A': all k! permutations, near -1 + 2/k on the diagonal and 2/k elsewhere;
- 'I': those of the first k - 1, where W is as in A, with a last unit near e_k;
- 'II': those of the first k - 1, units near e_1, .., e_(k-1), with a last unit near -e_k.

Sources: arXiv 2210.06088, 2107.10370 and 2312.16819; the formulas of the derivatives are worked out here.
"""

from typing import NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Float

FAMILIES = ("A", "I", "II")

_TINY = 1e-300


class Point(NamedTuple):
    """A critical point of a family.

    Attributes:
        weights: [k, k].
        loss: at it.
        gradient: largest entry of the gradient.
    """

    weights: Float[np.ndarray, "k k"]
    loss: float
    gradient: float


def kernel(
    a: Float[np.ndarray, "*#batch n d"], b: Float[np.ndarray, "*#batch m d"]
) -> Float[np.ndarray, "*#batch n m"]:
    """E relu(a_i . x) relu(b_j . x) over standard Gaussian x.

    >>> kernel(np.eye(2), np.eye(2)).round(6).tolist()
    [[0.5, 0.159155], [0.159155, 0.5]]
    """
    t, sizes, others = _angles(a, b)
    return sizes[..., :, None] * others[..., None, :] * (np.sin(t) + (np.pi - t) * np.cos(t)) / (2 * np.pi)


def loss(w: Float[np.ndarray, "*batch n d"]) -> Float[np.ndarray, "*batch"] | float:
    """L(W), with the teacher e_1, .., e_d.

    >>> float(loss(np.eye(3)))
    0.0
    """
    w = np.asarray(w)
    target = np.eye(w.shape[-1])
    total = kernel(w, w).sum((-1, -2)) - 2 * kernel(w, target).sum((-1, -2)) + kernel(target, target).sum()
    return np.maximum(total / 2, 0.0)


def gradient(w: Float[np.ndarray, "*batch n d"]) -> Float[np.ndarray, "*batch n d"]:
    """dL / dW.

    >>> bool(np.abs(gradient(np.eye(3))).max() < 1e-15)
    True
    """
    return kernel_gradient(w, w) - kernel_gradient(w, np.eye(w.shape[-1]))


def kernel_gradient(
    a: Float[np.ndarray, "*#batch n d"], b: Float[np.ndarray, "*#batch m d"]
) -> Float[np.ndarray, "*#batch n d"]:
    """sum_j dK(a_i, b_j) / da_i = sum_j (|b_j| sin t a_i / |a_i| + (pi - t) b_j) / (2 pi)."""
    t, sizes, others = _angles(a, b)
    along = (np.sin(t) * others[..., None, :]).sum(-1) / np.maximum(sizes, _TINY)
    return (along[..., None] * a + (np.pi - t) @ b) / (2 * np.pi)


def hessian(w: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "nd nd"]:
    """The Hessian of L, in the order of `w.ravel()`.

    Parallel units are allowed: K(a, b) = a . b / 2 + O(t^3) there, so that the Hessian exists, though automatic
    differentiation of the formula does not find it.

    Raises:
        ValueError: a unit of zero norm, at which L has no second derivative; several networks; NaN.

    >>> np.linalg.eigvalsh(hessian(np.eye(2))).round(4).tolist()
    [0.0908, 0.4092, 0.5908, 0.9092]
    """
    if np.ndim(w) != 2 or not np.isfinite(w).all():
        raise ValueError(f"w has shape {np.shape(w)}: give the finite weights [n, d] of one network")
    n, d = w.shape
    sizes = np.linalg.norm(w, axis=1)
    if not sizes.min() > 0:
        raise ValueError("w has a unit of zero norm: the loss has no second derivative there")
    units, target = w / sizes[:, None], np.eye(d)
    found = np.zeros((n, d, n, d))
    for i in range(n):
        found[i, :, i] += _own(w[i], w, skip=i) - _own(w[i], target) + np.eye(d) / 2
        t = _angles(w[i : i + 1], w)[0][0]
        toward, back = _perpendicular(units[i], units)  # n_b and n_a, [n, d]
        cross = (np.pi - t)[:, None, None] * np.eye(d)
        cross = cross + units[i][None, :, None] * toward[:, None, :] + units[:, :, None] * back[:, None, :]
        for j in range(n):
            if j != i:
                found[i, :, j] += cross[j] / (2 * np.pi)
    return found.reshape(n * d, n * d)


def spectrum(w: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "nd"]:
    """Eigenvalues of the Hessian, ascending."""
    found = hessian(w)
    return np.linalg.eigvalsh((found + found.T) / 2)


def critical_point(family: str, k: int) -> Point:
    """The critical point of a family, to round-off, in its 2 or 5 symmetric coordinates.

    By symmetry the gradient vanishes once its entries (1, 1), (1, 2), (1, k), (k, 1), (k, k) do, which needs two rows
    of kernels: k = 400 takes a second.

    Raises:
        ValueError: an unknown family, k < 4, or no convergence.

    >>> round(critical_point('II', 8).loss, 8)
    0.02150804
    """
    if family not in FAMILIES or k < 4 or k != int(k):
        raise ValueError(
            f"family={family!r} must be one of {', '.join(FAMILIES)}, and k={k} a whole number >= 4; of others see "
            "`relu_minima_fractional`"
        )
    start = {
        "A": [-1 + 2 / k, 2 / k],
        "I": [-1 + 2 / k, 2 / k, 0.0, 0.0, 1.0],
        "II": [1.0, 0.0, 2 / k, 2 / k, -1 + 2 / k],
    }[family]
    c = np.array(start)
    for _ in range(400):  # gradient descent finds the basin, Newton's steps the point
        c = c - _reduced(c, k) * 1.5 / k
    found = scipy.optimize.root(_reduced, c, args=(k,), tol=1e-15)
    c = found.x
    for _ in range(3):
        c = c - np.linalg.solve(_jacobian(c, k), _reduced(c, k))
    w = expand(c, k)
    size = float(np.abs(gradient(w)).max())
    if not size < 1e-11:
        raise ValueError(f"family={family!r}, k={k}: the gradient stayed at {size:.1e}")
    return Point(w, float(loss(w)), size)


def expand(coordinates: Float[np.ndarray, "c"], k: int) -> Float[np.ndarray, "k k"]:
    """W [k, k] from (diagonal, others), or from (diagonal, others, last column, last row, corner).

    >>> expand(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 3).tolist()
    [[1.0, 2.0, 3.0], [2.0, 1.0, 3.0], [4.0, 4.0, 5.0]]
    """
    if len(coordinates) not in (2, 5) or k < 1:
        raise ValueError(f"{len(coordinates)} coordinates and k={k}: give 2 or 5, and k >= 1")
    w = np.full((k, k), coordinates[1])
    np.fill_diagonal(w, coordinates[0])
    if len(coordinates) == 5:
        w[:-1, -1], w[-1, :-1], w[-1, -1] = coordinates[2:]
    return w


def split(w: Float[np.ndarray, "n d"], unit: int) -> Float[np.ndarray, "m d"]:
    """One unit more and the same function: `unit` becomes two of half its size.

    >>> split(np.eye(2), 0).tolist()
    [[0.5, 0.0], [0.0, 1.0], [0.5, 0.0]]
    """
    if not 0 <= unit < len(w) or unit != int(unit):
        raise ValueError(f"unit={unit} must lie between 0 and {len(w) - 1}")
    halved = np.array(w, float)
    halved[unit] /= 2
    return np.concatenate([halved, halved[unit : unit + 1]])


def first_descent(w: Float[np.ndarray, "n d"], *, starts: int = 40, seed: int = 0) -> float:
    """Least slope of L in a new unit of zero norm: min over unit u of sum_i K(w_i, u) - sum_j K(e_j, u).

    By projected descent from random directions, all e_j and -e_j, and all w_i and -w_i.

    >>> round(first_descent(critical_point('A', 6).weights), 4) < -0.01
    True
    """
    if not np.isfinite(w).all():
        raise ValueError("w has entries that are not finite")
    d, units = w.shape[1], w[w.any(1)]
    tries = [np.random.default_rng(seed).normal(size=(starts, d)), np.eye(d), -np.eye(d), units, -units]
    u = np.concatenate(tries)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    for _ in range(3000):
        slope = kernel_gradient(u, w) - kernel_gradient(u, np.eye(d))
        slope -= (slope * u).sum(1, keepdims=True) * u
        u = u - slope
        u /= np.maximum(np.linalg.norm(u, axis=1, keepdims=True), _TINY)
    return float((kernel(u, w).sum(1) - kernel(u, np.eye(d)).sum(1)).min())


def descend(
    w: Float[np.ndarray, "*batch n d"], *, steps: int, rate: float
) -> tuple[Float[np.ndarray, "*batch n d"], Float[np.ndarray, "*batch"]]:
    """Gradient descent of a batch of networks with one rate; the ends, and the largest entries of their gradients.

    Raises:
        ValueError: steps < 0, a rate that is not positive and finite.
    """
    if steps < 0 or not 0 < rate < np.inf:
        raise ValueError(f"steps={steps} must be >= 0, and rate={rate} > 0 and finite")
    for _ in range(steps):
        w = w - rate * gradient(w)
    return w, np.abs(gradient(w)).max((-1, -2))


def polish(w: Float[np.ndarray, "n d"], *, steps: int = 3000) -> Float[np.ndarray, "n d"]:
    """The end of L-BFGS from W, where gradient descent would be for long: `steps` iterations at most.

    Raises:
        ValueError: steps < 1, weights that are not finite.

    >>> near = critical_point('II', 6).weights + 1e-3
    >>> bool(np.abs(gradient(polish(near))).max() < 1e-8)
    True
    """
    if steps < 1 or not np.isfinite(w).all():
        raise ValueError(f"steps={steps} must be >= 1, and w of finite numbers")
    options = {"maxiter": steps, "maxfun": 2 * steps, "ftol": 0.0, "gtol": 1e-10, "maxcor": 30}
    found = scipy.optimize.minimize(
        lambda x: (float(loss(x.reshape(w.shape))), gradient(x.reshape(w.shape)).ravel()),
        w.ravel(),
        jac=True,
        method="L-BFGS-B",
        options=options,
    )
    return found.x.reshape(w.shape)


def orbits(w: Float[np.ndarray, "n d"], *, tolerance: float = 1e-4) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes of the classes of units and of coordinates that a permutation symmetry of W could exchange, largest first.

    Classes are refined until units of a class see the same values in every class of coordinates, and the other way: no
    symmetry goes beyond them. (k,), (k,) is the isotropy of the families' A, (k - 1, 1), (k - 1, 1) that of I and II.

    >>> orbits(expand(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 4))
    ((3, 1), (3, 1))
    """
    if np.ndim(w) != 2 or not (np.abs(w) < tolerance * 2**62).all():
        raise ValueError(f"w has entries that are not finite, or too large for tolerance={tolerance}, or is not [n, d]")
    values = np.round(w / tolerance).astype(np.int64)
    levels = np.unique(values)
    close = np.cumsum(np.r_[0, np.diff(levels) > 2])  # neighbouring roundings of one number are one
    values = close[np.searchsorted(levels, values)]
    rows, columns = np.zeros(len(w), int), np.zeros(w.shape[1], int)
    for _ in range(sum(w.shape)):
        seen_rows = [(rows[i], tuple(sorted(zip(columns, values[i])))) for i in range(len(w))]
        seen_columns = [(columns[j], tuple(sorted(zip(rows, values[:, j])))) for j in range(w.shape[1])]
        before = len(set(rows)) + len(set(columns))
        rows, columns = _named(seen_rows), _named(seen_columns)
        if len(set(rows)) + len(set(columns)) == before:
            break
    return _sizes(rows), _sizes(columns)


def _named(seen):
    names = {one: number for number, one in enumerate(sorted(set(seen)))}
    return np.array([names[one] for one in seen])


def _sizes(classes):
    return tuple(sorted((int(size) for size in np.bincount(classes) if size), reverse=True))


def _angles(a, b):
    """Angles [.., n, m] and norms.

    The arccosine errs by 1e-8 where two units are parallel or opposite; kernel, gradient and Hessian are of third order
    there, or have unit vectors for factors that are zero.
    """
    sizes, others = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
    one = a / np.maximum(sizes, _TINY)[..., None]
    two = b / np.maximum(others, _TINY)[..., None]
    return np.arccos(np.clip(one @ np.swapaxes(two, -1, -2), -1.0, 1.0)), sizes, others


def _perpendicular(a, b):
    """Unit parts [m, d] of b_j orthogonal to the unit vector a, and of a orthogonal to b_j; 0 if parallel."""
    cosines = b @ a
    parts = (b - cosines[:, None] * a, a - cosines[:, None] * b)
    sizes = [np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    return tuple(np.where(size > 1e-9, part / np.maximum(size, _TINY), 0.0) for part, size in zip(parts, sizes))


def _own(a, b, skip=None):
    """sum_j of the second derivatives of K(a, b_j) by a: |b| sin t (1 - a^ a^T + n_b n_b^T) / (2 pi |a|)."""
    size = np.linalg.norm(a)
    t, _, others = _angles(a[None], b)
    factor = np.sin(t[0]) * others / (2 * np.pi * size)
    toward, _ = _perpendicular(a / size, b / others[:, None])
    if skip is not None:
        factor[skip] = 0.0
    plain = np.eye(len(a)) - np.outer(a, a) / size**2
    return factor.sum() * plain + (factor[:, None] * toward).T @ toward


def _reduced(c, k):
    """The entries of the gradient that decide whether it vanishes on the symmetric space."""
    w = expand(c, k)
    ends = w[[0, -1]]
    found = kernel_gradient(ends, w) - kernel_gradient(ends, np.eye(k))
    entries = np.array([found[0, 0], found[0, 1], found[0, -1], found[1, 0], found[1, -1]])
    return entries[: len(c)]


def _jacobian(c, k, step=1e-6):
    columns = [(_reduced(c + step * e, k) - _reduced(c - step * e, k)) / (2 * step) for e in np.eye(len(c))]
    return np.stack(columns, axis=1)
