"""Being asked to stop: Ctrl-C, SIGTERM, SIGHUP, and SIGUSR1 and SIGUSR2, by which clusters announce the end of a job.

Once to save, twice to stop at once.
"""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator

logger = logging.getLogger(__name__)

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_asked: list[int] | None = None


class Interrupted(Exception):
    """The run was asked to stop and has saved; starting it again goes on from there."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signal_number


@contextlib.contextmanager
def listening() -> Iterator[list[int]]:
    """A list that gets the number of the first signal; the second one acts at once. Within another: the same list."""
    global _asked
    if _asked is not None:
        yield _asked
        return
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked  # Python hands signals to the main thread only
        return
    before = {number: signal.getsignal(number) for number in CAUGHT}
    if before[signal.SIGHUP] is signal.SIG_IGN:  # by `nohup`: it is to go on when its terminal closes
        del before[signal.SIGHUP]

    def ask(number, frame):
        asked.append(number)
        logger.warning("%s: saving at the next opportunity; once more to stop at once", signal.Signals(number).name)
        for caught, handler in before.items():
            signal.signal(caught, handler)

    for number in before:
        signal.signal(number, ask)
    _asked = asked
    try:
        yield asked
    finally:
        _asked = None
        for number, handler in before.items():
            signal.signal(number, handler)
