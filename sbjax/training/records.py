"""The numbers of one report."""

import math
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from sbjax import trees
from sbjax.metrics.monitor import Monitor
from sbjax.training.placement import Program
from sbjax.training.step import TrainState

# {'step': .., 'train/loss': [one number or None a replica], .., 'replica_distance/marginal': {'value': .., ..}, ..}
Record = dict[str, Any]


def make_record(step: int, program: Program, carry: list[TrainState]) -> Record:
    """Means since the last report and held-out numbers; None for a stopped replica and for a mean over no steps."""
    held_out = program.evaluate(carry)
    totals, count, failed = program.collect([(s.totals, s.count, s.failed_step) for s in carry])
    running = failed < 0
    means = {name: total / np.maximum(count, 1) for name, total in totals.items()}

    def column(values, valid):
        return [float(v) if ok and np.isfinite(v) else None for v, ok in zip(values, valid, strict=True)]

    record = {"step": step}
    record |= {name: column(values, running & (count > 0)) for name, values in means.items()}
    record |= {name: column(values, running) for name, values in sorted(held_out.items())}
    return record


def measure(
    step: int, program: Program, carry: list[TrainState], monitor: Monitor, state: PyTree
) -> tuple[PyTree, Record]:
    """The monitor's new state and what it reports, over the replicas that are still running."""
    variables, failed = program.collect([(s.variables, s.failed_step) for s in carry])
    return measure_variables(step, variables, failed, monitor, state)


def measure_variables(
    step: int, variables: PyTree, failed: np.ndarray, monitor: Monitor, state: PyTree
) -> tuple[PyTree, Record]:
    """`measure` of stacked variables; `failed` is -1 for each replica that is still running."""
    # The last update may have produced NaNs that the next step's check has not seen; skip those replicas instead of
    # failing the metric.
    finite = [np.isfinite(leaf.reshape(len(leaf), -1)).all(1) for leaf in jax.tree.leaves(variables["params"])]
    running = np.flatnonzero((failed < 0) & np.all(finite, axis=0))
    record: Record = {}
    left = trees.take(variables, running)
    if len(running) > 1:
        state = monitor.update(state, step, left)
        for name, estimate in monitor.summarise(state).items():
            record[name] = {field: x if math.isfinite(x) else None for field, x in estimate._asdict().items()}
    if monitor.numbers is not None and len(running):
        for name, values in monitor.numbers(left).items():
            record[name] = [None] * len(failed)
            for place, value in zip(running.tolist(), values.tolist(), strict=True):
                record[name][place] = value if math.isfinite(value) else None
    return state, record
