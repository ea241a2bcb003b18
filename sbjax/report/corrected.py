"""Several comparisons at once: what is left of each verdict when all of them are looked at."""

import math
from collections.abc import Sequence
from typing import Any

FEWEST_SEEDS = 5
"""With fewer pairs no verdict is given: even five differences of one sign have a two-sided Wilcoxon p of 0.0625."""

TOO_FEW = f"too few seeds for a verdict (fewer than {FEWEST_SEEDS})"
NOT_SHOWN = "no difference shown"


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number by Holm's step-down procedure; None and NaN are no test and do not count.

    Of m values in ascending order the k-th becomes the largest of (m - j + 1) p_j over j <= k, at most 1. Whatever the
    dependence, the chance of any false verdict at a level is at most that level.

    >>> holm([0.01, 0.04, 0.03, None])
    [0.03, 0.06, 0.06, None]

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65.
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None and math.isfinite(p))
    found: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        found[i] = largest
    return found


def fewest_seeds(comparisons: int, confidence: float = 0.95) -> int:
    """Seeds with which a Wilcoxon test can be below (1 - confidence) / comparisons: its least p is 2^(1 - n).

    >>> fewest_seeds(1), fewest_seeds(4)
    (6, 8)
    """
    return math.ceil(1 + math.log2(max(comparisons, 1) / (1 - confidence)) - 1e-12)


def with_corrected(comparisons: Sequence[dict[str, Any] | None], *, confidence: float = 0.95) -> list[Any]:
    """The comparisons of several arms with one, each with `comparisons`, `p_corrected` and `verdict_corrected`.

    The corrected verdict is the single one where Holm's p is at most 1 - confidence, else 'no difference shown'; of one
    comparison alone it is the single one. With fewer seeds than a corrected verdict needs, it says so.

    Args:
        comparisons: with `p_value`, `verdict` and `n`; None where two arms could not be compared.
    """
    corrected = holm([one and one["p_value"] for one in comparisons])
    count = sum(p is not None for p in corrected)
    needed = fewest_seeds(count, confidence)

    def verdict(one, p):
        if count < 2 or p is None or one["verdict"] == TOO_FEW:
            return one["verdict"]
        if one["n"] < needed:
            return f"too few seeds for a verdict among {count} (fewer than {needed})"
        return one["verdict"] if p <= 1 - confidence + 1e-12 else NOT_SHOWN

    return [
        one and {**one, "comparisons": count, "p_corrected": p, "verdict_corrected": verdict(one, p)}
        for one, p in zip(comparisons, corrected, strict=True)
    ]


def note(comparisons: Sequence[dict[str, Any] | None]) -> str:
    """How many comparisons a table makes, and what its column 'corrected' says.

    >>> note([{'p_corrected': 0.1}])
    'One comparison. A verdict takes 5 seeds that finished in both arms.'
    """
    least = f"A verdict takes {FEWEST_SEEDS} seeds that finished in both arms"
    count = sum(one is not None and one["p_corrected"] is not None for one in comparisons)
    if count < 2:
        return f"One comparison. {least}." if count else f"No comparison. {least}."
    needed = fewest_seeds(count)
    few = [one["n"] for one in comparisons if one is not None and 0 < one["n"] < needed]
    said = f"; there are {min(few)}" if few else ""
    return (
        f"{count} comparisons. Intervals, p and 'verdict' are of each one by itself: without any effect one in "
        f"{count} is 'better' or 'worse' more often than one alone. 'Corrected': the same verdict where Wilcoxon's p, "
        f"corrected for the {count} by Holm's procedure, is at most 0.05. {least}, one "
        f"corrected for {count} takes {needed}{said}."
    )
