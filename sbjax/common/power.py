"""The smallest difference that a comparison could have shown: for reports, and for pages of records without JAX."""

import math

# `scipy.stats` takes most of a second to import and is loaded by its first use, not by this line.
import scipy

POWER = 0.8


def smallest_shown(low: float | None, high: float | None, *, confidence: float = 0.95, power: float = POWER) -> float:
    """The smallest difference that a comparison with these seeds could have shown, in `power` of such runs.

    The interval of the median paired difference has the half width h = (high - low) / 2, which is about
    z((1 + confidence) / 2) standard errors of the median, with the quantile z of the normal law. A true difference is
    shown with probability `power` where it is

        h (1 + z(power) / z((1 + confidence) / 2)),

    at 95 % and 80 % h times 1.43. Only the spread of the differences enters, not the difference itself.

    Args:
        low, high: ends of the interval, as `statistics.paired` finds them.
        confidence: of the interval.
        power: share of runs, above 1/2, in which the difference is shown.

    Returns:
        The difference in the unit of the ends; NaN where there is no interval.

    Raises:
        ValueError: a power that does not lie between 1/2 and 1.

    >>> round(smallest_shown(-0.01, 0.01), 4)
    0.0143
    """
    if not 0.5 < power < 1:
        raise ValueError(f"power={power} must lie between 0.5 and 1, such as {POWER}")
    if low is None or high is None or not math.isfinite(high - low):
        return math.nan
    z = scipy.stats.norm.ppf
    return float((high - low) / 2 * (1 + z(power) / z((1 + confidence) / 2)))
