"""Bit-parallel random numbers: each bit of a 32-bit word belongs to one replica."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key, UInt32

from sbjax import trees

WORD = 32
DIGITS = 24  # binary digits of an acceptance probability
WARM_UP = 12  # draws discarded after seeding


def pack(flags: Bool[Array, "*shape replicas"]) -> UInt32[Array, "*shape words"]:
    """Pack flags into words: flag r becomes bit r % 32 of word r // 32. Inverse of `unpack`.

    >>> pack(jnp.arange(64) == 33).tolist()
    [0, 2]
    """
    grouped = flags.reshape(*flags.shape[:-1], -1, WORD)
    weights = jnp.uint32(1) << jnp.arange(WORD, dtype=jnp.uint32)
    return jnp.sum(jnp.where(grouped, weights, jnp.uint32(0)), -1, dtype=jnp.uint32)


def unpack(words: UInt32[Array, "*shape words"]) -> Bool[Array, "*shape replicas"]:
    """Unpack words into one flag per bit. Inverse of `pack`."""
    words = words[..., None]
    spread = (words >> trees.along(jnp.arange(WORD, dtype=jnp.uint32), words)) & 1
    return spread.reshape(*words.shape[:-2], -1) == 1


class Generator(NamedTuple):
    """State of independent sfc32 generators, one per word."""

    a: UInt32[Array, "*words"]
    b: UInt32[Array, "*words"]
    c: UInt32[Array, "*words"]
    counter: UInt32[Array, "*words"]


def make_generator(key: Key[Array, ""], shape: tuple[int, ...]) -> Generator:
    """Generators with 96-bit seeds drawn from `key`, advanced `WARM_UP` times.

    >>> make_generator(jax.random.key(0), (3,)).counter.tolist()
    [13, 13, 13]
    """
    a, b, c = jax.random.bits(key, (3, *shape), jnp.uint32)
    start = Generator(a, b, c, jnp.ones(shape, jnp.uint32))
    return jax.lax.fori_loop(0, WARM_UP, lambda _, state: draw(state)[0], start)


def draw(state: Generator) -> tuple[Generator, UInt32[Array, "*words"]]:
    """The next 32 bits of each generator: sfc32 (Doty-Humphrey, PractRand), period at least 2^32.

    It uses additions, shifts and xors, which vectorise and fuse; on a CPU it is several times faster than the
    counter-based generators of `jax.random`, which write their words to memory first.
    """
    a, b, c, counter = state
    word = a + b + counter
    return Generator(b ^ (b >> 9), c + (c << 3), ((c << 21) | (c >> 11)) + word, counter + jnp.uint32(1)), word


def bernoulli(
    state: Generator,
    masks: list[UInt32[Array, "*words"]],
    thresholds: list[UInt32[Array, "..."]],
) -> tuple[Generator, UInt32[Array, "*words"]]:
    """Independent Bernoulli bits; the probability of a bit is that of the mask in which it is set.

    Compares a uniform number of `DIGITS` binary digits with its threshold, from the last digit to the first and for all
    bits at once. With digits u of the number and p of the threshold: below <- majority(not u, below, p).

    Args:
        state: generators.
        masks: disjoint masks; bits in none of them are 0 in the result.
        thresholds: round(probability * 2^DIGITS) of each mask, below 2^DIGITS, broadcastable to the words.

    Returns:
        The advanced generators and the bits.
    """

    def digit(i, carry):
        state, below = carry
        state, word = draw(state)
        wanted = jnp.zeros_like(below)
        for mask, threshold in zip(masks, thresholds):
            bit = -((threshold >> jnp.uint32(i)) & 1)
            wanted |= trees.along(mask, below) & trees.along(bit, below)
        return state, (~word & below) | (wanted & (~word | below))

    state, below = jax.lax.fori_loop(0, DIGITS, digit, (state, jnp.zeros_like(state.a)), unroll=4)
    return state, below
