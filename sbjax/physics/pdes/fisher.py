"""Fisher's equation with a travelling front."""

import math

import jax

from sbjax.physics.building import both, dirichlet, exact, hard, initial_value, lift, positive
from sbjax.physics.equation import Equation


def make_fisher(rate: float = 6.0) -> Equation:
    """u_t = u_xx + r u (1 - u) on [-5, 5] x [0, 1], u given at the ends and at t = 0, r = `rate`.

    Solution: u = (1 + exp(sqrt(r/6) x - 5 r t / 6))^-2.

    Raises:
        ValueError: `rate` is not positive.
    """
    positive("fisher.rate", rate)
    slope = math.sqrt(rate / 6)

    def u(x, t):
        return jax.nn.sigmoid(5 * rate / 6 * t - slope * x) ** 2

    return Equation(
        name="fisher",
        group="spare",
        formula="u_t = u_xx + r u (1 - u)",
        coordinates=("x", "t"),
        unknowns=("u",),
        lower=(-5.0, 0.0),
        upper=(5.0, 1.0),
        partials=("u", "u_t", "u_xx"),
        residual=lambda x, d: {"equation": d["u_t"] - d["u_xx"] - rate * d["u"] * (1 - d["u"])},
        conditions=(dirichlet("u", both("x"), u), initial_value("u", u)),
        reference=exact(u, "Ablowitz and Zeppetella (1979)", argument=5 * slope + 5 * rate / 6),
        numbers={"rate": rate},
        source="Fisher (1937); Ablowitz and Zeppetella, Bull. Math. Biol. 41 (1979)",
        ansatz=hard(
            "u = u(x, 0) + the line through u(+-5, t) - u(+-5, 0) + (1 - x^2 / 25) t N",
            ["u_on_x", "initial_u"],
            lift(u, lambda x, t: u(x, 0.0), -5.0, 5.0),
            lambda x, t: (1 - (x / 5) ** 2) * t,
        ),
    )
