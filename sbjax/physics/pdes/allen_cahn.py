"""The Allen-Cahn equation: formation of interfaces."""

import jax.numpy as jnp

from sbjax.physics.building import both, dirichlet, hard, initial_value, positive
from sbjax.physics.equation import Equation, Reference
from sbjax.physics.references import allen_cahn

# (relative L2, maximum) error of the reference at the coefficients used in the literature; remeasured by the tests.
FLOORS = {(0.001, 5.0): (2e-10, 1.2e-9)}


def make_allen_cahn(diffusion: float = 0.001, reaction: float = 5.0) -> Equation:
    """u_t = d u_xx + r (u - u^3) on [-1, 1] x [0, 1], u(+-1) = -1, u(x, 0) = x^2 cos(pi x), d = `diffusion`,
    r = `reaction`.

    The reference is a spectral solution, differentiable at t > 0 and computed on first use (1 to 2 s). For coefficients
    other than the defaults it is computed here at two resolutions to certify its error (seconds).

    Raises:
        ValueError: a coefficient is not positive, or interfaces are too thin for the reference: sqrt(r / 2 d) > 150.
    """
    positive("allen_cahn.diffusion", diffusion)
    positive("allen_cahn.reaction", reaction)
    final = 1.0
    floor, floor_max = FLOORS.get((diffusion, reaction)) or allen_cahn.certify(diffusion, reaction, final)

    def first(x, t):
        return x**2 * jnp.cos(jnp.pi * x)

    return Equation(
        name="allen_cahn",
        group="nonlinear",
        formula="u_t = d u_xx + r (u - u^3)",
        coordinates=("x", "t"),
        unknowns=("u",),
        lower=(-1.0, 0.0),
        upper=(1.0, final),
        partials=("u", "u_t", "u_xx"),
        residual=lambda x, d: {"equation": d["u_t"] - diffusion * d["u_xx"] - reaction * (d["u"] - d["u"] ** 3)},
        conditions=(dirichlet("u", both("x"), -1.0), initial_value("u", first)),
        reference=Reference(
            solution=allen_cahn.make_solution(diffusion, reaction, final),
            kind="numerical",
            floor=floor,
            floor_max=floor_max,
            source="Chebyshev collocation and ETDRK4",
        ),
        numbers={"diffusion": diffusion, "reaction": reaction},
        source="an example of DeepXDE (arXiv 1907.04502), with Dirichlet ends",
        ansatz=hard(
            "u = x^2 cos(pi x) + t (1 - x^2) (N(x, t) + N(-x, t)) / 2",
            ["u_on_x", "initial_u"],
            first,
            lambda x, t: t * (1 - x**2),
            mirror=("x", 1),
        ),
    )
