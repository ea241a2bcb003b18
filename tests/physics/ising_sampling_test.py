"""Samplers against transition matrices and exact solutions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.physics.ising import bits, exact, metropolis, statistics, wolff

FOUR = metropolis.make_lattices(jax.random.key(0), 4, 32)
T_C = exact.CRITICAL_TEMPERATURE


def two_by_two():
    """All 16 states [16, 2, 2] and their Boltzmann energies' parts: bond sums (double bonds) and magnetisations."""
    spins = np.array([[1 if n >> i & 1 else -1 for i in range(4)] for n in range(16)]).reshape(16, 2, 2)
    bonds = (spins * (np.roll(spins, 1, 1) + np.roll(spins, 1, 2))).sum((1, 2))
    return spins, bonds, spins.sum((1, 2))


def half_sweep_matrix(temperature, field, colour):
    """P[a, b] of the update of one colour, from the acceptance probabilities and nothing else."""
    spins, _, _ = two_by_two()
    table = metropolis.acceptance(temperature, field)
    sites = [(0, 0), (1, 1)] if colour == 0 else [(0, 1), (1, 0)]
    matrix = np.zeros((16, 16))
    for a, state in enumerate(spins):
        flips = []
        for i, j in sites:
            up = sum(state[(i + d) % 2, j] > 0 for d in (-1, 1)) + sum(state[i, (j + d) % 2] > 0 for d in (-1, 1))
            flips.append(table[int(state[i, j] > 0), up])
        for choice in np.ndindex(2, 2):
            after = state.copy()
            for (i, j), flip in zip(sites, choice):
                after[i, j] *= -1 if flip else 1
            b = next(n for n in range(16) if (spins[n] == after).all())
            matrix[a, b] += np.prod([p if flip else 1 - p for p, flip in zip(flips, choice)])
    return matrix


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("temperature", "field"), [pytest.param(3.0, 0.0, marks=pytest.mark.extended), (3.0, 0.45)])
def test_balance_on_two_by_two(temperature, field):
    _, bonds, total = two_by_two()
    weights = np.exp((bonds + field * total) / temperature)
    weights /= weights.sum()
    black, white = (half_sweep_matrix(temperature, field, colour) for colour in (0, 1))
    for half in (black, white):  # detailed balance of each half
        flow = weights[:, None] * half
        np.testing.assert_allclose(flow, flow.T, atol=1e-15)
    sweep = black @ white
    np.testing.assert_allclose(weights @ sweep, weights, atol=1e-15)

    # The packed program does what the matrix says: from every state, 6400 replicas, one sweep.
    spins, replicas = two_by_two()[0], 6400
    start = np.broadcast_to(spins[:, None], (16, replicas, 2, 2)).astype(np.int8)
    lattices = metropolis.pack(start, jax.random.key(1))
    np.testing.assert_array_equal(metropolis.unpack(lattices), start)
    after = np.asarray(metropolis.unpack(metropolis.metropolis(lattices, temperature, field)))
    number = ((after.reshape(16, replicas, 4) > 0) * (1 << np.arange(4))).sum(-1)
    counts = np.stack([np.bincount(row, minlength=16) for row in number])
    assert (counts[sweep == 0] == 0).all()
    possible = sweep > 0
    expected = replicas * sweep
    chi2 = np.sum((counts - expected)[possible] ** 2 / expected[possible])
    freedom = possible.sum() - 16
    assert abs(chi2 - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize(
    ("temperature", "field"), [(2.5, 0.0), (0.9, 4.0), (3.0, 2.0), (3.0, 1e-9), (1e12, 0.0), (40.0, 0.45)]
)
def test_every_state_leads_to_every_other(temperature, field):
    """Also where no spin feels a field, and where all flips are all but certain."""
    black, white = (half_sweep_matrix(temperature, field, colour) for colour in (0, 1))
    reached = np.linalg.matrix_power(black @ white, 16)
    assert reached.min() > 1e-16
    _, bonds, total = two_by_two()
    weights = np.exp((bonds + field * total - 8 - 4 * abs(field)) / temperature)
    np.testing.assert_allclose((weights / weights.sum()) @ black @ white, weights / weights.sum(), atol=1e-15)


def blocks(size):
    """Blocks of 2 x 2 equal spins, in which no spin feels a field; of two by two spins, columns."""
    rows = np.arange(size) // 2 % 2 if size > 2 else np.arange(2)
    return np.where((rows[:, None] + (rows if size > 2 else 0)) % 2, -1, 1) * np.ones((size, size), np.int8)


@pytest.mark.parametrize("size", [2, 8])
def test_from_blocks_to_equilibrium(size):
    """In batches of one program: temperatures high enough for all flips to be likely, and a moderate one."""
    temperatures = np.array([2.5, 30.0, 1e12])
    start = np.broadcast_to(blocks(size), (3, 640, size, size)).astype(np.int8)
    lattices = metropolis.pack(start, jax.random.key(3))
    assert np.ptp(np.asarray(metropolis.measure(lattices).energy)) == 0
    lattices, _ = metropolis.sample(lattices, temperatures, measurements=40, every=5)
    _, found = metropolis.sample(lattices, temperatures, measurements=40, every=5)
    assert exact.thermal_averages(exact.enumerate_states(2, 2), 2.5).energy == pytest.approx(-1.602, abs=1e-3)
    for i, temperature in enumerate(temperatures):
        if temperature > 1e9:
            wanted = 0.0
        elif size == 2:
            wanted = exact.thermal_averages(exact.enumerate_states(2, 2), temperature).energy
        else:
            wanted = exact.kaufman_energy(temperature, size, size)
        within(*statistics.blocked(found.energy[:, i], blocks=1), wanted)


def within(value, error, expected, sigmas=4.0):
    assert abs(value - expected) < sigmas * error, (value, error, expected)


@pytest.mark.parametrize("field", [pytest.param(0.0, marks=pytest.mark.extended), 0.45])
def test_metropolis_on_four_by_four(field):
    temperatures = np.array([2.0, 3.0])
    states = exact.enumerate_states(4, 4)
    lattices = metropolis.make_lattices(jax.random.key(0), 4, 640, batch=(2,))
    lattices, _ = metropolis.sample(lattices, temperatures, field, measurements=40, every=3)
    lattices, found = metropolis.sample(lattices, temperatures, field, measurements=40, every=3)
    for i, temperature in enumerate(temperatures):
        wanted = exact.thermal_averages(states, temperature, field)
        energy = found.energy[:, i] - field * found.magnetisation[:, i]
        within(*statistics.blocked(energy, blocks=1), wanted.energy)
        within(*statistics.blocked(np.abs(found.magnetisation[:, i]), blocks=1), wanted.absolute_magnetisation)


@pytest.mark.extended
def test_onsager_on_64_by_64():
    """Metropolis away from the critical temperature; clusters at it, where the exact energy of the finite lattice and
    the critical temperature itself come out."""
    temperatures = np.array([2.0, 2.6])
    lattices = metropolis.make_lattices(jax.random.key(0), 64, 32, batch=(2,), start="up")
    lattices, _ = metropolis.sample(lattices, temperatures, measurements=40, every=10)
    _, found = metropolis.sample(lattices, temperatures, measurements=40, every=10)
    for i, temperature in enumerate(temperatures):
        within(*statistics.blocked(found.energy[:, i], blocks=2), exact.onsager_energy(temperature))
    within(*statistics.blocked(found.magnetisation[:, 0], blocks=2), exact.yang_magnetisation(2.0))


def critical_point(size, measurements, every):
    """Energy, and an estimate of T_c: where Binder's cumulant takes its universal value 0.61069 (Kamieniarz and Bloete
    1993), its slope in T being taken from reweighting with the energies of the same run."""
    up = jnp.ones((32, size, size), jnp.int8)
    spins, _, _ = wolff.sample(jax.random.key(1), up, T_C, measurements=measurements, every=every)
    _, found, cluster = wolff.sample(jax.random.key(2), spins, T_C, measurements=measurements, every=every)
    m2 = np.asarray(found.magnetisation, float) ** 2
    total = size**2 * np.asarray(found.energy, float)
    cumulant, error = statistics.binder_cumulant(found.magnetisation, blocks=2)
    d2, d4 = (np.mean(m2**p * (total - total.mean())) / T_C**2 for p in (1, 2))
    a, b = np.mean(m2), np.mean(m2**2)
    slope = -(d4 * a - 2 * b * d2) / (3 * a**3)
    return found, cluster, T_C + (0.61069 - cumulant) / slope, abs(error / slope)


@pytest.mark.extended
def test_clusters_at_the_critical_temperature():
    found, cluster, critical, error = critical_point(32, 60, 5)
    within(*statistics.blocked(found.energy, blocks=2), exact.kaufman_energy(T_C, 32, 32))
    assert error < 0.02
    within(critical, error, T_C)
    # The mean size of a cluster is <M^2> / spins.
    size, spread = statistics.blocked(cluster - 32**2 * jnp.square(found.magnetisation), blocks=1)
    within(size, spread, 0.0)


@pytest.mark.extended
def test_the_critical_temperature_to_three_digits():
    found, _, critical, error = critical_point(64, 600, 8)
    within(*statistics.blocked(found.energy, blocks=8), exact.kaufman_energy(T_C, 64, 64))
    assert error < 2e-3
    within(critical, error, T_C)


def test_the_finite_lattice_at_low_temperature():
    """Where cosh(2 / T) overflows; all spins equal, and the first excitation of one spin."""
    for temperature in (1e-3, 0.03, 0.2):
        found = exact.kaufman_energy(temperature, 4, 6)
        assert found == pytest.approx(-2 + 8 * math.exp(-8 / temperature), abs=1e-8)
    log = exact.kaufman_log_partition(19.999, 4, 6), exact.kaufman_log_partition(20.001, 4, 6)
    assert log[1] - log[0] == pytest.approx(0.002 * 48, rel=1e-6)


def sfc32(a, b, c, counter, n):
    """Python's own integers."""
    out = []
    for _ in range(n):
        word = (a + b + counter) % 2**32
        counter = (counter + 1) % 2**32
        a, b, c = b ^ (b >> 9), (c + (c << 3)) % 2**32, ((((c << 21) | (c >> 11)) % 2**32) + word) % 2**32
        out.append(word)
    return out


def test_words_and_bits():
    state = bits.Generator(*(jnp.array([x], jnp.uint32) for x in (3000000001, 7, 2**31 + 5, 1)))
    words = []
    for _ in range(5):
        state, word = bits.draw(state)
        words.append(int(word[0]))
    assert words == sfc32(3000000001, 7, 2**31 + 5, 1, 5)
    flags = np.random.default_rng(0).random((3, 64)) < 0.5
    np.testing.assert_array_equal(bits.unpack(bits.pack(jnp.asarray(flags))), flags)


def test_bernoulli_bits_have_their_probability_and_no_correlation():
    p, n = 0.3, 4096
    everything = jnp.full((n,), 0xFFFFFFFF, jnp.uint32)
    threshold = jnp.uint32(round(p * 2**bits.DIGITS))
    state = bits.make_generator(jax.random.key(0), (n,))
    draw = jax.jit(lambda state: bits.bernoulli(state, [everything], [threshold]))
    drawn = []
    for _ in range(2):
        state, word = draw(state)
        drawn.append(np.asarray(bits.unpack(word[:, None]), float))
    first, second = drawn
    assert abs(first.mean() - p) < 4 * np.sqrt(p * (1 - p) / first.size)
    for a, b in ((first, second), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1])):
        assert abs(np.mean((a - p) * (b - p))) < 4 * p * (1 - p) / np.sqrt(a.size)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metropolis.make_lattices(jax.random.key(0), 3, 32), "size=3 must be even"),
        (lambda: metropolis.make_lattices(jax.random.key(0), "4", 32), "size='4' must be a whole number"),
        (lambda: metropolis.make_lattices(jax.random.key(0), 4, 32.0), "replicas=32.0 must be a whole number"),
        (lambda: metropolis.make_lattices(jax.random.key(0), 2**40, 32), "size=1099511627776 must be <= 32768"),
        (lambda: metropolis.metropolis(FOUR, "2"), "temperature='2' must be a number"),
        (lambda: metropolis.metropolis(FOUR, 2.0, [None]), r"field=\[None\] must be a number"),
        (lambda: metropolis.sample(FOUR, 1.0, measurements=2.0), "measurements=2.0 must be a whole number"),
        (lambda: exact.onsager_energy("2"), "temperature='2' must be a number"),
        (lambda: metropolis.make_lattices(jax.random.key(0), 4, 33), "replicas=33 must be a multiple of 32"),
        (lambda: metropolis.make_lattices(jax.random.key(0), 4, 32, start="down"), "start='down' is unknown"),
        (lambda: metropolis.metropolis(FOUR, 0.0), "temperature=0.0 must be positive"),
        (lambda: metropolis.metropolis(FOUR, 1e-50), "temperature=1e-50 must be positive, 1e-38 at least"),
        (lambda: metropolis.metropolis(FOUR, 1.0, math.nan), "field=nan must be finite"),
        (lambda: metropolis.metropolis(FOUR, 1.0, sweeps=-1), "sweeps=-1 must be >= 0"),
        (lambda: metropolis.sample(FOUR, np.ones(3), measurements=1), r"temperature has shape \(3,\); give a number"),
        (lambda: metropolis.sample(FOUR, 1.0, measurements=2, every=0), "measurements=2 and every=0 must be >= 1"),
        (lambda: metropolis.pack(np.zeros((32, 4, 4), np.int8), None), "spins has entries other than -1 and"),
        (lambda: metropolis.pack(np.ones((32, 4, 6), np.int8), None), "lattices of 4 x 6; they must be square"),
        (lambda: wolff.sample(None, np.ones((2, 4, 4)), 1.0, measurements=1), "spins has 2 replicas"),
        (lambda: wolff.sample(None, np.ones((32, 4, 4)), 1.0, measurements=1, every=-1), "every=-1 must be >= 1"),
        (lambda: wolff.sample(None, np.zeros((32, 4, 4)), 1.0, measurements=1), "entries other than -1 and"),
        (lambda: exact.thermal_averages(exact.enumerate_states(2, 2), 1e-320), "must lie between 1e-100 and 1e"),
        (lambda: statistics.blocked([1.0], blocks=4), "series has 1 measurements"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
