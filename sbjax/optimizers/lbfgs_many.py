"""Many small fits by L-BFGS in one compiled program, each at its own pace.

What differs between the fits (constants in the input, its place, the scale of the bias, the width of the first layer)
is data and not code: inputs and the first layer are padded with zeros that stay zero. So one compilation serves all
arms, replicas and targets. The fits run one after another on every device and not as a mapped axis: under `vmap` every
line search would wait for the slowest one.
"""

import concurrent.futures
import contextlib
import queue
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from sbjax.common import devices

MEMORY = 10


class Fitted(NamedTuple):
    """What one fit gives.

    Attributes:
        params: where it ended, a tree as it came in.
        losses: [records + 1], the loss at evenly spaced iterations from first to last; constant from where it ended.
        path: as `params`, each leaf with a leading axis [records + 1], where it was at these iterations.
        iterations: taken until the largest entry of the gradient fell below the tolerance, or all of them.
        loss_reached: [k], the first iteration at which the loss lies below each of the levels; -1 = never.
        gradient_reached: [k], the same for the largest entry of the gradient.
    """

    params: PyTree
    losses: Float[Array, " records"]
    path: PyTree
    iterations: Int[Array, ""]
    loss_reached: Int[Array, " k"]
    gradient_reached: Int[Array, " k"]


def fit_lbfgs(
    loss_fn: Callable[[PyTree], Float[Array, ""]],
    params: PyTree,
    *,
    steps: int,
    tolerance: float,
    records: int = 10,
    loss_levels: Sequence[float] = (),
    gradient_levels: Sequence[float] = (),
    memory_size: int = MEMORY,
) -> Fitted:
    """Minimise by optax's L-BFGS with its zoom line search, until max |gradient| < tolerance; may be jitted.

    Iteration i is the state after i updates, so levels that hold at the start are reached at 0.

    Raises:
        ValueError: steps or records < 1.

    >>> square = lambda x: jnp.sum((x - 1) ** 2)
    >>> fitted = fit_lbfgs(square, jnp.zeros(3), steps=9, tolerance=1e-5, loss_levels=(4.0, 1e-9))
    >>> fitted.params.tolist(), int(fitted.iterations), fitted.loss_reached.tolist()
    ([1.0, 1.0, 1.0], 2, [0, 2])
    """
    if steps < 1 or records < 1:
        raise ValueError(f"steps={steps} and records={records} must be >= 1")
    optimizer = optax.lbfgs(memory_size=memory_size)
    value_and_grad = optax.value_and_grad_from_state(loss_fn)
    every = -(-steps // records)
    levels = [jnp.asarray(levels, jnp.result_type(float)) for levels in (loss_levels, gradient_levels)]

    def note(carry):
        params, state, i, reached, losses, path, _ = carry
        value, grad = value_and_grad(params, state=state)
        largest = optax.tree.norm(grad, ord=jnp.inf)
        reached = [
            jnp.where((first < 0) & (number < level), i, first)
            for first, number, level in zip(reached, (value, largest), levels)
        ]
        # An entry is overwritten until its iteration has come; those after the end are filled below.
        row = jnp.minimum(-(-i // every), records)
        losses = losses.at[row].set(value)
        path = jax.tree.map(lambda kept, leaf: kept.at[row].set(leaf), path, params)
        return value, grad, (params, state, i, reached, losses, path, largest)

    def body(carry):
        value, grad, (params, state, i, *rest) = note(carry)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=loss_fn)
        return optax.apply_updates(params, updates), state, i + 1, *rest

    def going_on(carry):
        # The gradient is that of the point before: `state` holds the one here, found by the line search.
        _, state, i, *_ = carry
        here = optax.tree.norm(optax.tree.get(state, "grad"), ord=jnp.inf)
        return (i < steps) & ((i == 0) | (here >= tolerance) | jnp.isnan(here))

    none = [jnp.full(level.shape, -1, jnp.int32) for level in levels]
    path = jax.tree.map(lambda leaf: jnp.zeros((records + 1, *jnp.shape(leaf)), jnp.result_type(leaf)), params)
    losses = jnp.zeros(records + 1, levels[0].dtype)
    start = (params, optimizer.init(params), jnp.int32(0), none, losses, path, jnp.inf)
    start = jax.tree.map(jnp.asarray, start)
    ended = jax.lax.while_loop(going_on, body, start)
    value, _, (params, _, i, reached, losses, path, _) = note(ended)
    later = jnp.arange(records + 1) > -(-i // every)

    def fill(kept, last):
        return jnp.where(later.reshape(-1, *[1] * jnp.ndim(last)), last, kept)

    return Fitted(params, fill(losses, value), jax.tree.map(fill, path, params), i, *reached)


def run_all(
    fit: Callable[..., PyTree],
    jobs: Sequence[tuple[Any, ...]],
    *,
    on_done: Callable[[int, PyTree], None] = lambda number, fitted: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[PyTree | None]:
    """`fit(*job)` of every job, a thread for each of `devices.cores`; results as numpy, in the order of the jobs.

    Threads and no mesh (`devices.per_device`): whichever device is free takes the next job, where in one program
    all would wait for the device with the longest ones; each result is told, and `stop` asked, between two jobs.

    Args:
        fit: jitted.
        on_done: told of each result, in the order in which they come, by one thread at a time.
        stop: asked before each job; the jobs after it are None.

    >>> run_all(jax.jit(lambda x: 2 * x), [(1.0,), (3.0,)])
    [array(2., dtype=float32), array(6., dtype=float32)]
    """
    used = devices.cores(len(jobs))
    waiting = iter(range(len(jobs)))
    results: list[PyTree | None] = [None] * len(jobs)
    x64, matmul = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision

    def work(device):
        # These settings belong to a thread.
        with jax.enable_x64(x64), _matmul(matmul), jax.default_device(device):
            while (number := next(waiting, None)) is not None:
                if stop():
                    return
                job = jax.device_put(jobs[number], device)
                done.put((number, jax.tree.map(np.asarray, fit(*job))))

    done: queue.SimpleQueue = queue.SimpleQueue()
    with concurrent.futures.ThreadPoolExecutor(max(1, len(used))) as pool:
        futures = [pool.submit(work, device) for device in used]
        while True:
            try:
                number, result = done.get(timeout=0.05)
            except queue.Empty:
                if all(future.done() for future in futures) and done.empty():
                    break
                continue
            results[number] = result
            on_done(number, result)
        for future in futures:
            future.result()
    return results


def _matmul(precision):
    return contextlib.nullcontext() if precision is None else jax.default_matmul_precision(precision)
