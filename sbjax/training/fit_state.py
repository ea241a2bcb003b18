"""What changes while an arm is trained, as checkpoints hold it."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sbjax.metrics.monitor import Monitor
from sbjax.tasks.task import Task
from sbjax.training import step as step_lib
from sbjax.training.checkpoint import Checkpoints
from sbjax.training.checkpoint_files import CheckpointError
from sbjax.training.placement import Program
from sbjax.training.records import Record
from sbjax.training.timeline import Timeline


class Failure(NamedTuple):
    """A replica that stopped at a step because of `what`."""

    replica: int
    step: int
    what: str


@dataclasses.dataclass
class FitState:
    """All that changes while an arm is trained, and all that a checkpoint holds."""

    step: int
    carry: list[step_lib.TrainState]
    history: list[Record]
    failures: list[Failure]
    monitored: Any  # state of the monitor, None without one


def save(checkpoints: Checkpoints, program: Program, run: FitState, task: Task, *, stopgap: bool) -> None:
    """Write a checkpoint in the background; it goes by the task's selection unless it is a stopgap."""
    selection = [] if stopgap else [value for value in run.history[-1].get(task.selection, []) if value is not None]
    if checkpoints.shared:
        items = items_of(program.whole(run.carry), program.everywhere(run.monitored))
    else:
        items = items_of(program.collect(run.carry), run.monitored)
    checkpoints.save(
        run.step,
        items,
        meta={"history": run.history, "failures": [failure._asdict() for failure in run.failures]},
        metric=float(np.median(selection)) if selection else None,
        stopgap=stopgap,
        background=True,  # `collect`, or orbax, has copied: the training goes on meanwhile
    )


def restore(
    checkpoints: Checkpoints | None, programs: Sequence[Program], timeline: Timeline, monitor: Monitor | None
) -> FitState | None:
    """The state of the newest whole checkpoint, or None.

    Raises:
        CheckpointError: it is of another run or a longer one.
    """
    if checkpoints is None:
        return None

    def abstract(step):
        if step > timeline.steps:
            raise CheckpointError(
                f"{checkpoints.folder} holds a checkpoint of step {step}, beyond the {timeline.steps} steps of this "
                f"run. Extend the run by {step - timeline.steps} steps more, or use another --workdir"
            )
        program = programs[timeline.phase(step)]
        state = program.abstract()
        monitored = None if monitor is None else jax.eval_shape(monitor.init, state.variables)
        return items_of(program.laid(state), monitored)

    found = checkpoints.restore(abstract)
    if found is None:
        return None
    fields = dict(found.items["state"])
    monitored = jax.tree.map(np.asarray, fields.pop("monitor", None))
    fields["variables"] = {**found.items["variables"], "params": found.items["params"]}
    carry = programs[timeline.phase(found.step)].place(step_lib.TrainState(**fields))
    failures = [Failure(**failure) for failure in found.meta["failures"]]
    return FitState(found.step, carry, found.meta["history"], failures, monitored)


def items_of(state: step_lib.TrainState, monitored: Any) -> dict[str, Any]:
    """Stacked state -> items of a checkpoint; `load_variables` reads the first two without knowing the optimiser."""
    fields = state._asdict()
    variables = dict(fields.pop("variables"))
    monitor = {} if monitored is None else {"monitor": monitored}
    return {"params": variables.pop("params"), "variables": variables, "state": {**fields, **monitor}}
