"""Burgers' equation: a front steepens at x = 0."""

import math

import jax.numpy as jnp
import numpy as np

from sbjax.physics.building import both, dirichlet, hard, initial_value, positive
from sbjax.physics.equation import Equation, Reference
from sbjax.physics.references import cole_hopf


def make_burgers(nu: float = 0.01 / math.pi) -> Equation:
    """u_t + u u_x = nu u_xx on [-1, 1] x [0, 1], u = 0 at the ends, u(x, 0) = -sin(pi x).

    The reference is the Cole-Hopf integral, accurate to round-off and differentiable at t > 0. The slope at x = 0
    reaches about 1.5 / (pi nu).

    Raises:
        ValueError: `nu` is not positive, or below 1e-5, where the integral needs thousands of nodes per point.
    """
    positive("burgers.nu", nu)
    if nu < 1e-5:
        raise ValueError(f"burgers.nu={nu} must be at least 1e-5 for its reference by quadrature")
    floor = float(np.finfo(np.float64).eps) * (8 + 0.1 / (math.pi * nu))  # exponents reach 1 / (pi nu)

    def first(x, t):
        return -jnp.sin(jnp.pi * x)

    return Equation(
        name="burgers",
        group="nonlinear",
        formula="u_t + u u_x = nu u_xx",
        coordinates=("x", "t"),
        unknowns=("u",),
        lower=(-1.0, 0.0),
        upper=(1.0, 1.0),
        partials=("u", "u_t", "u_x", "u_xx"),
        residual=lambda x, d: {"equation": d["u_t"] + d["u"] * d["u_x"] - nu * d["u_xx"]},
        conditions=(dirichlet("u", both("x"), 0.0), initial_value("u", first)),
        reference=Reference(
            solution=cole_hopf.make_solution(nu),
            kind="numerical",
            floor=floor,
            floor_max=8 * floor,
            source="Cole-Hopf transformation, trapezoidal rule",
        ),
        numbers={"nu": nu},
        source="Raissi, Perdikaris and Karniadakis, arXiv 1711.10561",
        # The solution is odd in x. Without the mirror, an even error could shift the front: the residual of a shifted
        # front is exponentially small, so the equation hardly fixes its position.
        ansatz=hard(
            "u = -sin(pi x) + t (1 - x^2) (N(x, t) - N(-x, t)) / 2",
            ["u_on_x", "initial_u"],
            first,
            lambda x, t: t * (1 - x**2),
            mirror=("x", -1),
        ),
    )
