"""Exponential time differencing of order 4 (ETDRK4) for a' = L a + N(a) with diagonal L, in numpy.

The linear part is integrated exactly, however stiff; only the time scale of N limits the step.
"""

import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Complex, Float


def etdrk4(
    linear: Float[np.ndarray, " n"] | Complex[np.ndarray, " n"],
    nonlinear: Callable[[np.ndarray], np.ndarray],
    initial: Float[np.ndarray, " n"] | Complex[np.ndarray, " n"],
    times: Float[np.ndarray, " m"],
    largest_step: float,
) -> np.ndarray:
    """Solution at `times`, [m, n], with a(times[0]) = initial.

    Each interval is divided into equal steps of at most `largest_step`; the error is of fourth order in it.

    Args:
        linear: diagonal of L, real or complex.
        nonlinear: a -> N(a).
        initial: initial state.
        times: output times, ascending.
        largest_step: upper bound of the time step.

    >>> decay = etdrk4(np.array([-1e6, -1.0]), lambda a: 0 * a, np.ones(2), np.array([0.0, 1.0]), 0.5)
    >>> decay[-1].round(6).tolist()
    [0.0, 0.367879]

    Source: Cox and Matthews, J. Comput. Phys. 176 (2002); Kassam and Trefethen, SIAM J. Sci. Comput. 26 (2005), whose
    contour integrals give the coefficients near zero.
    """
    a, states = initial, [initial]
    for start, end in itertools.pairwise(times):
        steps = max(1, int(np.ceil((end - start) / largest_step - 1e-9)))
        h = (end - start) / steps
        whole, half, stage, first, middle, last = _coefficients(h * linear)
        for _ in range(steps):
            at_a = nonlinear(a)
            b = half * a + h * stage * at_a
            at_b = nonlinear(b)
            at_c = nonlinear(half * a + h * stage * at_b)
            at_d = nonlinear(half * b + h * stage * (2 * at_c - at_a))
            a = whole * a + h * (first * at_a + middle * (at_b + at_c) + last * at_d)
        states.append(a)
    return np.stack(states)


def _coefficients(z):
    """exp(z), exp(z/2), (exp(z/2) - 1) / z and the three weights. Near z = 0 the formulas suffer from cancellation and
    are replaced by their means over a circle around z."""
    circle = z[:, None] + 2 * np.exp(2j * np.pi * (np.arange(32) + 0.5) / 32)
    near = abs(z) < 1
    means = (values.mean(1) for values in _formulas(circle))
    away = _formulas(np.where(near, 1.0, z))
    chosen = (np.where(near, a if np.iscomplexobj(z) else a.real, b) for a, b in zip(means, away))
    return np.exp(z), np.exp(z / 2), *chosen


def _formulas(w):
    e = np.exp(w)
    return (
        (np.exp(w / 2) - 1) / w,
        (-4 - w + e * (4 - 3 * w + w**2)) / w**3,
        2 * (2 + w + e * (w - 2)) / w**3,
        (-4 - 3 * w - w**2 + e * (4 - w)) / w**3,
    )
