"""Sorting that is fast on every backend and differentiable in both modes.

XLA's sort on CPU is six to eight times slower than numpy's for 1e5 entries and more. Concrete values on the CPU are
therefore sorted by numpy; inside `jit`, `grad` or `vmap`, and on accelerators, XLA sorts. A callback from the compiled
program is no alternative: it deadlocks if all threads of the pool run it (jax-ml/jax#24255), and it ignores a precision
set by a context manager.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sbjax import trees
from sbjax.trees import on_host

LITTLE = 2**21  # steps: about ten milliseconds of numpy; a program takes some hundred to compile


def sort(x: Float[Array, "*rows n"]) -> Float[Array, "*rows n"]:
    """Entries of the last axis in ascending order, NaN last; d sort(x) = dx[argsort(x)].

    >>> jax.grad(lambda x: sort(x)[0])(jnp.array([3.0, 1.0, 2.0])).tolist()
    [0.0, 1.0, 0.0]
    """
    return jnp.asarray(np.sort(_native(x), axis=-1), x.dtype) if on_host(x) else jnp.sort(x, -1)


def argsort(x: Float[Array, "*rows n"]) -> Int[Array, "*rows n"]:
    """Indices that sort the last axis; constant under differentiation."""
    if on_host(x):
        return jnp.asarray(np.argsort(_native(x), axis=-1), jnp.int32)
    return jnp.argsort(jax.lax.stop_gradient(x), -1).astype(jnp.int32)


def to_host(x: Array, work: float = 0.0) -> Any:
    """A numpy array where numpy is the right place: little work, which would take longer to compile than to do, and
    float64 that jax would cut to float32. Everything else, and traced values, as jax arrays.

    Args:
        x: of jax or numpy.
        work: number of elementary steps.

    >>> type(to_host(jnp.ones(2))).__name__, to_host(np.ones(2)).dtype, isinstance(to_host(jnp.ones(2), 1e9), jax.Array)
    ('ndarray', dtype('float64'), True)
    """
    if trees.is_cut(x) or (isinstance(x, np.ndarray) and work <= LITTLE):
        return x
    x = jnp.asarray(x)
    return np.asarray(x) if work <= LITTLE and on_host(x) else x


def _native(x):
    """Cast to a dtype that numpy sorts correctly; it does not sort NaN last in bfloat16."""
    x = np.asarray(x)
    return x.astype(np.float32) if x.dtype.kind == "V" else x
