"""Networks read back from a training's checkpoints, without its task and optimiser."""

import logging
import os
import pathlib
from typing import Any

import jax
import numpy as np

from sbjax.tasks.task import Variables
from sbjax.training.checkpoint_files import CheckpointError, check_format, find_fault, read_meta, saved_steps

logger = logging.getLogger(__name__)


def load_variables(
    folder: str | os.PathLike, *, step: int | None = None, replica: int | None = None
) -> tuple[Variables, dict[str, Any]]:
    """The variables of an arm from its checkpoint folder, `<workdir>/checkpoints/<arm>`.

    Nothing is restored that does not match its SHA-256, and nothing in the folder is changed.

    Args:
        step: of which checkpoint; None = the newest whole one, damaged ones are named in the log.
        replica: which replica; None = all, stacked in a leading axis.

    Returns:
        `{'params': .., 'batch_stats': .., 'frozen': ..}`, nested dicts of numpy arrays in the dtypes of the training;
        and the checkpoint's meta: 'step', 'history', 'failures', 'identity', 'format'.

    Raises:
        CheckpointError: no checkpoint there, none of this step, or a damaged one or one of another format; the message
            names the file or the steps there are.
        ValueError: no such replica.

    Example:
        >>> import tempfile
        >>> from sbjax.training.checkpoint import Checkpoints
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoints = Checkpoints(folder)
        ...     checkpoints.save(10, {'params': {'w': np.array([[1.0, 2.0], [3.0, 4.0]])}}, meta={'history': []})
        ...     checkpoints.close()
        ...     variables, meta = load_variables(folder, replica=1)
        >>> variables['params']['w'].tolist(), meta['step']
        ([3.0, 4.0], 10)
    """
    found = _whole(pathlib.Path(folder).absolute(), step)
    meta = read_meta(found)
    check_format(meta, found)
    variables = {**_read_item(found / "variables"), "params": _read_item(found / "params")}
    meta = {name: value for name, value in meta.items() if name not in ("layout", "kept")}
    if replica is None:
        return variables, meta
    count = len(jax.tree.leaves(variables["params"])[0])
    if not 0 <= replica < count:
        raise ValueError(f"replica={replica} is not in {found}, which holds replicas 0 to {count - 1}")
    return jax.tree.map(lambda leaf: np.asarray(leaf[replica]), variables), meta


def _whole(folder: pathlib.Path, step: int | None) -> pathlib.Path:
    steps = saved_steps(folder)
    if not steps:
        inside = sorted(path.name for path in folder.glob("*") if saved_steps(path))
        hint = f"one of its folders {', '.join(inside)}" if inside else "<workdir>/checkpoints/<arm>"
        raise CheckpointError(f"{folder} holds no checkpoint; give {hint}")
    if step is not None and step not in steps:
        raise CheckpointError(f"{folder} has no checkpoint of step={step}; it has {', '.join(map(str, sorted(steps)))}")
    for candidate in steps if step is None else [step]:
        fault = find_fault(folder / str(candidate), folder / f"{candidate}.sha256")
        if fault is None:
            return folder / str(candidate)
        logger.warning("checkpoint of step %d in %s is not used: %s", candidate, folder, fault)
    others = [str(other) for other in sorted(steps) if other != step]
    remedy = f"give another step: {', '.join(others)}" if others and step is not None else "there is no other one"
    raise CheckpointError(f"{folder / str(candidate)} is damaged: {fault}; {remedy}")


def _read_item(path: pathlib.Path) -> dict[str, Any]:
    import orbax.checkpoint as ocp

    if not path.is_dir():  # an item without arrays is not written
        return {}
    # As numpy: float64 survives without x64, and the devices that saved it need not be here.
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    with ocp.PyTreeCheckpointer() as checkpointer:
        saved = checkpointer.metadata(path).item_metadata.tree
        return checkpointer.restore(path, restore_args=jax.tree.map(lambda _: as_numpy, saved))
