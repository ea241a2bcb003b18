"""The training loop of one arm: all replicas, from any step to the last."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Key

from sbjax import trees
from sbjax.common import hosts
from sbjax.metrics.monitor import Monitor
from sbjax.tasks.task import Task, Variables
from sbjax.training import fit_state
from sbjax.training import step as step_lib
from sbjax.training.checkpoint import Checkpoints
from sbjax.training.fit_state import Failure, FitState, items_of
from sbjax.training.placement import Placement, Program
from sbjax.training.records import Record, make_record, measure
from sbjax.training.timeline import make_timeline

__all__ = ["Failure", "Fitted", "Hooks", "Phase", "fit", "items_of"]

PULSE_SECONDS = 0.5  # how long the device works before signals, the clock and the progress line are looked at


class Phase(NamedTuple):
    """A stretch of the training with an optimiser of its own."""

    optimizer: optax.GradientTransformationExtraArgs
    steps: int


class Fitted(NamedTuple):
    """A trained arm.

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
    """Callbacks. They observe training and never change its result.

    Attributes:
        stop: asked between pulses; True = save and return.
        on_resume: `(step, history)` once, when training goes on from a checkpoint.
        on_report: `(record)` after the report's checkpoint, if one was due, is handed to the thread that writes it.
        on_pulse: `(step, seconds, compiled)` after each pulse: the step reached and the time it took; compiled = the
            time is that of compiling as well.
        on_failure: `(failure, evidence)` when a replica stops; evidence as flat names to arrays.
        on_spent: `(what, seconds)` for 'compile', 'evaluate', 'measure' and 'save'.
    """

    stop: Callable[[], bool] = lambda: False
    on_resume: Callable[[int, list[Record]], None] = lambda step, history: None
    on_report: Callable[[Record], None] = lambda record: None
    on_pulse: Callable[[int, float, bool], None] = lambda step, seconds, compiled: None
    on_failure: Callable[[Failure, dict[str, Array]], None] = lambda failure, evidence: None
    on_spent: Callable[[str, float], None] = lambda what, seconds: None


def fit(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    steps: int,
    replicas: int,
    key: Key[Array, ""],
    first: int = 0,
    second_phase: Phase | None = None,
    extend_steps: int = 0,
    reports: int = 10,
    saves: int = 0,
    save_seconds: float = 300.0,
    save_steps: Sequence[int] = (),
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    monitor: Monitor | None = None,
    monitor_steps: Sequence[int] = (),
    checkpoints: Checkpoints | None = None,
    hooks: Hooks | None = None,
) -> Fitted:
    """Train `replicas` independent copies of `task` for `steps` steps.

    If `checkpoints` holds a whole checkpoint, training goes on from there and ends with the same bytes as a run that
    was never stopped: the state has the sums of the current reporting interval, batches and noise are functions of
    (key, replica, step), and the history lies in the checkpoint. At a report: evaluate, save, then tell `hooks`.

    A replica that turns non-finite keeps its last good state and is reported by `hooks.on_failure`; the others go on.

    Args:
        steps: of `optimizer`.
        first: number of the first replica: this is the block of replicas `first` to `first + replicas - 1` of a larger
            run, which trains as it does there.
        second_phase: another optimiser that starts, with a fresh state, from where the first one ends: Adam, then a
            quasi-Newton method. Steps count on. The end of the first phase is a report as well.
        extend_steps: further steps of the last phase; its optimiser's state and step count are carried on. Reports up
            to the old end stay as they were, so that a finished run can be extended from its last checkpoint and equals
            a run that was made so long from the start.
        reports: how many times, evenly spaced, the held-out numbers are computed (and once before the first step); an
            extension has as many on top as its length is worth, at least one.
        saves: how many checkpoints, evenly spaced and moved to the next report; with `checkpoints`, the last step is
            always saved.
        save_seconds: save also once so much time has passed since the last save, between reports too; 0 = never.
        save_steps: reports at which a checkpoint is saved besides.
        monitor: numbers about all replicas together, such as replica distances.
        monitor_steps: where they are taken, from 0 to the last step; each is a report as well.

    Raises:
        ValueError: steps (of either phase), replicas or reports < 1, a negative extension or time, or a monitor step
            outside the training.
        CheckpointError: the checkpoint found is of another run or a longer one, or one could not be written.
    """
    phases = [Phase(optimizer, steps), *([] if second_phase is None else [second_phase])]
    timeline = make_timeline(
        [phase.steps for phase in phases],
        reports=reports,
        saves=saves,
        extend_steps=extend_steps,
        monitor_steps=monitor_steps,
        save_steps=save_steps,
    )
    if replicas < 1:
        raise ValueError(f"replicas={replicas} must be >= 1")
    if not save_seconds >= 0:
        raise ValueError(f"save_seconds={save_seconds} must be a number >= 0 (0 = only with reports)")
    hooks = hooks or Hooks()
    if hosts.count() > 1 and placement.compile == "pmap":
        raise ValueError("compile='pmap' is for one process; use 'jit' with several")
    began = time.perf_counter()
    programs = [
        Program(task, phase.optimizer, placement=placement, replicas=replicas, key=key, first=first) for phase in phases
    ]
    run = fit_state.restore(checkpoints, programs, timeline, monitor)
    if run is None:
        program = programs[0]
        carry = program.init()
        monitored = None if monitor is None else monitor.init(program.collect([state.variables for state in carry]))
        run = FitState(0, carry, [], [], monitored)
        hooks.on_spent("compile", time.perf_counter() - began)
        _report(run, program, monitor, monitor_steps, hooks)
        hooks.on_report(run.history[-1])
        saved = None
    else:
        program = programs[timeline.phase(run.step)]
        hooks.on_resume(run.step, run.history)
        saved = run.step
    saved_at = time.monotonic()

    def save():
        nonlocal saved, saved_at
        if checkpoints is not None and saved != run.step:
            began = time.perf_counter()
            fit_state.save(checkpoints, program, run, task, stopgap=run.step not in timeline.saves)
            hooks.on_spent("save", time.perf_counter() - began)
            saved, saved_at = run.step, time.monotonic()

    def overdue():
        if checkpoints is None or not save_seconds:
            return False
        return hosts.from_first(lambda: save_seconds < time.monotonic() - saved_at)

    pulse = 1
    while run.step < timeline.steps:
        if run.step in timeline.ends:  # of the first phase
            program, pulse = programs[timeline.ends.index(run.step) + 1], 1
            run.carry = program.adopt(run.carry)
        target = timeline.next_report(run.step)
        while run.step < target and not (asked := hooks.stop()):
            stop = min(target, run.step + pulse)
            began, before = time.perf_counter(), program.programs()
            run.carry = program.advance(run.carry, run.step, stop)
            # A call that compiles, such as the first one, says nothing of the time of a step. Pulses are alike in all
            # processes: the first one's clock counts.
            spent = time.perf_counter() - began, program.programs() > before
            seconds, compiled = hosts.from_first(lambda spent=spent: spent)
            longer = 2 if compiled else np.clip(PULSE_SECONDS / max(seconds, 1e-9), 0.25, 8)
            pulse = max(1, round(longer * (stop - run.step)))
            run.step = stop
            hooks.on_pulse(run.step, seconds, compiled)
            if overdue():
                break
        run.failures = _note_failures(task, key, program, run, timeline, hooks)
        if len(run.failures) == replicas:  # none is left to train
            program = _skip_to_end(run, program, programs, timeline, hooks)
            break
        if run.step == target:
            _report(run, program, monitor, monitor_steps, hooks)
            run.carry = [_reset(state) for state in run.carry]
            asked = run.step < timeline.steps and hooks.stop()
        if run.step in timeline.saves or asked or overdue():
            save()
        if run.step == target:
            hooks.on_report(run.history[-1])
        if asked:
            break
    save()
    if checkpoints is not None:
        began = time.perf_counter()
        checkpoints.wait()
        hooks.on_spent("save", time.perf_counter() - began)
    variables = program.collect([state.variables for state in run.carry])
    return Fitted(variables, run.history, run.failures, run.step, sum(program.programs() for program in programs))


def _report(run, program, monitor, monitor_steps, hooks):
    """Append the numbers of this step to the history."""
    began = time.perf_counter()
    record = make_record(run.step, program, run.carry)
    hooks.on_spent("evaluate", time.perf_counter() - began)
    if monitor is not None and run.step in monitor_steps:
        began = time.perf_counter()
        run.monitored, measures = measure(run.step, program, run.carry, monitor, run.monitored)
        record |= measures
        hooks.on_spent("measure", time.perf_counter() - began)
    run.history.append(record)


def _reset(state: step_lib.TrainState) -> step_lib.TrainState:
    zeros = jax.tree.map(lambda leaf: leaf * 0, (state.totals, state.count))
    return state._replace(totals=zeros[0], count=zeros[1])


def _note_failures(task, key, program, run, timeline, hooks):
    failed = program.collect([state.failed_step for state in run.carry])
    new = sorted(set(np.flatnonzero(failed >= 0)) - {failure.replica - program.first for failure in run.failures})
    if not new:
        return run.failures
    failures, states = list(run.failures), program.collect(run.carry)
    for replica in new:
        what, evidence = step_lib.diagnose(task, key, trees.take(states, int(replica)))
        failures.append(Failure(program.first + int(replica), int(failed[replica]), what))
        hooks.on_failure(failures[-1], evidence)
    # In the order of reports, whenever they were found: checkpoints by time look for them in between.
    return sorted(failures, key=lambda failure: (timeline.next_report(failure.step), failure.replica))


def _skip_to_end(run, program, programs, timeline, hooks):
    """Where no replica is left: reports without numbers, and the state that the last phase's checkpoints have."""
    names = [name for name, value in run.history[-1].items() if isinstance(value, list)]
    for step in [step for step in timeline.reports if step > run.history[-1]["step"]]:
        run.history.append({"step": step, **{name: [None] * program.replicas for name in names}})
        hooks.on_report(run.history[-1])
    for later in programs[programs.index(program) + 1 :]:
        run.carry = later.adopt(run.carry)
    run.step = timeline.steps
    return programs[-1]
