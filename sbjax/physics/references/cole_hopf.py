"""Burgers' equation by quadrature: u_t + u u_x = nu u_xx on the line, u(x, 0) = -sin(pi x).

The Cole-Hopf transformation gives the heat equation, whose solution is an integral over the heat kernel:

    u(x, t) = - I[sin(pi y) w] / I[w],  y = x - 2 sqrt(nu t) z,  w = exp(-cos(pi y) / (2 pi nu) - z^2),  I = int dz

The integrands are analytic with Gaussian decay, so the trapezoidal rule converges faster than any power of its step.
Exponents are shifted by their maximum to avoid overflow at small nu. u = 0 at x = +-1 by symmetry.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from sbjax.physics.derivatives import Solution

STEP = 0.15  # step of z at small nu and final = 1, where the narrowest peak has width 0.35


def make_solution(nu: float, final: float = 1.0) -> Solution:
    """[d] -> [1] in jax for 0 <= t <= final; differentiable at t > 0.

    exp(-cos(pi y) / (2 pi nu)) varies by a factor of exp(1 / (pi nu)), so the integrand is below round-off beyond
    |z| = sqrt(1 / (pi nu) + 40) for all x and t. The step resolves its narrowest peak, of curvature 2 (1 + pi t), and
    the wave number 2 pi sqrt(nu t) of sin(pi y).
    """
    reach = math.sqrt(1 / (math.pi * nu) + 40)
    step = STEP / max(1.0, math.sqrt((1 + math.pi * final) / (1 + math.pi))) / (1 + math.sqrt(nu * final))
    count = math.ceil(reach / step)
    nodes = step * np.arange(-count, count + 1)

    def solution(p):
        x, t = p
        z = jnp.asarray(nodes, p.dtype)
        angle = jnp.pi * (x - 2 * jnp.sqrt(nu * t) * z)
        exponent = -jnp.cos(angle) / (2 * jnp.pi * nu) - z**2
        weight = jnp.exp(exponent - jax.lax.stop_gradient(exponent.max()))
        return jnp.stack([-(jnp.sin(angle) * weight).sum() / weight.sum()])

    return solution
