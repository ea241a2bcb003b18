"""Kovasznay flow: stationary Navier-Stokes behind a grid."""

import math

import jax.numpy as jnp

from sbjax.physics.building import both, dirichlet, exact, hard, lift, positive
from sbjax.physics.equation import Equation


def make_kovasznay(reynolds: float = 20.0) -> Equation:
    """u u_x + v u_y + p_x = (u_xx + u_yy) / Re, u v_x + v v_y + p_y = (v_xx + v_yy) / Re and u_x + v_y = 0 on
    [-0.5, 1] x [-0.5, 1.5]; u and v given on the boundary, p at x = 1. Solution, l = Re/2 - sqrt(Re^2/4 + 4 pi^2):

        u = 1 - e^(lx) cos(2 pi y),  v = l / (2 pi) e^(lx) sin(2 pi y),  p = (1 - e^(2lx)) / 2

    Raises:
        ValueError: `reynolds` is not positive.
    """
    positive("kovasznay.reynolds", reynolds)
    rate = -4 * math.pi**2 / (reynolds / 2 + math.sqrt(reynolds**2 / 4 + 4 * math.pi**2))  # l, without cancellation

    def u(x, y):
        return 1 - jnp.exp(rate * x) * jnp.cos(2 * jnp.pi * y)

    def v(x, y):
        return rate / (2 * jnp.pi) * jnp.exp(rate * x) * jnp.sin(2 * jnp.pi * y)

    def p(x, y):
        return (1 - jnp.exp(2 * rate * x)) / 2

    def residual(x, d):
        def momentum(w, pressure):
            transport = d["u"] * d[f"{w}_x"] + d["v"] * d[f"{w}_y"]
            return transport + d[pressure] - (d[f"{w}_xx"] + d[f"{w}_yy"]) / reynolds

        return {
            "momentum_x": momentum("u", "p_x"),
            "momentum_y": momentum("v", "p_y"),
            "continuity": d["u_x"] + d["v_y"],
        }

    lifted_u = lift(u, lambda x, y: 1 + jnp.exp(rate * x), -0.5, 1.0)
    lifted_v = lift(v, lambda x, y: 0.0, -0.5, 1.0)

    def bump(x, y):
        return (1 - x) * (1 + 2 * x) * (1.5 - y) * (0.5 + y)

    return Equation(
        name="kovasznay",
        group="nonlinear",
        formula="u u_x + v u_y + p_x = (u_xx + u_yy) / Re, u v_x + v v_y + p_y = (v_xx + v_yy) / Re, u_x + v_y = 0",
        coordinates=("x", "y"),
        unknowns=("u", "v", "p"),
        lower=(-0.5, -0.5),
        upper=(1.0, 1.5),
        partials=("u", "v", "u_x", "u_y", "v_x", "v_y", "p_x", "p_y", "u_xx", "u_yy", "v_xx", "v_yy"),
        residual=residual,
        conditions=(
            dirichlet("u", both("x", "y"), u),
            dirichlet("v", both("x", "y"), v),
            dirichlet("p", [("x", "upper")], p),
        ),
        reference=exact(lambda x, y: (u(x, y), v(x, y), p(x, y)), "Kovasznay (1948)", argument=3 * math.pi),
        numbers={"reynolds": reynolds},
        source="Kovasznay, Proc. Camb. Phil. Soc. 44 (1948); an example of DeepXDE (arXiv 1907.04502)",
        # On both faces of y, u = 1 + e^(lx) and v = 0 for all x; `lift` adds the correction on the faces of x.
        ansatz=hard(
            "u = 1 + e^(lx) - (1 + cos(2 pi y)) c + b Nu, v = l / (2 pi) sin(2 pi y) c + b Nv, p = p(1) + (1 - x) Np "
            "with the chord c(x) of e^(lx) and b = (1 - x) (1 + 2 x) (1.5 - y) (0.5 + y)",
            ["u_on_x_y", "v_on_x_y", "p_on_x_upper"],
            lambda x, y: (lifted_u(x, y), lifted_v(x, y), p(1.0, y)),
            lambda x, y: (bump(x, y), bump(x, y), 1 - x),
        ),
    )
