"""Exact results for the square-lattice Ising model: enumeration, Onsager, Yang, Kaufman."""

import math
import numbers
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Int

MOST_SPINS = 20
LEAST = 1e-100
CRITICAL_TEMPERATURE = 2 / math.log(1 + math.sqrt(2))  # Onsager 1944


class States(NamedTuple):
    """Number of states of a small lattice by bond sum and magnetisation.

    Attributes:
        bonds: [k], sum over bonds of s_i s_j.
        magnetisations: [k], sum of spins.
        counts: [k], number of states with these values; their sum is 2^spins.
        spins: number of spins.
    """

    bonds: Int[np.ndarray, " k"]
    magnetisations: Int[np.ndarray, " k"]
    counts: Int[np.ndarray, " k"]
    spins: int


class Averages(NamedTuple):
    """Thermal averages per spin; `heat_capacity` is the variance of the energy over T^2, per spin."""

    energy: float
    magnetisation: float
    absolute_magnetisation: float
    heat_capacity: float


def enumerate_states(rows: int, columns: int) -> States:
    """Enumerate all states of a periodic lattice.

    Along an axis of two sites every bond counts twice; along an axis of one site a spin is its own neighbour.

    Raises:
        ValueError: fewer than 1 or more than `MOST_SPINS` spins.

    >>> states = enumerate_states(4, 4)
    >>> int(states.counts.sum()), int(states.bonds.max())
    (65536, 32)
    """
    n = rows * columns
    if rows < 1 or columns < 1 or n > MOST_SPINS:
        raise ValueError(f"rows={rows}, columns={columns}: a lattice of 1 to {MOST_SPINS} spins can be enumerated")
    bits = (np.arange(2**n, dtype=np.int32)[:, None] >> np.arange(n, dtype=np.int32)) & 1
    s = (2 * bits - 1).astype(np.int8).reshape(-1, rows, columns)
    neighbours = np.roll(s, 1, 1) + np.roll(s, 1, 2)
    bonds = (s * neighbours).sum((1, 2), dtype=np.int32)
    sums = s.sum((1, 2), dtype=np.int32)
    pairs, counts = np.unique(np.stack([bonds, sums]), axis=1, return_counts=True)
    return States(pairs[0], pairs[1], counts, n)


def thermal_averages(states: States, temperature: float, field: float = 0.0) -> Averages:
    """Exact averages with Boltzmann weights exp((bonds + h M) / T).

    Raises:
        ValueError: a temperature that is not positive.

    >>> round(thermal_averages(enumerate_states(4, 4), 2.0).energy, 4)
    -1.7554
    """
    _check(temperature)
    energy = -(states.bonds + field * states.magnetisations)
    logits = -energy / temperature + np.log(states.counts)
    weights = np.exp(logits - scipy.special.logsumexp(logits))
    mean = float(weights @ energy)
    return Averages(
        mean / states.spins,
        float(weights @ states.magnetisations) / states.spins,
        float(weights @ np.abs(states.magnetisations)) / states.spins,
        float(weights @ (energy - mean) ** 2) / temperature**2 / states.spins,
    )


def landscape(
    states: States, temperature: float, field: float = 0.0
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Magnetisations M, the minimum energy at each M, and the free energy F(M) = -T ln sum_{states of M} exp(-E / T).

    Energies are those of the whole lattice, not per spin.

    Raises:
        ValueError: a temperature that is not positive.

    >>> m, ground, _ = landscape(enumerate_states(4, 4), 2.0)
    >>> dict(zip(m[:4].tolist(), ground[:4].tolist()))
    {-16: -32.0, -14: -24.0, -12: -20.0, -10: -16.0}
    """
    _check(temperature)
    magnetisations = np.unique(states.magnetisations)
    energy = -(states.bonds + field * states.magnetisations)
    ground, free = [], []
    for m in magnetisations:
        here = states.magnetisations == m
        ground.append(energy[here].min())
        free.append(-temperature * scipy.special.logsumexp(-energy[here] / temperature, b=states.counts[here]))
    return magnetisations, np.asarray(ground, float), np.asarray(free)


def onsager_energy(temperature: float) -> float:
    """Energy per spin of the infinite lattice without a field.

    -coth(2K) [1 + (2 / pi) (2 tanh^2(2K) - 1) K_1(k)], K = 1 / T, k = 2 sinh(2K) / cosh^2(2K), with the complete
    elliptic integral K_1. Source: Onsager 1944, Phys. Rev. 65, 117.

    Raises:
        ValueError: a temperature that is not positive.

    >>> round(onsager_energy(2.0), 6), round(onsager_energy(3.0), 6)
    (-1.745565, -0.81731)
    """
    _check(temperature)
    twice = 2 / temperature
    tanh = math.tanh(twice)
    # 1 - k^2 = (2 tanh^2 - 1)^2 avoids cancellation near the critical temperature.
    factor = 2 * tanh**2 - 1
    # At the critical temperature factor * K_1 -> 0, although K_1 diverges logarithmically.
    elliptic = factor * scipy.special.ellipkm1(factor**2) if factor else 0.0
    return float(-(1 + 2 / math.pi * elliptic) / tanh)


def yang_magnetisation(temperature: float) -> float:
    """Spontaneous magnetisation (1 - sinh(2 / T)^-4)^(1/8) of the infinite lattice; 0 for T >= T_c. Source: Yang 1952.

    Raises:
        ValueError: a temperature that is not positive.

    >>> round(yang_magnetisation(2.0), 6), yang_magnetisation(2.5)
    (0.911319, 0.0)
    """
    _check(temperature)
    if temperature >= CRITICAL_TEMPERATURE:
        return 0.0
    # sinh(x)^-2 = 4 e^(-2x) / (1 - e^(-2x))^2: no overflow at low temperature.
    decay = math.exp(-4 / temperature)
    return (1 - (4 * decay / (1 - decay) ** 2) ** 2) ** 0.125


def kaufman_log_partition(inverse_temperature: float, rows: int, columns: int) -> float:
    """ln Z of a finite periodic lattice without a field.

    Z = 1/2 (2 sinh 2K)^(rc/2) [prod 2 cosh(c g_odd / 2) + prod 2 sinh(c g_odd / 2) + prod 2 cosh(c g_even / 2) +
    prod 2 sinh(c g_even / 2)], each product over r values of cosh g_l = cosh 2K coth 2K - cos(pi l / r), and
    g_0 = 2K + ln tanh K. Source: Kaufman 1949, Phys. Rev. 76, 1232.

    Raises:
        ValueError: K or a side that is not positive.

    >>> round(kaufman_log_partition(0.5, 4, 4), 6)
    17.105367
    """
    k = inverse_temperature
    if not 0 < k < math.inf or rows < 1 or columns < 1:
        raise ValueError(f"inverse_temperature={k}, rows={rows}, columns={columns} must be positive")
    index = np.arange(2 * rows)
    # cosh g - 1 = 2 sinh^2(g / 2) avoids cancellation at small g.
    if k < 20:
        half = (math.cosh(2 * k) / math.tanh(2 * k) - 2) / 2 + np.sin(np.pi * index / (2 * rows)) ** 2
        gamma = 2 * np.arcsinh(np.sqrt(np.maximum(half, 0)))
    else:  # cosh g = exp(2K) / 2 to double precision, and would overflow
        gamma = np.full(2 * rows, 2 * k)
    gamma[0] = 2 * k + math.log(math.tanh(k))
    x = np.abs(columns * gamma / 2)
    cosh, sinh = x + np.log1p(np.exp(-2 * x)), x + np.log(-np.expm1(-2 * x))
    logs = [cosh[1::2].sum(), sinh[1::2].sum(), cosh[::2].sum(), sinh[::2].sum()]
    total = scipy.special.logsumexp(logs, b=[1, 1, 1, math.copysign(1, gamma[0])])
    return float(total - math.log(2) + rows * columns / 2 * (2 * k + math.log(-math.expm1(-4 * k))))


def kaufman_energy(temperature: float, rows: int, columns: int, *, step: float = 1e-4) -> float:
    """Energy per spin -d ln Z / dK of a periodic lattice, by fourth-order finite differences; error about 1e-9.

    Raises:
        ValueError: as `kaufman_log_partition`.

    >>> round(kaufman_energy(2.0, 4, 4), 4)
    -1.7554
    """
    _check(temperature)
    k, h = 1 / temperature, step / temperature
    values = [kaufman_log_partition(k + i * h, rows, columns) for i in (-2, -1, 1, 2)]
    return -float(np.dot([1, -8, 8, -1], values)) / (12 * h) / (rows * columns)


def _check(temperature):
    if not isinstance(temperature, numbers.Real) and getattr(temperature, "ndim", None) != 0:
        raise ValueError(f"temperature={temperature!r} must be a number")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature} must be a positive number")
    if not LEAST <= temperature <= 1 / LEAST:  # squares of it are neither 0 nor infinite
        raise ValueError(f"temperature={temperature} must lie between {LEAST:g} and {1 / LEAST:g}")
