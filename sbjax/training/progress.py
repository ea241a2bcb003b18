"""Progress with the time that is left."""

import sys
import time

from sbjax.common import hosts


class Progress:
    """One line that says where a run is: rewritten in place on a terminal, else printed every `interval` seconds.

    The time left is the work that is left over the speed so far, and the mean time of a compilation for each program
    that is still to be compiled. Work is any unit (FLOPs), so that arms of different cost add up; compilation is no
    speed.

    Args:
        total_work: of the whole run.
        programs: how many will be compiled: one a phase of each arm.
    """

    def __init__(self, total_work: float, *, programs: int = 0, stream=None, interval: float = 5.0):
        self._total, self._done = total_work, 0.0
        self._programs, self._compiled, self._compiling = programs, 0, 0.0
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._interval = 0.2 if self._live else interval
        self._began, self._shown = time.monotonic(), 0.0
        self._worked, self._seconds = 0.0, 0.0
        self._width = 0

    def skip(self, work: float, *, programs: int = 0) -> None:
        """Work that was done in an earlier process, and programs that it leaves nothing to do for."""
        self._done += work
        self._programs -= programs

    def add(self, work: float, seconds: float, *, compiled: bool, label: str) -> None:
        """`work` more was done in `seconds`; `compiled`: this included a compilation."""
        self._done += work
        if compiled:
            self._compiled += 1
            self.compiling(seconds)
        else:
            self._worked += work
            self._seconds += seconds
        now = time.monotonic()
        if now - self._shown >= self._interval:
            self._shown = now
            self.show(label)

    def compiling(self, seconds: float) -> None:
        """Seconds of compiling anything else that each arm needs, such as its initial state."""
        self._compiling += seconds

    def show(self, label: str) -> None:
        """Write the line now."""
        if not hosts.first():
            return
        share = min(1.0, self._done / self._total) if self._total else 0.0  # nothing may be counted of a program
        left = "--" if not self._worked else clock(self.seconds_left())
        line = f"{label}  {100 * share:3.0f} %  elapsed {clock(time.monotonic() - self._began)}  left {left}"
        if self._live:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def seconds_left(self) -> float:
        """Seconds of work and compilation that are left, once some work was timed."""
        each = self._compiling / self._compiled if self._compiled else 0.0
        return (self._total - self._done) * self._seconds / self._worked + each * max(
            0, self._programs - self._compiled
        )

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
