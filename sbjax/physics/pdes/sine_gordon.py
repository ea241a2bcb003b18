"""The sine-Gordon equation with one kink."""

import math

import jax.numpy as jnp

from sbjax.physics.building import both, dirichlet, exact, hard, initial_value, initial_velocity, lift
from sbjax.physics.equation import Equation


def make_sine_gordon(velocity: float = 0.5) -> Equation:
    """u_tt - u_xx + sin u = 0 on [-5, 5] x [0, 5], u given at the ends, u and u_t at t = 0, v = `velocity`.

    Solution: u = 4 atan exp((x - v t) / sqrt(1 - v^2)).

    Raises:
        ValueError: `velocity` is not between -1 and 1.
    """
    if not -1 < velocity < 1:
        raise ValueError(f"sine_gordon.velocity={velocity} must lie between -1 and 1, the speed of waves")
    width = math.sqrt(1 - velocity**2)

    def u(x, t):
        return 4 * jnp.arctan(jnp.exp((x - velocity * t) / width))

    def u_t(x, t):
        return -2 * velocity / width / jnp.cosh((x - velocity * t) / width)

    return Equation(
        name="sine_gordon",
        group="spare",
        formula="u_tt - u_xx + sin u = 0",
        coordinates=("x", "t"),
        unknowns=("u",),
        lower=(-5.0, 0.0),
        upper=(5.0, 5.0),
        partials=("u", "u_tt", "u_xx"),
        residual=lambda x, d: {"equation": d["u_tt"] - d["u_xx"] + jnp.sin(d["u"])},
        conditions=(dirichlet("u", both("x"), u), initial_value("u", u), initial_velocity("u", u_t)),
        reference=exact(u, "the one-kink solution", argument=(5 + 5 * abs(velocity)) / width),
        numbers={"velocity": velocity},
        source="Perring and Skyrme, Nucl. Phys. 31 (1962)",
        ansatz=hard(
            "u = s + the line through u(+-5, t) - s(+-5, t) + (1 - x^2 / 25) (1 - e^-t)^2 N, s = u(x, 0) + t u_t(x, 0)",
            ["u_on_x", "initial_u", "initial_u_t"],
            lift(u, lambda x, t: u(x, 0.0) + t * u_t(x, 0.0), -5.0, 5.0),
            lambda x, t: (1 - (x / 5) ** 2) * jnp.expm1(-t) ** 2,
        ),
    )
