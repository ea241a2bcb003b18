"""The work of one cell, in this process."""

import contextlib
import logging
import pathlib
import re
import time
import traceback
from collections.abc import Sequence
from typing import Any

from sbjax.common.files import digest, write_json
from sbjax.frame.arms import precision
from sbjax.frame.environment import environment
from sbjax.frame.errors import ConfigError
from sbjax.frame.estimate import check_disk
from sbjax.frame.own_parts import code_in, tree_digest
from sbjax.runner import run as run_lib
from sbjax.runner.signals import Interrupted, listening
from sbjax.runner.sweeps import lease as lease_lib
from sbjax.runner.sweeps import status
from sbjax.runner.sweeps.cells import Cell, cell_plan, source_of
from sbjax.runner.sweeps.folder import Sweep, digests
from sbjax.training.progress import Progress

logger = logging.getLogger(__name__)

SHRUNK = ("map", "sequential")
"""Placements with fewer replicas at once, for the attempts after memory ran out."""
OUT_OF_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|[Oo]ut of memory|bad_alloc")
APART = ("lease.", "tensorboard", "cell.json", status.ATTEMPTS, status.DONE, ".lock", "log.txt", "status.json")
"""Beginnings of names of files that say nothing of a cell's result."""

EXIT = {"done": 0, "diverged": 3, "failed": 1, "out of memory": 12, "busy": 75}
"""Exit codes of `sweep run --cell`; 128 + n after signal n."""


class Busy(Exception):
    """Another process works on the cell."""


def work(sweep: Sweep, cell: Cell, *, wait: bool = True) -> str:
    """Train a cell from where it was left, and return how it ended: 'done', 'diverged', 'failed', 'out of memory'.

    A cell that is done is left alone. What goes wrong in it is written to its `attempts.jsonl`; a traceback goes to the
    log.

    Args:
        wait: watch the heartbeat of a process that has the cell and may be gone; else give up at once.

    Raises:
        Busy: another process works on it.
        Interrupted: stopped by a signal; it has saved.
    """
    folder = sweep.folder(cell)
    state = status.state_of(folder)
    if state.status in status.FINISHED:
        return state.status
    with listening() as asked:  # from here on, so that what is stopped while it starts is not taken for lost
        return _hold(sweep, cell, _take(folder, wait, asked), state)


def _hold(sweep: Sweep, cell: Cell, lease: lease_lib.Lease, state: status.State) -> str:
    """The attempt of a process that has the lease, and the notes of it; `state` is what it found."""
    folder = sweep.folder(cell)
    ending, why, began = "interrupted", "", None
    try:
        now = status.state_of(folder)
        if now.status in status.FINISHED:  # by the one who had it before
            return now.status
        settings = sweep.runs[cell.uses[0][0]]
        began = status.begin(
            folder, lease.holder, environment=environment(settings.get("precision"), code_in(settings))
        )
        write_json(folder / "cell.json", {**cell.as_json(), "settings": settings})
        ending, why = _attempt(sweep, cell, folder, lease, state)
        if ending in status.FINISHED:
            seconds = state.seconds + time.monotonic() - began
            status.finish(folder, ending, _digests(folder), round(seconds, 3))
        return ending
    except Interrupted as stop:
        why = str(stop)
        raise
    finally:
        if began is not None and not lease.lost:
            status.end(folder, lease.holder, ending, why, began)
        lease.release()


def _take(folder: pathlib.Path, wait: bool, asked: Sequence[int]) -> lease_lib.Lease:
    watch = lease_lib.Watch()
    until = time.monotonic() + (watch.seconds + lease_lib.BEAT_SECONDS if wait else 0)
    while True:
        lease = lease_lib.take(folder, watch)
        if lease is not None:
            return lease
        if asked:
            raise Interrupted(asked[0], f"stopped while {lease_lib.read(folder)} had {folder.name}")
        if time.monotonic() >= until:
            raise Busy(f"{folder.name} is being worked on by {lease_lib.read(folder)}")
        time.sleep(0.5)


def _attempt(sweep, cell, folder, lease, before) -> tuple[str, str]:
    """How an attempt ended, and why; `before` is the state that it found."""
    smaller = SHRUNK[: before.lost] if before.status == "out of memory" else ()
    try:
        plan = sweep.plan(cell.uses[0][0])
        if plan.experiment.by_arm:
            return _train(sweep, cell, folder, lease, plan, smaller), ""
        outcome = run_lib.run_plan(plan, folder, overrides=list(sweep.overrides), config_file=sweep.config_file)
        return outcome.status, ""
    except (Interrupted, Busy):
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
            logger.error("memory ran out: %s", str(error).splitlines()[:1])
            return "out of memory", f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        return _failed(error)
    except Exception as error:  # of any kind: it is noted, and the other cells go on
        return _failed(error)


def _failed(error: BaseException) -> tuple[str, str]:
    if isinstance(error, ConfigError):
        logger.error("error: %s", error)
        return "failed", str(error)
    logger.error("%s", "".join(traceback.format_exception(error)))
    return "failed", f"{type(error).__name__}: {error}"


def _train(sweep, cell, folder, lease, plan, smaller) -> str:
    """One arm and block of replicas, by the training loop."""
    _run, arm = cell.uses[0]
    plan = cell_plan(plan, cell, arm)
    workdir = run_lib.open_workdir(plan, folder)
    workdir.check_writable()
    with contextlib.ExitStack() as stack:
        stack.enter_context(precision(plan.precision))
        data = _load_checked(sweep, plan)
        prepared = plan.experiment.prepare(plan, loaded=data)
        if smaller:
            placement = smaller[-1]
            logger.warning("memory ran out before: replicas are trained with placement.replicas=%r now", placement)
            changed = prepared.placement.__class__(**{**prepared.placement.__dict__, "replicas": placement})
            prepared = prepared._replace(placement=changed)
        plan.experiment.check_time(prepared)
        check_disk(plan.experiment.disk(prepared), workdir.path)
        stack.callback(workdir.close)
        workdir.open(overrides=list(sweep.overrides), config_file=sweep.config_file, own_code=plan.own_code)
        asked = stack.enter_context(listening())
        [built] = prepared.arms
        progress = Progress(built.steps * built.flops_per_step)
        stop = lambda: bool(asked) or lease.lost  # noqa: E731
        fitted = plan.experiment.train(prepared, built, workdir, progress, stop)
        progress.end()
        if fitted.step < built.steps:
            workdir.set_status("interrupted", arm=arm, step=fitted.step, of=built.steps)
            if not asked:
                raise Busy(f"{folder.name}: another process has taken this cell over")
            raise Interrupted(asked[0], f"stopped after step {fitted.step} of {built.steps}; all is saved")
        ending = "diverged" if len(fitted.failures) == plan.replicas else "done"
        workdir.set_status(ending)
        return ending


def _load_checked(sweep: Sweep, plan: Any) -> dict[tuple, Any]:
    """The data of an arm by source, if they are those that the sweep was planned with."""
    [arm] = plan.arms
    source = source_of(plan, arm)
    data = plan.experiment.load_data(arm.task)
    planned = digests(sweep).get((plan.experiment.name, source))
    if planned is not None and tree_digest(data) != planned:
        raise ConfigError(
            f"the data of arm {arm.name!r} are not those that the sweep was planned with (SHA-256 differs): put them "
            "back, or plan another sweep"
        )
    return {source: data}


def _digests(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of what a cell made. Of checkpoints the files with their own digests: those are checked when read."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name.startswith(APART) or name.endswith((".tmp", ".stale")):
            continue
        if not name.startswith("checkpoints/") or name.endswith(".sha256"):
            found[name] = digest(path)
    return found
