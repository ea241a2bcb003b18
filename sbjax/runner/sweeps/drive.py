"""Work through the cells of a sweep with an engine: what is started, started again, and when to stop."""

import logging
import pathlib
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sbjax.report.facts import duration
from sbjax.runner.signals import Interrupted, listening
from sbjax.runner.sweeps import lease, status
from sbjax.runner.sweeps.cells import Cell
from sbjax.runner.sweeps.engines import GRACE_SECONDS, Engine, cell_command
from sbjax.runner.sweeps.folder import Sweep
from sbjax.runner.sweeps.status import State

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
SOON_SECONDS = 60.0
"""Two cells that fail alike so soon after their start are no bad luck: the sweep stops."""
BUSY = 75


class Swept(NamedTuple):
    """What `drive` returns: states by cell, and why it stopped before the end, if it did."""

    states: dict[str, State]
    stopped: str = ""

    @property
    def exit_code(self) -> int:
        """0 all done, 3 some diverged, 4 some missing."""
        found = {state.status for state in self.states.values()}
        return 4 if found - set(status.FINISHED) else 3 if "diverged" in found else 0


def drive(
    sweep: Sweep,
    engine: Engine,
    *,
    jobs: int,
    words: Sequence[str] = (),
    command: Callable[..., list[str]] = cell_command,
    keep_going: bool = False,
) -> Swept:
    """Start every cell that can be started, `jobs` at a time, until none is left.

    Several processes may drive one sweep: a cell is trained by the one that takes its lease.

    Args:
        words: further flags of the command of a cell.
        keep_going: go on where two cells have failed alike at once.

    Raises:
        Interrupted: stopped by a signal, after the cells that ran have saved.
    """
    watch, running, failures = lease.Watch(), {}, []
    states = status.states(sweep, watch)
    line = _Line(sweep, states)
    starts: dict[str, int] = {}  # attempts that had begun when the command was started
    later: dict[str, float] = {}  # cells that another process has: looked at again after a while
    with listening() as asked:
        while not asked:
            for cell in sweep.cells:
                if len(running) >= jobs:
                    break
                if cell.id in running or time.monotonic() < later.get(cell.id, 0) or not _startable(states[cell.id]):
                    continue
                folder = sweep.folder(cell)
                folder.mkdir(parents=True, exist_ok=True)
                starts[cell.id] = status.starts(folder)
                running[cell.id] = (
                    cell, engine.start(command(sweep.path, cell.id, words=words), folder / "log.txt"), time.monotonic(),
                )  # fmt: skip
                line.show(states, running)
            if not running:
                states = _others(sweep, states, watch)
                if not any(state.status in ("running", *status.STARTABLE) for state in states.values()):
                    break
            for name, (cell, job, began) in list(running.items()):
                code = engine.poll(job)
                if code is None:
                    continue
                del running[name]
                states[name] = state = _ended(sweep, cell, code, watch, starts[name])
                if code == BUSY:
                    later[name] = time.monotonic() + 5
                _tell(sweep, cell, state, code)
                line.show(states, running)
                if state.status == "failed" and time.monotonic() - began < SOON_SECONDS:
                    failures.append(state.why.splitlines()[0] if state.why else "")
                if not keep_going and failures and failures.count(failures[-1]) > 1:
                    _stop_all(engine, running)
                    states = status.states(sweep, watch)
                    return Swept(states, f"two cells failed alike within {SOON_SECONDS:.0f} s of their start: "
                                         f"{failures[-1]}")  # fmt: skip
            time.sleep(POLL_SECONDS)
        if asked:
            _stop_all(engine, running)
            raise Interrupted(
                asked[0], f"stopped by {signal.Signals(asked[0]).name}; the cells have saved. To go on, start the same "
                "command again",
            )  # fmt: skip
    line.end()
    return Swept(states)


def _startable(state: State) -> bool:
    return state.status in status.STARTABLE


def _others(sweep: Sweep, states: dict[str, State], watch: lease.Watch) -> dict[str, State]:
    """The states with those of cells that other processes have looked at again."""
    return {
        cell.id: status.state_of(sweep.folder(cell), watch) if states[cell.id].status == "running" else states[cell.id]
        for cell in sweep.cells
    }


def _ended(sweep: Sweep, cell: Cell, code: int, watch: lease.Watch, before: int) -> State:
    """The state of a cell whose command ended; `before` are the attempts that had begun when it was started."""
    folder = sweep.folder(cell)
    if not folder.is_dir():  # removed while it ran
        folder.mkdir(parents=True)
        status.begin(folder, _nobody())
        return status.state_of(folder, watch)
    state = status.state_of(folder, watch)
    if code == 12 and state.status == "lost":  # the kernel killed it for memory
        return _note(folder, "out of memory", "killed by the kernel: memory ran out")
    if code in (BUSY, 0) or status.starts(folder) > before or state.status not in ("running", *status.STARTABLE):
        return state
    # It could not even begin, which would come again for ever: an error fails, one that was killed counts as lost.
    if code > 0:
        why = f"its command ended with exit code {code}: {_last_line(folder / 'log.txt')}"
        return _note(folder, "failed", why, anew=True)
    if state.status != "running":
        status.begin(folder, _nobody())
    return status.state_of(folder, watch)


def _note(folder: pathlib.Path, ending: str, why: str, *, anew: bool = False) -> State:
    """Write down what a process could not say itself, of its attempt or of one that it could not begin."""
    starts = [one for _, one in status.read_attempts(folder) if one["event"] == "start"]
    holder = _nobody() if anew or not starts else _nobody()._replace(uuid=starts[-1]["uuid"])
    if anew or not starts:
        status.begin(folder, holder)
    status.end(folder, holder, ending, why, time.monotonic())
    return status.state_of(folder)


def _nobody() -> lease.Holder:
    return lease.Holder(uuid.uuid4().hex, "", "", 0, 0)


def _last_line(log: pathlib.Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    return lines[-1] if lines else "its log is empty"


def _tell(sweep: Sweep, cell: Cell, state: State, code: int) -> None:
    if state.status == "done" or code == BUSY:
        return
    log = sweep.folder(cell) / "log.txt"
    again = "; it is started again from its checkpoint" if _startable(state) else ""
    logger.warning("cell %s (%s): %s%s. %s Log: %s", cell.id, cell.label, state.status, again, state.why, log)


def _stop_all(engine: Engine, running: dict[str, tuple[Cell, Any, float]]) -> None:
    """Ask all to save, and wait for them; a second signal, or a grace period, ends them."""
    for _, job, _ in running.values():
        engine.stop(job)
    until = time.monotonic() + GRACE_SECONDS
    while running and time.monotonic() < until:
        for name, (_, job, _) in list(running.items()):
            if engine.poll(job) is not None:
                del running[name]
        time.sleep(POLL_SECONDS)
    for _, job, _ in running.values():
        engine.stop(job, kill=True)


class _Line:
    """Progress of the whole sweep: on a terminal one line that is written over, else one a cell."""

    def __init__(self, sweep: Sweep, states: dict[str, State]):
        self._total = len(sweep.cells)
        self._before = sum(state.status in status.FINISHED for state in states.values())
        self._began = time.monotonic()
        self._live = sys.stderr.isatty()
        self._said, self._told = "", self._before

    def show(self, states, running):
        done = sum(state.status in status.FINISHED for state in states.values())
        new, spent = done - self._before, time.monotonic() - self._began
        left = f", about {duration(spent / new * (self._total - done))} left" if new and done < self._total else ""
        at = ", ".join(cell.label for cell, _, _ in list(running.values())[:3])
        said = f"{done} of {self._total} cells done{left}" + (f"; at {at}" if at else "")
        if self._live and said != self._said:
            sys.stderr.write(f"\r\033[K{said}")
            sys.stderr.flush()
        elif not self._live and done != self._told:
            logger.info("%s", said)
        self._said, self._told = said, done

    def end(self):
        if self._live and self._said:
            sys.stderr.write("\n")
