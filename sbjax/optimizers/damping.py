"""The damping of Levenberg-Marquardt steps, from how well the last one did."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

MOST_GROWTH = 2.0**10  # at the round-off floor every step is rejected


class Judged(NamedTuple):
    """A tried step.

    Attributes:
        accepted: the loss fell.
        gain: its reduction over the promised one; 0 if rejected.
        damping: of the next step.
        growth: factor on the damping if the next step is rejected too.
    """

    accepted: Bool[Array, ""]
    gain: Float[Array, ""]
    damping: Float[Array, ""]
    growth: Float[Array, ""]


def judge(
    before: Float[Array, ""],
    after: Float[Array, ""],
    promised: Float[Array, ""],
    damping: Float[Array, ""],
    growth: Float[Array, ""],
) -> Judged:
    """Nielsen's rule: with gain = (before - after) / promised,

        accepted:  damping *= max(1/3, 1 - (2 gain - 1)^3), growth = 2,
        rejected:  damping *= growth,                       growth *= 2.

    Args:
        before, after: losses.
        promised: reduction of the loss in the model that the step minimises.
        damping, growth: of the step; growth starts at 2.

    >>> [float(x) for x in judge(*map(jnp.float32, (4.0, 1.0, 3.0, 0.9, 2.0)))]
    [1.0, 1.0, 0.30000001192092896, 2.0]

    Source: Nielsen 1999, IMM-REP-1999-05.
    """
    accepted = after < before  # false for NaN
    gain = jnp.where(accepted, (before - after) / jnp.maximum(promised, jnp.finfo(before.dtype).tiny), 0.0)
    shrink = jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3)
    return Judged(
        accepted,
        gain,
        damping * jnp.where(accepted, shrink, growth),
        jnp.where(accepted, 2.0, jnp.minimum(2 * growth, MOST_GROWTH)),
    )
