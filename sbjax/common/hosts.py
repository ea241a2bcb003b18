"""Several processes of one run, on one machine or on many: the same program in each, files by the first one alone.

What the first process reads or decides goes to all through the coordination service of `jax.distributed`, in the order
of the program: every process calls `from_first` and `largest` at the same places. In a run of one process these call
their argument and nothing else. No file system need be shared.
"""

import contextlib
import faulthandler
import functools
import json
import logging
import os
import pathlib
import re
import subprocess
import time
import uuid
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from sbjax.common.files import plain

logger = logging.getLogger(__name__)

START_SECONDS = 300  # within which all processes must come
HEARTBEAT_SECONDS = 60  # after which a silent process is taken for dead, and the others are ended
WAIT_MS = 7 * 24 * 3600 * 1000  # for a process that lives; a dead one is noticed by its heartbeat
SEEN_SECONDS = 10  # until a file of one host has come to the others by a network file system
_TIDY = 256  # messages
GONE = (
    "error: another process of this run has ended, or cannot be reached. What was saved is untouched: start the same "
    "command on all hosts again, which goes on from there"
)
_TELL = """
IFS= read -r first || exit 0
case "$first" in *Abort*) echo "$0" >&2;; *) echo "$first" >&2; exec cat >&2;; esac
"""

_count, _number, _within = 1, 0, False


class HostsError(ValueError):
    """Processes that cannot start together, or an error of the first one, told to the others."""


def parse(given: str) -> tuple[str, int, int] | None:
    """The flag --distributed: `HOST:PORT,PROCESS,COUNT`, or None for `auto`.

    Raises:
        HostsError: it is neither.

    >>> parse('10.0.0.1:1234,0,2'), parse('auto')
    (('10.0.0.1:1234', 0, 2), None)
    """
    if given == "auto":
        return None
    found = re.fullmatch(r"(\S+:(\d{1,5})),(\d+),(\d+)", given)
    if not found or not 0 < int(found[2]) < 65536:
        raise HostsError(
            f"--distributed={given!r} must be 'auto' (Slurm, Open MPI, TPU pods) or HOST:PORT,PROCESS,COUNT, such "
            "as 10.0.0.1:1234,0,2: address of process 0, number of this process, number of all"
        )
    process, count = int(found[3]), int(found[4])
    if process >= count:
        raise HostsError(f"--distributed={given!r}: process {process} of {count} is none; they are 0 to {count - 1}")
    return found[1], process, count


def start(given: str, *, wait_seconds: int = START_SECONDS) -> None:
    """Meet the other processes; before anything else touches a device. Ended by `stop`.

    Raises:
        HostsError: the flag is wrong, or not all came in time.
    """
    global _count
    explicit = parse(given)
    # JAX would take SIGTERM for itself.
    jax.config.update("jax_enable_preemption_service", False)
    options: dict[str, Any] = {
        "initialization_timeout": wait_seconds,
        "heartbeat_timeout_seconds": _heartbeat_seconds(),
        "shutdown_timeout_seconds": 60,
    }
    if explicit:
        address, process, count = explicit
        options |= {"coordinator_address": address, "process_id": process, "num_processes": count}
        if address.startswith(("127.", "localhost:")):
            options["coordinator_bind_address"] = address
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())[:160]
        raise HostsError(
            f"--distributed={given}: the processes did not meet within {wait_seconds} s ({said}). Start the command on "
            "every host, each with its own number and the same HOST:PORT, which all must reach; 'auto' works under "
            "Slurm, Open MPI and on TPU pods only"
        ) from None
    jax.devices()  # all exchange their devices here
    _count = jax.process_count()
    if _count > 1:
        _tell_of_an_abort()
    if not first():
        logging.getLogger("sbjax").setLevel(logging.WARNING)


def _heartbeat_seconds() -> int:
    given = os.environ.get("SBJAX_HEARTBEAT_SECONDS", str(HEARTBEAT_SECONDS))
    if not given.isdecimal() or int(given) < 1:
        raise HostsError(f"SBJAX_HEARTBEAT_SECONDS={given!r} must be a whole number of seconds >= 1")
    return int(given)


def _tell_of_an_abort() -> None:
    """What to do, in place of stacks, once JAX has aborted this process because another one is gone.

    It does so in a thread where no Python runs. What Python's fault handler then writes goes to a shell that waits.
    """
    theirs, ours = os.pipe()
    with contextlib.suppress(OSError):  # there is no sh
        subprocess.Popen(["sh", "-c", _TELL, GONE], stdin=theirs, start_new_session=True)
        faulthandler.enable(ours)
    os.close(theirs)


def about(error: Exception) -> str | None:
    """What to do about an error of a collective operation with a process that is gone; None of any other error."""
    told = re.search(r"[Gg]loo|coordination.?service|NCCL|[Cc]onnection closed by peer", str(error), re.IGNORECASE)
    return GONE.removeprefix("error: ") if _count > 1 and told else None


def stop() -> None:
    """Part from the other processes at the end of the program."""
    global _count
    if jax.distributed.is_initialized():
        _count = 1
        jax.distributed.shutdown()


def count() -> int:
    """How many processes there are."""
    return _count


def first() -> bool:
    """Whether this is the one process that reads and writes the files of the run."""
    return _count == 1 or jax.process_index() == 0


def from_first(fn: Callable[[], Any]) -> Any:
    """`fn()` of the first process, in all of them; the others get it as JSON has it.

    Raises:
        HostsError: in the others, what `fn` raised in the first.

    >>> from_first(lambda: 3)
    3
    """
    global _within
    if _count == 1 or _within:
        return fn()
    key = _next_key()
    if not first():
        said = json.loads(_client().blocking_key_value_get_bytes(key, WAIT_MS))
        if "error" in said:
            raise HostsError(f"process 0: {said['error']}")
        return said["value"]
    _within = True
    try:
        value = fn()
    except BaseException as error:
        _client().key_value_set_bytes(key, json.dumps({"error": str(error) or type(error).__name__}).encode())
        raise
    finally:
        _within = False
    _client().key_value_set_bytes(key, json.dumps({"value": plain(value)}, default=str).encode())
    return value


def by_first(method: Callable) -> Callable:
    """A method that the first process runs for all, see `from_first`."""

    @functools.wraps(method)
    def called(*args: Any, **options: Any) -> Any:
        return from_first(lambda: method(*args, **options))

    return called


def largest(number: int) -> int:
    """The largest of the numbers that the processes give.

    >>> largest(15)
    15
    """
    if _count == 1:
        return number
    key = _next_key()
    _client().key_value_set_bytes(f"{key}/{jax.process_index()}", str(number).encode())
    every = [_client().blocking_key_value_get_bytes(f"{key}/{process}", WAIT_MS) for process in range(_count)]
    return max(map(int, every))


def barrier() -> None:
    """Wait for all: collective operations of devices give up on one that is late."""
    if _count > 1 and not _within:
        _client().wait_at_barrier(_next_key(), WAIT_MS)


def share_folder(folder: pathlib.Path) -> bool:
    """Whether all processes see this folder: the first one makes it and leaves a mark there, which the others look for.

    >>> share_folder(pathlib.Path('/'))
    True
    """
    if _count == 1:
        return True

    def leave():
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(".shared.*"):  # of a process that was killed here
            old.unlink(missing_ok=True)
        mark = folder / f".shared.{uuid.uuid4().hex}"
        mark.touch()
        return mark.name

    mark = folder / from_first(leave)
    until = time.monotonic() + SEEN_SECONDS
    while not (seen := mark.exists()) and time.monotonic() < until:
        time.sleep(0.05)
    everyone = largest(int(not seen)) == 0
    if first():
        mark.unlink(missing_ok=True)
    return everyone


def rows(leaf: Any) -> np.ndarray:
    """All rows of an array, also those that are with other processes."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def share(tree: PyTree) -> PyTree:
    """Arrays of the first process, byte for byte, in all; the others give their shapes and dtypes."""
    if _count == 1:
        return tree
    from jax.experimental import multihost_utils

    def one(leaf):
        own = np.asarray(leaf) if first() else np.zeros(leaf.shape, leaf.dtype)
        raw = np.frombuffer(own.tobytes(), np.uint8)  # a sum of floats would lose the sign of zero
        return np.frombuffer(
            np.asarray(multihost_utils.broadcast_one_to_all(raw, is_source=first())).tobytes(), own.dtype
        ).reshape(own.shape)

    barrier()
    return jax.tree.map(one, tree)


def put(tree: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
    """Arrays that all processes have, laid on devices; each fills its own."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def one(leaf):
        own = np.asarray(leaf)
        return jax.make_array_from_callback(own.shape, sharding, lambda index: own[index])

    return jax.tree.map(one, tree)


def _next_key() -> str:
    global _number
    _number += 1
    if _number % _TIDY == 0:  # the service keeps all that it was told
        _client().wait_at_barrier(f"sbjax/tidy/{_number}", WAIT_MS)
        if first():
            for old in range(_number - _TIDY, _number):
                _client().key_value_delete(f"sbjax/{old}")
    return f"sbjax/{_number}"


def _client() -> Any:
    from jax._src import distributed  # what orbax uses as well; JAX has no public name for it

    return distributed.global_state.client
