"""Sorting that is fast on every backend and differentiable in both modes.

XLA's sort on CPU is six to eight times slower than numpy's from 1e5 entries up, so there the host sorts, by a callback
inside the compiled program. Accelerators sort by themselves.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@jax.custom_jvp
def sort(x: Float[Array, "*rows n"]) -> Float[Array, "*rows n"]:
    """Entries of the last axis in ascending order, NaN last; d sort(x) = dx[argsort(x)].

    >>> jax.grad(lambda x: sort(x)[0])(jnp.array([3.0, 1.0, 2.0])).tolist()
    [0.0, 1.0, 0.0]
    """
    return jax.lax.platform_dependent(x, cpu=_on_host(np.sort, x.dtype), default=lambda x: jnp.sort(x, -1))


def argsort(x: Float[Array, "*rows n"]) -> Int[Array, "*rows n"]:
    """Indices that sort the last axis; constant under differentiation."""
    x = jax.lax.stop_gradient(x)
    return jax.lax.platform_dependent(
        x, cpu=_on_host(np.argsort, jnp.int32), default=lambda x: jnp.argsort(x, -1).astype(jnp.int32)
    )


@sort.defjvp
def _sort_jvp(primals, tangents):
    return sort(*primals), jnp.take_along_axis(tangents[0], argsort(primals[0]), -1)


def _on_host(function, dtype):
    def call(x):
        return jax.pure_callback(
            lambda x: function(np.asarray(x), axis=-1).astype(dtype, copy=False),
            jax.ShapeDtypeStruct(x.shape, dtype),
            x,
            vmap_method="expand_dims",
        )

    return call
