"""The Klein-Gordon equation with a quadratic term."""

import jax.numpy as jnp

from sbjax.physics.building import both, dirichlet, exact, hard, initial_value, initial_velocity, positive
from sbjax.physics.equation import Equation


def make_klein_gordon(final: float = 10.0) -> Equation:
    """u_tt - u_xx + u^2 = -x cos t + x^2 cos^2 t on [-1, 1] x [0, `final`], u given at the ends, u = x and u_t = 0 at
    t = 0.

    Solution: u = x cos t. `final` = 2 is easy for physics-informed networks.

    Raises:
        ValueError: `final` is not a finite number > 0.
    """
    positive("klein_gordon.final", final)

    def u(x, t):
        return x * jnp.cos(t)

    return Equation(
        name="klein_gordon",
        group="nonlinear",
        formula="u_tt - u_xx + u^2 = -x cos t + x^2 cos^2 t",
        coordinates=("x", "t"),
        unknowns=("u",),
        lower=(-1.0, 0.0),
        upper=(1.0, final),
        partials=("u", "u_tt", "u_xx"),
        residual=lambda p, d: {"equation": d["u_tt"] - d["u_xx"] + d["u"] ** 2 + u(*p) - u(*p) ** 2},
        conditions=(dirichlet("u", both("x"), u), initial_value("u", lambda x, t: x), initial_velocity("u", 0.0)),
        reference=exact(u, "substitution", argument=final),
        numbers={"final": final},
        source="an example of DeepXDE (arXiv 1907.04502)",
        # Interpolating the boundary values in x would give the solution itself, so they stay terms of the loss.
        ansatz=hard(
            "u = x + (1 - e^-t)^2 N", ["initial_u", "initial_u_t"], lambda x, t: x, lambda x, t: jnp.expm1(-t) ** 2
        ),
    )
