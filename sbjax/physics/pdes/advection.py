"""Linear advection with periodic boundaries."""

import math

import jax.numpy as jnp

from sbjax.physics.building import exact, finite, hard, initial_value, periodic
from sbjax.physics.equation import Equation


def make_advection(beta: float = 10.0) -> Equation:
    """u_t + beta u_x = 0 on [0, 2 pi] x [0, 1], periodic in x, u(x, 0) = sin x. Solution: u = sin(x - beta t).

    beta = 30 is hard for physics-informed networks.

    Raises:
        ValueError: `beta` is not finite.
    """
    finite("advection.beta", beta)
    rate = max(1.0, abs(beta))
    return Equation(
        name="advection",
        group="linear",
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
        # The ansatz leaves the dependence on x free, so periodicity stays a term of the loss.
        ansatz=hard(
            f"u = sin(x) + (1 - exp(-{rate:g} t)) N",
            ["initial_u"],
            lambda x, t: jnp.sin(x),
            lambda x, t: -jnp.expm1(-rate * t),
        ),
    )
