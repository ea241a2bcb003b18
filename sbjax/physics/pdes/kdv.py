"""The Korteweg-de Vries equation with one soliton."""

import math

import jax
import jax.numpy as jnp

from sbjax.physics.building import both, dirichlet, exact, hard, initial_value, lift, neumann, positive
from sbjax.physics.equation import Equation


def make_kdv(speed: float = 4.0) -> Equation:
    """u_t + 6 u u_x + u_xxx = 0 on [-5, 5] x [0, 0.5], u given at t = 0 and at both ends, u_x at x = 5.

    Solution: u = (c / 2) sech^2(sqrt(c) (x - c t) / 2), c = `speed`.

    Raises:
        ValueError: `speed` is not positive.
    """
    positive("kdv.speed", speed)
    root = math.sqrt(speed)

    def u(x, t):  # sech^2(z / 2) = 4 s(z) s(-z), s = 1 / (1 + e^-z): no overflow, no cancellation
        z = root * (x - speed * t)
        return 2 * speed * jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)

    def u_x(x, t):
        return -root * u(x, t) * jnp.tanh(root * (x - speed * t) / 2)

    return Equation(
        name="kdv",
        group="nonlinear",
        formula="u_t + 6 u u_x + u_xxx = 0",
        coordinates=("x", "t"),
        unknowns=("u",),
        lower=(-5.0, 0.0),
        upper=(5.0, 0.5),
        partials=("u", "u_t", "u_x", "u_xxx"),
        residual=lambda x, d: {"equation": d["u_t"] + 6 * d["u"] * d["u_x"] + d["u_xxx"]},
        conditions=(
            dirichlet("u", both("x"), u),
            neumann("u_x", [("x", "upper")], u_x),
            initial_value("u", u),
        ),
        reference=exact(u, "the one-soliton solution", argument=root * (5 + speed / 2)),
        numbers={"speed": speed},
        source="Korteweg and de Vries (1895); in this setting Raissi et al., arXiv 1711.10566",
        ansatz=hard(
            f"u = u(x, 0) + the line through u(+-5, t) - u(+-5, 0) + (1 - x^2 / 25) (1 - exp(-{speed:g} t)) N",
            ["u_on_x", "initial_u"],
            lift(u, lambda x, t: u(x, 0.0), -5.0, 5.0),
            lambda x, t: (1 - (x / 5) ** 2) * -jnp.expm1(-speed * t),
        ),
    )
