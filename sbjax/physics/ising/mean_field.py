"""Mean-field free energy of the Ising model, its minima and the spinodal, where the metastable one vanishes."""

import math
import numbers
from typing import NamedTuple

import jax.numpy as jnp
import jax.scipy.special as special
import scipy
from jaxtyping import Array, ArrayLike, Float

COUPLING = 4.0  # z J of the square lattice


class Minimum(NamedTuple):
    """A minimum of the free energy; `stable` if no other minimum is lower."""

    magnetisation: float
    free_energy: float
    stable: bool


def free_energy(
    magnetisation: Float[ArrayLike, "*points"], temperature: float, field: float = 0.0, coupling: float = COUPLING
) -> Float[Array, "*points"]:
    """f(m) = -zJ m^2 / 2 - h m + T [(1+m)/2 ln((1+m)/2) + (1-m)/2 ln((1-m)/2)] per spin.

    Differentiable in (-1, 1); NaN outside [-1, 1].

    Args:
        magnetisation: m, floating, any shape.
        temperature: T > 0 in units of J.
        field: h.
        coupling: z J.

    >>> round(float(free_energy(0.0, 2.0)), 4)
    -1.3863
    """
    m = jnp.asarray(magnetisation)
    up, down = (1 + m) / 2, (1 - m) / 2
    entropy = special.xlogy(up, up) + special.xlogy(down, down)
    return -coupling / 2 * m**2 - field * m + temperature * entropy


def minima(temperature: float, field: float = 0.0, coupling: float = COUPLING) -> tuple[Minimum, ...]:
    """All minima of f in order of m: the solutions of m = tanh((zJ m + h) / T) with f''(m) > 0.

    f'' = -zJ + T / (1 - m^2) changes sign at m_s = +-sqrt(1 - T / zJ). There is no minimum between these points;
    outside them f' is monotone, with at most one root on each side.

    Raises:
        ValueError: a temperature or coupling that is not positive, or a field that is not finite.

    >>> [(round(m, 3), round(f, 4), stable) for m, f, stable in minima(2.0, 0.45)]
    [(-0.925, -1.6148, False), (0.974, -2.4744, True)]
    """
    _check(temperature, coupling, field)

    def slope(m):
        return temperature * math.atanh(m) - coupling * m - field

    # A minimum closer to +-1 than double precision resolves is represented by the last number before +-1.
    end = math.nextafter(1, 0)
    turn = math.sqrt(max(0.0, 1 - temperature / coupling))
    roots = []
    for low, high in [(-end, -turn), (turn, end)] if turn else [(-end, end)]:
        if slope(low) > 0 and low == -end:
            roots.append(low)
        elif slope(high) < 0 and high == end:
            roots.append(high)
        elif slope(low) < 0 < slope(high):
            roots.append(scipy.optimize.brentq(slope, low, high, xtol=1e-15))
    energies = [_free_energy(m, temperature, field, coupling) for m in roots]
    lowest = min(energies)
    return tuple(Minimum(m, f, f <= lowest + 1e-14 * abs(lowest)) for m, f in zip(roots, energies))


def spinodal_field(temperature: float, coupling: float = COUPLING) -> float:
    """Field at which the metastable minimum vanishes: zJ m_s - T artanh(m_s) with m_s = sqrt(1 - T / zJ).

    0 for T >= zJ, the critical temperature, where there is only one minimum.

    Raises:
        ValueError: a temperature or coupling that is not positive.

    >>> [round(spinodal_field(t), 3) for t in (1.5, 2.0, 2.5, 3.0, 3.5, 4.0)]
    [1.553, 1.066, 0.668, 0.352, 0.121, 0.0]
    """
    _check(temperature, coupling)
    if temperature >= coupling:
        return 0.0
    turn = math.sqrt(1 - temperature / coupling)
    return coupling * turn - temperature * math.atanh(turn)


def spinodal_temperature(field: float, coupling: float = COUPLING) -> float:
    """Temperature above which only one minimum exists in the field h. Inverse of `spinodal_field`.

    Raises:
        ValueError: |h| >= zJ, where there is only one minimum at any temperature; a coupling that is not positive.

    >>> round(spinodal_temperature(0.45), 2)
    2.83
    """
    _check(1.0, coupling, field)
    if abs(field) >= coupling:
        raise ValueError(f"field={field}: for |h| >= {coupling} there is only one minimum at any temperature")
    return scipy.optimize.brentq(
        lambda t: spinodal_field(t, coupling) - abs(field), 1e-9 * coupling, coupling, xtol=1e-14
    )


def _free_energy(m, temperature, field, coupling):
    up, down = (1 + m) / 2, (1 - m) / 2
    entropy = scipy.special.xlogy(up, up) + scipy.special.xlogy(down, down)
    return float(-coupling / 2 * m**2 - field * m + temperature * entropy)


def _check(temperature, coupling, field=0.0):
    for name, value in (("temperature", temperature), ("coupling", coupling)):
        if (not isinstance(value, numbers.Real) and getattr(value, "ndim", None) != 0) or not 0 < value < math.inf:
            raise ValueError(f"{name}={value!r} must be a positive number")
    if not math.isfinite(field):
        raise ValueError(f"field={field} must be finite")
