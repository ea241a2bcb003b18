"""What a checkpoint on disk is made of, and how to tell a whole one of this run.

It is an orbax step folder with items (of a training: `params`; `variables`, the collections that are not trained;
`state`, all else that training needs) and `meta` (JSON), and beside it `<step>.sha256` with the digest of every file in
it. Orbax restores a flipped bit or another dtype without a word, and still lists a truncated folder, so nothing is
restored that does not match its digests.
"""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from sbjax.common import hosts
from sbjax.common.files import FileError, misfit, read_json
from sbjax.training.errors import CheckpointError
from sbjax.training.orbax_messages import said

FORMAT = 2  # of items and `meta`

# What `meta` must hold beside what was saved with it; checkpoints of earlier formats hold less.
META = {"identity?": dict, "step?": int, "layout?": {str: str}, "history?": [dict], "failures?": [dict]}


def saved_steps(folder: pathlib.Path) -> list[int]:
    """Steps with a folder, whole or not, newest first."""
    names = [path.name for path in folder.glob("[0-9]*") if path.name.isdecimal()]
    return sorted((int(name) for name in names if name == str(int(name))), reverse=True)


def digests(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def find_fault(folder: pathlib.Path, digest_file: pathlib.Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        expected = read_json(digest_file, {str: str})
    except FileNotFoundError:
        return "it has no digest, so the process was stopped before it was complete"
    except FileError as error:
        return f"its digest file {digest_file.name} holds no digests ({error})"
    found = digests(folder)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"its file {name} is missing"
        if name not in expected:
            return f"its file {name} was not part of it"
        if found[name] != expected[name]:
            return f"its file {name} was changed or cut off (SHA-256 differs)"
    if not expected:
        return "it is empty"
    # The digests do not see a renamed folder, which would go on from the wrong step.
    step = read_meta(folder).get("step") if (folder / "meta").is_dir() else None
    return None if step is None or str(step) == folder.name else f"it was saved at step {step}: its folder was renamed"


def alone() -> Any:
    """Options of orbax: the first process reads and writes for all and waits for none."""
    import orbax.checkpoint as ocp

    return ocp.options.MultiprocessingOptions(active_processes={0} if hosts.count() > 1 else None)


def read_meta(step_folder: pathlib.Path) -> dict[str, Any]:
    """The item `meta` of a checkpoint."""
    import orbax.checkpoint as ocp

    try:
        handler = ocp.JsonCheckpointHandler()
        meta = ocp.Checkpointer(handler, multiprocessing_options=alone()).restore(step_folder / "meta")
    except Exception as error:  # orbax and json raise what they like
        raise CheckpointError(
            f"{step_folder / 'meta'} cannot be read ({type(error).__name__}: {error}); give another step, or move "
            f"{step_folder} away"
        ) from error
    if problem := misfit(meta, META):
        raise CheckpointError(f"{step_folder / 'meta'}: {problem}; give another step, or move {step_folder} away")
    return meta


def check_format(meta: Mapping[str, Any], step_folder: pathlib.Path) -> None:
    """Refuse a checkpoint that another version laid out.

    Raises:
        CheckpointError: naming folder, format and remedy.
    """
    found = meta.get("format")
    if found != FORMAT:
        raise CheckpointError(
            f"{step_folder} has {'no checkpoint format' if found is None else f'checkpoint format {found}'}, and this "
            f"version of sbjax reads format {FORMAT}. Use another --workdir, or the version that made it"
        )


def check_identity(found: Mapping[str, Any], expected: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Refuse a checkpoint of another run.

    Raises:
        CheckpointError: naming the first entry that differs.
    """
    for name in [*expected, *(name for name in found if name not in expected)]:
        theirs, ours = (repr(side[name]) if name in side else "absent" for side in (found, expected))
        if theirs != ours:
            raise CheckpointError(
                f"{folder} belongs to another run: {name} is {theirs} in the checkpoint and {ours} in this run. Use "
                "another --workdir, or the configuration it was made with"
            )


def layout(tree: PyTree) -> dict[str, str]:
    """Names, shapes and dtypes of a tree, kept with a checkpoint as `meta['layout']`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for path, leaf in leaves}


def check_layout(found: dict[str, str], expected: dict[str, str], folder: pathlib.Path) -> None:
    """Refuse a checkpoint with other arrays.

    Raises:
        CheckpointError: naming the first array that differs.
    """
    different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if different:
        name = different[0]
        raise CheckpointError(
            f"{folder} does not belong to this run: {len(different)} arrays differ, the first is {name}: "
            f"{found.get(name, 'absent')} in the checkpoint, {expected.get(name, 'absent')} in the run. "
            "Use another --workdir, or the configuration it was made with"
        )


def set_aside(step_folder: pathlib.Path, digest_file: pathlib.Path) -> pathlib.Path:
    """Move a damaged checkpoint to `damaged/`, where it is not looked for, and return where it is."""
    damaged = _fresh(step_folder.parent / "damaged" / step_folder.name)
    damaged.parent.mkdir(exist_ok=True)
    os.replace(step_folder, damaged)
    digest_file.unlink(missing_ok=True)
    return damaged


def _fresh(path: pathlib.Path) -> pathlib.Path:
    """`path`, or `path.1`, `path.2`, .. whichever is free."""
    candidate, number = path, 0
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}.{number}")
    return candidate


def on_one_device(abstract: PyTree) -> PyTree:
    """Orbax must be told where to put what it reads."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), abstract)


@contextlib.contextmanager
def could_not_be_written(folder: pathlib.Path, step: int | None = None) -> Iterator[None]:
    """Errors of saving as one of ours.

    Raises:
        CheckpointError: naming step, folder, what went wrong and the remedy.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: of the barriers of several hosts
        which = "a checkpoint" if step is None else f"the checkpoint of step {step}"
        raise CheckpointError(
            f"{which} could not be written to {folder}: {said(error)}. Earlier "
            "checkpoints are untouched: make room or give write access, then start the same command again"
        ) from error
