"""Timing side by side, and one JSON line a figure."""

import json
import statistics
import time
from collections.abc import Callable


def alternate(contenders: dict[str, Callable[[], None]], *, rounds: int) -> dict[str, float]:
    """Median seconds of each contender; they take turns, so that a slow moment of the machine hits all of them."""
    return {name: statistics.median(values) for name, values in _turns(contenders, rounds).items()}


def least(contenders: dict[str, Callable[[], None]], *, rounds: int) -> dict[str, float]:
    """As `alternate`, the least seconds of each: with few turns on a busy machine."""
    return {name: min(values) for name, values in _turns(contenders, rounds).items()}


def _turns(contenders, rounds):
    seconds = {name: [] for name in contenders}
    for run in contenders.values():
        run()  # compilation, caches, thread pools
    for _ in range(rounds):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def figure(name: str, value: float, *, unit: str, bar: float, **details: float) -> None:
    """Print `{"name", "value", "unit", "bar", "holds"}`: holds where the value is at most the bar."""
    line = {"name": name, "value": float(f"{value:.4g}"), "unit": unit, "bar": bar, "holds": value <= bar}
    print(json.dumps(line | {key: float(f"{detail:.4g}") for key, detail in details.items()}), flush=True)
