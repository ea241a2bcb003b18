"""A clamped beam under its own weight."""

from sbjax.physics.building import dirichlet, exact, hard, neumann
from sbjax.physics.equation import Equation


def make_euler_beam() -> Equation:
    """u'''' = -1 on [0, 1], clamped at 0 (u = u' = 0) and free at 1 (u'' = u''' = 0).

    Solution: u = -x^4/24 + x^3/6 - x^2/4.
    """
    clamped, free = [("x", "lower")], [("x", "upper")]
    return Equation(
        name="euler_beam",
        group="stationary",
        formula="u_xxxx + 1 = 0",
        coordinates=("x",),
        unknowns=("u",),
        lower=(0.0,),
        upper=(1.0,),
        partials=("u_xxxx",),
        residual=lambda x, d: {"equation": d["u_xxxx"] + 1},
        conditions=(
            dirichlet("u", clamped, 0.0),
            neumann("u_x", clamped, 0.0),
            neumann("u_xx", free, 0.0),
            neumann("u_xxx", free, 0.0),
        ),
        reference=exact(lambda x: -(x**2) * (x**2 - 4 * x + 6) / 24, "substitution"),
        numbers={},
        source="an example of DeepXDE (arXiv 1907.04502)",
        ansatz=hard("u = x^2 N", ["u_on_x_lower", "u_x_on_x_lower"], 0.0, lambda x: x**2),
    )
