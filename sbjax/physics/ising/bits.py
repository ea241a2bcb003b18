"""Random words and comparisons for many lattices in the bits of one word."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key, UInt32

WORD = 32
DIGITS = 24  # binary digits of an acceptance probability
WARM_UP = 12


def pack(flags: Bool[Array, "*shape replicas"]) -> UInt32[Array, "*shape words"]:
    """Flag r of a multiple of 32 becomes bit r % 32 of word r // 32; the inverse of `unpack`.

    >>> pack(jnp.arange(64) == 33).tolist()
    [0, 2]
    """
    grouped = flags.reshape(*flags.shape[:-1], -1, WORD)
    weights = jnp.uint32(1) << jnp.arange(WORD, dtype=jnp.uint32)
    return jnp.sum(jnp.where(grouped, weights, jnp.uint32(0)), -1, dtype=jnp.uint32)


def unpack(words: UInt32[Array, "*shape words"]) -> Bool[Array, "*shape replicas"]:
    """The bits of the words, one replica each."""
    spread = (words[..., None] >> jnp.arange(WORD, dtype=jnp.uint32)) & 1
    return spread.reshape(*words.shape[:-1], -1) == 1


class Generator(NamedTuple):
    """One small generator a word: 32-bit integers of the same shape."""

    a: UInt32[Array, "*words"]
    b: UInt32[Array, "*words"]
    c: UInt32[Array, "*words"]
    counter: UInt32[Array, "*words"]


def make_generator(key: Key[Array, ""], shape: tuple[int, ...]) -> Generator:
    """Generators whose 96 bits of seed are drawn from `key`, advanced `WARM_UP` times.

    >>> make_generator(jax.random.key(0), (3,)).counter.tolist()
    [13, 13, 13]
    """
    a, b, c = jax.random.bits(key, (3, *shape), jnp.uint32)
    start = Generator(a, b, c, jnp.ones(shape, jnp.uint32))
    return jax.lax.fori_loop(0, WARM_UP, lambda _, state: draw(state)[0], start)


def draw(state: Generator) -> tuple[Generator, UInt32[Array, "*words"]]:
    """The next 32 bits of each generator: sfc32 (Doty-Humphrey, PractRand), period at least 2^32.

    Additions, shifts and xors that vectorise: on a CPU several times faster than the counter-based generators of
    `jax.random`, whose words go through memory first.
    """
    a, b, c, counter = state
    word = a + b + counter
    return Generator(b ^ (b >> 9), c + (c << 3), ((c << 21) | (c >> 11)) + word, counter + jnp.uint32(1)), word


def bernoulli(
    state: Generator,
    masks: list[UInt32[Array, "*words"]],
    thresholds: list[UInt32[Array, "..."]],
) -> tuple[Generator, UInt32[Array, "*words"]]:
    """A word of independent bits, each 1 with the probability of the one mask that has a 1 there.

    A uniform number of `DIGITS` binary digits is compared with its threshold from the last digit to the first, for all
    bits at once: with digit u and threshold digit p, (u' < p') becomes majority(not u, u' < p', p).

    Args:
        masks: disjoint; where none has a 1 the result is 0.
        thresholds: round(probability * 2^DIGITS) below 2^DIGITS, broadcastable to the words.
    """

    def digit(i, carry):
        state, below = carry
        state, word = draw(state)
        wanted = jnp.zeros_like(below)
        for mask, threshold in zip(masks, thresholds):
            wanted |= mask & -((threshold >> jnp.uint32(i)) & 1)
        return state, (~word & below) | (wanted & (~word | below))

    state, below = jax.lax.fori_loop(0, DIGITS, digit, (state, jnp.zeros_like(state.a)), unroll=4)
    return state, below
