"""Fourier pseudo-spectral solver for u_t + 6 u u_x + u_xxx = 0 on a periodic interval.

An independent check of the exact soliton; it also solves for other initial values.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from sbjax.physics.references.etdrk4 import etdrk4


def solve(
    initial: Callable[[np.ndarray], np.ndarray],
    times: Float[np.ndarray, " m"],
    *,
    half_width: float = 20.0,
    modes: int = 384,
    largest_step: float = 5e-4,
) -> tuple[Float[np.ndarray, " modes"], Float[np.ndarray, "m modes"]]:
    """Nodes x and solution u(x, times) in float64 with u(x, times[0]) = initial(x).

    Products are dealiased by Orszag's 2/3 rule, which also conserves int u^2 dx up to the time-stepping error; int u dx
    is conserved to round-off.

    Args:
        initial: function of the nodes; periodic, or negligible at the ends.
        times: output times, ascending.
        half_width: half the length of the interval.
        modes: number of nodes, even.
        largest_step: upper bound of the time step.

    >>> x, u = solve(lambda x: 2 / np.cosh(x) ** 2, np.array([0.0, 0.25]))  # a soliton of speed 4
    >>> float(x[u[1].argmax()])
    1.041...
    """
    x = half_width * (2 * np.arange(modes) / modes - 1)
    k = np.pi / half_width * np.arange(modes // 2 + 1)
    kept = np.arange(modes // 2 + 1) < modes / 3

    def nonlinear(a):
        return -3j * k * kept * np.fft.rfft(np.fft.irfft(a * kept, modes) ** 2)

    states = etdrk4(1j * k**3, nonlinear, np.fft.rfft(initial(x)), times, largest_step)
    return x, np.fft.irfft(states, modes)
