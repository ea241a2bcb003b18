"""Allen-Cahn: u_t = d u_xx + r (u - u^3) on [-1, 1], u(+-1) = -1, u(x, 0) = x^2 cos(pi x).

The solution is even in x and v = u + 1 vanishes at the ends: Chebyshev collocation of even functions in x, ETDRK4 in t
in the eigenbasis of the collocation matrix. The result is interpolated by a Chebyshev series in x and sqrt(t), which
can be evaluated anywhere and differentiated at t > 0.

The ends are Dirichlet; the periodic problem solved elsewhere has a kink at x = +-1, t = 0, and a different solution.
With Dirichlet ends the data are incompatible at the corners: d u_xx = d (pi^2 - 2) at t = 0 while u_t = 0. Nodes in
sqrt(t) cluster there.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np

from sbjax.physics.derivatives import Solution
from sbjax.physics.references import chebyshev
from sbjax.physics.references.etdrk4 import etdrk4

STEEPEST = 150  # largest interface steepness sqrt(r / 2d); above it a solve takes minutes


def make_solution(diffusion: float, reaction: float, final: float) -> Solution:
    """[d] -> [1] in jax. The equation is solved on the first call (1 to 2 s) and cached for the process."""

    def solution(p):
        x, t = p
        series = chebyshev.make_series(solve(diffusion, reaction, final))
        return jnp.stack([series(2 * x**2 - 1, 2 * jnp.sqrt(t / final) - 1)])  # T_k(2 x^2 - 1) = T_2k(x)

    return solution


@functools.lru_cache(maxsize=8)
def solve(diffusion: float, reaction: float, final: float, refine: float = 1.0) -> np.ndarray:
    """Coefficients c of u(x, t) = sum_jk c[j, k] T_j(2 sqrt(t / final) - 1) T_2k(x).

    The number of nodes follows from the steepness s = sqrt(r / 2 d) of a stationary interface tanh(s x), the time step
    from r.

    Args:
        diffusion, reaction: d and r.
        final: final time.
        refine: factor for the number of nodes in x and t and for the number of time steps.

    Raises:
        ValueError: s > `STEEPEST`.
    """
    steepness = math.sqrt(reaction / (2 * diffusion))
    if steepness > STEEPEST:
        raise ValueError(
            f"allen_cahn.diffusion={diffusion} with reaction={reaction}: interfaces of steepness {steepness:.0f} are "
            f"too thin for a reference by dense matrices; keep sqrt(reaction / (2 diffusion)) <= {STEEPEST}"
        )
    in_x = 2 * round(refine * max(32, 3.2 * steepness))
    in_t = 2 * round(refine * (8 + 4.8 * reaction * final))
    x, matrix = chebyshev.second_derivative(in_x)
    rates, vectors = np.linalg.eig(diffusion * matrix)  # real and negative
    rates, vectors = rates.real, vectors.real
    inverse = np.linalg.inv(vectors)

    def nonlinear(a):
        v = vectors @ a
        return inverse @ (reaction * v * (v * (3 - v) - 2))  # r (u - u^3)

    times = final * np.sin(np.pi * np.arange(in_t + 1) / (2 * in_t)) ** 4  # sqrt at Chebyshev nodes
    states = etdrk4(rates, nonlinear, inverse @ (x**2 * np.cos(np.pi * x) + 1), times, 0.0125 / reaction / refine)
    values = np.pad(states @ vectors.T, ((0, 0), (1, 0))) - 1  # adds the boundary node x = 1
    return chebyshev.coefficients(chebyshev.coefficients(values)[::-1].T).T


def certify(diffusion: float, reaction: float, final: float) -> tuple[float, float]:
    """(relative L2, maximum) error of `solve`: twice the distance to a solution with 1.5 times the nodes and steps.

    At order 4 the distance already equals the error up to 20 %; the factor 2 is a margin.
    """
    finer = solve(diffusion, reaction, final, refine=1.5)
    l2, largest = distance(solve(diffusion, reaction, final), finer)
    return 2 * l2, 2 * largest


def distance(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """|a - b| / |b| in L2 on a uniform grid, and max |a - b| on it and on a grid refined towards t = 0 and x = 1."""

    def on_grid(series, x, t):
        in_t, in_x = (
            np.cos(np.outer(np.arccos(2 * s - 1), np.arange(n))) for s, n in zip((t**0.5, x**2), series.shape)
        )
        return in_t @ series @ in_x.T

    even = (np.arange(400) + 0.5) / 400
    gap, size = on_grid(a, even, even) - on_grid(b, even, even), on_grid(b, even, even)
    corner = on_grid(a, 1 - even**4, even**4) - on_grid(b, 1 - even**4, even**4)
    return float(np.linalg.norm(gap) / np.linalg.norm(size)), float(max(abs(gap).max(), abs(corner).max()))
