"""Errors against a reference solution, bounded below by the reference's own error."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float


class Error(NamedTuple):
    """Error of each unknown. Where `at_floor`, `value` is the floor and the true error is at most that."""

    value: Float[Array, " unknowns"]
    at_floor: Bool[Array, " unknowns"]


class Errors(NamedTuple):
    """Relative L2 error, relative L1 error, maximum absolute error (in units of the unknown)."""

    l2: Error
    l1: Error
    maximum: Error


def normalised_errors(
    predicted: Float[ArrayLike, "n unknowns"],
    reference: Float[ArrayLike, "n unknowns"],
    *,
    floor: float,
    floor_max: float,
) -> Errors:
    """l2 = |e|_2 / |u|_2, l1 = |e|_1 / |u|_1 and max |e| with e = predicted - u over n points.

    Works under `jit` and `vmap`. Every error is bounded below by the uncertainty of the reference: l2 by its relative
    L2 error `floor`, l1 by `floor` |u|_2 sqrt(n) / |u|_1 (an L1 norm is at most sqrt(n) times the L2 norm), max |e| by
    `floor_max`. In float32 the floors are at least its round-off.

    Args:
        predicted: predictions at n points.
        reference: reference values u at the same points, see `sbjax.physics.equation.evaluate`.
        floor: `floor` of the reference.
        floor_max: `floor_max` of the reference.

    Returns:
        `Errors`. Not finite if the predictions are not finite or the reference is zero everywhere.

    Raises:
        ValueError: different shapes, or a floor that is not positive.

    Example:
        >>> errors = normalised_errors([[1.0], [2.1]], [[1.0], [2.0]], floor=1e-2, floor_max=0.5)
        >>> round(float(errors.l2.value[0]), 4), bool(errors.l2.at_floor[0])
        (0.0447, False)
        >>> float(errors.maximum.value[0]), bool(errors.maximum.at_floor[0])
        (0.5, True)
    """
    predicted, reference = jnp.asarray(predicted), jnp.asarray(reference)
    if predicted.shape != reference.shape or predicted.ndim != 2:
        raise ValueError(
            f"predicted has shape {predicted.shape}, reference {reference.shape}: give [n, unknowns] of the same points"
        )
    for name, value in (("floor", floor), ("floor_max", floor_max)):
        if not value > 0:
            raise ValueError(f"{name}={value} must be > 0: take it from the equation's reference")
    gap, size = jnp.abs(predicted - reference), jnp.abs(reference)
    round_off = float(jnp.finfo(gap.dtype).eps)

    def norm(values):
        return jnp.sqrt(jnp.sum(values**2, 0))

    def floored(value, least):
        return Error(jnp.maximum(value, least), value <= least)

    floor = jnp.maximum(floor, round_off)
    return Errors(
        l2=floored(norm(gap) / norm(size), floor),
        l1=floored(gap.sum(0) / size.sum(0), floor * norm(size) * jnp.sqrt(len(size)) / size.sum(0)),
        maximum=floored(gap.max(0), jnp.maximum(floor_max, round_off * size.max(0))),
    )
