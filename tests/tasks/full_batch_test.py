"""What tasks of one whole batch have in common."""

import pytest

from sbjax.tasks.full_batch import full_batch_task
from sbjax.tasks.task import Task

OWN = ("data", "init", "sample", "loss", "evaluate", "primary", "selection")


def test_fields_are_passed_on_and_the_fixed_ones_filled_in():
    task = full_batch_task(**{name: name for name in OWN}, grid="grid")
    assert {name: getattr(task, name) for name in (*OWN, "grid")} == {name: name for name in (*OWN, "grid")}
    assert (task.parts, task.batch_size, task.epoch_steps, task.goal) == (1, 1, None, "min")
    assert set(OWN) | {"parts", "batch_size", "epoch_steps", "goal"} == set(Task._fields) - set(Task._field_defaults)


@pytest.mark.parametrize("changed", [{"goal": "max"}, {"batch_size": 2}, {"loss_fn": None}])
def test_refusals(changed):
    with pytest.raises(TypeError, match=next(iter(changed))):
        full_batch_task(**{name: name for name in OWN}, **changed)


def test_a_missing_field_is_named():
    with pytest.raises(TypeError, match="loss"):
        full_batch_task(**{name: name for name in OWN if name != "loss"})
