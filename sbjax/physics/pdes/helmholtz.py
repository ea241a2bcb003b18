"""The Helmholtz equation on the unit square."""

import math

import jax.numpy as jnp

from sbjax.physics.building import both, dirichlet, exact, hard, whole
from sbjax.physics.equation import Equation


def make_helmholtz(waves: int = 1) -> Equation:
    """-u_xx - u_yy - k^2 u = k^2 sin(kx) sin(ky) on [0, 1]^2, u = 0 on the boundary, k = 2 pi `waves`.

    Solution: u = sin(kx) sin(ky). It is unique unless k^2 is an eigenvalue pi^2 (i^2 + j^2) of the square, that is,
    (2 waves)^2 is a sum of two positive squares. waves = 2 is hard for physics-informed networks.

    Raises:
        ValueError: `waves` is not a whole number >= 1, or is a resonance (5: 10^2 = 6^2 + 8^2).
    """
    whole("helmholtz.waves", waves)
    if any(math.isqrt(rest) ** 2 == rest for i in range(1, 2 * waves) if (rest := 4 * waves**2 - i**2)):
        raise ValueError(
            f"helmholtz.waves={waves} is a resonance of the square: the solution is not unique; take another"
        )
    k = 2 * math.pi * waves

    def u(x, y):
        return jnp.sin(k * x) * jnp.sin(k * y)

    return Equation(
        name="helmholtz",
        group="stationary",
        formula="-u_xx - u_yy - k^2 u = k^2 sin(kx) sin(ky)",
        coordinates=("x", "y"),
        unknowns=("u",),
        lower=(0.0, 0.0),
        upper=(1.0, 1.0),
        partials=("u", "u_xx", "u_yy"),
        residual=lambda p, d: {"equation": -d["u_xx"] - d["u_yy"] - k**2 * (d["u"] + u(*p))},
        conditions=(dirichlet("u", both("x", "y"), 0.0),),
        reference=exact(u, "substitution", argument=k),
        numbers={"waves": waves},
        source="an example of DeepXDE (arXiv 1907.04502; waves = 2)",
        ansatz=hard("u = 16 x (1 - x) y (1 - y) N", ["u_on_x_y"], 0.0, lambda x, y: 16 * x * (1 - x) * y * (1 - y)),
    )
