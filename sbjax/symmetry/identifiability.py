"""Which neurons of a layer can be told apart by what they can compute (neuron identifiability, arXiv 2606.04754).

A neuron i of a layer computes eta((f_i + d_i * w_i) . x), with constants f_i (fixed part) and d_i (trainable part) of
the length of the input, and weights w_i that are trained. On inputs that lie in a subspace with the orthonormal basis U
[d, k] only a = U^T (f_i + d_i * w_i) counts, and neuron i reaches

    v_i + range(M_i),   v_i = U^T f_i,   M_i = U^T diag(d_i),   S_i = M_i M_i^T.

The least squared norm of w_i that gives neuron i the coefficients a_j of another one is the *realisation cost* c(i, j),
and the *swap cost* says how much more norm the layer needs if i and j exchange what they compute. Zero: nothing tells
them apart, as in a standard network (d = 1, f = 0). Large: each is bound to its place.

All arrays are float64 numpy; kernels are [inputs, neurons], as in Flax. Constants may be left out: trainable = 1, fixed
= 0. Coefficients are not centred, while U is that of centred inputs: what the mean adds is a bias.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Real, Shaped

__all__ = [
    "Basis",
    "Costs",
    "Identifiability",
    "anisotropy",
    "anisotropy_bound",
    "coherence",
    "gram_matrices",
    "realisation_costs",
    "subspace_basis",
    "summarise",
    "swap_costs",
    "targeted_rotation",
]

RANK = 1e-10
"""Eigenvalues of S_i below this share of max d_i^2 count as zero: directions that neuron i cannot reach."""

Kernel = Shaped[np.ndarray, "d neuron"] | Shaped[Array, "d neuron"]  # masks are boolean


class Basis(NamedTuple):
    """The subspace that inputs lie in.

    Attributes:
        vectors: U [d, k], orthonormal columns.
        explained: share of the variance in it.
    """

    vectors: Float[np.ndarray, "d k"]
    explained: float


class Costs(NamedTuple):
    """Realisation costs of a layer.

    Attributes:
        cost: c(i, j) = (a_j - v_i)^T S_i^+ (a_j - v_i) [neuron, neuron]: neuron i as neuron j, within its reach.
        residual: squared norm of the part of a_j - v_i outside of range(S_i), which no weights of neuron i give and
            which the pseudo-inverse hides.
        gap: |a_j - v_i|^2, the scale of `residual`.
    """

    cost: Float[np.ndarray, "neuron neuron"]
    residual: Float[np.ndarray, "neuron neuron"]
    gap: Float[np.ndarray, "neuron neuron"]


class Identifiability(NamedTuple):
    """A layer in a few numbers, over its pairs of neurons.

    Attributes:
        swap: median swap cost.
        relative: median of the swap cost over c(i, i) + c(j, j), the norm that the two have as they are.
        swappable: share of pairs that can be swapped for at most as much norm again as they have, without an
            out-of-range part.
        residual: median share of a_j - v_i that neuron i cannot reach.
    """

    swap: float
    relative: float
    swappable: float
    residual: float


def subspace_basis(inputs: Real[np.ndarray, "n d"], *, variance: float = 0.9) -> Basis:
    """The first k principal directions of the centred inputs, with the smallest k that reaches a share of the variance.

    Args:
        inputs: of the layer, [n, d] with n >= 2.
        variance: share, in (0, 1]; at 1 all directions with variance, up to round-off.

    Raises:
        ValueError: another shape, a variance outside (0, 1], inputs that are not finite or do not vary.

    >>> x = np.array([[0.0, 1.0, 0.0], [4.0, 1.0, 0.0], [2.0, 1.0, 0.1]])
    >>> basis = subspace_basis(x)
    >>> basis.vectors.shape, round(basis.explained, 3)
    ((3, 1), 0.999)
    """
    x = np.asarray(inputs, np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"inputs has shape {x.shape}; give the inputs of a layer, [n, d] with n >= 2")
    if not 0 < variance <= 1:
        raise ValueError(f"variance={variance} must lie in (0, 1]: the share of the variance that is kept")
    if not np.isfinite(x).all():
        raise ValueError("inputs has entries that are not finite; look at the network")
    x = x - x.mean(0)
    x = x / (np.abs(x).max() or 1.0)  # squares of any inputs are neither 0 nor infinite
    # The d x d (or n x n) matrix of products has the same directions, and n is often much larger than d.
    if len(x) > x.shape[1]:
        squares, vectors = np.linalg.eigh(x.T @ x)
        squares, vectors = squares[::-1], vectors[:, ::-1]
    else:
        _, singular, rows = np.linalg.svd(x, full_matrices=False)
        squares, vectors = singular**2, rows.T
    squares = np.where(squares > squares[0] * len(x) * np.finfo(np.float64).eps, squares, 0)
    total = squares.sum()
    if not total:
        raise ValueError("inputs do not vary: no subspace can be told from them")
    shares = np.cumsum(squares) / total
    k = min(int(np.searchsorted(shares, variance * (1 - 1e-12))) + 1, int(np.count_nonzero(squares)))
    return Basis(np.ascontiguousarray(vectors[:, :k]), float(shares[k - 1]))


def coherence(basis: Float[np.ndarray, "d k"]) -> float:
    """nu = max_r |U[r]|^2, in [k / d, 1]: how much of the subspace a single input can see.

    At 1 some direction is an input of its own, and freezing that input tells neurons apart; at k / d every direction is
    spread over all inputs, and masks change S_i little (arXiv 2606.04754, section 5).

    Raises:
        ValueError: columns that are not orthonormal.

    >>> coherence(np.eye(4)[:, :2]), coherence(np.array([[1, 1], [1, -1], [1, 1], [1, -1]]) / 2)
    (1.0, 0.5)
    """
    u = _basis(basis)
    return float((u**2).sum(1).max())


def gram_matrices(basis: Float[np.ndarray, "d k"], trainable: Kernel) -> Float[np.ndarray, "neuron k k"]:
    """S_i = U^T diag(d_i)^2 U of every neuron.

    Args:
        basis: U [d, k].
        trainable: d_i, [d, neuron].

    >>> gram_matrices(np.eye(3)[:, :2], np.array([[1.0], [0.0], [1.0]])).tolist()
    [[[1.0, 0.0], [0.0, 0.0]]]
    """
    u, squares = _basis(basis), np.asarray(trainable, np.float64) ** 2
    return np.stack([u.T @ (column[:, None] * u) for column in squares.T])


def realisation_costs(
    basis: Float[np.ndarray, "d k"], weights: Kernel, *, fixed: Kernel | None = None, trainable: Kernel | None = None
) -> Costs:
    """c(i, j) = (a_j - v_i)^T S_i^+ (a_j - v_i): least |w_i|^2 with which neuron i computes what neuron j does.

    Args:
        basis: U [d, k] of the layer's inputs.
        weights: effective ones, f + d * w, [d, neuron].
        fixed: f; None = 0.
        trainable: d; None = 1.

    Raises:
        ValueError: shapes that do not belong together, or a basis that is not orthonormal.

    A standard layer: S_i is the identity, and a swap costs nothing.

    >>> u, w = np.eye(3)[:, :2], np.array([[3.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    >>> costs = realisation_costs(u, w)
    >>> costs.cost.tolist(), swap_costs(costs.cost).tolist()
    ([[9.0, 1.0], [9.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]])

    Source: arXiv 2606.04754; the residual is ours, since the pseudo-inverse hides what leaves the range of S_i.
    """
    u = _basis(basis)
    w = np.asarray(weights, np.float64)
    if w.ndim != 2 or len(w) != len(u):
        raise ValueError(f"weights has shape {w.shape}; a basis of {len(u)} inputs needs [{len(u)}, neurons]")
    f = np.zeros_like(w) if fixed is None else np.asarray(fixed, np.float64)
    d = None if trainable is None else np.asarray(trainable, np.float64)
    for name, array in (("fixed", f), ("trainable", d)):
        if array is not None and array.shape != w.shape:
            raise ValueError(f"{name} has shape {array.shape}, weights {w.shape}; give constants of the same layer")
    a, v = (u.T @ w).T, (u.T @ f).T
    neurons = len(a)
    cost, residual, gap = (np.zeros((neurons, neurons)) for _ in range(3))
    for i in range(neurons):
        away = a - v[i]
        gap[i] = (away**2).sum(1)
        if d is None or (d[:, i] == 1).all():
            cost[i] = gap[i]
            continue
        squares = d[:, i] ** 2
        values, vectors = np.linalg.eigh(u.T @ (squares[:, None] * u))
        inside = (away @ vectors) ** 2
        reached = values > RANK * max(squares.max(), np.finfo(np.float64).tiny)
        cost[i] = (inside[:, reached] / values[reached]).sum(1)
        residual[i] = inside[:, ~reached].sum(1)
    return Costs(cost, residual, gap)


def swap_costs(cost: Float[np.ndarray, "neuron neuron"]) -> Float[np.ndarray, "neuron neuron"]:
    """c(i, j) + c(j, i) - c(i, i) - c(j, j): symmetric, with a diagonal of zeros.

    A negative one says that the two would need less norm in each other's place.

    >>> swap_costs(np.array([[1.0, 4.0], [3.0, 2.0]])).tolist()
    [[0.0, 4.0], [4.0, 0.0]]
    """
    own = np.diag(cost)
    return cost + cost.T - own[:, None] - own[None, :]


def summarise(costs: Costs) -> Identifiability:
    """The numbers of a layer that arms are compared by.

    Raises:
        ValueError: fewer than two neurons.

    >>> summarise(realisation_costs(np.eye(2), np.array([[3.0, 0.0], [0.0, 1.0]])))
    Identifiability(swap=0.0, relative=0.0, swappable=1.0, residual=0.0)
    """
    if len(costs.cost) < 2:
        raise ValueError("costs of one neuron: nothing to tell it from; give a layer of at least two")
    pairs = np.triu_indices(len(costs.cost), 1)
    swaps, own = swap_costs(costs.cost)[pairs], np.diag(costs.cost)
    scale = (own[:, None] + own[None, :])[pairs]
    tiny = np.finfo(np.float64).tiny
    relative = np.where(swaps == 0, 0.0, swaps / np.maximum(scale, tiny))
    outside = costs.residual / np.maximum(costs.gap, tiny)
    reached = np.maximum(outside, outside.T)[pairs] < RANK
    apart = ~np.eye(len(own), dtype=bool)
    return Identifiability(
        float(np.median(swaps)),
        float(np.median(relative)),
        float(np.mean((relative <= 1) & reached)),
        float(np.median(outside[apart])),
    )


def anisotropy(basis: Float[np.ndarray, "d k"], trainable: Kernel, mean: float) -> Float[np.ndarray, " neuron"]:
    """|S_i - mean I| in operator norm: how far the reach of a neuron is from that of a random mask's average.

    Args:
        basis: U [d, k].
        trainable: masks d_i in {0, 1}, [d, neuron].
        mean: E[d], the share of trainable entries.

    >>> anisotropy(np.eye(2), np.array([[1.0, 1.0], [0.0, 1.0]]), 0.75).tolist()
    [0.75, 0.25]
    """
    grams = gram_matrices(basis, trainable)
    return np.abs(np.linalg.eigvalsh(grams) - mean).max(1)


def anisotropy_bound(nu: float, k: int, mean: float, *, failure: float = 0.05) -> float:
    """Matrix Bernstein bound on `anisotropy` of one neuron with an independent Bernoulli mask, up to a probability.

    (2/3) b nu log(2k / failure) + s sqrt(2 nu log(2k / failure)), b = max(p, 1 - p), s^2 = p (1 - p), p = `mean`.
    (The published program takes b = p, which is no bound on |d - p| for p < 1/2.)

    Args:
        nu: `coherence` of the basis.
        k: its dimension.
        mean: p, share of trainable entries, in [0, 1].
        failure: probability with which the bound may be broken, in (0, 1).

    Raises:
        ValueError: a probability out of its range.

    >>> round(anisotropy_bound(0.1, 10, 0.9), 4), anisotropy_bound(0.1, 10, 1.0) > 0
    (0.6879, True)
    """
    if not 0 <= mean <= 1 or not 0 < failure < 1:
        raise ValueError(f"mean={mean} must lie in [0, 1] and failure={failure} in (0, 1)")
    if not nu >= 0 or k < 1:
        raise ValueError(f"nu={nu} must be >= 0 and k={k} >= 1: those of a basis")
    log = np.log(2 * k / failure)
    return float(2 / 3 * max(mean, 1 - mean) * nu * log + np.sqrt(mean * (1 - mean)) * np.sqrt(2 * nu * log))


def targeted_rotation(basis: Float[np.ndarray, "d k"], target: float) -> Float[np.ndarray, "d d"]:
    """An orthogonal R for which R U has the coherence `target`: inputs R x carry the same data, differently spread.

    R first lays the subspace on the first k axes (coherence 1). Then, as long as a row of R U has more than `target`,
    it is turned against the row with least by the Givens rotation that leaves it exactly `target`; since the mean row
    has k / d, that is always possible, and d - 1 rotations are enough.

    Args:
        basis: U [d, k].
        target: in [k / d, 1].

    Raises:
        ValueError: a target below k / d, which no basis has, or above 1.

    >>> u = np.eye(4)[:, :2]
    >>> [round(coherence(targeted_rotation(u, target) @ u), 12) for target in (0.5, 0.7, 1.0)]
    [0.5, 0.7, 1.0]

    Source: arXiv 2606.04754 (rotated MNIST); the exact steps are those of Chan and Li 1983.
    """
    u = _basis(basis)
    d, k = u.shape
    if not k / d - 1e-12 <= target <= 1:
        raise ValueError(
            f"target={target} must lie in [k / d, 1] = [{k / d:.4g}, 1]: no basis of this size has another"
        )
    complete, upper = np.linalg.qr(u, mode="complete")
    signs = np.ones(d)
    signs[:k] = np.sign(np.diag(upper))
    rotation = (complete * signs).T
    rows = rotation @ u
    for _ in range(d):
        norms = (rows**2).sum(1)
        i, j = int(norms.argmax()), int(norms.argmin())
        if norms[i] <= target + 1e-13:
            break
        half, cross = (norms[i] - norms[j]) / 2, rows[i] @ rows[j]
        swing = np.clip((target - (norms[i] + norms[j]) / 2) / np.hypot(half, cross), -1, 1)
        angle = (np.arccos(swing) - np.arctan2(cross, half)) / 2
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for array in (rotation, rows):
            array[[i, j]] = turn @ array[[i, j]]
    return rotation


def _basis(basis) -> Float[np.ndarray, "d k"]:
    u = np.asarray(basis, np.float64)
    if u.ndim != 2 or not 1 <= u.shape[1] <= len(u) or np.abs(u.T @ u - np.eye(u.shape[1])).max() > 1e-6:
        raise ValueError(f"basis of shape {u.shape} must have orthonormal columns; `subspace_basis` gives one")
    return u
