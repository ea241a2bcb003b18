"""Gradient flow of small networks: one program that maps over seeds, in double precision."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree


class Flow(NamedTuple):
    """A solution of the gradient flow.

    Attributes:
        params: leaves with the axis of the times first; infinite after a failure.
        steps: accepted and rejected steps.
        finished: whether the last time was reached.
    """

    params: PyTree
    steps: Int[Array, ""]
    finished: Bool[Array, ""]


def gradient_flow(
    loss_fn: Callable[[PyTree], Float[Array, ""]],
    params: PyTree,
    times: Float[ArrayLike, " t"],
    *,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    max_steps: int = 20_000,
) -> Flow:
    """dw/dt = -grad L(w) from w(0) = params, by an implicit Runge-Kutta method of order 5 (diffrax's Kvaerno5).

    The flow is stiff: slow valleys beside steep walls. An explicit method takes steps that the walls allow.

    Args:
        loss_fn: params -> scalar, differentiable twice.
        params: tree of floats, some thousand in all: a step solves a dense linear system.
        times: increasing, >= 0: where to save; a program for each number of times.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step.
        max_steps: after so many the flow is given up.

    Returns:
        `Flow`.

    Raises:
        ValueError: times that are no increasing vector from 0 on (where they are known).

    >>> with jax.enable_x64(True):
    ...     flow = jax.jit(lambda w: gradient_flow(lambda w: jnp.sum(w**2) / 2, w, [0.0, 1.0]))(jnp.ones(2))
    ...     print(flow.params.round(4).tolist(), bool(flow.finished))
    [[1.0, 1.0], [0.3679, 0.3679]] True

    Source: Kvaerno 2004, BIT 44(3); for networks, Brea et al., arXiv 2301.10638.
    """
    import diffrax  # a second to import

    flat, unravel = ravel_pytree(params)
    if not isinstance(times, jax.core.Tracer):
        times = np.asarray(times, flat.dtype)
        if times.ndim != 1 or not len(times) or (np.diff(times) <= 0).any() or times[0] < 0:
            raise ValueError(f"times={times.tolist()} must be an increasing vector of numbers >= 0")
    times = jnp.asarray(times)
    slope = jax.grad(lambda w: loss_fn(unravel(w)))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, w, args: -slope(w)),
        diffrax.Kvaerno5(),
        t0=0.0,
        t1=times[-1],
        dt0=None,
        y0=flat,
        saveat=diffrax.SaveAt(ts=times),
        # Steps end at the times: in between, the interpolant is of order 3 only.
        stepsize_controller=diffrax.ClipStepSizeController(diffrax.PIDController(rtol=rtol, atol=atol), step_ts=times),
        max_steps=max_steps,
        throw=False,
    )
    finished = solution.result == diffrax.RESULTS.successful
    return Flow(jax.vmap(unravel)(solution.ys), solution.stats["num_steps"], finished)
