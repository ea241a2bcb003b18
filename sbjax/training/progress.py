"""Progress with the time that is left."""

import sys
import time

from sbjax import hosts


class Progress:
    """One line that says where a run is: rewritten in place on a terminal, else printed every `interval` seconds.

    The time left is the work that is left over the speed so far. Work is any unit (FLOPs), so that arms of
    different cost add up; compilation counts as time spent and not as speed.
    """

    def __init__(self, total_work: float, *, stream=None, interval: float = 5.0):
        self._total, self._done = total_work, 0.0
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._interval = 0.2 if self._live else interval
        self._began, self._shown = time.monotonic(), 0.0
        self._worked, self._seconds = 0.0, 0.0
        self._width = 0

    def skip(self, work: float) -> None:
        """Work that was done in an earlier process."""
        self._done += work

    def add(self, work: float, seconds: float, *, compiled: bool, label: str) -> None:
        """`work` more was done in `seconds`; `compiled`: this included a compilation."""
        self._done += work
        if not compiled:
            self._worked += work
            self._seconds += seconds
        now = time.monotonic()
        if now - self._shown >= self._interval:
            self._shown = now
            self.show(label)

    def show(self, label: str) -> None:
        """Write the line now."""
        if not hosts.first():
            return
        share = self._done / self._total
        left = "--" if not self._worked else clock((self._total - self._done) * self._seconds / self._worked)
        line = f"{label}  {100 * share:3.0f} %  elapsed {clock(time.monotonic() - self._began)}  left {left}"
        if self._live:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._live and self._width:
            self._stream.write("\n")
            self._width = 0


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss.

    >>> clock(75), clock(3700)
    ('1:15', '1:01:40')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
