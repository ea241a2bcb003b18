"""Shares, k of n, with an interval: how often a network falls monotonically, a student reaches zero loss, an arm wins.

Which interval, for k successes in n independent trials:

- 'wilson' (the score interval): covers 95 % on average over shares, and is the shorter one. For replicas and networks
  of a run.
- 'exact' (Clopper and Pearson): covers at least 95 % whatever the share. For claims that something (nearly) always or
  never happens, where a bound must hold: students at zero loss, recovered teachers.
- `grouped_share`, where trials come in groups that agree among themselves, such as the seeds of one equation: bootstrap
  over whole groups.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

# `scipy.stats` takes most of a second to import and is loaded by its first use, not by this line.
import scipy
from jaxtyping import ArrayLike, Int, Real

from sbjax.metrics.bootstrap import Estimate, expanded_tail

Method = Literal["wilson", "exact"]


def share(flags: ArrayLike | Sequence, *, method: Method = "wilson", confidence: float = 0.95) -> Estimate:
    """The share of true ones among independent flags.

    Args:
        flags: booleans of any shape, at least one.
        method: 'wilson' or 'exact', see above.
        confidence: coverage of the interval, between 0 and 1.

    Raises:
        ValueError: no flags, or an unknown method.

    >>> [round(x, 3) for x in share([True] * 10)]
    [1.0, 0.722, 1.0]
    >>> [round(x, 3) for x in share([True] * 10, method='exact')]
    [1.0, 0.692, 1.0]

    References: Wilson 1927; Clopper and Pearson 1934; compared by Agresti and Coull 1998.
    """
    flags = np.asarray(flags, bool)
    if not flags.size:
        raise ValueError("flags is empty: a share needs at least one trial")
    if method not in ("wilson", "exact"):
        raise ValueError(f"method={method!r} is unknown; known: wilson, exact")
    found = scipy.stats.binomtest(int(flags.sum()), flags.size)
    interval = found.proportion_ci(confidence, method=method)
    return Estimate(float(found.statistic), float(interval.low), float(interval.high))


def share_below(
    values: Real[ArrayLike, "..."] | Sequence, bar: float, *, method: Method = "exact", confidence: float = 0.95
) -> Estimate:
    """The share of values below a bar; one that is not finite is above.

    Demand 1e-14 or 1e-20 for zero loss of students: ordinary minima lie at 1e-6 and less.

    >>> found = share_below([0.0, 1e-21, 3e-7, 1e-3], 1e-14)
    >>> found.value, round(found.low, 3), round(found.high, 3)
    (0.5, 0.068, 0.932)
    """
    return share(np.asarray(values) < bar, method=method, confidence=confidence)


def grouped_share(
    gains: Real[np.ndarray, " group"],
    n: Int[np.ndarray, " group"],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """sum(gains) / sum(n) with an expanded percentile bootstrap interval over whole groups.

    Seeds of one equation are not independent of each other in what they say about other equations, so equations are
    drawn with all their seeds. One group gives no interval (NaN); where all groups agree the interval has no width,
    which is no proof that the next one would.

    Args:
        gains: successes of each group, at most n; a tie may count half.
        n: trials of each group, at least 1.
        confidence: coverage of the interval.
        resamples: of the bootstrap.
        seed: likewise.

    >>> grouped_share(np.array([10.0, 10.0, 0.0, 10.0]), np.array([10, 10, 10, 10])).value
    0.75

    Reference for the percentiles: Hesterberg, arXiv 1411.5279.
    """
    k = len(n)
    if not k:
        return Estimate(np.nan, np.nan, np.nan)
    value = float(gains.sum() / n.sum())
    if k == 1:
        return Estimate(value, np.nan, np.nan)
    tail = expanded_tail(k, confidence)
    counts = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=resamples)
    low, high = np.quantile((counts @ gains) / (counts @ n), [tail, 1 - tail])
    return Estimate(value, float(low), float(high))
