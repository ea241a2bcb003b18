"""Forms that meet conditions and symmetries of a differential equation whatever the network in them is."""

import dataclasses
from collections.abc import Callable

from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True, eq=False)
class Ansatz:
    """A form that meets conditions exactly, whatever smooth network is put into it. Made by
    `sbjax.physics.building.hard`.

    Attributes:
        fn: `(x [d], raw [unknowns]) -> [unknowns]`; raw is the network's output at the point x. As an attempt at a
            solution, `lambda x: ansatz.fn(x, network(x))`.
        conditions: names of those that are met; the others are to be asked for.
        formula: one line of text, 'u = sin(pi x) + 4 x (1 - x) t N'.
        mirror: (coordinate, parity +1 or -1) where the solution is even or odd about the middle of that coordinate:
            `raw` is then (N(x) + parity N(mirrored x)) / 2, and no error of the other parity is possible.
    """

    fn: Callable[[Float[Array, " d"], Float[Array, " unknowns"]], Float[Array, " unknowns"]]
    conditions: tuple[str, ...]
    formula: str
    mirror: tuple[str, int] | None = None


def mirrored(equation, name: str, points: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Points on the other side of the middle of the equation's coordinate `name`.

    >>> import jax.numpy as jnp
    >>> from sbjax.physics.pdes import make_equation
    >>> mirrored(make_equation('burgers'), 'x', jnp.array([0.25, 0.5])).tolist()
    [-0.25, 0.5]
    """
    i = equation.coordinates.index(name)
    return points.at[..., i].set(equation.lower[i] + equation.upper[i] - points[..., i])
