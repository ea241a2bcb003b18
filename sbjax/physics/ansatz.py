"""Hard constraints: an ansatz that satisfies conditions and parity of an equation for any network."""

import dataclasses
from collections.abc import Callable

from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True, eq=False)
class Ansatz:
    """A transformation of the network output that satisfies conditions exactly for any smooth network. Made by
    `sbjax.physics.building.hard`.

    Attributes:
        fn: `(x [d], raw [unknowns]) -> [unknowns]`, with raw = N(x) the network output. The trial solution is
            `lambda x: ansatz.fn(x, network(x))`.
        conditions: names of the conditions satisfied by construction; the others stay in the loss.
        formula: one line of text, 'u = sin(pi x) + 4 x (1 - x) t N'.
        mirror: (coordinate, parity +1 or -1) if the solution is even or odd about the middle of that coordinate. raw is
            then (N(x) + parity N(mirrored x)) / 2, which excludes errors of the other parity.
    """

    fn: Callable[[Float[Array, " d"], Float[Array, " unknowns"]], Float[Array, " unknowns"]]
    conditions: tuple[str, ...]
    formula: str
    mirror: tuple[str, int] | None = None


def mirrored(equation, name: str, points: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Reflect points about the middle of coordinate `name`.

    >>> import jax.numpy as jnp
    >>> from sbjax.physics.pdes import make_equation
    >>> mirrored(make_equation('burgers'), 'x', jnp.array([0.25, 0.5])).tolist()
    [-0.25, 0.5]
    """
    i = equation.coordinates.index(name)
    return points.at[..., i].set(equation.lower[i] + equation.upper[i] - points[..., i])
