"""Least-squares regression of functions of one variable."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sbjax.common.names import check_choice
from sbjax.expansion.folding import fold as fold_expansion
from sbjax.models.field import Field
from sbjax.tasks.full_batch import full_batch_task
from sbjax.tasks.task import Aux, Average, Grid, Task

LOWER, UPPER = -1.0, 1.0
DRAWN = 401


class Target(NamedTuple):
    """A function on [-1, 1]; `kind` is 'smooth', 'oscillating', 'kinked' or 'discontinuous'."""

    formula: str
    kind: str
    values: Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, " n"]]


TARGETS = {
    "sine": Target("sin(pi x)", "smooth", lambda x: np.sin(np.pi * x)),
    "gauss": Target("exp(-x^2)", "smooth", lambda x: np.exp(-(x**2))),
    "cubic": Target("x^3 - x", "smooth", lambda x: x**3 - x),
    "runge": Target("1 / (1 + 25 x^2)", "smooth", lambda x: 1 / (1 + 25 * x**2)),
    "fast_sine": Target("sin(20 pi x)", "oscillating", lambda x: np.sin(20 * np.pi * x)),
    "two_scales": Target(
        "sin(2 pi x) + 0.5 sin(16 pi x)",
        "oscillating",
        lambda x: np.sin(2 * np.pi * x) + 0.5 * np.sin(16 * np.pi * x),
    ),
    "sign": Target("sign(x)", "discontinuous", np.sign),
    "square": Target("sign(sin(4 pi x))", "discontinuous", lambda x: np.sign(np.sin(4 * np.pi * x))),
    "absolute": Target("|x|", "kinked", np.abs),
    "weierstrass": Target(
        "sum_(k<8) 0.5^k cos(3^k pi x)",
        "kinked",
        lambda x: sum(0.5**k * np.cos(3**k * np.pi * x) for k in range(8)),
    ),
}


class Samples(NamedTuple):
    """Training and test samples of a target function, float64."""

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    test_x: Float[np.ndarray, " m"]
    test_y: Float[np.ndarray, " m"]


def make_target(name: str) -> Target:
    """Target function by name.

    Raises:
        ValueError: an unknown name; the message suggests similar ones.

    >>> make_target('runge').formula
    '1 / (1 + 25 x^2)'
    """
    check_choice(name, TARGETS, what="function")
    return TARGETS[name]


def make_points(target: Target, points: int, test_points: int) -> Samples:
    """Sample a target on [-1, 1]: training points evenly spaced with both ends, test points at the midpoints of
    `test_points` equal cells.

    Raises:
        ValueError: fewer than 2 training points or fewer than 1 test point.

    >>> make_points(make_target('cubic'), 3, 2).test_x.tolist()
    [-0.5, 0.5]
    """
    if points < 2 or test_points < 1:
        raise ValueError(f"points={points} must be >= 2 and test_points={test_points} >= 1")
    x = np.linspace(LOWER, UPPER, points)
    test_x = LOWER + (UPPER - LOWER) * (np.arange(test_points) + 0.5) / test_points
    return Samples(x, target.values(x), test_x, target.values(test_x))


def make_regression_task(
    target: Target, field: Field, *, points: int = 256, test_points: int = 2000, fold: bool = False
) -> Task:
    """Full-batch regression with the mean square error.

    Metrics: 'train/loss'; on held-out points 'validation/loss', 'test/mse' and 'test/max' (largest absolute error).

    Args:
        target: the function to fit.
        field: the network, from one coordinate to one unknown.
        points: number of training points.
        test_points: number of validation points and of test points.
        fold: train on raw input, starting from weights into which `field.expansion` was folded, see
            `sbjax.expansion.folding`.

    Raises:
        ValueError: `field` has more than one coordinate or unknown; as `make_points`.
    """
    if field.unknowns != 1 or len(field.lower) != 1:
        raise ValueError(f"the network has {field.unknowns} outputs of {len(field.lower)} coordinates; it needs 1 of 1")
    start = field
    if fold:
        field = field.clone(expansion=None)
    fitted = make_points(target, points, 2 * test_points)
    data = {"x": fitted.x, "y": fitted.y, "test_x": fitted.test_x[::2], "test_y": fitted.test_y[::2]}
    data |= {"validation_x": fitted.test_x[1::2], "validation_y": fitted.test_y[1::2]}
    data = {name: jnp.asarray(values, field.dtype)[:, None] for name, values in data.items()}

    def init(key):
        variables = start.init(key, jnp.zeros(1, field.dtype))
        if fold:
            variables = {**variables, "params": fold_expansion(start.expansion, variables["params"])}
        return variables

    def residuals(variables, batch, key):
        del key
        return (field.apply(variables, batch["x"]) - batch["y"])[:, 0] / np.sqrt(points)

    def loss(variables, batch, key):
        return jnp.sum(residuals(variables, batch, key) ** 2), Aux({}, {})

    def evaluate(data, variables, part):
        del part
        error = field.apply(variables, data["test_x"]) - data["test_y"]
        held_out = field.apply(variables, data["validation_x"]) - data["validation_y"]
        numbers = {"validation/loss": jnp.mean(held_out**2)}
        numbers |= {"test/mse": jnp.mean(error**2), "test/max": jnp.max(jnp.abs(error))}
        return {name: Average(number, jnp.ones((), number.dtype)) for name, number in numbers.items()}

    x = np.linspace(LOWER, UPPER, DRAWN)[:, None]

    def predict(variables) -> Array:
        return field.apply(variables, jnp.asarray(x, field.dtype))

    return full_batch_task(
        data=data,
        init=init,
        sample=lambda data, key, step: {"x": data["x"], "y": data["y"]},
        loss=loss,
        evaluate=evaluate,
        primary="test/mse",
        selection="validation/loss",
        outputs=lambda data, variables: field.apply(variables, data["validation_x"][:256]),
        residuals=residuals,
        grid=Grid(x, target.values(x), ("x",), ("y",), predict),
        model=field,
    )


def describe() -> str:
    """Table of the target functions: name, kind, formula.

    >>> describe().splitlines()[0]
    'sine        smooth        sin(pi x)'
    """
    return "".join(f"{name:12s}{target.kind:14s}{target.formula}\n" for name, target in TARGETS.items())
