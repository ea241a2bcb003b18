"""When an arm changes its optimiser, reports and saves."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Timeline(NamedTuple):
    """The steps of a training at which something happens; step n is the state after n updates.

    Attributes:
        ends: last step of each phase.
        reports: steps with a report, apart from step 0.
        saves: those of the reports whose checkpoint is kept by `Checkpoints(keep=.., keep_best=..)`.
    """

    ends: tuple[int, ...]
    reports: tuple[int, ...]
    saves: frozenset[int]

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.ends[-1]

    def phase(self, step: int) -> int:
        """The phase whose optimiser state a checkpoint of `step` holds: at the end of a phase still that phase."""
        return next(i for i, end in enumerate(self.ends) if step <= end)

    def next_report(self, step: int) -> int:
        """The first report after `step`."""
        return next(report for report in self.reports if report > step)


def make_timeline(
    phase_steps: Sequence[int],
    *,
    reports: int,
    saves: int = 0,
    extend_steps: int = 0,
    monitor_steps: Sequence[int] = (),
    save_steps: Sequence[int] = (),
) -> Timeline:
    """Reports and saves of a training in phases.

    Reports are evenly spaced over all phases; the end of a phase and every monitor step is a report as well. Saves are
    evenly spaced and moved to the next report; those of `save_steps`, which are reports, come on top.

    An extension makes the last phase longer and changes nothing before: its reports and saves come on top, as dense as
    those before and at least one, at its end.

    Raises:
        ValueError: a phase without steps, reports < 1, extend_steps < 0, or a monitor step outside the training.

    >>> make_timeline([100], reports=4, saves=2, extend_steps=50)
    Timeline(ends=(150,), reports=(25, 50, 75, 100, 125, 150), saves=frozenset({50, 100, 150}))
    """
    names = ("steps", *["second_phase.steps"] * (len(phase_steps) - 1), "reports")
    for name, value in zip(names, (*phase_steps, reports), strict=True):
        if value < 1:
            raise ValueError(f"{name}={value} must be >= 1")
    if extend_steps < 0:
        raise ValueError(f"extend_steps={extend_steps} must be >= 0")
    planned = sum(phase_steps)
    total = planned + extend_steps
    if outside := [step for step in monitor_steps if not 0 <= step <= total]:
        raise ValueError(f"monitor_steps={outside} lie outside the training of {total} steps")

    def spread(count):
        more = max(1, round(count * extend_steps / planned))
        return boundaries(planned, count) + [planned + step for step in boundaries(extend_steps, more)]

    ends = [sum(phase_steps[: i + 1]) for i in range(len(phase_steps))]
    report_steps = sorted({*spread(reports), *ends, *monitor_steps, total} - {0})
    saved = {min(report for report in report_steps if report >= step) for step in spread(saves)}
    return Timeline(
        (*ends[:-1], total), tuple(report_steps), frozenset(saved | {planned, total} | ({*save_steps} - {0}))
    )


def boundaries(steps: int, count: int) -> list[int]:
    """`count` steps, as evenly spaced as whole numbers allow, the last one being `steps`.

    >>> boundaries(10, 4)
    [3, 5, 8, 10]
    """
    count = min(count, steps)
    return sorted({math.ceil(steps * (i + 1) / count) for i in range(count)})
