"""Small networks of many seeds trained in one program: what the experiments here need and no more."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

CHUNK = 200  # steps in one call, between looks at `stop`


def init_mlp(key: Key[Array, ""], sizes: Sequence[int]) -> dict[str, dict[str, Array]]:
    """Glorot-normal kernels and zero biases, as `sbjax.landscape.layered` reads them.

    >>> [layer['kernel'].shape for layer in init_mlp(jax.random.key(0), (2, 8, 1)).values()]
    [(2, 8), (8, 1)]
    """
    keys = jax.random.split(key, len(sizes) - 1)
    return {
        f"dense_{i}": {
            "kernel": jax.random.normal(keys[i], (n, m)) * jnp.sqrt(jnp.asarray(2 / (n + m), float)),
            "bias": jnp.zeros(m),
        }
        for i, (n, m) in enumerate(itertools.pairwise(sizes))
    }


def train(
    loss: Callable[[Any, Any, Key[Array, ""]], Array],
    params: Any,
    data: Any,
    keys: Key[Array, "seed"],
    *,
    steps: int,
    rate: float,
    stop: Callable[[], bool],
) -> Any:
    """Adam with a rate that falls to zero by a cosine, all seeds at once.

    Args:
        loss: `(params, data, key) -> scalar` of one seed.
        params: trees with the seeds on a leading axis.
        data: likewise.
        keys: one a seed, for what the loss draws at each step.
        steps: of the optimiser.
        rate: at the start.
        stop: looked at every `CHUNK` steps.

    Returns:
        Parameters as they came in, or None if `stop()` was true.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(carry, number):
        params, state, data, key = carry
        slopes = jax.grad(loss)(params, data, jax.random.fold_in(key, number))
        updates, state = optimizer.update(slopes, state, params)
        return (optax.apply_updates(params, updates), state, data, key), None

    @functools.partial(jax.jit, static_argnames="count")
    def chunk(params, state, first, count):
        def one(params, state, data, key):
            return jax.lax.scan(step, (params, state, data, key), first + jnp.arange(count))[0][:2]

        return jax.vmap(one)(params, state, data, keys)

    state = jax.vmap(optimizer.init)(params)
    for first in range(0, steps, CHUNK):
        if stop():
            return None
        params, state = chunk(params, state, first, min(CHUNK, steps - first))
    return params
