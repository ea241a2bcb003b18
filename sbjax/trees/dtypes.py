"""Dtypes and ranks of arrays: what they have in common, also where implicit promotion is forbidden."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped


def wide_dtype(*arrays: Any) -> np.dtype:
    """Dtype for sums over arrays (or dtypes): the widest of their dtypes, at least float32.

    >>> wide_dtype(jnp.ones(2, jnp.bfloat16)), wide_dtype(jnp.ones(2, jnp.float8_e4m3fn), jnp.ones(2))
    (dtype('float32'), dtype('float32'))
    """
    dtypes = (jnp.result_type(x) for x in arrays)  # `jnp.asarray` would copy host arrays
    return promoted(jnp.dtype("float32"), *(dtype for dtype in dtypes if not narrow(dtype)))


def promoted(*given: Any) -> np.dtype:
    """The dtype that arrays or dtypes have in common, also where implicit promotion is forbidden.

    >>> with jax.numpy_dtype_promotion('strict'):
    ...     promoted(jnp.bfloat16, np.ones(2, np.float32))
    dtype('float32')
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*given)


@contextlib.contextmanager
def promoting() -> Iterator[None]:
    """Around a call of a library that promotes dtypes or ranks by itself, for users who forbid both.

    Where they are allowed, as by default, nothing is traced or compiled again.

    >>> with jax.numpy_rank_promotion('raise'), promoting():
    ...     (jnp.ones(2) + jnp.ones((1, 2))).shape
    (1, 2)
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def along(array: Shaped[Array | np.ndarray, "*last"], x: Shaped[Array, "..."]) -> Shaped[Array | np.ndarray, "..."]:
    """A vector, or an array of more axes, with as many axes as `x`, to be broadcast along its last ones: JAX need not
    raise its rank.

    >>> along(jnp.ones(3), jnp.ones((5, 4, 3))).shape
    (1, 1, 3)
    """
    return array.reshape((1,) * (x.ndim - array.ndim) + array.shape)


def is_cut(leaf: Any) -> bool:
    """Whether a leaf is a numpy array of float64, or a number of Python or numpy, that jax would cut to float32."""
    wide = isinstance(leaf, float) or (isinstance(leaf, np.ndarray) and leaf.dtype == np.float64)
    return wide and not jax.config.read("jax_enable_x64")


def on_host(*arrays: Array | np.ndarray) -> bool:
    """Whether numpy can read these arrays without a copy: concrete values on the CPU.

    >>> on_host(jnp.ones(2)), jax.jit(lambda x: jnp.array(on_host(x)))(jnp.ones(2)).item()
    (True, False)
    """
    if any(isinstance(x, jax.core.Tracer) for x in arrays):
        return False
    on_devices = (jnp.asarray(x) for x in arrays if not isinstance(x, np.ndarray))
    return all(device.platform == "cpu" for x in on_devices for device in x.devices())


def narrow(dtype) -> bool:
    """Whether it is a float of fewer than 16 bits, for which jax has no implicit promotion."""
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 16
