"""Checkpoints that are either whole or not there.

What a checkpoint is made of and how it is checked: `checkpoint_files`. Its digests are written last: a folder without
them was cut off and is not used.
"""

import concurrent.futures
import functools
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from sbjax.common import hosts
from sbjax.common.files import write_atomically
from sbjax.training import checkpoint_hosts
from sbjax.training.checkpoint_files import (
    FORMAT,
    CheckpointError,
    alone,
    check_format,
    check_identity,
    check_layout,
    could_not_be_written,
    digests,
    find_fault,
    layout,
    on_one_device,
    read_meta,
    saved_steps,
    set_aside,
)
from sbjax.training.orbax_messages import quiet
from sbjax.training.retention import Kept, read_kept, superseded

__all__ = ["Checkpoint", "CheckpointError", "Checkpoints", "Kept", "superseded"]

logger = logging.getLogger(__name__)

TEMPORARY = ".orbax-checkpoint-tmp"


class Checkpoint(NamedTuple):
    """One restored checkpoint.

    Attributes:
        step: steps done.
        items: trees of arrays by name.
        meta: what was saved with it, and 'format', 'identity', 'step' and 'kept' (see `Kept`).
    """

    step: int
    items: dict[str, PyTree]
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one arm.

    Kept are the newest one, the latest `keep` and the `keep_best` with the best metric. A stopgap, saved because time
    has passed or the process must end, is kept only as the newest one. What a finished run leaves therefore does not
    depend on the clock, and stopgaps push out neither the latest nor the best.

    Args:
        folder: where they lie; made on the first save.
        keep: how many of the latest to keep, >= 1.
        keep_best: how many of the best to keep besides.
        goal: 'max' or 'min', what best means.
        identity: names and plain values that tell this run from others, such as arm, seed and a digest of its settings.
            They are saved with every checkpoint, and one with another value is not restored.

    Raises:
        ValueError: keep < 1 or keep_best < 0.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoints = Checkpoints(folder, identity={'arm': 'raw', 'seed': 0})
        ...     checkpoints.save(10, {'params': {'w': np.ones(2)}}, meta={'note': 'x'})
        ...     found = checkpoints.restore(lambda step: {'params': {'w': jax.ShapeDtypeStruct((2,), np.float64)}})
        ...     checkpoints.close()
        >>> found.step, found.meta['note'], found.meta['identity']
        (10, 'x', {'arm': 'raw', 'seed': 0})
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        keep: int = 2,
        keep_best: int = 0,
        goal: str = "max",
        identity: Mapping[str, Any] | None = None,
    ):
        if keep < 1:
            raise ValueError(f"keep={keep} must be >= 1, or an interrupted run could not go on")
        if keep_best < 0:
            raise ValueError(f"keep_best={keep_best} must be >= 0")
        self.folder = pathlib.Path(folder).absolute()  # orbax fails late, in a thread, on a relative path
        self._keep, self._keep_best, self._goal = keep, keep_best, goal
        self._identity = json.loads(json.dumps(dict(identity or {})))
        self._manager = None
        self._kept: dict[int, Kept] = {}
        self._writer: concurrent.futures.ThreadPoolExecutor | None = None
        self._writing: concurrent.futures.Future | None = None
        self._parts = checkpoint_hosts.Parts()

    @functools.cached_property
    def shared(self) -> bool:
        """Whether several processes share the folder: each then writes its own part of global arrays.

        Else the first process writes for all. All ask at the same place of the program.
        """
        return hosts.count() > 1 and hosts.share_folder(self.folder)

    def save(
        self,
        step: int,
        items: Mapping[str, PyTree],
        *,
        meta: Mapping[str, Any],
        metric: float | None = None,
        stopgap: bool = False,
        background: bool = False,
    ) -> None:
        """Write one checkpoint and return when it is on the disk with its digest. An existing step is left alone.

        Args:
            items: trees of arrays by name; one without arrays takes no space. Where processes share the folder
                (`shared`), all call this, with global arrays; else what the first one gives counts.
            meta: plain values.
            metric: what `keep_best` goes by.
            stopgap: it may go with the next save.
            background: return at once; a thread writes. The arrays must stay as they are until `wait` returns.
                At most one is written at a time: a further save first waits for it.

        Raises:
            CheckpointError: it, or the one that was written in the background before, could not be written; what was
                saved before is untouched.
        """
        self.wait()
        about = {
            "format": FORMAT,
            "identity": self._identity,
            "step": step,
            "layout": layout(dict(items)),
            "kept": Kept(None if metric is None else float(metric), stopgap)._asdict(),
        }
        meta = json.loads(json.dumps({**meta, **about}))  # histories grow while a thread writes
        filled = {name: tree for name, tree in items.items() if jax.tree.leaves(tree)}
        if not self.shared:
            hosts.from_first(lambda: self._start(lambda: self._write(step, filled, meta)))
        elif not hosts.from_first(lambda: step in saved_steps(self.folder)):
            with could_not_be_written(self.folder, step):
                self._parts.save(self.folder / str(step), filled, meta)
            if hosts.first():
                self._start(lambda: self._finish(step, meta))
        if not background:
            self.wait()

    def wait(self) -> None:
        """Return when what is written in the background is on the disk with its digest.

        Raises:
            CheckpointError: it could not be written; told once.
        """
        if not hosts.first():
            with could_not_be_written(self.folder):
                self._parts.wait()
        hosts.from_first(self._wait)

    def _wait(self):
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _start(self, write):
        """One thread writes at a time."""
        if self._writer is None:
            self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing = self._writer.submit(write)

    def _write(self, step, items, meta):
        """A checkpoint of arrays that this process has whole."""
        import orbax.checkpoint as ocp

        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        with could_not_be_written(self.folder, step):
            manager = self._open()
            if step in manager.all_steps():  # orbax would skip it in silence
                return
            with quiet():  # each of its threads logs its traceback, and the error is raised all the same
                manager.save(step, args=ocp.args.Composite(**args, meta=ocp.args.JsonSave(meta)))
                manager.wait_until_finished()
            self._seal(step, meta, manager.delete)

    def _finish(self, step, meta):
        """A checkpoint whose parts all processes write."""
        with could_not_be_written(self.folder, step):
            self._parts.wait()
            self._kept = self._kept or self._read_kept()
            self._seal(step, meta, lambda old: shutil.rmtree(self.folder / str(old)))

    def _seal(self, step, meta, delete):
        write_atomically(self._digest_file(step), json.dumps(digests(self.folder / str(step)), indent=0))
        # Not left to orbax, which deletes before the digest is written: a kill in between would cost both.
        self._kept[step] = Kept(**meta["kept"])
        for old in superseded(self._kept, keep=self._keep, keep_best=self._keep_best, goal=self._goal):
            self._digest_file(old).unlink(missing_ok=True)
            delete(old)
            del self._kept[old]

    def _read_kept(self):
        return {step: read_kept(self.folder / str(step)) for step in saved_steps(self.folder)}

    def restore(self, abstract: Callable[[int], Mapping[str, PyTree]], *, at: int | None = None) -> Checkpoint | None:
        """The newest whole checkpoint, or None.

        A damaged or unfinished one is named in the log, moved to `<folder>/damaged/` and passed over.

        Args:
            abstract: `(step) -> items`, the shapes and dtypes expected of a checkpoint of that step, as from
                `jax.eval_shape`.
            at: the step of another one than the newest.

        Raises:
            CheckpointError: the checkpoint has another format or identity, or arrays of other names, shapes or dtypes.
        """
        found: Checkpoint | None = None
        shared = self.shared

        def read():
            nonlocal found
            found = self._restore(abstract, at, only_check=shared)
            return None if found is None else [found.step, found.meta]

        told = hosts.from_first(read)
        if told is None or hosts.count() == 1:
            return found
        step, meta = told
        items = dict(abstract(step))
        if shared:
            filled = {name: tree for name, tree in items.items() if jax.tree.leaves(tree)}
            return Checkpoint(step, items | checkpoint_hosts.read(self.folder / str(step), filled), meta)
        return Checkpoint(step, hosts.share(items if found is None else found.items), meta)

    def _restore(self, abstract, at, *, only_check):
        import orbax.checkpoint as ocp

        for step in self._whole_steps():
            if at not in (None, step):
                continue
            folder = self.folder / str(step)
            meta = read_meta(folder)
            check_format(meta, folder)
            check_identity(meta["identity"], self._identity, folder)
            items = dict(abstract(step))
            check_layout(meta.pop("layout"), layout(items), folder)
            filled = {name: tree for name, tree in items.items() if jax.tree.leaves(tree)}
            if only_check:
                return Checkpoint(step, items, meta)
            args = {name: ocp.args.StandardRestore(on_one_device(tree)) for name, tree in filled.items()}
            restored = self._open().restore(step, args=ocp.args.Composite(**args))
            return Checkpoint(step, items | {name: restored[name] for name in filled}, meta)
        return None

    def close(self) -> None:
        """Wait for what is written in the background, and release all threads.

        Raises:
            CheckpointError: it could not be written.
        """
        try:
            self.wait()
        finally:
            self._release()

    def _release(self):
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None
        if self._manager is not None:
            self._manager.close()
            self._manager = None
        self._parts.close()

    def _open(self):
        if self._manager is None:
            import orbax.checkpoint as ocp

            self.folder.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(
                enable_async_checkpointing=False, create=False, multiprocessing_options=alone()
            )
            self._manager = ocp.CheckpointManager(self.folder, options=options)
            self._kept = self._read_kept()
        return self._manager

    def _digest_file(self, step: int) -> pathlib.Path:
        return self.folder / f"{step}.sha256"

    def _whole_steps(self):
        """Steps whose files match their digests, newest first; what is broken is moved away first."""
        self.close()  # orbax lists steps once, when opened
        for leftover in self.folder.glob(f"*{TEMPORARY}*"):
            logger.warning("removing the unfinished checkpoint %s: the process was stopped while writing it", leftover)
            shutil.rmtree(leftover, ignore_errors=True)
        for step in saved_steps(self.folder):
            fault = find_fault(self.folder / str(step), self._digest_file(step))
            if fault is None:
                yield step
            else:
                damaged = set_aside(self.folder / str(step), self._digest_file(step))
                logger.error("checkpoint of step %d is not used: %s. It was moved to %s", step, fault, damaged)
