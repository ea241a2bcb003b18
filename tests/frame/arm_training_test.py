"""What the terminal is told of the training of one arm."""

import types

import pytest

from sbjax.frame.arm_training import ArmTraining
from sbjax.training.progress import Progress


@pytest.mark.wrong_types  # stand-ins for a plan and an arm
@pytest.mark.parametrize(("stopped_at", "left"), [(10, 30 * 2.0 + 2 * 5.0), (80, 30 * 2.0 + 2 * 5.0)])
def test_steps_that_no_replica_is_left_to_make_are_not_waited_for(stopped_at, left):
    """Two arms of 60 + 40 steps in two phases and of 30: the first one stops, in either phase."""
    plan = types.SimpleNamespace(extend_steps=0)
    ends = {"a": (60, 100), "b": (15, 30)}

    def training(name):
        arm = types.SimpleNamespace(
            name=name, steps=ends[name][-1], flops_per_step=1.0, phase_ends=lambda _: ends[name]
        )
        return ArmTraining(plan, arm, None, None, progress, lambda: False)

    progress = Progress(130.0, programs=4, interval=1e9)
    first = training("a")
    for end in (1, *([61] if stopped_at > 60 else []), stopped_at):
        compiled = end in (1, 61)
        seconds = 5.0 if compiled else 2.0 * (end - first.at)
        first._on_pulse(end, seconds, compiled)
    first._skip_to(100)
    assert progress.seconds_left() == pytest.approx(left)
    progress.skip(30.0, programs=2)
    assert progress.seconds_left() == 0
