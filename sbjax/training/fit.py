"""The training loop of one arm: all replicas, from any step to the last."""

import dataclasses
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Key

from sbjax import trees
from sbjax.metrics.monitor import Monitor
from sbjax.tasks.task import Task, Variables
from sbjax.training import checkpoint as checkpoint_lib
from sbjax.training import step as step_lib
from sbjax.training.placement import Mapping, Program

logger = logging.getLogger(__name__)

PULSE_SECONDS = 0.5  # how long the program may run before signals and the progress line are looked at

# {'step': .., 'train/loss': [one number or None a replica], .., 'replica_distance/marginal': {'value': .., ..}, ..}
Record = dict[str, Any]


class Phase(NamedTuple):
    """A stretch of the training with an optimiser of its own."""

    optimizer: optax.GradientTransformationExtraArgs
    steps: int


class Failure(NamedTuple):
    """A replica that stopped."""

    replica: int
    step: int
    what: str


class Fitted(NamedTuple):
    """What training an arm gives.

    Attributes:
        variables: stacked over replicas, numpy.
        history: one record a report; a replica that has stopped has None.
        failures: the replicas that stopped.
        step: steps done; less than asked for if `stop` said so.
        programs: how many times the training step was compiled; once a phase.
    """

    variables: Variables
    history: list[Record]
    failures: list[Failure]
    step: int
    programs: int


@dataclasses.dataclass
class Hooks:
    """What the caller wants to be told; none of it changes a number.

    Attributes:
        stop: asked between pulses; True = save and return.
        on_resume: `(step, history)` once, when training goes on from a checkpoint.
        on_report: `(record)` after the report's checkpoint, if one was due, is on the disk.
        on_pulse: `(step, seconds, compiled)`: the program came back at `step` after `seconds` more of training, or of
            compiling and training.
        on_failure: `(failure, evidence)` when a replica stops; evidence as flat names to arrays.
        on_spent: `(what, seconds)` for 'compile', 'evaluate', 'measure' and 'save'.
    """

    stop: Callable[[], bool] = lambda: False
    on_resume: Callable[[int, list[Record]], None] = lambda step, history: None
    on_report: Callable[[Record], None] = lambda record: None
    on_pulse: Callable[[int, float, bool], None] = lambda step, seconds, compiled: None
    on_failure: Callable[[Failure, dict[str, Array]], None] = lambda failure, evidence: None
    on_spent: Callable[[str, float], None] = lambda what, seconds: None


def boundaries(steps: int, count: int) -> list[int]:
    """`count` steps, as evenly spaced as whole numbers allow, the last one being `steps`.

    >>> boundaries(10, 4)
    [3, 5, 8, 10]
    """
    return sorted({math.ceil(steps * (i + 1) / count) for i in range(count)}) if count else []


def fit(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    steps: int,
    replicas: int,
    key: Key[Array, ""],
    reports: int = 10,
    saves: int = 0,
    finish: Phase | None = None,
    mapping: Mapping = Mapping(),  # noqa: B008 (frozen)
    monitor: Monitor | None = None,
    monitor_steps: Sequence[int] = (),
    checkpoints: checkpoint_lib.Checkpoints | None = None,
    hooks: Hooks | None = None,
) -> Fitted:
    """Train `replicas` independent copies of `task` for `steps` steps.

    At a boundary: evaluate, save, then report. If `checkpoints` holds a whole checkpoint, training goes on from there
    and ends with the same bytes as a run that was never stopped: the state has the sums of the current reporting
    interval, batches and noise are functions of (key, replica, step), and the history lies in the checkpoint.

    A replica that turns non-finite keeps its last good state and is reported by `hooks.on_failure`; the others go on.

    Args:
        steps: of `optimizer`.
        finish: a second phase, from where the first one ends, with a fresh state of its own optimiser: Adam, then a
            quasi-Newton method. Steps count on. The end of the first phase is a report as well.
        reports: how many times, evenly spaced, the held-out numbers are computed (and once before the first step).
        saves: how many checkpoints, evenly spaced and moved to the next report; with `checkpoints`, the last step is
            always saved.
        monitor: numbers about all replicas together, such as replica distances.
        monitor_steps: where they are taken, from 0 to `steps`; each is a report as well, with accuracy beside.

    Raises:
        ValueError: steps (of either phase), replicas or reports < 1, or a monitor step outside the training.
        CheckpointError: the checkpoint found is of another run, or one could not be written.
    """
    phases = [Phase(optimizer, steps), *([] if finish is None else [finish])]
    counts = [("train_steps", steps), ("finish.steps", phases[-1].steps), ("replicas", replicas), ("reports", reports)]
    for name, value in counts:
        if value < 1:
            raise ValueError(f"{name}={value} must be >= 1")
    ends = list(itertools.accumulate(phase.steps for phase in phases))
    steps = ends[-1]
    if outside := [step for step in monitor_steps if not 0 <= step <= steps]:
        raise ValueError(f"monitor_steps={outside} lie outside the training of {steps} steps")
    hooks = hooks or Hooks()
    began = time.perf_counter()
    programs = [Program(task, phase.optimizer, mapping=mapping, replicas=replicas, key=key) for phase in phases]
    report_steps = sorted({*boundaries(steps, reports), *ends, *monitor_steps} - {0})
    save_steps = {min(r for r in report_steps if r >= s) for s in boundaries(steps, saves)} | {steps}

    def take_report(step, carry, watched):
        record = _record(step, program, carry, hooks)
        if monitor is None or step not in monitor_steps:
            return record, watched
        watched, measures = _measure(step, program, carry, monitor, watched, hooks)
        return record | measures, watched

    restored = _restore(checkpoints, programs, ends, monitor)
    if restored is None:
        program = programs[0]
        step, carry, history, failures = 0, program.init(), [], []
        watched = None if monitor is None else monitor.init(program.collect([s.variables for s in carry]))
        hooks.on_spent("compile", time.perf_counter() - began)
        record, watched = take_report(0, carry, watched)
        history.append(record)
        hooks.on_report(record)
    else:
        step, carry, history, failures, watched = restored
        program = programs[_phase(ends, step)]
        hooks.on_resume(step, history)

    saved = None if restored is None else step
    pulse, compiled = 1, False
    while step < steps:
        if step in ends:  # of the first phase
            program, pulse, compiled = programs[ends.index(step) + 1], 1, False
            carry = program.adopt(carry)
        target = min(r for r in report_steps if r > step)
        while step < target and not hooks.stop():
            stop = min(target, step + pulse)
            began = time.perf_counter()
            carry = program.advance(carry, step, stop)
            seconds = time.perf_counter() - began
            # The first call compiles, and its time says nothing of a step.
            pulse = max(1, round(np.clip(PULSE_SECONDS / seconds, 0.25, 8) * (stop - step))) if compiled else 2
            step = stop
            hooks.on_pulse(step, seconds, not compiled)
            compiled = True
        failures = _note_failures(task, key, program, carry, failures, hooks)
        if len(failures) == replicas:  # none is left to train
            names = [name for name, value in history[-1].items() if isinstance(value, list)]
            for later in [s for s in report_steps if s > history[-1]["step"]]:
                history.append({"step": later, **{name: [None] * replicas for name in names}})
                hooks.on_report(history[-1])
            step = steps
            break
        if step == target:
            record, watched = take_report(step, carry, watched)
            history.append(record)
            carry = [_reset(state) for state in carry]
        interrupted = step < target or (step < steps and hooks.stop())
        if checkpoints is not None and (step in save_steps or interrupted):
            _save(checkpoints, program, carry, step, history, failures, watched, task, hooks)
            saved = step
        if step == target:
            hooks.on_report(history[-1])
        if interrupted:
            break
    if checkpoints is not None and saved != step:
        _save(checkpoints, program, carry, step, history, failures, watched, task, hooks)
    variables = program.collect([state.variables for state in carry])
    return Fitted(variables, history, failures, step, sum(program.programs() for program in programs))


def _record(step: int, program: Program, carry: list[step_lib.TrainState], hooks: Hooks) -> Record:
    """The numbers of one report; a replica that has stopped, or a mean over no steps, is None."""
    began = time.perf_counter()
    held_out = program.evaluate(carry)
    hooks.on_spent("evaluate", time.perf_counter() - began)
    totals, count, failed = program.collect([(s.totals, s.count, s.failed_step) for s in carry])
    running = failed < 0
    means = {name: total / np.maximum(count, 1) for name, total in totals.items()}

    def column(values, valid):
        return [float(v) if ok and np.isfinite(v) else None for v, ok in zip(values, valid, strict=True)]

    record = {"step": step}
    record |= {name: column(values, running & (count > 0)) for name, values in means.items()}
    record |= {name: column(values, running) for name, values in sorted(held_out.items())}
    return record


def _measure(step, program, carry, monitor, watched, hooks):
    """The monitor's new state and what it reports, over the replicas that are still running."""
    began = time.perf_counter()
    variables, failed = program.collect([(s.variables, s.failed_step) for s in carry])
    # What the very last update spoilt is not found yet: a metric must not stop the run for it.
    finite = [np.isfinite(leaf.reshape(len(leaf), -1)).all(1) for leaf in jax.tree.leaves(variables["params"])]
    running = np.flatnonzero((failed < 0) & np.all(finite, axis=0))
    measures = {}
    if len(running) > 1:
        watched = monitor.update(watched, step, trees.take(variables, running))
        for name, estimate in monitor.summarise(watched).items():
            measures[name] = {field: x if math.isfinite(x) else None for field, x in estimate._asdict().items()}
    hooks.on_spent("measure", time.perf_counter() - began)
    return watched, measures


def _reset(state: step_lib.TrainState) -> step_lib.TrainState:
    zeros = jax.tree.map(lambda leaf: leaf * 0, (state.totals, state.count))
    return state._replace(totals=zeros[0], count=zeros[1])


def _note_failures(task, key, program, carry, known, hooks):
    failed = program.collect([state.failed_step for state in carry])
    new = sorted(set(np.flatnonzero(failed >= 0)) - {failure.replica for failure in known})
    if not new:
        return known
    states = program.collect(carry)
    for replica in new:
        what, evidence = step_lib.diagnose(task, key, trees.take(states, int(replica)))
        known = [*known, Failure(int(replica), int(failed[replica]), what)]
        hooks.on_failure(known[-1], evidence)
    return known


def _save(checkpoints, program, carry, step, history, failures, watched, task, hooks):
    began = time.perf_counter()
    params, rest = _divide(program.collect(carry), watched)
    selection = [value for value in history[-1].get(task.selection, []) if value is not None]
    meta = {
        "step": step,
        "history": history,
        "failures": [failure._asdict() for failure in failures],
        "layout": checkpoint_lib.layout({"params": params, "state": rest}),
    }
    metric = float(np.median(selection)) if selection else None
    checkpoints.save(step, params=params, state=rest, meta=meta, metric=metric)
    hooks.on_spent("save", time.perf_counter() - began)


def _phase(ends, step):
    """The phase that makes step number `step`, counted from 1."""
    return next(i for i, end in enumerate(ends) if step <= end)


def _restore(checkpoints, programs, ends, monitor):
    if checkpoints is None:
        return None

    def abstract(step):
        state = programs[min(_phase([*ends, step], step), len(ends) - 1)].abstract()
        watched = None if monitor is None else jax.eval_shape(monitor.init, state.variables)
        return _divide(state, watched)

    found = checkpoints.restore(abstract)
    if found is None:
        return None
    fields = dict(found.state)
    watched = fields.pop("monitor", None)
    fields["variables"] = {**fields["variables"], "params": found.params}
    failures = [Failure(**failure) for failure in found.meta["failures"]]
    carry = programs[_phase(ends, found.step)].place(step_lib.TrainState(**fields))
    return found.step, carry, found.meta["history"], failures, jax.tree.map(np.asarray, watched)


def _divide(state: step_lib.TrainState, watched: Any) -> tuple[Any, dict[str, Any]]:
    """Stacked state and the monitor's -> (params, the rest), so that parameters can be restored alone."""
    fixed = {name: tree for name, tree in state.variables.items() if name != "params"}
    monitor = {} if watched is None else {"monitor": watched}
    return state.variables["params"], {**state._asdict(), "variables": fixed, **monitor}
