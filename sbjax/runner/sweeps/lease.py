"""Who works on a cell: one process at a time, on any host that sees the folder.

`lease.json` is made by exclusive creation and names its holder. The holder's heartbeat is a counter in a file of its
own. Nobody compares clocks: who wants the cell watches whether the counter moves, by a clock of its own. A process on
the same host (same boot, same container) that is gone is known at once. A lease that is given up by its holder's death
is moved away and a new one is made; a holder that finds another name in the file stops.
"""

import contextlib
import json
import os
import pathlib
import socket
import threading
import time
import uuid
from typing import Any, NamedTuple

from sbjax.common.files import FileError, read_json, write_atomically

NAME = "lease.json"
FORM = {"uuid": str, "host": str, "boot": str, "pid": int, "started": int}
BEAT_SECONDS = 5.0
BEATS_MISSED = 6
"""After so many beats without a change a lease is free."""


class Holder(NamedTuple):
    """Who holds a lease; `started` is the start of the process in ticks since boot: numbers of processes come again.

    `boot` is `boot_id()` where it runs.
    """

    uuid: str
    host: str
    boot: str
    pid: int
    started: int

    def gone(self) -> bool:
        """Whether the process is known to have ended: only of this host and boot."""
        return (self.host, self.boot) == (socket.gethostname(), boot_id()) and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """A cell's lease, held until `release`. Made by `take`.

    Attributes:
        holder: this process.
        lost: whether another process has it by now.
    """

    def __init__(self, folder: pathlib.Path, holder: Holder, beat_seconds: float):
        self.folder, self.holder = folder, holder
        self._ended = threading.Event()
        self._lost = False
        self._beat(0)
        self._thread = threading.Thread(target=self._keep, args=(beat_seconds,), daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        return self._lost

    def release(self) -> None:
        """Give it back."""
        self._ended.set()
        self._thread.join()
        holder = read(self.folder)
        if holder is not None and holder.uuid == self.holder.uuid:
            (self.folder / NAME).unlink(missing_ok=True)
        _beat_file(self.folder, self.holder).unlink(missing_ok=True)

    def _keep(self, seconds):
        count = 0
        while not self._ended.wait(seconds):
            count += 1
            try:
                self._beat(count)
                holder = read(self.folder)
            except OSError:  # a file system that hangs for a while; the next beat tries again
                continue
            self._lost = self._lost or (holder is not None and holder.uuid != self.holder.uuid)

    def _beat(self, count):
        write_atomically(_beat_file(self.folder, self.holder), str(count))


def take(folder: pathlib.Path, watch: "Watch | None" = None, *, beat_seconds: float = BEAT_SECONDS) -> Lease | None:
    """The lease of a cell's folder, or None while another process holds it.

    Args:
        watch: what was seen of other leases so far; without one, only holders known to be gone give way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holder = read(folder)
    if holder is not None and not _is_free(folder, holder, watch):
        return None
    mine = Holder(uuid.uuid4().hex, socket.gethostname(), boot_id(), os.getpid(), _started(os.getpid()))
    if not _create(folder, mine):
        return None
    return Lease(folder, mine, beat_seconds)


def _is_free(folder: pathlib.Path, holder: Holder, watch: "Watch | None") -> bool:
    """Whether a holder gives way; its lease is put away then."""
    given_up = holder.gone() or (watch is not None and watch.silent(folder, holder))
    return given_up and _put_away(folder, holder)


def read(folder: pathlib.Path) -> Holder | None:
    """Who holds the lease of a folder; None where nobody does."""
    try:
        holder = Holder(**read_json(folder / NAME, FORM))
        if holder.uuid.isalnum():  # it is part of names of files
            return holder
    except FileNotFoundError:
        return None
    except (FileError, TypeError):
        pass
    return Holder("damaged", "", "", 0, 0)  # by nobody, and nobody's beat moves


class Watch:
    """Which heartbeats move, by this process's clock."""

    def __init__(self, seconds: float = BEAT_SECONDS * BEATS_MISSED):
        self.seconds = seconds
        self._seen: dict[tuple[str, str], tuple[str, float]] = {}

    def silent(self, folder: pathlib.Path, holder: Holder) -> bool:
        """Whether a holder's counter has stood still for the time that it takes to give up on it."""
        try:
            beat = _beat_file(folder, holder).read_text()
        except OSError:
            beat = ""
        key, now = (str(folder), holder.uuid), time.monotonic()
        before, since = self._seen.get(key, (None, now))
        if beat != before:
            since = now
        self._seen[key] = (beat, since)
        return now - since > self.seconds


def boot_id() -> str:
    """Of this host since it started, and of its container: numbers of processes say nothing from one to the other.

    '' where the system does not tell.
    """
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int:
    """When a process started, in ticks since boot; 0 where it is gone, -1 where that is not known."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, IndexError):
        return -1
    if os.path.isdir("/proc/self"):
        return 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return 0
    except OSError:
        pass
    return -1


def _create(folder: pathlib.Path, holder: Holder) -> bool:
    """Exclusive, and with its content from the first moment: a link to a finished file, atomic on NFS as well."""
    temporary = folder / f"{NAME}.{holder.uuid}.tmp"
    write_atomically(temporary, json.dumps(holder._asdict()))
    try:
        os.link(temporary, folder / NAME)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        return _create_plainly(folder, holder)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _create_plainly(folder, holder):
    try:
        with open(folder / NAME, "x") as file:
            file.write(json.dumps(holder._asdict()))
    except FileExistsError:
        return False
    return True


def _put_away(folder: pathlib.Path, holder: Holder) -> bool:
    """Move the lease of a holder that is gone; False where it was not his any more."""
    away = folder / f"lease.{holder.uuid}.{uuid.uuid4().hex[:8]}.stale"
    try:
        os.rename(folder / NAME, away)
    except FileNotFoundError:
        return False
    found = _read_file(away)
    if found.get("uuid", "damaged") == holder.uuid:
        _beat_file(folder, holder).unlink(missing_ok=True)
        away.unlink(missing_ok=True)
        return True
    with contextlib.suppress(OSError):  # somebody was faster, and this is the new lease: give it back
        os.link(away, folder / NAME)
    away.unlink(missing_ok=True)
    return False


def _read_file(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _beat_file(folder: pathlib.Path, holder: Holder) -> pathlib.Path:
    return folder / f"lease.{holder.uuid}.beat"
