"""Replicas that finished, and what they are too few for."""

from collections.abc import Mapping
from typing import Any

FEWEST_REPLICAS = 4
"""With fewer there is no interval of a distance between replicas, see `sbjax.metrics.replica`."""


def finished(summary: Mapping[str, Any], arm: Mapping[str, Any]) -> int:
    """Replicas of an arm that were trained and did not stop.

    >>> finished({'replicas': 5}, {'stopped': 2})
    3
    """
    return summary["replicas"] - arm.get("stopped", 0) - arm.get("missing", 0)


def distances_note(summary: Mapping[str, Any]) -> str:
    """What the replicas that finished are too few for in distances between them; '' where there are enough in each arm.

    >>> distances_note({'replicas': 3, 'arms': {'raw': {}}})
    'A distance of 3 replicas has no interval: it takes 4.'
    >>> distances_note({'replicas': 5, 'arms': {'raw': {}, 'wide': {'stopped': 4}}})
    'No distance in wide, where 1 replica finished: it takes 2, with an interval 4.'
    """
    counts = {name: finished(summary, arm) for name, arm in summary["arms"].items()} if "replicas" in summary else {}
    said = []
    for count in sorted({count for count in counts.values() if count < FEWEST_REPLICAS}):
        of = [name for name, own in counts.items() if own == count]
        named = "" if len(of) == len(counts) else f" in {', '.join(of[:4])}{' and others' if len(of) > 4 else ''}"
        many = f"{count} replica{'s' * (count != 1)}"
        if count < 2:
            where = f"{named}, where {many} finished" if named else f" of {many}"
            said.append(f"No distance{where}: it takes 2, with an interval {FEWEST_REPLICAS}.")
        else:
            said.append(f"A distance of {many}{named} has no interval: it takes {FEWEST_REPLICAS}.")
    return " ".join(said)
