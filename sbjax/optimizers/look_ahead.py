"""Look-ahead: every few steps the parameters move to an average of themselves and a slow copy."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree


class LookAheadState(NamedTuple):
    """Of the inner optimiser, the slow copy, and how many steps were made."""

    inner: Any
    slow: PyTree
    count: Int[Array, ""]


def look_ahead(
    optimizer: optax.GradientTransformation, *, every_steps: int, decay: float, train_steps: int
) -> optax.GradientTransformationExtraArgs:
    """slow <- a slow + (1 - a) params every `every_steps` steps, and params <- slow; a rises from 0 to `decay`^every.

    At step t of T, a = decay^every (t / T)^3; after the last step params <- slow, so a training ends at an average.
    Zhang et al., arXiv 1907.08610, with the growing average of public speed-run recipes for CIFAR-10.

    Args:
        optimizer: what makes the steps in between.
        every_steps: at least 1.
        decay: in [0, 1).
        train_steps: T.

    Raises:
        ValueError: values out of their bounds; by `update`, without the parameters.

    >>> sgd = look_ahead(optax.sgd(1.0), every_steps=2, decay=0.5, train_steps=4)
    >>> w = jnp.ones(1)
    >>> state = sgd.init(w)
    >>> for _ in range(4):
    ...     updates, state = sgd.update(jnp.ones(1), state, w)
    ...     w = w + updates
    >>> w.tolist()              # 1/32 1 + 31/32 (-1) = -0.9375 after two steps, then 1/4 (-0.9375) + 3/4 (-2.9375)
    [-2.4375]
    """
    if every_steps < 1 or train_steps < 1 or not 0 <= decay < 1:
        raise ValueError(
            f"every_steps={every_steps} and train_steps={train_steps} must be >= 1, and decay={decay} in [0, 1)"
        )
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params):
        return LookAheadState(optimizer.init(params), jax.tree.map(jnp.asarray, params), jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ValueError("look_ahead averages parameters: give them to update")
        updates, inner = optimizer.update(updates, state.inner, params, **extra)
        count = state.count + 1
        last = count >= train_steps
        whole = count % every_steps == 0
        kept = jnp.where(whole, decay**every_steps * (count / train_steps) ** 3, 1.0)
        due = whole | last

        def average(slow, param, step):
            mean = kept.astype(slow.dtype) * slow + (1 - kept).astype(slow.dtype) * (param + step)
            return jnp.where(due, mean, slow)

        slow = jax.tree.map(average, state.slow, params, updates)
        updates = jax.tree.map(lambda s, p, u: jnp.where(due, s - p, u), slow, params, updates)
        return updates, LookAheadState(inner, slow, count)

    return optax.GradientTransformationExtraArgs(init, update)
