"""Numbers of a finished workdir, as cells of a record.

A reading is one of

- `{"arm", "metric", "as"}`: of one arm at its last report, over replicas;
- `{"arm", "against", "metric", "as"}`: of two arms, seed by seed;
- `{"file", "keys", "as"}`: of a JSON file in the workdir, by a list of names.

`as`, of one arm or a list in a file: 'median' (with quartiles), 'mean', 'max', 'min', 'spread' (mean and standard
deviation), 'share' (of true or positive ones, with its interval); of a number, an estimate or a count in a file it is
left out. Of two arms: 'difference' and 'ratio' (medians of pairs with their interval), 'share' (of pairs that are
smaller).
`times` multiplies.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sbjax.claims.records import RecordError
from sbjax.common.files import plain, read_json
from sbjax.common.names import near

OF_ONE = ("median", "mean", "max", "min", "spread", "share")
OF_TWO = ("difference", "ratio", "share")


def check(reading: Mapping[str, Any]) -> None:
    """Refuse a reading that no workdir could answer.

    Raises:
        ValueError: with the field.

    >>> check({'arm': 'raw', 'metric': 'test/accuracy', 'as': 'medain'})
    Traceback (most recent call last):
        ...
    ValueError: as='medain' of a reading must be one of median, mean, max, min, spread, share
    """
    kind = {"file", "keys"} if "file" in reading else {"arm", "metric", "as"}
    known = kind | {"times", "as"} | (set() if "file" in reading else {"against"})
    if kind - set(reading) or set(reading) - known:
        raise ValueError(
            f"a reading must have {', '.join(sorted(kind))} and may have {', '.join(sorted(known - kind))}"
        )
    allowed = OF_TWO if "against" in reading else OF_ONE
    if "as" in reading and reading["as"] not in allowed:
        raise ValueError(f"as={reading['as']!r} of a reading must be one of {', '.join(allowed)}")


def read(workdir: pathlib.Path, reading: Mapping[str, Any]) -> Any:
    """The cell of a reading.

    Raises:
        RecordError: the run has no such file, arm or metric.
    """
    times = reading.get("times", 1)
    if "file" in reading:
        found = _in_file(workdir / reading["file"], reading["keys"])
        if "as" in reading:
            return plain(of_one(found, reading["as"], times))
        return _times(found, times)
    from sbjax.report.results import load_results

    results = load_results(workdir)
    sides = [
        _last(results, reading[side], reading["metric"], workdir) for side in ("against", "arm") if side in reading
    ]
    return plain(of_two(*sides, reading["as"], times) if len(sides) == 2 else of_one(sides[0], reading["as"], times))


def of_one(values: Sequence[float], how: str, times: float = 1) -> Any:
    """Numbers of replicas as a cell, see the module.

    >>> of_one([1.0, 2.0, 3.0], 'median'), float(of_one([1.0, 2.0, 3.0], 'max', times=100))
    ({'value': 2.0, 'low': 1.5, 'high': 2.5}, 300.0)
    """
    from sbjax.metrics.shares import share
    from sbjax.report.statistics import describe

    values = np.asarray(values, np.float64)
    if how == "median":
        found = describe(values)
        return {"value": times * found.median, "low": times * found.q1, "high": times * found.q3}
    kept = values[np.isfinite(values)]
    if how == "share":
        return dict(zip(("value", "low", "high"), (times * x for x in share(kept > 0))))
    if how == "spread":
        return {"value": times * kept.mean(), "spread": times * kept.std(ddof=1) if len(kept) > 1 else None}
    return times * getattr(np, how)(kept)


def of_two(a: Sequence[float], b: Sequence[float], how: str, times: float = 1) -> dict[str, float | None]:
    """What an arm b is beside an arm a, seed by seed, as a cell; see the module.

    >>> of_two([1.0, 2.0, 4.0], [2.0, 4.0, 8.0], 'ratio')['value']
    2.0
    """
    from sbjax.metrics.shares import share
    from sbjax.report.controls import paired_ratio
    from sbjax.report.statistics import paired

    if how == "ratio":
        found = paired_ratio(a, b)
        return dict(zip(("value", "low", "high"), (None if x is None else times * x for x in found[:3])))
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if how == "share":
        kept = np.isfinite(a) & np.isfinite(b)
        return dict(zip(("value", "low", "high"), (times * x for x in share(b[kept] < a[kept]))))
    found = paired(a, b)
    return {"value": times * found.difference, "low": times * found.low, "high": times * found.high}


def _last(results, arm, metric, workdir):
    if arm not in results.arms:
        raise RecordError(f"{workdir} has no arm {arm!r}{near(arm, results.arms)}; arms: {', '.join(results.arms)}")
    reports = results.reports[arm]
    if not reports or metric not in reports[-1].values:
        known = sorted(reports[-1].values) if reports else []
        raise RecordError(f"{workdir}: arm {arm!r} has no metric {metric!r}{near(metric, known)}")
    return reports[-1].values[metric]


def _times(cell, times):
    """A number, an estimate or a count in a file; what two seeds cannot give is None."""
    if isinstance(cell, Mapping):
        return {name: value if name in ("count", "of") else _times(value, times) for name, value in cell.items()}
    return cell if cell is None or times == 1 else times * cell


def _in_file(path, keys):
    try:
        found = read_json(path)
        for key in keys:
            found = found[key]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise RecordError(f"{path} has no {' / '.join(map(str, keys))} ({type(error).__name__}: {error})") from error
    return found
