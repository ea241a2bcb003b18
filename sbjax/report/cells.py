"""Cells of a table: `{"value": .., "low": .., "high": ..}` in JSON where they have an interval, and their text."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sbjax.report import statistics, tables


def median(values: np.ndarray) -> dict[str, float]:
    """Median and quartiles over seeds.

    >>> median(np.array([1.0, 2.0, 4.0]))
    {'value': 2.0, 'low': 1.5, 'high': 3.0}
    """
    found = statistics.describe(values)
    return {"value": found.median, "low": found.q1, "high": found.q3}


def difference(base: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Median of paired differences, and its interval, see `statistics.paired`."""
    found = statistics.paired(base, values)
    return {"value": found.difference, "low": found.low, "high": found.high}


def text(cell: Any, digits: int = 3) -> str:
    """A cell as people read it; ends of an interval that there is none of are left out.

    >>> text({'value': 0.5, 'low': 0.41234, 'high': 0.6}), text({'value': 0.5, 'low': np.nan, 'high': np.nan})
    ('0.5 [0.412, 0.6]', '0.5')
    >>> text(None), text(12), text('raw')
    ('-', '12', 'raw')
    """
    if isinstance(cell, Mapping):
        ends = [cell.get(name) for name in ("low", "high")]
        known = None not in ends and np.isfinite(ends).all()
        return tables.measure(cell if known else cell["value"], digits)
    return str(cell) if isinstance(cell, str | int) else tables.measure(cell, digits)
