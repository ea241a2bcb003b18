"""Ratios of paired numbers, with the interval of their logarithms."""

from typing import Any

import numpy as np

from sbjax.report.statistics import paired


def ratio(reference: Any, values: Any) -> dict[str, float] | None:
    """The median over seeds of values over reference, seed by seed, with its 95 % interval, as a cell of a record.

    The interval is that of paired differences of logarithms, see `sbjax.report.statistics.paired`. Seeds whose numbers
    are not positive and finite are left out; None where fewer than two remain.

    >>> ratio([1.0, 2.0, 3.0, 4.0, 5.0], [0.5, 1.0, 1.5, 2.0, 2.5])
    {'value': 0.5, 'low': 0.5, 'high': 0.5}
    """
    reference, values = (np.asarray(x, float) for x in (reference, values))
    known = np.isfinite(reference) & np.isfinite(values) & (reference > 0) & (values > 0)
    if known.sum() < 2:
        return None
    found = paired(np.log(reference[known]), np.log(values[known]), goal="min")
    ends = {"value": found.difference, "low": found.low, "high": found.high}
    return {name: float(f"{np.exp(end):.6g}") for name, end in ends.items()}
