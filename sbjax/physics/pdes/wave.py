"""The wave equation with two modes."""

import math

import jax.numpy as jnp

from sbjax.physics.building import both, dirichlet, exact, hard, initial_value, initial_velocity, positive
from sbjax.physics.equation import Equation


def make_wave(speed: float = 2.0) -> Equation:
    """u_tt = c^2 u_xx on [0, 1] x [0, 1], u = 0 at the ends, u given and u_t = 0 at t = 0, c = `speed`.

    Solution: u = sin(pi x) cos(c pi t) + sin(4 pi x) cos(4 c pi t) / 2.

    Raises:
        ValueError: `speed` is not positive.
    """
    positive("wave.speed", speed)
    fast = 4 * math.pi * speed  # frequency of the second mode; with a distance of t^2, N would be of order fast^2

    def u(x, t):
        slow, fast = jnp.pi, 4 * jnp.pi
        return jnp.sin(slow * x) * jnp.cos(slow * speed * t) + 0.5 * jnp.sin(fast * x) * jnp.cos(fast * speed * t)

    return Equation(
        name="wave",
        group="linear",
        formula="u_tt = c^2 u_xx",
        coordinates=("x", "t"),
        unknowns=("u",),
        lower=(0.0, 0.0),
        upper=(1.0, 1.0),
        partials=("u_tt", "u_xx"),
        residual=lambda x, d: {"equation": d["u_tt"] - speed**2 * d["u_xx"]},
        conditions=(dirichlet("u", both("x"), 0.0), initial_value("u", u), initial_velocity("u", 0.0)),
        reference=exact(u, "separation of variables", argument=4 * math.pi * max(1.0, speed)),
        numbers={"speed": speed},
        source="Wave1D of PINNacle (arXiv 2306.08827)",
        ansatz=hard(
            f"u = sin(pi x) + sin(4 pi x) / 2 + 4 x (1 - x) (1 - exp(-{fast / math.pi:g} pi t))^2 N",
            ["u_on_x", "initial_u", "initial_u_t"],
            lambda x, t: u(x, 0.0),
            lambda x, t: 4 * x * (1 - x) * jnp.expm1(-fast * t) ** 2,
        ),
    )
