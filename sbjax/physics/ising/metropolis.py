"""Multi-spin coded Metropolis sampling of the Ising model: 32 replicas in the bits of one word."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int8, Key, UInt32

from sbjax.physics.ising import bits

LARGEST = 2**15  # side of a lattice, whose spins are 4 GB for each 32 replicas
LAZY = 0.5  # flips whose Boltzmann factor exceeds it, or that of their reverse, are tried every other time


class Lattices(NamedTuple):
    """Square lattices of side L, packed: bit r of word w is the spin (1 = up) of replica 32 w + r.

    Attributes:
        black: [*batch, L, L/2, words], the sites (i, 2j + i % 2).
        white: the same, the sites (i, 2j + 1 - i % 2).
        generator: state of the random number generators.
    """

    black: UInt32[Array, "*batch L half words"]
    white: UInt32[Array, "*batch L half words"]
    generator: bits.Generator


class Sample(NamedTuple):
    """Energy of the bonds (without the field) and magnetisation, both per spin: [measurements, *batch, replicas]."""

    energy: Float[Array, "measurements *batch replicas"]
    magnetisation: Float[Array, "measurements *batch replicas"]


def make_lattices(
    key: Key[Array, ""], size: int, replicas: int, *, batch: tuple[int, ...] = (), start: str = "random"
) -> Lattices:
    """Initial lattices: `replicas` independent ones for each entry of the `batch` axes (temperatures or fields).

    Args:
        key: random key.
        size: side of the periodic lattice, even.
        replicas: a multiple of 32.
        batch: shape of the batch axes.
        start: 'random' (infinite temperature) or 'up' (all spins +1).

    Raises:
        ValueError: an odd size, a number of replicas that is no multiple of 32, an unknown start.

    >>> make_lattices(jax.random.key(0), 8, 64, batch=(3,)).black.shape
    (3, 8, 4, 2)
    """
    check_whole(size=size, replicas=replicas)
    if size < 2 or size % 2:
        raise ValueError(f"size={size} must be even and >= 2, as required by checkerboard updates")
    if size > LARGEST:
        raise ValueError(f"size={size} must be <= {LARGEST}: more spins than memory holds")
    if replicas < bits.WORD or replicas % bits.WORD:
        raise ValueError(f"replicas={replicas} must be a multiple of {bits.WORD}, the bits of a word")
    if start not in ("random", "up"):
        raise ValueError(f"start={start!r} is unknown; use 'random' or 'up'")
    return _make(key, (*batch, size, size // 2, replicas // bits.WORD), start == "up")


@functools.partial(jax.jit, static_argnums=(1, 2))
def _make(key, shape, up):
    seed, spins = jax.random.split(key)
    black, white = jax.random.bits(spins, (2, *shape), jnp.uint32)
    if up:
        black = white = jnp.full(shape, 0xFFFFFFFF, jnp.uint32)
    return Lattices(black, white, bits.make_generator(seed, shape))


def pack(spins: Int8[Array, "*batch replicas L L"], key: Key[Array, ""]) -> Lattices:
    """Pack spins +-1 into lattices; `key` seeds the generators. Inverse of `unpack`.

    Raises:
        ValueError: as `make_lattices`; lattices that are not square, spins other than +-1.
    """
    check_spins(spins)
    if spins.shape[-1] != spins.shape[-2]:
        raise ValueError(f"spins has lattices of {spins.shape[-2]} x {spins.shape[-1]}; they must be square")
    return _pack(spins, key)


@jax.jit
def _pack(spins, key):
    *batch, replicas, size, _ = spins.shape
    empty = make_lattices(key, size, replicas, batch=tuple(batch))
    rows = jnp.moveaxis(jnp.asarray(spins) > 0, -3, -1).reshape(*batch, size, size // 2, 2, replicas)
    odd = (jnp.arange(size) % 2 == 1)[:, None, None]
    black = jnp.where(odd, rows[..., 1, :], rows[..., 0, :])
    white = jnp.where(odd, rows[..., 0, :], rows[..., 1, :])
    return empty._replace(black=bits.pack(black), white=bits.pack(white))


@jax.jit
def unpack(lattices: Lattices) -> Int8[Array, "*batch replicas L L"]:
    """Unpack lattices into spins +-1.

    >>> unpack(make_lattices(jax.random.key(0), 4, 32, start='up')).sum().item()
    512
    """
    black, white = (_spins(sites) for sites in lattices[:2])
    odd = (jnp.arange(black.shape[-3]) % 2 == 1)[:, None, None]
    pairs = jnp.stack([jnp.where(odd, white, black), jnp.where(odd, black, white)], -2)
    size = pairs.shape[-4]
    return jnp.moveaxis(pairs.reshape(*pairs.shape[:-4], size, size, pairs.shape[-1]), -1, -3)


def acceptance(temperature: float, field: float = 0.0) -> Float[np.ndarray, "2 5"]:
    """Probability c min(1, exp(-dE / T)) of a flip, dE = 2 s (n + h) with n the sum of the four neighbours.

    c = 1/2 where exp(-|dE| / T) > 1/2, else 1: see `metropolis`.

    Rows: spin down, up. Columns: number of neighbours that are up, 0 to 4.

    >>> acceptance(2.0)[1].round(4).tolist()
    [1.0, 1.0, 0.5, 0.1353, 0.0183]
    """
    s, n = np.array([[-1.0], [1.0]]), np.arange(-4.0, 5.0, 2.0)
    cost = 2 * s * (n + field) / temperature
    return np.where(np.exp(-np.abs(cost)) > LAZY, 0.5, 1.0) * np.exp(-np.maximum(cost, 0))


@functools.partial(jax.jit, static_argnames=("sweeps", "with_field"))
def _sweep(lattices, temperature, field, *, sweeps, with_field):
    def body(_, lattices):
        return _half(_half(lattices, temperature, field, with_field, 0), temperature, field, with_field, 1)

    return jax.lax.fori_loop(0, sweeps, body, lattices)


def metropolis(
    lattices: Lattices, temperature: Float[Array, "*batch"] | float, field: Float[Array, "*batch"] | float = 0.0,
    *, sweeps: int = 1,
) -> Lattices:  # fmt: skip
    """Checkerboard Metropolis sweeps: all black sites, then all white sites.

    A flip that changes the energy by dE happens with probability c(|dE|) min(1, exp(-dE / T)). Sites of one colour are
    independent given the other colour, and c is the same for a flip and its reverse, so each half sweep is in detailed
    balance with the Boltzmann distribution, and a sweep leaves it invariant.

    With c = 1 throughout, sites without a local field would flip for certain: a lattice of 2 x 2 blocks turns over for
    ever and never leaves its energy. Therefore c(|dE|) = 1/2 where exp(-|dE| / T) > 1/2, as for dE = 0. Then every
    state leads to every other, for every size, temperature and field:

    1. A flip with dE >= 0 happens or not, both with positive probability; one with dE < 0 happens with at least 1/2.
    2. From any state, flip all sites with dE < 0 and no others. The energy falls until no such site is left.
    3. Then every black site is free to take the sign of the field (or +1), after which white sites that differ have
       dE < 0 and may follow: all spins are equal, and may stay so, which excludes periods.
    4. The same holds with the colours exchanged, which is the chain in reverse: so all spins equal leads to any state.

    Probabilities are rounded to 2^-24, so that flips with exp(-dE / T) < 2^-25 do not occur.

    Args:
        lattices: current states.
        temperature, field: T > 0 and h, scalars or one per entry of the batch axes. A field of 0 everywhere selects a
            faster program with fewer classes of sites.
        sweeps: number of sweeps.

    Raises:
        ValueError: a temperature that is not positive in float32, a field that is not finite there, shapes that are not
            those of the batch, fewer than no sweeps.

    >>> lattices = make_lattices(jax.random.key(0), 8, 32, start='up')
    >>> bool((unpack(metropolis(lattices, 0.1, sweeps=3)) == 1).all())
    True
    """
    if sweeps < 0:
        raise ValueError(f"sweeps={sweeps} must be >= 0")
    check_couplings(temperature, field, lattices.black.shape[:-3])
    with_field = bool(np.any(np.asarray(field) != 0))
    return _sweep(lattices, jnp.float32(temperature), jnp.float32(field), sweeps=sweeps, with_field=with_field)


def sample(
    lattices: Lattices, temperature: Float[Array, "*batch"] | float, field: Float[Array, "*batch"] | float = 0.0,
    *, measurements: int, every: int = 1,
) -> tuple[Lattices, Sample]:  # fmt: skip
    """Measure after every `every` sweeps, `measurements` times, in one compiled program.

    Other arguments and errors as `metropolis`. Returns the lattices and the measured series.
    """
    check_counts(measurements, every)
    check_couplings(temperature, field, lattices.black.shape[:-3])
    with_field = bool(np.any(np.asarray(field) != 0))
    return _sample(
        lattices, jnp.float32(temperature), jnp.float32(field),
        measurements=measurements, every=every, with_field=with_field,
    )  # fmt: skip


def check_couplings(temperature: ArrayLike, field: ArrayLike, batch: tuple[int, ...]) -> None:
    """Refuse what float32 cannot hold: a temperature that becomes 0 there lets sites without a local field flip for
    certain.

    Raises:
        ValueError: naming the argument.
    """
    for name, value in (("temperature", temperature), ("field", field)):
        if np.asarray(value).dtype.kind not in "fiuV":  # 'V': bfloat16 and its like
            raise ValueError(f"{name}={value!r} must be a number, or numbers")
    low = np.finfo(np.float32).tiny
    if not np.all(np.asarray(temperature) >= low):
        raise ValueError(f"temperature={temperature} must be positive, {low:.0e} at least")
    if not np.all(np.abs(np.asarray(field)) <= np.finfo(np.float32).max):
        raise ValueError(f"field={field} must be finite")
    for name, value in (("temperature", temperature), ("field", field)):
        if np.ndim(value) and (np.ndim(value) > len(batch) or not _stretches(np.shape(value), batch)):
            raise ValueError(f"{name} has shape {np.shape(value)}; give a number, or one for each of the batch {batch}")


def _stretches(shape, batch):
    return all(n in (1, m) for n, m in zip(shape[::-1], batch[::-1]))


def check_counts(measurements: int, every: int) -> None:
    """Refuse fewer than one measurement, or fewer than one step between two.

    Raises:
        ValueError: naming the argument.
    """
    check_whole(measurements=measurements, every=every)
    if measurements < 1 or every < 1:
        raise ValueError(f"measurements={measurements} and every={every} must be >= 1")


def check_whole(**numbers: int) -> None:
    """Refuse what is no whole number.

    Raises:
        ValueError: naming the argument.
    """
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"{name}={value!r} must be a whole number")


def check_spins(spins: Int8[Array, "*batch replicas L L"]) -> None:
    """Refuse what are no square lattices of +-1; traced values are not looked at.

    Raises:
        ValueError: naming shape or value.
    """
    if len(spins.shape) < 3:
        raise ValueError(f"spins has shape {spins.shape}: give [*batch, replicas, L, L]")
    if not isinstance(spins, jax.core.Tracer) and not (np.abs(np.asarray(spins)) == 1).all():
        raise ValueError("spins has entries other than -1 and +1")


@functools.partial(jax.jit, static_argnames=("measurements", "every", "with_field"))
def _sample(lattices, temperature, field, *, measurements, every, with_field):
    def body(lattices, _):
        lattices = _sweep(lattices, temperature, field, sweeps=every, with_field=with_field)
        return lattices, measure(lattices)

    return jax.lax.scan(body, lattices, length=measurements)


@jax.jit
def measure(lattices: Lattices) -> Sample:
    """Bond energy -sum_<ij> s_i s_j and magnetisation per spin, [*batch, replicas]; the field is not in the energy."""
    black, white = (_spins(sites) for sites in lattices[:2])
    around = sum(site.astype(jnp.int8) for site in _neighbours(white, 0))
    sites = 2 * math.prod(black.shape[-3:-1])
    bonds = jnp.sum(black * around, (-3, -2), dtype=jnp.int32)
    total = jnp.sum(black + white, (-3, -2), dtype=jnp.int32)
    return Sample(-bonds / sites, total / sites)


def _spins(words):
    """Words [.., words] -> spins +-1 [.., replicas]."""
    return 2 * bits.unpack(words).astype(jnp.int8) - 1


def _neighbours(others, colour):
    """The four neighbours of every site of a colour (0 black, 1 white); `others` are the sites of the other colour."""
    left = (jnp.arange(others.shape[-3]) % 2 == colour)[:, None, None]
    side = jnp.where(left, jnp.roll(others, 1, -2), jnp.roll(others, -1, -2))
    return jnp.roll(others, 1, -3), jnp.roll(others, -1, -3), others, side


def _half(lattices, temperature, field, with_field, colour):
    sites, others = (lattices.black, lattices.white)[:: -1 if colour else 1]
    a, b, c, d = _neighbours(others, colour)
    if not with_field:  # dE depends only on the number of neighbours equal to the spin
        a, b, c, d = (~(sites ^ other) for other in (a, b, c, d))
    # Masks by the number of set neighbours (all four, exactly three, .., none), from half adders.
    odd_ab, both_ab, odd_cd, both_cd = a ^ b, a & b, c ^ d, c & d
    none, four, odd = ~(a | b | c | d), both_ab & both_cd, odd_ab ^ odd_cd
    three = odd & (both_ab | both_cd)
    one, two = odd & ~three, ~(odd | none | four)
    if with_field:
        counts = [none, one, two, three, four]
        kinds = [(s, n - 2, (sites if s > 0 else ~sites) & mask) for s in (-1, 1) for n, mask in enumerate(counts)]
        costs = [2 * s * (2 * n + field) for s, n, _ in kinds]
        masks = [mask for _, _, mask in kinds]
        free, tried = jnp.zeros_like(sites), list(zip(masks, costs))
    else:
        masks, costs = [three, four], [jnp.float32(4), jnp.float32(8)]
        free, tried = ~(three | four), [(two, jnp.float32(0)), (odd, costs[0]), (none | four, costs[1])]
    probabilities = [jnp.exp(-jnp.maximum(cost, 0) / temperature) for cost in costs]
    scaled = [_for_words(jnp.round(p * 2.0**bits.DIGITS).astype(jnp.uint32)) for p in probabilities]
    generator, accepted = bits.bernoulli(lattices.generator, masks, scaled)
    for mask, threshold in zip(masks, scaled):
        free |= jnp.where(threshold >= 2**bits.DIGITS, mask, jnp.uint32(0))
    generator, coin = bits.draw(generator)
    for mask, cost in tried:
        coin |= jnp.where(_for_words(jnp.exp(-jnp.abs(cost) / temperature) > LAZY), jnp.uint32(0), mask)
    moved = sites ^ ((accepted | free) & coin)
    black, white = (others, moved) if colour else (moved, others)
    return Lattices(black, white, generator)


def _for_words(per_batch):
    return per_batch[..., None, None, None]
