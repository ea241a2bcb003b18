"""The grid on which solutions of an equation are drawn: a line, a map, or slices of a box."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sbjax.physics.equation import Equation, evaluate
from sbjax.tasks.task import Grid

LINE, MAP, SLICE = 401, 101, 51  # points of a coordinate
SLICES = 3  # of the last coordinate, from its lower to its upper bound


def grid_shape(coordinates: int) -> tuple[int, ...]:
    """Points of each coordinate.

    Of three and more, the first two are drawn at `SLICES` values of the last one and in the middle of all others.

    >>> grid_shape(1), grid_shape(2), grid_shape(3), grid_shape(5)
    ((401,), (101, 101), (51, 51, 3), (51, 51, 1, 1, 3))
    """
    if coordinates == 1:
        return (LINE,)
    if coordinates == 2:
        return (MAP, MAP)
    return (SLICE, SLICE, *[1] * (coordinates - 3), SLICES)


def make_grid(equation: Equation, solution: Callable[[Mapping[str, Any], Array], Array], dtype: Any) -> Grid:
    """Grid, reference and predictions `solution(variables, x)` of an equation."""
    shape, d = grid_shape(len(equation.coordinates)), len(equation.coordinates)
    axes = [
        np.linspace(lower, upper, n) if n > 1 else np.array([(lower + upper) / 2])
        for lower, upper, n in zip(equation.lower, equation.upper, shape)
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    shape, flat = (*shape, len(equation.unknowns)), points.reshape(-1, d)

    def predict(variables):
        return jax.vmap(lambda x: solution(variables, x))(jnp.asarray(flat, dtype)).reshape(shape)

    return Grid(points, evaluate(equation, flat).reshape(shape), equation.coordinates, equation.unknowns, predict)
