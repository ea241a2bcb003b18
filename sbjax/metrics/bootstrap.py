"""Means over pairs of replicas, with an interval that knows that pairs share replicas."""

import math
from typing import NamedTuple

import numpy as np

# `scipy.stats` takes most of a second to import and is loaded by its first use, not by this line.
import scipy
from jaxtyping import ArrayLike, Float

RESAMPLES = 2000


class Estimate(NamedTuple):
    """A number with the ends of its interval; NaN ends where there are too few replicas for one."""

    value: float
    low: float
    high: float


def over_pairs(
    matrix: Float[ArrayLike, "replica replica"], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean of a symmetric matrix over pairs r < s, with an expanded percentile bootstrap interval over replicas.

    Replicas are drawn with replacement, not pairs: the pairs of one replica are not independent. A pair of a replica
    with itself is left out of a resample, so that its zero distance does not pull the mean down. The percentiles are
    Phi(-+ sqrt(R / (R - 1)) t_{R-1}), since plain ones are too narrow for few replicas: a nominal 95 % then covers 83 %
    at R = 10 and expanded ones about 89 % (measured, R = 5 and 10). Fewer than four replicas give no interval.

    >>> over_pairs(np.ones((5, 5)) - np.eye(5))
    Estimate(value=1.0, low=1.0, high=1.0)
    """
    value, draws = _mean_and_draws(matrix, resamples, seed)
    return Estimate(value, *_ends(draws, len(matrix), confidence))


def excess(
    matrix: Float[ArrayLike, "replica replica"],
    null: Float[ArrayLike, "replica replica"],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean over the pairs of `matrix` minus that of `null`; the two are resampled independently."""
    value, draws = _mean_and_draws(matrix, resamples, seed)
    null_value, null_draws = _mean_and_draws(null, resamples, seed + 1)
    return Estimate(value - null_value, *_ends(draws - null_draws, len(matrix), confidence))


def expanded_tail(n: int, confidence: float) -> float:
    """The lower percentile of an expanded percentile interval: Phi(sqrt(n / (n - 1)) t_{n-1}((1 - confidence) / 2)).

    Source: Hesterberg, arXiv 1411.5279.
    """
    quantile = scipy.stats.t.ppf((1 - confidence) / 2, n - 1)
    return float(scipy.stats.norm.cdf(math.sqrt(n / (n - 1)) * quantile))


def _mean_and_draws(matrix, resamples, seed):
    matrix = np.asarray(matrix, np.float64)
    replicas = len(matrix)
    value = float(matrix.sum() / (replicas * (replicas - 1)))
    if replicas < 4 or not np.isfinite(value):
        return value, np.full(resamples, np.nan)
    counts = np.random.default_rng(seed).multinomial(replicas, np.full(replicas, 1 / replicas), size=resamples)
    pairs = replicas**2 - (counts**2).sum(1)
    kept = pairs > 0
    sums = ((counts[kept] @ matrix) * counts[kept]).sum(1)
    draws = np.full(resamples, np.nan)
    draws[kept] = sums / pairs[kept]
    return value, draws


def _ends(draws, replicas, confidence):
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    tail = expanded_tail(replicas, confidence)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
