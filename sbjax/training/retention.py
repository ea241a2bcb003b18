"""Which checkpoints of an arm stay."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from sbjax.training.checkpoint_files import read_meta


class Kept(NamedTuple):
    """What decides whether a checkpoint stays."""

    metric: float | None
    stopgap: bool


def superseded(saved: Mapping[int, Kept], *, keep: int, keep_best: int, goal: str) -> list[int]:
    """The steps that need not be kept, see `Checkpoints`. Of equal metrics the later one is the better.

    >>> saved = {10: Kept(0.9, False), 20: Kept(0.5, False), 25: Kept(None, True), 30: Kept(0.6, False)}
    >>> superseded(saved, keep=1, keep_best=1, goal='max')
    [20, 25]
    """
    sign = 1 if goal == "max" else -1
    lasting = sorted(step for step, one in saved.items() if not one.stopgap)
    ranked = sorted(
        (step for step in lasting if saved[step].metric is not None), key=lambda step: (sign * saved[step].metric, step)
    )
    best = ranked[-keep_best:] if keep_best else []
    return sorted(saved.keys() - {max(saved), *lasting[-keep:], *best})


def read_kept(step_folder: pathlib.Path) -> Kept:
    """What was saved with a checkpoint; as of a stopgap where that cannot be read."""
    try:
        return Kept(**read_meta(step_folder)["kept"])
    except (OSError, ValueError, KeyError, TypeError):  # a deletion that was cut off, or another format
        return Kept(None, stopgap=True)
