"""Statistical errors of Monte Carlo series, and intervals for shares of replicas."""

import numpy as np
from jaxtyping import ArrayLike, Float


def blocked(series: Float[ArrayLike, "measurements *chains"], *, blocks: int = 16) -> tuple[float, float]:
    """Mean over measurements and independent chains, with a standard error from block means.

    Each chain is divided into `blocks` blocks (surplus measurements at the start are dropped). Block means are treated
    as independent, which holds if a block is much longer than the correlation time.

    Raises:
        ValueError: fewer measurements than blocks, or fewer than two blocks over all chains.

    >>> blocked([1.0, 3.0, 1.0, 3.0], blocks=2)
    (2.0, 0.0)
    """
    means = block_means(series, blocks=blocks)
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(means.size))


def block_means(series: Float[ArrayLike, "measurements *chains"], *, blocks: int) -> Float[np.ndarray, " n"]:
    """Block means of all chains, [blocks * chains]."""
    series = np.asarray(series, np.float64)
    series = series.reshape(len(series), -1)
    length, chains = len(series) // blocks if blocks > 0 else 0, series.shape[1]
    if length < 1 or blocks * chains < 2:
        raise ValueError(f"series has {len(series)} measurements of {chains} chains: too few for {blocks} blocks each")
    return series[-length * blocks :].reshape(blocks, length, chains).mean(1).ravel()


def binder_cumulant(
    magnetisation: Float[ArrayLike, "measurements *chains"], *, blocks: int = 16
) -> tuple[float, float]:
    """Binder cumulant 1 - <m^4> / (3 <m^2>^2) and its standard error by a jackknife over blocks of all chains.

    Raises:
        ValueError: as `blocked`.

    >>> binder_cumulant(np.array([1.0, -1.0, 1.0, -1.0]), blocks=2)
    (0.6666666666666667, 0.0)
    """
    m = np.asarray(magnetisation, np.float64)
    second, fourth = (block_means(m**power, blocks=blocks) for power in (2, 4))
    n = len(second)

    def cumulant(second, fourth):
        return 1 - fourth / (3 * second**2)

    left_out = cumulant((second.sum() - second) / (n - 1), (fourth.sum() - fourth) / (n - 1))
    error = np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean()) ** 2))
    return float(cumulant(second.mean(), fourth.mean())), float(error)
