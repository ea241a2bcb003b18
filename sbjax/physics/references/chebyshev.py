"""Chebyshev collocation for even functions on [-1, 1], and Chebyshev series that are differentiable in jax."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # `scipy.fft` is imported lazily
from jaxtyping import Array, Float


def second_derivative(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes x_1 > .. > x_n = 0, from the 2 n + 1 points cos(pi j / 2n), and the matrix [n, n] of d^2/dx^2 at the nodes
    for even functions that vanish at +-1.

    >>> x, matrix = second_derivative(8)
    >>> bool(np.allclose(matrix @ (x**4 - x**2), 12 * x**2 - 2))
    True

    Source: Trefethen, Spectral Methods in MATLAB (2000), with differences of cosines written as products of sines.
    """
    angle = np.pi * np.arange(2 * n + 1) / (2 * n)
    gap = 2 * np.sin((angle[:, None] + angle) / 2) * np.sin((angle - angle[:, None]) / 2)  # x_i - x_j
    np.fill_diagonal(gap, 1.0)
    sign = (-1.0) ** np.arange(2 * n + 1)
    sign[[0, -1]] *= 2
    first = sign[:, None] / sign / gap
    np.fill_diagonal(first, 0.0)
    np.fill_diagonal(first, -first.sum(1))  # a constant has derivative zero
    second = 2 * first * (np.diag(first)[:, None] - 1 / gap)
    np.fill_diagonal(second, 0.0)
    np.fill_diagonal(second, -second.sum(1))
    rows = second[1 : n + 1]
    folded = rows[:, : n + 1].copy()
    folded[:, :n] += rows[:, :n:-1]
    return np.cos(angle[1 : n + 1]), folded[:, 1:]


def coefficients(values: Float[np.ndarray, "*rows m"]) -> np.ndarray:
    """Coefficients of T_0 .. T_{m-1} from values at cos(pi j / (m - 1)), along the last axis.

    >>> abs(coefficients(np.cos(np.pi * np.arange(5) / 4) ** 2)).round(12).tolist()  # x^2 = (T_0 + T_2) / 2
    [0.5, 0.0, 0.5, 0.0, 0.0]
    """
    found = scipy.fft.dct(values, type=1, axis=-1) / (values.shape[-1] - 1)
    found[..., [0, -1]] /= 2
    return found


def make_series(c: Float[np.ndarray, "m n"]) -> Callable[[Float[Array, ""], Float[Array, ""]], Float[Array, ""]]:
    """The series (y, s) -> sum_jk c[j, k] T_j(s) T_k(y), differentiable to any order in any mode.

    Derivatives are evaluated as series, too: this keeps compiled programs small and avoids singularities at the ends.

    >>> series = make_series(np.array([[0.0, 0.0, 1.0]]))  # T_2(y) = 2 y^2 - 1
    >>> float(series(jnp.float32(0.5), jnp.float32(0.0))), float(jax.grad(series)(jnp.float32(1.0), jnp.float32(0.0)))
    (-0.5, 4.0)
    """

    @jax.custom_jvp
    def series(y, s):
        return basis(s, c.shape[0]) @ jnp.asarray(c, y.dtype) @ basis(y, c.shape[1])

    @series.defjvp
    def slope(primals, tangents):
        by_s, by_y = (make_series(np.polynomial.chebyshev.chebder(c, axis=axis)) for axis in (0, 1))
        dy, ds = tangents
        return series(*primals), by_y(*primals) * dy + by_s(*primals) * ds

    return series


def basis(x: Float[Array, ""], n: int) -> Float[Array, " n"]:
    """T_0(x) .. T_{n-1}(x), without loops or concatenations, which compile slowly.

    Uses T_{i+j} = T_i T_j - (1 - x^2) U_{i-1} U_{j-1} and U_{i+j-1} = T_i U_{j-1} + U_{i-1} T_j (U: second kind) over
    the binary digits of k, for all k at once.

    >>> basis(jnp.float32(0.5), 4).tolist()
    [1.0, 0.5, -0.5, -1.0]
    """
    k, gap = np.arange(n), (1 - x) * (1 + x)
    t, u = jnp.ones(n, x.dtype), jnp.zeros(n, x.dtype)
    t_power, u_power = x, jnp.ones_like(x)
    for bit in range((n - 1).bit_length()):
        has = jnp.asarray((k >> bit) & 1, x.dtype)
        t_factor, u_factor = 1 + has * (t_power - 1), has * u_power
        t, u = t * t_factor - gap * u * u_factor, t * u_factor + u * t_factor
        t_power, u_power = 2 * t_power**2 - 1, 2 * t_power * u_power
    return t
