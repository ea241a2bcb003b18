"""Shuffled batches by random access: the batch of any step, without a shuffled index array and without state.

Every epoch is a fresh pseudo-random permutation of the examples, evaluated only at the positions asked for. A
run can therefore be resumed at any step, and every replica can have its own order under `vmap`, at the cost
of one batch.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Int32, Key, UInt32

# An even number gives both halves the same number of updates. Four rounds of a random function are already
# indistinguishable from a random permutation to a bounded observer (Luby & Rackoff 1988), but that is for
# large halves: with 5 or 6 examples pairs of values are visibly uneven after 8 rounds, and no longer after
# 16.
_ROUNDS = 16


def epoch_indices(
    key: Key[Array, ""], step: Int[Array, ""] | int, *, examples: int, batch_size: int
) -> Int32[Array, "batch"]:
    """Indices of the batch of global step `step`, when every epoch is a fresh permutation of the examples.

    Epoch e = step // (examples // batch_size) uses the permutation of `fold_in(key, e)`. Inside an epoch no
    example comes twice; the examples % batch_size examples that fill no batch are left out, different ones in
    every epoch. O(batch_size) time and memory. Safe under `jit`, `vmap` and `scan`: `step` and `key` may be
    traced.

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
            f"batch_size = {batch_size} with examples = {examples}: a batch must hold at least one "
            f"example and at most all of them; choose batch_size between 1 and {examples}."
        )
    if examples >= 2**31:
        raise ValueError(f"examples = {examples}: indices are int32, so there can be at most {2**31 - 1} examples.")
    steps_per_epoch = examples // batch_size
    step = jnp.asarray(step)
    epoch_key = jax.random.fold_in(key, step // steps_per_epoch)
    first = (step % steps_per_epoch).astype(jnp.uint32) * jnp.uint32(batch_size)
    positions = first + jnp.arange(batch_size, dtype=jnp.uint32)
    return permute(epoch_key, positions, size=examples).astype(jnp.int32)


def permute(key: Key[Array, ""], positions: UInt32[Array, "*shape"], *, size: int) -> UInt32[Array, "*shape"]:
    """Values of a keyed pseudo-random permutation of range(size) at `positions`.

    A Feistel network on Z_a x Z_b with a = ceil(sqrt(size)), b = ceil(size / a): a position x = (l, r) =
    divmod(x, b) goes through rounds l <- l + F_k(r) mod a and r <- r + F_k(l) mod b in turn, each of which is
    invertible whatever F is. The few values in [size, a b) are sent through again until they fall into range
    ("cycle walking", Black & Rogaway 2002), which keeps the map one-to-one on range(size). a b - size < a, so
    that almost nothing walks.

    >>> import jax, jax.numpy as jnp
    >>> values = permute(jax.random.key(0), jnp.arange(5, dtype=jnp.uint32), size=5)
    >>> sorted(values.tolist())
    [0, 1, 2, 3, 4]
    """
    side = math.isqrt(size - 1) + 1
    a, b = jnp.uint32(side), jnp.uint32(-(-size // side))
    round_keys = jax.random.bits(key, (_ROUNDS, 2), jnp.uint32)

    def two_rounds(i, halves):
        left, right = halves
        left = (left + _hash(right, round_keys[2 * i]) % a) % a
        right = (right + _hash(left, round_keys[2 * i + 1]) % b) % b
        return left, right

    def walk(state):
        x, pending = state
        left, right = jax.lax.fori_loop(0, _ROUNDS // 2, two_rounds, (x // b, x % b))
        x = jnp.where(pending, left * b + right, x)
        return x, x >= size

    x, _ = jax.lax.while_loop(lambda state: jnp.any(state[1]), walk, (positions, jnp.ones(positions.shape, bool)))
    return x


def _hash(x: UInt32[Array, "*shape"], key: UInt32[Array, "2"]) -> UInt32[Array, "*shape"]:
    """Round function: the 32-bit finaliser of MurmurHash3 twice, with a word of key before each."""
    for word in key:
        x = x ^ word
        x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
        x = x ^ (x >> 16)
    return x
