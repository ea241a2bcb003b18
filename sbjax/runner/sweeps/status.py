"""What is known of the cells of a sweep, from their folders alone."""

import itertools
import json
import pathlib
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from sbjax.common.files import FileError, append_line, changed, read_json, read_lines, write_atomically
from sbjax.runner.sweeps import lease
from sbjax.runner.sweeps.cells import Cell
from sbjax.runner.sweeps.folder import Sweep

DONE, ATTEMPTS = "DONE.json", "attempts.jsonl"
DONE_FORM = {"status": str, "files": {str: str}, "seconds": float}
ATTEMPT_FORM = {"event": str, "uuid": str, "time": float, "ending?": str, "why?": (str, None), "seconds?": float}

FINISHED = ("done", "diverged")
ENDINGS = (*FINISHED, "interrupted", "failed", "out of memory")
STARTABLE = ("waiting", "interrupted", "lost", "out of memory")
MOST_LOST = 3
"""How often a cell is started again that was killed, lost, ran out of memory, or was stopped before it got further."""
STEP = re.compile(r"(in arm .* )?after step \d+")


class State(NamedTuple):
    """Of one cell.

    Attributes:
        status: 'waiting' (never started), 'running', 'interrupted' (asked to stop, has saved), 'lost' (killed, or its
            host is gone), 'out of memory', 'failed' (an error; it would come again), 'gave up' (lost too often),
            'damaged' (a file changed since it was done), 'done', 'diverged' (done; no replica is left).
        why: of a status that is not good news.
        seconds: that the attempts took so far, as far as they told.
        lost: attempts that brought nothing: without an end, out of memory, or stopped where the one before was.
    """

    status: str
    why: str = ""
    seconds: float = 0.0
    lost: int = 0


def state_of(folder: pathlib.Path, watch: lease.Watch | None = None) -> State:
    """The state of a cell by its folder."""
    try:
        done = read_json(folder / DONE, DONE_FORM, remedy=f"`run --again={folder.name}` makes the cell anew")
        if done["status"] not in FINISHED:
            return State("damaged", f"{folder / DONE}: status={done['status']!r} is none of {', '.join(FINISHED)}")
        return State(done["status"], seconds=float(done["seconds"]))
    except FileNotFoundError:
        pass
    except FileError as error:
        return State("damaged", str(error))
    try:
        attempts = [found for _, found in read_attempts(folder)]
    except FileError as error:
        return State("damaged", str(error))
    if not attempts:
        return State("waiting")
    ends = {one["uuid"]: one for one in attempts if one["event"] == "end"}
    starts = [one for one in attempts if one["event"] == "start"]
    seconds = sum(float(one.get("seconds", 0.0)) for one in ends.values())
    holder = lease.read(folder)
    if holder is not None and not holder.gone() and not (watch is not None and watch.silent(folder, holder)):
        return State("running", str(holder), seconds)
    lost = sum(one["uuid"] not in ends or ends[one["uuid"]]["ending"] == "out of memory" for one in starts)
    lost += _no_further([ends[one["uuid"]] for one in starts if one["uuid"] in ends])
    last = ends.get(starts[-1]["uuid"]) if starts else None
    if last is None:
        why = f"attempt {len(starts)} ended without a word: killed, or its host was lost"
        return State("gave up" if lost > MOST_LOST else "lost", why, seconds, lost)
    if last["ending"] in ("out of memory", "interrupted") and lost > MOST_LOST:
        return State("gave up", last.get("why") or "", seconds, lost)
    if last["ending"] in FINISHED:
        return State("lost", f"it ended well, and its {DONE} is gone", seconds, lost)
    return State(last["ending"], last.get("why") or "", seconds, lost)


def _no_further(ends: Sequence[dict[str, Any]]) -> int:
    """Attempts that were stopped, such as by a limit of time, at the very step at which the one before was."""
    told = [STEP.search(one.get("why") or "") if one["ending"] == "interrupted" else None for one in ends]
    return sum(bool(one and other) and one[0] == other[0] for one, other in itertools.pairwise(told))


def starts(folder: pathlib.Path) -> int:
    """How many attempts have begun, as far as their file can be read."""
    try:
        return sum(one["event"] == "start" for _, one in read_attempts(folder))
    except FileError:
        return 0


def read_attempts(folder: pathlib.Path) -> list[tuple[int, dict[str, Any]]]:
    """The lines of `attempts.jsonl`, with their numbers.

    Raises:
        FileError: a line that this program has not written.
    """
    found = read_lines(folder / ATTEMPTS, ATTEMPT_FORM) if (folder / ATTEMPTS).exists() else []
    for number, one in found:
        if one["event"] not in ("start", "end") or (one["event"] == "end" and one.get("ending") not in ENDINGS):
            raise FileError(f"{folder / ATTEMPTS} line {number} is neither a start nor an end; remove the line")
    return found


def states(sweep: Sweep, watch: lease.Watch | None = None) -> dict[str, State]:
    """Of all cells, by id."""
    return {cell.id: state_of(sweep.folder(cell), watch) for cell in sweep.cells}


def table(sweep: Sweep, found: dict[str, State], *, every: bool = False) -> str:
    """Counts, and a line for each cell that is neither done nor waiting; of a small sweep, or of `every` cell, all."""
    counts: dict[str, int] = {}
    for state in found.values():
        counts[state.status] = counts.get(state.status, 0) + 1
    total = f"{len(sweep.cells)} cells: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    every = every or len(sweep.cells) <= 40
    shown = [cell for cell in sweep.cells if every or found[cell.id].status not in ("done", "waiting")]
    return "\n".join([total, *(_line(cell, found[cell.id]) for cell in shown)])


def _line(cell: Cell, state: State) -> str:
    more = f" and {len(cell.uses) - 1} more" if len(cell.uses) > 1 else ""
    took = f"  {state.seconds:.0f} s" if state.seconds else ""
    return f"  {cell.id}  {state.status:13} {cell.label}{more}{took}{'  ' + state.why if state.why else ''}"


def damaged_files(folder: pathlib.Path) -> list[str]:
    """Files of a finished cell that are missing or hold something else than when it finished."""
    return changed(folder, read_json(folder / DONE, DONE_FORM)["files"])


def reopen(folder: pathlib.Path) -> None:
    """Make a finished or failed cell startable again; its checkpoints stay."""
    for name in (DONE, ATTEMPTS):
        (folder / name).unlink(missing_ok=True)


def begin(folder: pathlib.Path, holder: lease.Holder, **facts: Any) -> float:
    """Note the start of an attempt."""
    append_line(folder / ATTEMPTS, {"event": "start", **_who(holder), "time": time.time(), **facts})
    return time.monotonic()


def end(folder: pathlib.Path, holder: lease.Holder, ending: str, why: str, began: float) -> None:
    """Note its end."""
    seconds = round(time.monotonic() - began, 3)
    content = {"event": "end", **_who(holder), "time": time.time(), "ending": ending, "seconds": seconds}
    append_line(folder / ATTEMPTS, {**content, "why": why[:2000]})


def finish(folder: pathlib.Path, status: str, files: dict[str, str], seconds: float) -> None:
    """Write `DONE.json`, the last file of a cell."""
    write_atomically(folder / DONE, json.dumps({"status": status, "seconds": seconds, "files": files}, indent=1))


def ids(cells: Sequence[Cell]) -> str:
    """A few ids for a message."""
    return ", ".join(cell.id for cell in cells[:5]) + (", .." if len(cells) > 5 else "")


def _who(holder: lease.Holder) -> dict[str, Any]:
    return {"uuid": holder.uuid, "host": holder.host, "pid": holder.pid}
