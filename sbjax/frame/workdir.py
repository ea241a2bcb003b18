"""The folder of one run: lock, status, resolved config, and the numbers as they come.

`metrics.jsonl` holds only what a repeated run would give again, byte for byte; timings go to `timings.jsonl`.
"""

import fcntl
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from sbjax.files import write_atomically
from sbjax.frame.callbacks import Callbacks, Event
from sbjax.frame.errors import ConfigError

FORMAT = 2
"""Of `config.json` and what lies beside it; 1 had sections `lines`, `finish` and `mapping`, and no number."""

PACKAGES = ("sbjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ott-jax", "numpy", "scipy")


class Drawn(Protocol):
    """Where predictions are drawn: a `sbjax.tasks.task.Grid`, or anything with these."""

    points: np.ndarray
    reference: np.ndarray
    coordinates: tuple[str, ...]
    unknowns: tuple[str, ...]


class Workdir:
    """An open run folder. One process at a time: a second one is refused.

    Args:
        path: the folder; made by `open`. `~` and variables are expanded.
        settings: the resolved configuration, `Plan.settings`.
        differences: `(ours, theirs) -> sentences`, what may not change when a run goes on.
        callbacks: what is told of every report.

    Raises:
        ConfigError: the folder cannot be written, belongs to another configuration or an earlier version, or is in
            use.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        settings: dict[str, Any],
        *,
        differences: Callable[[dict[str, Any], dict[str, Any]], list[str]] = lambda ours, theirs: [],
        callbacks: Callbacks | None = None,
    ):
        self.path = expanded(path)
        _probe(self.path)
        self._callbacks = callbacks
        found = self._read("config.json")
        if found is not None:
            if found.get("format") != FORMAT:
                raise ConfigError(
                    f"--workdir={path} holds a run of another version of this program (format "
                    f"{found.get('format', 1)}, this one writes {FORMAT}), which cannot be gone on with; use another "
                    "--workdir, or the version that made it"
                )
            different = differences(settings, found["config"])
            if different:
                listed = "\n  ".join(different)
                raise ConfigError(
                    f"--workdir={path} holds a run of another configuration:\n  {listed}\n"
                    "Use another --workdir, or give the run its own configuration to go on with it"
                )
        self._settings = settings
        self._lock = None
        self._events = {}

    @property
    def status(self) -> str:
        """'new', 'running', 'interrupted', 'diverged' or 'done'."""
        found = self._read("status.json")
        return "new" if found is None else found["status"]

    def details(self) -> dict[str, Any]:
        """All of `status.json`; {} before there is one."""
        return self._read("status.json") or {}

    @property
    def extended(self) -> int:
        """Steps by which a finished run was extended."""
        found = self._read("config.json")
        return 0 if found is None else found.get("extended", 0)

    def open(self, *, overrides: list[str], config_file: str | None, extended: int = 0) -> None:
        """Take the lock and write `config.json`: the first thing that is written at all."""
        import tensorboardX  # noqa: F401 (slow: paid once at the start and not at the first report)

        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / ".lock", "a+")  # noqa: SIM115 (held until `close`)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"--workdir={self.path} is in use by another process; wait for it to end, or use another --workdir"
            ) from None
        found = self._read("config.json")
        if found is not None and found.get("extended", 0) != extended:
            write_atomically(self.path / "config.json", json.dumps({**found, "extended": extended}, indent=1))
        if found is None:
            content = {
                "format": FORMAT,
                "config": self._settings,
                "environment": environment(self._settings),
                "overrides": overrides,
                "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            }
            content |= {"config_file": config_file} if config_file else {}
            content |= {"extended": extended} if extended else {}
            write_atomically(self.path / "config.json", json.dumps(content, indent=1))

    def set_status(self, status: str, **details: Any) -> None:
        """Write `status.json`."""
        write_atomically(self.path / "status.json", json.dumps({"status": status, **details}) + "\n")

    def save_grid(self, arm: str, predicted: np.ndarray, grid: Drawn) -> None:
        """Write `grids/<arm>.npz`: points [*shape, d], reference [*shape, unknowns], predicted [replica, *shape,
        unknowns] in float32, and the names coordinates and unknowns."""
        content = io.BytesIO()
        np.savez_compressed(
            content,
            points=grid.points,
            reference=grid.reference,
            predicted=np.asarray(predicted, np.float32),
            coordinates=np.array(grid.coordinates),
            unknowns=np.array(grid.unknowns),
        )
        (self.path / "grids").mkdir(exist_ok=True)
        write_atomically(self.path / "grids" / f"{arm}.npz", content.getvalue())

    def resume_metrics(self, arm: str, records: list[dict[str, Any]]) -> None:
        """Make the lines of `arm` those of its checkpoint: what was reported after it will come again."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        others = [line for line in lines if _arm(line) not in (arm, None)]
        write_atomically(path, "".join(line + "\n" for line in [*others, *map(json.dumps, records)]))
        self._close_events(arm)
        self._writer(arm, purge_step=records[-1]["step"] + 1 if records else 0)

    def report(self, record: dict[str, Any]) -> None:
        """Append one report to `metrics.jsonl` and to the TensorBoard events of its arm (median over replicas)."""
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        writer = self._writer(record["arm"])
        for name, values in record.items():
            if isinstance(values, dict):  # a number of the whole arm, with its interval
                values = [values["value"]]
            finite = [value for value in values if value is not None] if isinstance(values, list) else []
            if finite:
                writer.add_scalar(name, float(np.median(finite)), record["step"])
        writer.flush()
        if self._callbacks is not None:
            self._callbacks(Event(record["arm"], record["step"], record, self.path))

    def add_timing(self, **fields: Any) -> None:
        """Append one line to `timings.jsonl`."""
        with open(self.path / "timings.jsonl", "a") as file:
            file.write(json.dumps(fields) + "\n")

    def save_evidence(self, arm: str, failure: Any, evidence: dict[str, Any]) -> pathlib.Path:
        """Keep the batch and the last good variables of a replica that stopped, as an .npz."""
        path = self.path / "evidence" / f"{arm}-replica{failure.replica}-step{failure.step}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **{name: np.asarray(leaf) for name, leaf in evidence.items()})
        return path

    def close(self) -> None:
        """Close the event files and give the lock back."""
        for arm in list(self._events):
            self._close_events(arm)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _writer(self, arm, **options):
        if arm not in self._events:
            import tensorboardX

            self._events[arm] = tensorboardX.SummaryWriter(str(self.path / "tensorboard" / arm), **options)
        return self._events[arm]

    def _close_events(self, arm):
        if arm in self._events:
            self._events.pop(arm).close()

    def _read(self, name):
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise ConfigError(
                f"{self.path / name} cannot be read ({error}); move it away or use another --workdir"
            ) from None


def environment(settings: dict[str, Any]) -> dict[str, Any]:
    """What a number may depend on besides the config: versions, device, precision, commit."""
    device = jax.devices()[0]
    return {
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "precision": dict(settings.get("precision", {"matmul": "default", "x64": False})),
        "commit": _commit(),
    }


def _processor():
    """The model of the CPU as Linux names it, else what Python knows."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor() or platform.machine()])[0]


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit():
    """The commit of the source tree, '+' if it was changed, None where the package is not in a git checkout."""
    here = pathlib.Path(__file__).parent

    def git(*words):
        return subprocess.run(
            ["git", "-C", here, *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def expanded(path: str | os.PathLike) -> pathlib.Path:
    """An absolute path, with `~` and variables replaced: shells do not do it after `--workdir=`."""
    return pathlib.Path(os.path.expandvars(os.path.expanduser(os.fspath(path)))).absolute()


def _probe(path: pathlib.Path) -> None:
    """Refuse a folder that cannot be written, without leaving a trace."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ConfigError(
            f"--workdir={path} cannot be written ({error.strerror}: {existing}); choose a folder with write access"
        ) from None


def _arm(line):
    try:
        return json.loads(line)["arm"]
    except (ValueError, KeyError, TypeError):
        return None  # cut off in the middle of writing
