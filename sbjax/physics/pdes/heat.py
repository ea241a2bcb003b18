"""The heat equation: plain, with a source, and with five modes."""

import math

import jax.numpy as jnp

from sbjax.physics.building import both, dirichlet, exact, hard, initial_value, positive
from sbjax.physics.equation import Equation

DEEPXDE = "an example of DeepXDE (arXiv 1907.04502)"


def make_heat(diffusivity: float = 0.4) -> Equation:
    """u_t = a u_xx on [0, 1] x [0, 1], u = 0 at the ends, u(x, 0) = sin(pi x), a = `diffusivity`.

    Solution: u = exp(-a pi^2 t) sin(pi x).

    Raises:
        ValueError: `diffusivity` is not positive.
    """
    positive("heat.diffusivity", diffusivity)
    rate = diffusivity * math.pi**2
    return Equation(
        name="heat",
        group="linear",
        formula="u_t = a u_xx",
        coordinates=("x", "t"),
        unknowns=("u",),
        lower=(0.0, 0.0),
        upper=(1.0, 1.0),
        partials=("u_t", "u_xx"),
        residual=lambda x, d: {"equation": d["u_t"] - diffusivity * d["u_xx"]},
        conditions=(dirichlet("u", both("x"), 0.0), initial_value("u", lambda x, t: jnp.sin(jnp.pi * x))),
        reference=exact(
            lambda x, t: jnp.exp(-rate * t) * jnp.sin(jnp.pi * x), "separation of variables", argument=math.pi
        ),
        numbers={"diffusivity": diffusivity},
        source=DEEPXDE,
        ansatz=hard(
            "u = sin(pi x) + 4 x (1 - x) t N",
            ["u_on_x", "initial_u"],
            lambda x, t: jnp.sin(jnp.pi * x),
            lambda x, t: 4 * x * (1 - x) * t,
        ),
    )


def make_heat_source() -> Equation:
    """u_t = u_xx - e^-t (1 - pi^2) sin(pi x) on [-1, 1] x [0, 1], u given at the ends and at t = 0.

    Solution: u = e^-t sin(pi x).
    """

    def u(x, t):
        return jnp.exp(-t) * jnp.sin(jnp.pi * x)

    return Equation(
        name="heat_source",
        group="linear",
        formula="u_t = u_xx - e^-t (1 - pi^2) sin(pi x)",
        coordinates=("x", "t"),
        unknowns=("u",),
        lower=(-1.0, 0.0),
        upper=(1.0, 1.0),
        partials=("u_t", "u_xx"),
        residual=lambda p, d: {"equation": d["u_t"] - d["u_xx"] + (1 - jnp.pi**2) * u(*p)},
        conditions=(dirichlet("u", both("x"), u), initial_value("u", u)),
        reference=exact(u, "substitution", argument=math.pi),
        numbers={},
        source=DEEPXDE,
        ansatz=hard(
            "u = sin(pi x) + (1 - x^2) t N",
            ["u_on_x", "initial_u"],
            lambda x, t: jnp.sin(jnp.pi * x),
            lambda x, t: (1 - x**2) * t,
        ),
    )


MODES = (1, 2, 3, 4, 8)


def make_heat_multimode() -> Equation:
    """u_t = u_xx + e^-t (3/2 sin 2x + 8/3 sin 3x + 15/4 sin 4x + 63/8 sin 8x) on [-pi, pi] x [0, 1], u = 0 at the
    ends, u given at t = 0.

    Solution: u = e^-t sum_n sin(nx) / n over n = 1, 2, 3, 4, 8.
    """

    def u(x, t):
        return jnp.exp(-t) * sum(jnp.sin(n * x) / n for n in MODES)

    def source(x, t):
        return jnp.exp(-t) * sum((n * n - 1) / n * jnp.sin(n * x) for n in MODES)

    return Equation(
        name="heat_multimode",
        group="linear",
        formula="u_t = u_xx + e^-t (3/2 sin 2x + 8/3 sin 3x + 15/4 sin 4x + 63/8 sin 8x)",
        coordinates=("x", "t"),
        unknowns=("u",),
        lower=(-math.pi, 0.0),
        upper=(math.pi, 1.0),
        partials=("u_t", "u_xx"),
        residual=lambda p, d: {"equation": d["u_t"] - d["u_xx"] - source(*p)},
        conditions=(dirichlet("u", both("x"), 0.0), initial_value("u", u)),
        reference=exact(u, "substitution", argument=math.pi),
        numbers={},
        source=DEEPXDE,
        ansatz=hard(
            "u = u(x, 0) + (1 - x^2 / pi^2) t N",
            ["u_on_x", "initial_u"],
            lambda x, t: u(x, 0.0),
            lambda x, t: (1 - (x / jnp.pi) ** 2) * t,
        ),
    )
