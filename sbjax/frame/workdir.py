"""The folder of one run: lock, status, resolved config, and the numbers as they come.

`metrics.jsonl` holds only what a repeated run would give again, byte for byte; timings go to `timings.jsonl`.
"""

import fcntl
import io
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sbjax.common import hosts
from sbjax.common.files import append_line, changed, read_json, write_atomically
from sbjax.common.names import expanded
from sbjax.frame import recorded
from sbjax.frame.callbacks import Callbacks, Event
from sbjax.frame.environment import environment
from sbjax.frame.errors import ConfigError, told_of_files
from sbjax.frame.recorded import FORMAT
from sbjax.report import results, whole


@runtime_checkable
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
        ConfigError: the folder belongs to another configuration or an earlier version, or a file of it is damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        settings: dict[str, Any],
        *,
        differences: Callable[[dict[str, Any], dict[str, Any]], list[str]] = lambda ours, theirs: [],
        callbacks: Callbacks | None = None,
    ):
        with told_of_files():
            self.path = expanded(path)
        for part in (self.path, *self.path.parents):
            if part.exists() and not part.is_dir():
                raise ConfigError(f"--workdir={path}: {part} is a file; name a folder")
        self._callbacks = callbacks
        found = self._read("config.json", results.CONFIG)
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
        found = self._read("status.json", whole.STATUS)
        return "new" if found is None else found["status"]

    def details(self) -> dict[str, Any]:
        """All of `status.json`; {} before there is one."""
        return self._read("status.json", whole.STATUS) or {}

    @property
    def extended(self) -> int:
        """Steps by which a finished run was extended."""
        found = self._read("config.json", results.CONFIG)
        return 0 if found is None else found.get("extended", 0)

    @property
    @hosts.by_first
    def writable(self) -> bool:
        """Whether files can be written into the folder."""
        try:
            self.check_writable()
        except ConfigError:
            return False
        return True

    @hosts.by_first
    def check_writable(self) -> None:
        """Refuse a folder that cannot be written, without leaving a trace.

        Raises:
            ConfigError: naming it and the reason.
        """
        existing = next(parent for parent in (self.path, *self.path.parents) if parent.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            raise ConfigError(
                f"--workdir={self.path} cannot be written ({error.strerror}: {existing}); choose a folder with write "
                "access"
            ) from None

    @hosts.by_first
    def changed(self) -> list[str]:
        """Files of a finished run that reports are made from and that are missing or were changed since."""
        return changed(self.path, self.details().get("inputs", {}))

    @hosts.by_first
    def made_is_whole(self) -> bool:
        """Whether tables, figures and page of a finished run are there as they were made."""
        made = self.details().get("made") or dict.fromkeys(whole.MADE, "")
        return not changed(self.path, made)

    @hosts.by_first
    def set_aside(self, names: list[str]) -> None:
        """Move files to `damaged/`, where they disturb nothing that is made anew."""
        for name in names:
            target = self.path / "damaged" / name
            if (self.path / name).exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.path / name, target)

    @hosts.by_first
    def open(
        self,
        *,
        overrides: list[str],
        config_file: str | None,
        extended: int = 0,
        environments: Sequence[dict[str, Any]] = (),
        own_code: Sequence[str] = (),
        own_data: dict[str, str] | None = None,
    ) -> None:
        """Take the lock and write `config.json`: the first thing that is written at all.

        `environments` are recorded in place of that of this process, where others have trained the arms; `own_code` and
        `own_data` are import paths of code, and digests of data, of the user's own.
        """
        import tensorboardX  # noqa: F401 (slow: paid once at the start and not at the first report)

        self.check_writable()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / ".lock", "a+")  # noqa: SIM115 (held until `close`)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"--workdir={self.path} is in use by another process; wait for it to end, or use another --workdir"
            ) from None
        found = self._read("config.json", results.CONFIG)
        now = environment(self._settings.get("precision"), own_code, own_data)
        if found is None:
            rest = recorded.first(list(environments) or [now], overrides, config_file, extended)
            content = {"format": FORMAT, "config": self._settings, **rest}
        else:
            content = recorded.going_on(found, json.loads(json.dumps(now)), extended, self.path)
        if content != found:
            write_atomically(self.path / "config.json", json.dumps(content, indent=1))

    @hosts.by_first
    def set_status(self, status: str, **details: Any) -> None:
        """Write `status.json`."""
        write_atomically(self.path / "status.json", json.dumps({"status": status, **details}) + "\n")

    @hosts.by_first
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

    @hosts.by_first
    def resume_metrics(self, arm: str, records: list[dict[str, Any]]) -> None:
        """Make the lines of `arm` those of its checkpoint: what was reported after it will come again."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        others = [line for line in lines if _arm(line) not in (arm, None)]
        write_atomically(path, "".join(line + "\n" for line in [*others, *map(json.dumps, records)]))
        self._close_events(arm)
        self._writer(arm, purge_step=records[-1]["step"] + 1 if records else 0)

    @hosts.by_first
    def report(self, record: dict[str, Any]) -> None:
        """Append one report to `metrics.jsonl` and to the TensorBoard events of its arm (median over replicas)."""
        append_line(self.path / "metrics.jsonl", record)
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

    @hosts.by_first
    def add_timing(self, **fields: Any) -> None:
        """Append one line to `timings.jsonl`."""
        append_line(self.path / "timings.jsonl", fields)

    @hosts.by_first
    def save_evidence(self, arm: str, failure: Any, evidence: dict[str, Any]) -> pathlib.Path:
        """Keep the batch and the last good variables of a replica that stopped, as an .npz."""
        path = self.path / "evidence" / f"{arm}-replica{failure.replica}-step{failure.step}.npz"
        path.parent.mkdir(exist_ok=True)
        content = io.BytesIO()
        np.savez(content, **{name: np.asarray(leaf) for name, leaf in evidence.items()})
        write_atomically(path, content.getvalue())
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

    @hosts.by_first
    def _read(self, name, form):
        try:
            with told_of_files():
                return read_json(self.path / name, form)
        except FileNotFoundError:
            return None


def _arm(line):
    try:
        return json.loads(line)["arm"]
    except (ValueError, KeyError, TypeError):
        return None  # cut off in the middle of writing
