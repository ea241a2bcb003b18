"""Eigenvalues, trace and spectral density of a symmetric matrix given by its products v -> A v.

`sbjax.metrics.curvature` provides products for a loss. Iterations run on the host around one compiled product. The
alternative, a compiled loop by matfree (`in_program=True`), has to trace every batch, and convolutions in a rolled loop
are slow on XLA's CPU backend.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# `scipy.sparse.linalg` takes half a second to import; scipy loads it on first use.
import scipy
from jaxtyping import Array, ArrayLike, Float, Key, Real

from sbjax.metrics.curvature import Product
from sbjax.metrics.hessian import MAX_BYTES


class TraceEstimate(NamedTuple):
    """Mean over random probes and its standard error."""

    value: float
    error: float


class Eigenpairs(NamedTuple):
    """Eigenvalues in ascending order.

    Attributes:
        values: [k].
        vectors: [n, k], orthonormal columns.
        residuals: [k], |A v - lambda v|: an exact eigenvalue lies within this distance of each value.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray


class Spectrum(NamedTuple):
    """A spectral density as point masses, one quadrature rule per probe.

    Attributes:
        nodes: [probe, step], ascending.
        weights: [probe, step], non-negative, with sum 1 in each row.
        size: n, the number of eigenvalues.
    """

    nodes: np.ndarray
    weights: np.ndarray
    size: int


def trace(product: Product, n: int, *, key: Key[Array, ""], probes: int = 30, dtype: Any = None) -> TraceEstimate:
    """Hutchinson's estimate tr A = E v^T A v with v_i = +-1; one probe has the error sqrt(2 sum_{i != j} A_ij^2).

    Args:
        product: v -> A v, A symmetric [n, n].
        n: size of the matrix.
        key: random key of the probes.
        probes: number of probes (products), >= 2.
        dtype: dtype of the probes; None = jax's default float.

    Raises:
        ValueError: fewer than 2 probes, n < 1.

    >>> trace(lambda v: 3.0 * v, 5, key=jax.random.key(0))
    TraceEstimate(value=15.0, error=0.0)

    Source: Hutchinson 1990, Communications in Statistics 19(2).
    """
    _check(n=(n, 1), probes=(probes, 2))
    values = [float(x) for x in jax.device_get([v @ product(v) for v in _signs(key, probes, n, dtype)])]
    return TraceEstimate(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(probes)))


def extreme_eigenvalues(
    product: Product,
    n: int,
    k: int = 1,
    *,
    which: str = "largest",
    tol: float = 1e-4,
    key: Key[Array, ""],
    dtype: Any = None,
    max_bytes: int = MAX_BYTES,
) -> Eigenpairs:
    """The k algebraically largest or smallest eigenvalues, by ARPACK's restarted Lanczos method.

    Args:
        product: v -> A v, A symmetric [n, n].
        n: size of the matrix.
        k: number of eigenvalues, 1 <= k < n.
        which: 'largest', 'smallest', or 'both' for k / 2 at each end.
        tol: relative accuracy; in float32 not below 1e-6.
        key: random key of the start vector.
        dtype: dtype of the vectors; None = jax's default float.
        max_bytes: limit for the basis of max(2 k + 1, 20) vectors.

    Raises:
        ValueError: an invalid k or `which`; a basis that exceeds `max_bytes`; no convergence.

    >>> d = jnp.arange(10.0)
    >>> pairs = extreme_eigenvalues(lambda v: d * v, 10, 2, key=jax.random.key(0))
    >>> [round(float(x), 3) for x in pairs.values]
    [8.0, 9.0]

    Source: Lehoucq, Sorensen, Yang, ARPACK Users' Guide, 1998 (through scipy).
    """
    ends = {"largest": "LA", "smallest": "SA", "both": "BE"}
    if which not in ends:
        raise ValueError(f"which={which!r} is unknown: give 'largest', 'smallest' or 'both'")
    if not 1 <= k < n:
        raise ValueError(f"k={k} must lie between 1 and n - 1 = {n - 1}: use the dense matrix for all eigenvalues")
    first = jax.random.normal(key, (n,), dtype)
    width = min(n, max(2 * k + 1, 20))
    _check_basis(width, n, first.dtype, max_bytes)
    operator = scipy.sparse.linalg.LinearOperator(
        (n, n), matvec=lambda v: np.asarray(product(jnp.asarray(v.ravel(), first.dtype))), dtype=first.dtype
    )
    try:
        values, vectors = scipy.sparse.linalg.eigsh(
            operator, k, which=ends[which], v0=np.asarray(first), tol=tol, ncv=width
        )
    except scipy.sparse.linalg.ArpackNoConvergence as error:
        raise ValueError(f"{len(error.eigenvalues)} of k={k} eigenvalues converged to tol={tol}: raise tol") from error
    order = np.argsort(values)
    values, vectors = values[order], vectors[:, order]
    gaps = [np.linalg.norm(operator.matvec(v) - value * v) for value, v in zip(values, vectors.T)]
    return Eigenpairs(values, vectors, np.array(gaps))


def tridiagonalise(
    product: Product,
    vector: Float[Array, " n"],
    steps: int,
    *,
    in_program: bool = False,
    max_bytes: int = MAX_BYTES,
) -> tuple[np.ndarray, np.ndarray]:
    """Lanczos with full reorthogonalisation: diagonal [j] and off-diagonal [j - 1] of T = Q^T A Q, q_1 ~ `vector`.

    j = steps, or smaller if the Krylov space is exhausted.

    Args:
        product: v -> A v, A symmetric [n, n].
        vector: start vector, not zero.
        steps: number of products, 1 <= steps <= n.
        in_program: use one compiled loop, by matfree, for small networks and accelerators. The product must be
            traceable, and exhaustion of the Krylov space is not detected.
        max_bytes: limit for the basis [steps, n].

    Raises:
        ValueError: `steps` out of range; a basis that exceeds `max_bytes`; a product that is not finite.

    >>> d, e = tridiagonalise(lambda v: jnp.array([1.0, 3.0]) * v, jnp.ones(2), 2)
    >>> [round(float(x), 3) for x in np.linalg.eigvalsh(np.diag(d) + np.diag(e, 1) + np.diag(e, -1))]
    [1.0, 3.0]
    """
    n = len(vector)
    if not 1 <= steps <= n:
        raise ValueError(f"steps={steps} must lie between 1 and the {n} parameters")
    _check_basis(steps, n, vector.dtype, max_bytes)
    if in_program:
        import matfree.decomp

        method = matfree.decomp.tridiag_sym(steps, reortho="full", materialize=False, custom_vjp=False)
        diagonal, off_diagonal = (
            np.asarray(part, np.float64) for part in jax.jit(lambda v: method(product, v).J_small)(vector)
        )
    else:
        diagonal, off_diagonal = _on_host(product, vector, steps)
    if not (np.isfinite(diagonal).all() and np.isfinite(off_diagonal).all()):
        raise ValueError(
            "the product gives NaN or infinite entries"
            + (", or the Krylov space is exhausted: lower steps, or in_program=False" if in_program else "")
        )
    return diagonal, off_diagonal


def spectral_density(
    product: Product,
    n: int,
    *,
    key: Key[Array, ""],
    steps: int = 100,
    probes: int = 1,
    in_program: bool = False,
    dtype: Any = None,
    max_bytes: int = MAX_BYTES,
) -> Spectrum:
    """Spectral density by stochastic Lanczos quadrature: E of sum_i |<u_i, v>|^2 delta(lambda_i), |v| = 1.

    A probe v with entries +-1 / sqrt(n) gives nodes (eigenvalues of its T) and weights (squared first entries of the
    eigenvectors of T), exact for polynomials of degree < 2 steps.

    Args:
        product: v -> A v, A symmetric [n, n].
        n: size of the matrix.
        key: random key of the probes.
        steps: products per probe.
        probes: number of probes.
        in_program: as in `tridiagonalise`.
        dtype: dtype of the probes; None = jax's default float.
        max_bytes: limit for the basis of one probe.

    Raises:
        ValueError: as `tridiagonalise`; probes < 1.

    >>> d = jnp.array([0.0, 0.0, 0.0, 2.0])
    >>> spectrum = spectral_density(lambda v: d * v, 4, key=jax.random.key(0), steps=2)
    >>> spectrum.nodes.round(3).tolist(), spectrum.weights.round(3).tolist()
    ([[0.0, 2.0]], [[0.75, 0.25]])

    Source: Golub and Welsch 1969; Ghorbani, Krishnan, Xiao, arXiv 1901.10159.
    """
    _check(n=(n, 1), probes=(probes, 1))
    nodes, weights = np.zeros((2, probes, steps))
    for row, probe in enumerate(_signs(key, probes, n, dtype)):
        diagonal, off_diagonal = tridiagonalise(product, probe, steps, in_program=in_program, max_bytes=max_bytes)
        values, vectors = scipy.linalg.eigh_tridiagonal(diagonal, off_diagonal)
        nodes[row] = np.pad(values, (0, steps - len(values)), mode="edge")
        weights[row, : len(values)] = vectors[0] ** 2
    return Spectrum(nodes, weights, n)


def smooth(spectrum: Spectrum, grid: Real[ArrayLike, " g"] | Sequence[float], width: float) -> Float[np.ndarray, " g"]:
    """The density on a grid, with each node replaced by a normal distribution of standard deviation `width`.

    It integrates to 1.

    Raises:
        ValueError: width <= 0.

    >>> spectrum = Spectrum(np.array([[0.0, 2.0]]), np.array([[0.75, 0.25]]), 4)
    >>> smooth(spectrum, [0.0], 0.1).round(3).tolist()
    [2.992]
    """
    if not width > 0:
        raise ValueError(f"width={width} must be a standard deviation > 0")
    grid = np.asarray(grid, np.float64)
    bumps = scipy.stats.norm.pdf(grid[:, None], spectrum.nodes.ravel(), width)
    return bumps @ spectrum.weights.ravel() / len(spectrum.nodes)


def _on_host(product, vector, steps):
    basis = jnp.zeros((steps, len(vector)), vector.dtype)
    q, off_diagonal, diagonal = vector / jnp.linalg.norm(vector), [], []
    for step in range(steps):
        basis, w, alpha, beta = _advance(basis, q, product(q), step)
        diagonal.append(float(alpha))
        scale = max(map(abs, diagonal + off_diagonal))
        if step + 1 == steps or float(beta) <= 10 * jnp.finfo(vector.dtype).eps * scale:
            break
        off_diagonal.append(float(beta))
        q = w
    return np.array(diagonal), np.array(off_diagonal)


@jax.jit
def _advance(basis, q, image, step):
    """One Lanczos step: store q, orthogonalise the image twice against the basis, return the next vector and norm."""
    basis = basis.at[step].set(q)
    alpha = q @ image
    w = image
    for _ in range(2):
        w = w - basis.T @ (basis @ w)
    beta = jnp.linalg.norm(w)
    return basis, w / jnp.where(beta > 0, beta, 1.0), alpha, beta


def _signs(key, probes, n, dtype):
    for probe in jax.random.split(key, probes):
        yield jax.random.rademacher(probe, (n,), jnp.dtype(dtype or jnp.result_type(float)))


def _check(**least):
    for name, (value, low) in least.items():
        if value < low:
            raise ValueError(f"{name}={value} must be >= {low}")


def _check_basis(vectors, n, dtype, max_bytes):
    if (need := vectors * n * np.dtype(dtype).itemsize) > max_bytes:
        raise ValueError(
            f"a basis of {vectors} vectors of {n:,} entries takes {need / 1e9:.1f} GB, more than "
            f"max_bytes={max_bytes / 1e9:.1f} GB: take fewer steps or eigenvalues, or raise max_bytes"
        )
