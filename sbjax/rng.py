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


def replica_stream(key: Key[Array, ""], name: str, replica: Int[Array, ""] | int) -> Key[Array, ""]:
    """Stream `name` of one replica, which does not depend on how many replicas there are."""
    return jax.random.fold_in(stream(key, name), replica)


def step_key(key: Key[Array, ""], step: Int[Array, ""] | int) -> Key[Array, ""]:
    """The key of one step of a stream."""
    return jax.random.fold_in(key, step)
