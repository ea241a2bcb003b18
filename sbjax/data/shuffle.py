"""Shuffled batches by random access: the batch of any step, without a shuffled index array and without state.

Every epoch is a fresh pseudo-random permutation of the examples, evaluated only at the positions asked for. A run can
therefore be resumed at any step, and every replica can have its own order under `vmap`, at the cost of one batch.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Int32, Key, UInt32

# Rounds of the Feistel network; an even number gives both halves the same number of updates. Four rounds of a random
# function are already indistinguishable from a random permutation to a bounded observer (Luby & Rackoff 1988); the
# round function here is a hash, hence the margin.
_ROUNDS = 8


def epoch_indices(
    key: Key[Array, ""], step: Int[Array, ""] | int, *, examples: int, batch_size: int
) -> Int32[Array, "batch"]:
    """Indices of the batch of global step `step`, when every epoch is a fresh permutation of the examples.

    Epoch e = step // (examples // batch_size) uses the permutation of `fold_in(key, e)`. Inside an epoch no example
    comes twice; the examples % batch_size examples that fill no batch are left out, different ones in every epoch.
    O(batch_size) time and memory. Safe under `jit`, `vmap` and `scan`: `step` and `key` may be traced.

    Args:
      key: typed key of the data stream of one replica.
      step: global step, counted from 0.
      examples: number of examples, at least `batch_size`.
      batch_size: examples a batch, at least 1.

    Returns:
      int32 [batch_size], in range(examples).

    Raises:
      ValueError: if the batch is empty or larger than the data.

    >>> import jax
    >>> key = jax.random.key(0)
    >>> epoch = [epoch_indices(key, step, examples=6, batch_size=2) for step in range(3)]
    >>> sorted(int(i) for batch in epoch for i in batch)
    [0, 1, 2, 3, 4, 5]
    """
    if not 1 <= batch_size <= examples:
        raise ValueError(
            f"batch_size = {batch_size} with examples = {examples}: a batch must hold at least one example and at "
            f"most all of them; choose batch_size between 1 and {examples}."
        )
    if examples >= 2**31:
        raise ValueError(f"examples = {examples}: indices are int32, so there can be at most {2**31 - 1} examples.")
    steps_per_epoch = examples // batch_size
    step = jnp.asarray(step)
    epoch_key = jax.random.fold_in(key, step // steps_per_epoch)
    first = (step % steps_per_epoch).astype(jnp.uint32) * jnp.uint32(batch_size)
    positions = first + jnp.arange(batch_size, dtype=jnp.uint32)
    return permute(epoch_key, positions, size=examples).astype(jnp.int32)


def permute(
    key: Key[Array, ""], positions: UInt32[Array, "*shape"], *, size: int
) -> UInt32[Array, "*shape"]:
    """Values of a keyed pseudo-random permutation of range(size) at `positions`.

    A Feistel network on Z_a x Z_b with a = ceil(sqrt(size)), b = ceil(size / a): a position x = (l, r) = divmod(x, b)
    goes through rounds l <- l + F_k(r) mod a and r <- r + F_k(l) mod b in turn, each of which is invertible whatever F
    is. The few values in [size, a b) are sent through again until they fall into range ("cycle walking", Black &
    Rogaway 2002), which keeps the map one-to-one on range(size). a b - size < a, so that almost nothing walks.

    >>> import jax, jax.numpy as jnp
    >>> values = permute(jax.random.key(0), jnp.arange(5, dtype=jnp.uint32), size=5)
    >>> sorted(values.tolist())
    [0, 1, 2, 3, 4]
    """
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)
    round_keys = jax.random.bits(key, (_ROUNDS, 2), jnp.uint32)

    def network(x):
        left, right = x // jnp.uint32(b), x % jnp.uint32(b)
        for i in range(0, _ROUNDS, 2):
            left = (left + _hash(right, round_keys[i]) % jnp.uint32(a)) % jnp.uint32(a)
            right = (right + _hash(left, round_keys[i + 1]) % jnp.uint32(b)) % jnp.uint32(b)
        return left * jnp.uint32(b) + right

    values = network(positions)
    if a * b == size:
        return values
    return jax.lax.while_loop(
        lambda x: jnp.any(x >= size), lambda x: jnp.where(x >= size, network(x), x), values
    )


def _hash(x: UInt32[Array, "*shape"], key: UInt32[Array, "2"]) -> UInt32[Array, "*shape"]:
    """Round function: the 32-bit finaliser of MurmurHash3 twice, with a word of key before each."""
    for word in key:
        x = x ^ word
        x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
        x = x ^ (x >> 16)
    return x
