"""Where the command of a cell runs: on this machine, by submitit (Slurm), or by Ray.

An engine starts commands and says how they ended. What to start, what to start again and when to stop is decided in
`drive`, alike for all engines.
"""

import contextlib
import ctypes
import importlib
import os
import pathlib
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from sbjax.frame.errors import ConfigError

ENGINES = ("local", "submitit", "ray")
GRACE_SECONDS = 60.0
"""Between being asked to stop and being killed."""
KILLED = -signal.SIGKILL
# Looked up before there are threads: between fork and exec of a child nothing else may be.
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1
OOM_EVENTS = pathlib.Path("/sys/fs/cgroup/memory.events")


class Limits(NamedTuple):
    """What a cell gets.

    Attributes:
        jobs: cells at a time.
        minutes: of an attempt at most; 0 = no limit.
        cores, gpus: of a cell; 0 cores = the machine's shared between the jobs.
        partition: of Slurm; '' = its default.
        memory_gb: of a job of Slurm; 0 = its default.
    """

    jobs: int = 1
    minutes: float = 0.0
    cores: int = 0
    gpus: int = 0
    partition: str = ""
    memory_gb: float = 0.0


@runtime_checkable
class Engine(Protocol):
    """Starts commands, each with a log file, and tells their exit codes (-n after signal n)."""

    def start(self, command: Sequence[str], log: pathlib.Path) -> Any:
        """Start a command; what it returns names it."""
        ...

    def poll(self, job: Any) -> int | None:
        """Its exit code; None while it runs or waits."""
        ...

    def stop(self, job: Any, *, kill: bool = False) -> None:
        """Ask it to save and end, or end it at once."""
        ...

    def close(self) -> None:
        """Give back what the engine holds."""
        ...


def cores_here() -> list[int]:
    """The cores that this process may use: those of the job, not of the node."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextlib.contextmanager
def _on(cores: set[int]) -> Iterator[None]:
    """Processes that this thread starts meanwhile run on these cores."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Local:
    """Processes on this machine, each in a group of its own and on its own share of the cores."""

    def __init__(self, limits: Limits):
        cores = cores_here()
        share = limits.cores or max(1, len(cores) // limits.jobs)
        self._slots = [
            {cores[(slot * share + i) % len(cores)] for i in range(min(share, len(cores)))}
            for slot in range(limits.jobs)
        ]  # fmt: skip
        self._seconds = 60 * limits.minutes
        self._running: dict[int, tuple[subprocess.Popen, int, float, int]] = {}
        self._asked: set[int] = set()

    def start(self, command, log):
        taken = {slot for _, slot, _, _ in self._running.values()}
        slot = next(i for i in range(len(self._slots)) if i not in taken)
        cores = self._slots[slot]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(len(cores)), "OMP_NUM_THREADS": str(len(cores))}
        with open(log, "ab") as output, _on(cores):
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment
            )
        self._running[process.pid] = (process, slot, time.monotonic(), oom_kills())
        return process.pid

    def poll(self, job):
        process, _, began, kills = self._running[job]
        code = process.poll()
        if code is None:
            spent = time.monotonic() - began
            if self._seconds and spent > self._seconds:
                self.stop(job, kill=spent > self._seconds + GRACE_SECONDS)
            return None
        self.stop(job, kill=True)  # what it may have left of its group
        del self._running[job]
        self._asked.discard(job)
        # The kernel's kill says nothing to the process; the control group counts them.
        return 12 if code == KILLED and oom_kills() > kills else code

    def stop(self, job, *, kill=False):
        if job in self._asked and not kill:  # a second signal would end it at once, unsaved
            return
        self._asked.add(job)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(job, signal.SIGKILL if kill else signal.SIGTERM)

    def close(self):
        for job in list(self._running):
            self.stop(job, kill=True)
            self._running[job][0].wait()


class Command:
    """A command as a job of another engine: its child is asked to save when the job is announced to end, or is gone.

    With `seconds` also after so long, for engines without a limit of their own.
    """

    def __init__(self, words: Sequence[str], log: str, seconds: float = 0.0):
        self.words, self.log, self.seconds = list(words), log, seconds

    def __call__(self) -> int:
        # In the process group of the job, whose signals it gets: Slurm's SIGTERM is swallowed by submitit.
        with open(self.log, "ab") as output:
            self._child = subprocess.Popen(
                self.words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=_save_without_parent
            )
        began, asked = time.monotonic(), False
        # `wait` would hold a lock that `checkpoint`, which interrupts it, could never take.
        while (code := self._child.poll()) is None:
            spent = time.monotonic() - began
            if self.seconds and spent > self.seconds + GRACE_SECONDS:
                self._child.kill()
            elif self.seconds and spent > self.seconds and not asked:
                self._child.send_signal(signal.SIGTERM)
                asked = True
            time.sleep(0.1)
        return code

    def checkpoint(self, *args: Any) -> Any:
        """Called by submitit, in a signal handler, before it puts the job into the queue again."""
        from submitit.helpers import DelayedSubmission

        self.save()
        return DelayedSubmission(Command(self.words, self.log, self.seconds))

    def save(self) -> None:
        """The child saves and ends."""
        self._child.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(GRACE_SECONDS)


def _save_without_parent() -> None:
    """In a child: SIGTERM once its parent is gone, as when a job is killed but not all of its processes are."""
    if _PRCTL:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Submitit:
    """Jobs of Slurm, or of submitit's own local executor where there is none."""

    def __init__(self, limits: Limits, folder: pathlib.Path, cluster: str = ""):
        submitit = _needed("submitit", "submitit")
        try:
            self._executor = submitit.AutoExecutor(folder=folder / "submitit", cluster=cluster or None)
        except RuntimeError as error:  # no Slurm
            raise ConfigError(f"--cluster={cluster}: {error} Leave it out, or use --cluster=local") from error
        wanted = {
            "timeout_min": max(1, round(limits.minutes)) if limits.minutes else 24 * 60,
            "cpus_per_task": limits.cores or max(1, len(cores_here()) // limits.jobs),
            "gpus_per_node": limits.gpus or None,
            "mem_gb": limits.memory_gb or None,
            "slurm_partition": limits.partition or None,
        }
        self._executor.update_parameters(**{name: value for name, value in wanted.items() if value is not None})
        self._stopped: set[str] = set()
        self._refused = (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError)

    def start(self, command, log):
        try:
            return self._executor.submit(Command(command, str(log)))
        except self._refused as error:
            said = [line for line in str(error).splitlines() if line.strip()]
            raise ConfigError(
                f"--engine=submitit: the job could not be submitted: {said[-1] if said else error}"
            ) from (error)

    def poll(self, job):
        if not job.done():
            return None
        try:
            return job.result()
        except Exception:  # killed or lost, whichever way its scheduler says so
            return -signal.SIGTERM if job.job_id in self._stopped else KILLED

    def stop(self, job, *, kill=False):
        self._stopped.add(job.job_id)
        job.cancel(check=False)

    def close(self):
        pass


class Ray:
    """Tasks of a Ray cluster: of `$RAY_ADDRESS`, or started on this machine for the time of the sweep."""

    def __init__(self, limits: Limits):
        address = os.environ.get("RAY_ADDRESS")
        if not address and "RAY_AUTH_MODE" not in os.environ:
            # Read when Ray is imported; without it Ray writes a token for its workers into the home folder.
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        self._ray = ray = _needed("ray", "ray")
        share = limits.cores or max(1, len(cores_here()) // limits.jobs)
        self._seconds = 60 * limits.minutes
        self._own = not ray.is_initialized()
        if self._own:
            here = {} if address else {"num_cpus": share * limits.jobs, "include_dashboard": False}
            if not address:  # cells yield to other programs no more than with the other engines
                os.environ.setdefault("RAY_worker_niceness", "0")
            ray.init(address=address, log_to_driver=False, **here)
        # The cell is a process of its own: what it sets (devices, precision) stays out of Ray's worker.
        self._task = ray.remote(_run_command).options(num_cpus=share, num_gpus=limits.gpus, max_retries=0)

    def start(self, command, log):
        return self._task.remote(list(command), str(log), self._seconds)

    def poll(self, job):
        ready, _ = self._ray.wait([job], timeout=0)
        if not ready:
            return None
        try:
            return self._ray.get(job)
        except self._ray.exceptions.TaskCancelledError:
            return -signal.SIGTERM
        except self._ray.exceptions.RayError:
            return KILLED

    def stop(self, job, *, kill=False):
        self._ray.cancel(job, force=kill)

    def close(self):
        if self._own:
            self._ray.shutdown()


def _run_command(words: list[str], log: str, seconds: float = 0.0) -> int:
    """In a worker of Ray; the child goes with it."""
    child = Command(words, log, seconds)
    try:
        return child()
    except BaseException:  # cancelled
        child.save()
        raise


def make_engine(name: str, limits: Limits, folder: pathlib.Path, *, cluster: str = "") -> Engine:
    """The engine of a name.

    Raises:
        ConfigError: an unknown one, or its package is not installed.
    """
    if name == "local":
        return Local(limits)
    if name == "submitit":
        return Submitit(limits, folder, cluster)
    if name == "ray":
        return Ray(limits)
    raise ConfigError(f"--engine={name!r} is unknown; known: {', '.join(ENGINES)}")


def cell_command(workdir: pathlib.Path, cell: str, *, words: Sequence[str] = ()) -> list[str]:
    """The command line of one cell, for any scheduler."""
    return [sys.executable, "-m", "sbjax", "sweep", "run", f"--workdir={workdir}", f"--cell={cell}", *words]


def oom_kills() -> int:
    """Processes of this control group that the kernel killed for memory so far."""
    try:
        lines = OOM_EVENTS.read_text().split("\n")
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _needed(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"--engine={module} needs the package {module}, which is not installed ({error}): pip install "
            f"'sbjax[{extra}]'"
        ) from error
