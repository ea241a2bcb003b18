"""An equation in a file of your own: decay with a source, u' = -u + sin t, u(0) = 1.

    python runs/train.py --config=configs/pdes.py:poisson,quick --workdir=/tmp/decay \
        --config.task.equation=docs/examples/my_equation.py:decay
"""

import jax.numpy as jnp

from sbjax.physics.building import exact, initial_value
from sbjax.physics.equation import Equation


def decay(rate: float = 1.0) -> Equation:
    """u_t + rate u = sin t on [0, 3], u(0) = 1. `--config.task.coefficients=rate=2` sets another rate."""

    def solution(t):
        # By variation of constants.
        particular = (rate * jnp.sin(t) - jnp.cos(t)) / (1 + rate**2)
        return particular + (1 + 1 / (1 + rate**2)) * jnp.exp(-rate * t)

    return Equation(
        name="decay",
        group="stationary",
        formula="u_t + rate u = sin t",
        coordinates=("t",),
        unknowns=("u",),
        lower=(0.0,),
        upper=(3.0,),
        partials=("u", "u_t"),
        residual=lambda x, d: {"equation": d["u_t"] + rate * d["u"] - jnp.sin(x[0])},
        conditions=(initial_value("u", 1.0),),
        reference=exact(solution, "substitution"),
        numbers={"rate": rate},
        source="an example",
    )
