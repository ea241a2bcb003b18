"""Wolff cluster updates without a field, for use near the critical temperature: 32 replicas per word."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8, Key, UInt32

from sbjax.physics.ising import bits
from sbjax.physics.ising.metropolis import Sample, check_counts, check_couplings, check_spins


def sample(
    key: Key[Array, ""],
    spins: Int8[Array, "*batch replicas L L"],
    temperature: Float[Array, "*batch"] | float,
    *,
    measurements: int,
    every: int = 1,
) -> tuple[Int8[Array, "*batch replicas L L"], Sample, Float[Array, "measurements *batch replicas"]]:
    """Measure after every `every` cluster flips of each lattice, `measurements` times, in one compiled program.

    Args:
        key: random key.
        spins: initial spins +-1; batch axes for temperatures.
        temperature: T > 0, a scalar or one per entry of the batch axes.
        measurements: number of measurements.
        every: cluster flips between two measurements.

    Returns:
        The final spins, energy and magnetisation per spin, and the mean cluster size between two measurements; its
        average over a run is <M^2> / spins.

    Raises:
        ValueError: as `metropolis.sample`; spins other than +-1, a number of replicas that is no multiple of 32.

    >>> spins, found, size = sample(jax.random.key(0), jnp.ones((32, 4, 4), jnp.int8), 0.1, measurements=3)
    >>> found.energy.shape, size[0, 0].item()  # at low temperature the cluster is all of the lattice
    ((3, 32), 16.0)
    """
    check_counts(measurements, every)
    check_spins(spins)
    check_couplings(temperature, 0.0, spins.shape[:-3])
    if spins.shape[-3] % bits.WORD:
        raise ValueError(f"spins has {spins.shape[-3]} replicas: give a multiple of {bits.WORD}, which share a word")
    return _sample(key, jnp.asarray(spins, jnp.int8), jnp.float32(temperature), measurements=measurements, every=every)


@functools.partial(jax.jit, static_argnames=("measurements", "every"))
def _sample(key, spins, temperature, *, measurements, every):
    words = bits.pack(jnp.moveaxis(spins > 0, -3, -1))
    key, seed = jax.random.split(key)
    state = words, bits.make_generator(seed, words.shape)

    def measurement(state, key):
        def update(i, carry):
            words, generator, size = carry
            words, generator, cluster = flip_clusters(jax.random.fold_in(key, i), words, generator, temperature)
            return words, generator, size + jnp.sum(bits.unpack(cluster), (-3, -2), dtype=jnp.int32)

        none = jnp.zeros((*spins.shape[:-2],), jnp.int32)
        words, generator, size = jax.lax.fori_loop(0, every, update, (*state, none))
        return (words, generator), (_measure(words), size / every)

    (words, _), (found, size) = jax.lax.scan(measurement, state, jax.random.split(key, measurements))
    return jnp.moveaxis(_spins(words), -1, -3), found, size


def flip_clusters(
    key: Key[Array, ""],
    words: UInt32[Array, "*batch L L words"],
    generator: bits.Generator,
    temperature: Float[Array, "*batch"],
) -> tuple[UInt32[Array, "*batch L L words"], bits.Generator, UInt32[Array, "*batch L L words"]]:
    """Flip one Wolff cluster of every lattice. Returns spins, generator and the cluster as a mask.

    Bonds between equal spins are activated with probability 1 - exp(-2 / T), all of them in advance. The cluster then
    grows along active bonds from a random site until it no longer changes in any lattice.

    Source: Wolff 1989, Phys. Rev. Lett. 62, 361.
    """
    *batch, rows, columns, packed = words.shape
    everything = jnp.full_like(words, 0xFFFFFFFF)
    hold = jnp.round(-jnp.expm1(-2 / temperature) * 2.0**bits.DIGITS).astype(jnp.uint32)
    held = []
    for _ in range(2):
        generator, drawn = bits.bernoulli(generator, [everything], [hold[..., None, None, None]])
        # A probability that rounds to 1 is not representable as a threshold.
        held.append(jnp.where((hold >= 2**bits.DIGITS)[..., None, None, None], everything, drawn))
    down = held[0] & ~(words ^ jnp.roll(words, -1, -3))
    right = held[1] & ~(words ^ jnp.roll(words, -1, -2))
    up, left = jnp.roll(down, 1, -3), jnp.roll(right, 1, -2)  # the same bonds from their other ends
    start = jax.random.randint(key, (*batch, 1, packed * bits.WORD), 0, rows * columns)
    sites = jnp.arange(rows * columns)[:, None]
    cluster = bits.pack(sites == start).reshape(words.shape)

    def grow(cluster):
        for _ in range(4):
            cluster |= jnp.roll(cluster & down, 1, -3) | jnp.roll(cluster & up, -1, -3)
            cluster |= jnp.roll(cluster & right, 1, -2) | jnp.roll(cluster & left, -1, -2)
        return cluster

    def changed(carry):
        before, cluster = carry
        return jnp.any(before != cluster)

    _, cluster = jax.lax.while_loop(changed, lambda carry: (carry[1], grow(carry[1])), (cluster, grow(cluster)))
    return words ^ cluster, generator, cluster


def _spins(words):
    return 2 * bits.unpack(words).astype(jnp.int8) - 1


def _measure(words):
    spins = _spins(words)
    around = jnp.roll(spins, 1, -3) + jnp.roll(spins, 1, -2)
    sites = spins.shape[-3] * spins.shape[-2]
    bonds = jnp.sum(spins * around, (-3, -2), dtype=jnp.int32)
    return Sample(-bonds / sites, jnp.sum(spins, (-3, -2), dtype=jnp.int32) / sites)
