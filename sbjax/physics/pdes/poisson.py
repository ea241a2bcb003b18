"""Poisson's equation on an interval, with a Robin condition, with two length scales, and in several dimensions."""

import math

import jax.numpy as jnp

from sbjax.physics.building import both, dirichlet, exact, hard, robin, whole
from sbjax.physics.equation import Equation

DEEPXDE = "an example of DeepXDE (arXiv 1907.04502)"


def make_poisson() -> Equation:
    """-u'' = pi^2 sin(pi x) on [-1, 1], u(+-1) = 0. Solution: u = sin(pi x)."""
    return Equation(
        name="poisson",
        group="stationary",
        formula="-u_xx = pi^2 sin(pi x)",
        coordinates=("x",),
        unknowns=("u",),
        lower=(-1.0,),
        upper=(1.0,),
        partials=("u_xx",),
        residual=lambda x, d: {"equation": -d["u_xx"] - jnp.pi**2 * jnp.sin(jnp.pi * x[0])},
        conditions=(dirichlet("u", both("x"), 0.0),),
        reference=exact(lambda x: jnp.sin(jnp.pi * x), "substitution", argument=math.pi),
        numbers={},
        source=DEEPXDE,
        ansatz=hard("u = (1 - x^2) N", ["u_on_x"], 0.0, lambda x: 1 - x**2),
    )


def make_poisson_robin() -> Equation:
    """u'' = 2 on [-1, 1], u(-1) = 0, u'(1) = u(1). Solution: u = (x + 1)^2."""
    return Equation(
        name="poisson_robin",
        group="stationary",
        formula="u_xx = 2",
        coordinates=("x",),
        unknowns=("u",),
        lower=(-1.0,),
        upper=(1.0,),
        partials=("u_xx",),
        residual=lambda x, d: {"equation": d["u_xx"] - 2},
        conditions=(
            dirichlet("u", [("x", "lower")], 0.0),
            robin([("x", "upper")], ("u", "u_x"), lambda x, d: d["u_x"] - d["u"]),
        ),
        reference=exact(lambda x: (x + 1) ** 2, "substitution"),
        numbers={},
        source=DEEPXDE,
        ansatz=hard("u = (1 + x) N", ["u_on_x_lower"], 0.0, lambda x: 1 + x),
    )


def make_poisson_multiscale(waves: int = 10) -> Equation:
    """u'' = -(2 pi)^2 sin(2 pi x) - 0.1 (B pi)^2 sin(B pi x) on [0, 1], u = 0 at the ends, B = `waves`.

    Solution: u = sin(2 pi x) + 0.1 sin(B pi x). B = 50 is hard for physics-informed networks.

    Raises:
        ValueError: `waves` is not a whole number >= 1; u would not vanish at x = 1.
    """
    whole("poisson_multiscale.waves", waves)
    slow, fast = 2 * math.pi, math.pi * waves

    def residual(p, d):
        (x,) = p
        return {"equation": d["u_xx"] + slow**2 * jnp.sin(slow * x) + 0.1 * fast**2 * jnp.sin(fast * x)}

    return Equation(
        name="poisson_multiscale",
        group="stationary",
        formula="u_xx + (2 pi)^2 sin(2 pi x) + 0.1 (B pi)^2 sin(B pi x) = 0",
        coordinates=("x",),
        unknowns=("u",),
        lower=(0.0,),
        upper=(1.0,),
        partials=("u_xx",),
        residual=residual,
        conditions=(dirichlet("u", both("x"), 0.0),),
        reference=exact(
            lambda x: jnp.sin(slow * x) + 0.1 * jnp.sin(fast * x), "substitution", argument=max(slow, 0.1 * fast)
        ),
        numbers={"waves": waves},
        source="Wang, Wang and Perdikaris, arXiv 2012.10047 (B = 50)",
        ansatz=hard("u = 4 x (1 - x) N", ["u_on_x"], 0.0, lambda x: 4 * x * (1 - x)),
    )


def make_poisson_nd(dimensions: int = 5) -> Equation:
    """Laplacian u = -(pi^2 / 4) sum_i sin(pi x_i / 2) on [0, 1]^n, u given on the boundary.

    Solution: u = sum_i sin(pi x_i / 2).

    Raises:
        ValueError: `dimensions` is not a whole number from 1 to 9.
    """
    whole("poisson_nd.dimensions", dimensions)
    if dimensions > 9:
        raise ValueError(f"poisson_nd.dimensions={dimensions} must be at most 9, for coordinates x1 .. x9")
    coordinates = tuple(f"x{i + 1}" for i in range(dimensions))
    second = tuple(f"u_{c}{c}" for c in coordinates)

    def u(*x):
        return sum(jnp.sin(jnp.pi / 2 * c) for c in x)

    return Equation(
        name="poisson_nd",
        group="spare",
        formula="sum_i u_xixi = -(pi^2 / 4) sum_i sin(pi xi / 2)",
        coordinates=coordinates,
        unknowns=("u",),
        lower=(0.0,) * dimensions,
        upper=(1.0,) * dimensions,
        partials=second,
        residual=lambda x, d: {"equation": sum(d[name] for name in second) + jnp.pi**2 / 4 * u(*x)},
        conditions=(dirichlet("u", both(*coordinates), u),),
        reference=exact(u, "substitution", argument=math.pi / 2),
        numbers={"dimensions": dimensions},
        source="PoissonND of PINNacle (arXiv 2306.08827)",
        ansatz=None,  # u is a sum of functions of one coordinate, so interpolation between faces would give u itself
    )
