"""Named streams of random keys.

A run has one key. Every use of randomness has a name ('init', 'data', 'dropout', 'augment', ..); its keys are derived
by folding in name, replica and step, in this order. Two arms with the same seed therefore have the same initial weights
(where shapes agree), batches and dropout masks, which makes their comparison paired.
"""

import functools
import hashlib
import math

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key


def stream(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """Key of the stream `name`: `fold_in(key, SHA-256(name) mod 2^32)`.

    (Python's `hash` would differ between processes.)

    >>> import jax
    >>> k = jax.random.key(0)
    >>> bool(stream(k, 'init') == stream(k, 'init')), bool(stream(k, 'init') == stream(k, 'data'))
    (True, False)
    """
    digest = hashlib.sha256(name.encode()).digest()
    return jax.random.fold_in(key, int.from_bytes(digest[:4], "little"))


def replica_stream(key: Key[Array, ""], name: str, replica: Int[Array, ""] | int) -> Key[Array, ""]:
    """Key of the stream `name` of one replica, independent of the number of replicas."""
    return jax.random.fold_in(stream(key, name), replica)


def step_key(key: Key[Array, ""], step: Int[Array, ""] | int) -> Key[Array, ""]:
    """Key of one step of a stream."""
    return jax.random.fold_in(key, step)


def normal(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """The numbers of `jax.random.normal`, on the host, by a handful of programs for all small shapes.

    A generator that counts (threefry, the default) gives the same first numbers whatever the length.

    >>> bool((normal(jax.random.key(0), (3, 5)) == jax.random.normal(jax.random.key(0), (3, 5))).all())
    True
    """
    size = math.prod(shape)
    if size > 2**20:
        return np.asarray(jax.random.normal(key, shape))
    length = 1024
    while length < size:
        length *= 4
    return np.asarray(_normal(key, length))[:size].reshape(shape)


@functools.partial(jax.jit, static_argnums=1)
def _normal(key, length):
    return jax.random.normal(key, (length,))
