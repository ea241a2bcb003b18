"""Checkpoints that are either whole or not there.

A checkpoint is an orbax step folder with the items `params`, `state` (all else that training needs) and `meta`
(JSON), and beside it `<step>.sha256` with the digest of every file in it. The digest is written last: a folder
without one was cut off and is not used. Orbax restores a flipped bit or another dtype without a word, and still lists
a truncated folder, so nothing is restored that does not match its digests.
"""

import hashlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from sbjax.files import write_atomically

logger = logging.getLogger(__name__)

TEMPORARY = ".orbax-checkpoint-tmp"


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or does not belong to this run."""


class Checkpoint(NamedTuple):
    """One restored checkpoint."""

    step: int
    params: PyTree
    state: PyTree
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one arm.

    Keeps the latest `keep` steps and, apart from them, the `keep_best` steps with the best metric: the newest one is
    never deleted for being worse than an older one.

    Args:
        folder: where they lie; made on the first save.
        keep: how many of the latest to keep, >= 1.
        keep_best: how many of the best to keep besides.
        goal: 'max' or 'min', what best means.

    Raises:
        ValueError: keep < 1 or keep_best < 0.
    """

    def __init__(self, folder: str | os.PathLike, *, keep: int = 2, keep_best: int = 0, goal: str = "max"):
        if keep < 1:
            raise ValueError(f"checkpoint.keep={keep} must be >= 1, or an interrupted run could not go on")
        if keep_best < 0:
            raise ValueError(f"checkpoint.keep_best={keep_best} must be >= 0")
        self.folder = pathlib.Path(folder).absolute()  # orbax fails late, in a thread, on a relative path
        self._keep, self._keep_best, self._goal = keep, keep_best, goal
        self._manager = None

    def save(
        self, step: int, *, params: PyTree, state: PyTree, meta: dict[str, Any], metric: float | None = None
    ) -> None:
        """Write one checkpoint and return when it is on the disk with its digest.

        Raises:
            CheckpointError: it could not be written; what was saved before is untouched.
        """
        import orbax.checkpoint as ocp

        items = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            state=ocp.args.StandardSave(state),
            meta=ocp.args.JsonSave(meta),
        )
        metrics = {} if metric is None else {"metrics": {"value": float(metric)}}
        try:
            manager = self._open()
            if step in manager.all_steps():  # orbax would skip it in silence
                return
            manager.save(step, args=items, **metrics)
            manager.wait_until_finished()
            write_atomically(self._digest_file(step), json.dumps(_digests(self.folder / str(step)), indent=0))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {self.folder}: {error}. Earlier checkpoints "
                "are untouched: make room or give write access, then start the same command again"
            ) from error
        kept = {str(kept) for kept in manager.all_steps()}
        for file in self.folder.glob("*.sha256"):
            if file.stem not in kept:
                file.unlink()

    def restore(self, abstract: Callable[[int], tuple[PyTree, PyTree]]) -> Checkpoint | None:
        """The newest whole checkpoint, or None.

        A damaged or unfinished one is named in the log, moved to `<folder>/damaged/` and passed over.

        Args:
            abstract: `(step) -> (params, state)`, the shapes and dtypes expected of a checkpoint of that step, as from
                `jax.eval_shape`.

        Raises:
            CheckpointError: the checkpoint holds arrays of other names, shapes or dtypes.
        """
        import orbax.checkpoint as ocp

        for step in self._whole_steps():
            expected = dict(zip(("params", "state"), abstract(step)))
            manager = self._open()
            meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
            _check_layout(meta.pop("layout"), layout(expected), self.folder / str(step))
            args = {name: ocp.args.StandardRestore(_on_one_device(tree)) for name, tree in expected.items()}
            items = manager.restore(step, args=ocp.args.Composite(**args))
            return Checkpoint(step, items["params"], items["state"], meta)
        return None

    def close(self) -> None:
        """Release orbax's threads."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def _open(self):
        if self._manager is None:
            import orbax.checkpoint as ocp
            from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

            kept = [policy.LatestN(self._keep)]
            if self._keep_best:
                kept.append(
                    policy.BestN(
                        n=self._keep_best,
                        get_metric_fn=lambda metrics: metrics["value"],
                        reverse=self._goal == "min",
                        keep_checkpoints_without_metrics=False,
                    )
                )
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policy.AnyPreservationPolicy(kept), enable_async_checkpointing=False
            )
            self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        return self._manager

    def _digest_file(self, step: int) -> pathlib.Path:
        return self.folder / f"{step}.sha256"

    def _whole_steps(self):
        """Steps whose files match their digests, newest first; what is broken is moved away first."""
        self.close()  # orbax lists steps once, when opened
        for leftover in self.folder.glob(f"*{TEMPORARY}*"):
            logger.warning("removing the unfinished checkpoint %s: the process was stopped while writing it", leftover)
            shutil.rmtree(leftover, ignore_errors=True)
        steps = sorted((int(path.name) for path in self.folder.glob("[0-9]*") if path.name.isdigit()), reverse=True)
        for step in steps:
            fault = find_fault(self.folder / str(step), self._digest_file(step))
            if fault is None:
                yield step
            else:
                damaged = _fresh(self.folder / "damaged" / str(step))
                damaged.parent.mkdir(exist_ok=True)
                os.replace(self.folder / str(step), damaged)
                self._digest_file(step).unlink(missing_ok=True)
                logger.error("checkpoint of step %d is not used: %s. It was moved to %s", step, fault, damaged)


def layout(tree: PyTree) -> dict[str, str]:
    """Names, shapes and dtypes of a tree, to be kept with a checkpoint as `meta['layout']`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for path, leaf in leaves}


def _on_one_device(abstract: PyTree) -> PyTree:
    """Orbax wants to know where to put what it reads."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), abstract)


def _check_layout(found: dict[str, str], expected: dict[str, str], folder: pathlib.Path) -> None:
    different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if different:
        name = different[0]
        raise CheckpointError(
            f"{folder} does not belong to this run: {len(different)} arrays differ, the first is {name}: "
            f"{found.get(name, 'absent')} in the checkpoint, {expected.get(name, 'absent')} in the run. "
            "Use another --workdir, or the configuration it was made with"
        )


def _digests(folder: pathlib.Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def find_fault(folder: pathlib.Path, digest_file: pathlib.Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        expected = json.loads(digest_file.read_text())
    except FileNotFoundError:
        return "it has no digest, so the process was stopped before it was complete"
    except (OSError, ValueError) as error:
        return f"its digest file {digest_file.name} cannot be read ({error})"
    found = _digests(folder)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"its file {name} is missing"
        if name not in expected:
            return f"its file {name} was not part of it"
        if found[name] != expected[name]:
            return f"its file {name} was changed or cut off (SHA-256 differs)"
    return None if expected else "it is empty"


def _fresh(path: pathlib.Path) -> pathlib.Path:
    """`path`, or `path.1`, `path.2`, .. whichever is free."""
    candidate, number = path, 0
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}.{number}")
    return candidate
