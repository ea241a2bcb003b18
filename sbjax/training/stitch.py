"""Blocks of replicas that were trained apart, as the checkpoint that one training of all of them leaves."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from sbjax.metrics.monitor import Monitor
from sbjax.tasks.task import Task
from sbjax.training import step as step_lib
from sbjax.training.checkpoint import Checkpoints
from sbjax.training.fit import Phase, items_of
from sbjax.training.records import Record, measure_variables
from sbjax.training.timeline import Timeline

MISSING = -1
"""Step of a failure that says that a replica was not trained yet."""


@dataclasses.dataclass(frozen=True)
class Block:
    """Trained replicas `start` to `stop` of an arm.

    Attributes:
        state: stacked, numpy.
        monitored: state of the monitor, of a block that holds all replicas.
        history, failures: as a checkpoint has them.
        at: `(step) -> stacked state` at an earlier report whose checkpoint was kept.
    """

    start: int
    stop: int
    state: step_lib.TrainState
    monitored: PyTree
    history: list[Record]
    failures: list[dict[str, Any]]
    at: Callable[[int], step_lib.TrainState]


def read_block(
    checkpoints: Checkpoints,
    task: Task,
    phases: Sequence[Phase],
    timeline: Timeline,
    *,
    key: Key[Array, ""],
    start: int,
    stop: int,
    monitor: Monitor | None = None,
) -> Block | None:
    """A block from its checkpoints; None where they do not reach the last step.

    Args:
        monitor: of an arm that was trained as one block.
    """
    ids = start + jax.numpy.arange(stop - start, dtype=jax.numpy.int32)

    def abstract(step):
        optimizer = phases[timeline.phase(step)].optimizer
        state = jax.eval_shape(jax.vmap(lambda r: step_lib.init_state(task, optimizer, key, r)), ids)
        return items_of(state, None if monitor is None else jax.eval_shape(monitor.init, state.variables))

    def read(step=None):
        found = checkpoints.restore(abstract, at=step)
        if found is None:
            return None, None, None
        fields = dict(found.items["state"])
        monitored = jax.tree.map(np.asarray, fields.pop("monitor", None))
        fields["variables"] = {**found.items["variables"], "params": found.items["params"]}
        return found, jax.tree.map(np.asarray, step_lib.TrainState(**fields)), monitored

    found, state, monitored = read()
    if found is None or found.step != timeline.steps:
        return None
    return Block(
        start, stop, state, monitored, found.meta["history"], found.meta["failures"], lambda step: read(step)[1]
    )


def stitch(
    blocks: Sequence[Block],
    *,
    replicas: int,
    timeline: Timeline,
    why_missing: Mapping[int, str],
    monitor: Monitor | None = None,
    monitor_steps: Sequence[int] = (),
    initial: Callable[[], step_lib.TrainState] | None = None,
) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Items and meta of the checkpoint of all replicas, as `Checkpoints.save` takes them.

    Replicas of no block keep the place of a failure at step `MISSING`: None in the history, and in the arrays a copy of
    another replica that nothing looks at.

    Args:
        blocks: at least one, in the order of their replicas, none twice.
        why_missing: sentences by replica.
        monitor, monitor_steps: what is measured over all replicas together, where no block has done so.
        initial: the stacked state before the first step, for a monitor step 0.
    """
    rows = np.full(replicas, MISSING)
    offset = 0
    for block in blocks:
        rows[block.start : block.stop] = np.arange(offset, offset + block.stop - block.start)
        offset += block.stop - block.start
    missing = np.flatnonzero(rows == MISSING)

    def together(states):
        stacked = jax.tree.map(lambda *parts: np.concatenate(parts)[np.maximum(rows, 0)], *states)
        ids = np.where(rows == MISSING, np.arange(replicas), stacked.replica).astype(stacked.replica.dtype)
        failed = np.where(rows == MISSING, 0, stacked.failed_step).astype(stacked.failed_step.dtype)
        return stacked._replace(replica=ids, failed_step=failed)

    history = [_record(records, blocks, replicas) for records in zip(*(block.history for block in blocks), strict=True)]
    monitored = blocks[0].monitored
    if monitor is not None and monitored is None:
        at_start = initial().variables
        monitored = monitor.init(at_start)
        for record in history:
            step = record["step"]
            if step in monitor_steps:
                state = initial() if step == 0 else together([block.at(step) for block in blocks])
                failed = np.where(rows == MISSING, 0, state.failed_step)
                monitored, measures = measure_variables(step, state.variables, failed, monitor, monitored)
                record |= measures
    failures = [failure for block in blocks for failure in block.failures]
    failures.sort(key=lambda one: (timeline.next_report(one["step"]), one["replica"]))
    failures += [{"replica": int(r), "step": MISSING, "what": why_missing.get(int(r), "")} for r in missing]
    items = items_of(together([block.state for block in blocks]), monitored)
    return items, {"history": history, "failures": failures}


def _record(records: Sequence[Record], blocks: Sequence[Block], replicas: int) -> Record:
    """One report of all replicas from those of the blocks."""
    whole: Record = {"step": records[0]["step"]}
    for name, value in records[0].items():
        if isinstance(value, list):
            column: list[float | None] = [None] * replicas
            for record, block in zip(records, blocks, strict=True):
                column[block.start : block.stop] = record[name]
            whole[name] = column
        elif name != "step":  # of all replicas together, from a block that is all of them
            whole[name] = value
    return whole
