"""Shuffled batches by random access: the batch of any step as a pure function, without a shuffled index array.

Every epoch is a new pseudo-random permutation of the examples, evaluated only at the positions of the batch. Hence a
run can be resumed at any step, and every replica can have its own order under `vmap`, with O(batch) cost.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Int32, Key, UInt32

# Even, so that both halves get the same number of updates. Four rounds suffice for large halves (Luby & Rackoff 1988);
# with 5 or 6 examples, pairs of values are visibly non-uniform after 8 rounds, but not after 16.
_ROUNDS = 16
# Walks of a program that cannot ask whether another one is needed: so many that a value is out of range after them once
# in 2^64.
_BITS = 64


def epoch_indices(
    key: Key[Array, ""], step: Int[Array, ""] | int, *, examples: int, batch_size: int
) -> Int32[Array, "batch"]:
    """Indices of the batch of global step `step`; every epoch is a new permutation of the examples.

    Epoch e = step // (examples // batch_size) uses the permutation of `fold_in(key, e)`. Within an epoch no example is
    repeated; the last examples % batch_size examples of the permutation are dropped, different ones in every epoch.
    O(batch_size) time and memory. `step` and `key` may be traced (`jit`, `vmap`, `scan`).

    Args:
      key: random key of the data stream of one replica.
      step: global step, counted from 0.
      examples: number of examples, at least `batch_size`.
      batch_size: examples in a batch, at least 1.

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

    A Feistel network on Z_a x Z_b with a = ceil(sqrt(size)), b = ceil(size / a): a position x, (l, r) = divmod(x, b),
    goes through alternating rounds l <- l + F_k(r) mod a and r <- r + F_k(l) mod b, which are invertible for any F.
    Results in [size, a b) are mapped again until they are in range ("cycle walking", Black & Rogaway 2002), which keeps
    the map bijective on range(size). Since a b - size < a, this is rare.

    On the CPU as long as a value is out of range. On accelerators, where a loop that depends on data makes the device
    wait for the host at every step of a training, a fixed number of times (`walks`): the same values.

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

    cpu = jax.default_backend() == "cpu"

    def walk(state):
        x, pending = state
        # Written out, the rounds of a walk are one kernel of a GPU.
        left, right = jax.lax.fori_loop(0, _ROUNDS // 2, two_rounds, (x // b, x % b), unroll=None if cpu else True)
        x = jnp.where(pending, left * b + right, x)
        return x, x >= size

    start = positions, jnp.ones(positions.shape, bool)
    if cpu:
        return jax.lax.while_loop(lambda state: jnp.any(state[1]), walk, start)[0]
    return jax.lax.fori_loop(0, walks(size), lambda _, state: walk(state), start)[0] % size


def walks(size: int) -> int:
    """After how many maps every value is in range(size), or all but one in 2^64.

    Of the a b values a b - size are out of range: never more of them follow one another, and of random values one in
    a b / (a b - size) > b is.

    >>> walks(5), walks(16), walks(50_000)
    (2, 1, 8)
    """
    side = math.isqrt(size - 1) + 1
    total = side * -(-size // side)
    out = total - size
    return 1 if not out else min(out + 1, math.ceil(_BITS / math.log2(total / out)))


def _hash(x: UInt32[Array, "*shape"], key: UInt32[Array, "2"]) -> UInt32[Array, "*shape"]:
    """Round function: the 32-bit finaliser of MurmurHash3, applied twice, each time after xor with a key word."""
    for word in key:
        x = x ^ word
        x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
        x = x ^ (x >> 16)
    return x
