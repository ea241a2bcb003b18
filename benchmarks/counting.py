"""Exact counts of subspaces at widths up to 1000, each in a fresh cache.

    python benchmarks/counting.py

One line each for a count of global minima, a count of copies, the crossing of both kinds (which needs both at several
widths), the fullest width and the two curves up to width 1000; all together is the last line. The least of three runs
counts, since what disturbs one only lengthens it.
"""

import time
from collections.abc import Callable

from common import figure

from sbjax.landscape import counting

BAR = 5.0
PARTS: dict[str, Callable[[], object]] = {
    "T(1000, 1000)": lambda: counting.T(1000, 1000),
    "T(500, 1000)": lambda: counting.T(500, 1000),
    "G(500, 1000)": lambda: counting.G(500, 1000),
    "crossing(1000)": lambda: counting.crossing(1000),
    "fullest(1000)": lambda: counting.fullest(1000),
    "counts(500, 1000)": lambda: counting.counts(500, 1000),
}


def seconds(run: Callable[[], object], rounds: int = 3) -> float:
    """Least time of a run without what earlier ones have left."""
    found = []
    for _ in range(rounds):
        counting._bells.cache_clear()
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return min(found)


def main() -> None:
    total = 0.0
    for name, run in PARTS.items():
        took = seconds(run)
        total += took
        figure(f"{name}: seconds", took, unit="s", bar=BAR)
    figure("all of these: seconds", total, unit="s", bar=BAR)


if __name__ == "__main__":
    main()
