"""Named streams of random keys.

A run has one key. Every use of randomness has a name ('init', 'data', 'dropout', 'augment', ..), and its keys are
folded in the order name, replica, step. Two arms with the same seed therefore see the same initial weights (where
shapes agree), the same batches and the same masks: that is what makes a comparison paired.
"""

import hashlib

import jax
from jaxtyping import Array, Int, Key


def stream(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """The key of the stream `name`: `fold_in(key, SHA-256(name) mod 2^32)`.

    A digest and not Python's `hash`, which differs from process to process.

    >>> import jax
    >>> k = jax.random.key(0)
    >>> bool(stream(k, 'init') == stream(k, 'init')), bool(stream(k, 'init') == stream(k, 'data'))
    (True, False)
    """
    digest = hashlib.sha256(name.encode()).digest()
    return jax.random.fold_in(key, int.from_bytes(digest[:4], "little"))


def replica_keys(key: Key[Array, ""], replicas: int) -> Key[Array, "replica"]:
    """One key a replica; replica r has the same key whatever the number of replicas.

    >>> import jax
    >>> k = jax.random.key(0)
    >>> bool((replica_keys(k, 3) == replica_keys(k, 5)[:3]).all())
    True
    """
    return jax.vmap(lambda r: jax.random.fold_in(key, r))(jax.numpy.arange(replicas))


def step_key(key: Key[Array, ""], step: Int[Array, ""] | int) -> Key[Array, ""]:
    """The key of one step of a stream."""
    return jax.random.fold_in(key, step)
