"""Advection around a circle."""

import math

import jax.numpy as jnp

from sbjax.physics.building import exact, finite, hard, initial_value, periodic
from sbjax.physics.equation import Equation


def make_advection(beta: float = 10.0) -> Equation:
    """u_t + beta u_x = 0 on [0, 2 pi] x [0, 1], periodic in x, u(x, 0) = sin x: u = sin(x - beta t). 30 is hard.

    Raises:
        ValueError: `beta` is not finite.
    """
    finite("advection.beta", beta)
    rate = max(1.0, abs(beta))
    return Equation(
        name="advection",
        panel="linear",
        formula="u_t + beta u_x = 0",
        coordinates=("x", "t"),
        unknowns=("u",),
        lower=(0.0, 0.0),
        upper=(2 * math.pi, 1.0),
        partials=("u_t", "u_x"),
        residual=lambda x, d: {"equation": d["u_t"] + beta * d["u_x"]},
        conditions=(periodic("u", "x"), initial_value("u", lambda x, t: jnp.sin(x))),
        reference=exact(lambda x, t: jnp.sin(x - beta * t), "characteristics", argument=2 * math.pi + abs(beta)),
        numbers={"beta": beta},
        source="Krishnapriyan et al., arXiv 2109.01050 (beta = 30)",
        # How a network depends on x is its own affair: periodicity stays to be asked for.
        ansatz=hard(
            f"u = sin(x) + (1 - exp(-{rate:g} t)) N",
            ["initial_u"],
            lambda x, t: jnp.sin(x),
            lambda x, t: -jnp.expm1(-rate * t),
        ),
    )
