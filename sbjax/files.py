"""Files that are either whole or not there, and what JSON can hold."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a file atomically: temporary file in the same folder, flush to disk, rename to `path`.

    Raises:
        OSError: the folder is not writable or the disk is full; `path` is unchanged.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def plain(tree: Any) -> Any:
    """Nested containers as JSON has them: dicts, lists, Python numbers, None for what is not finite.

    >>> plain({'a': np.array([1.0, np.nan]), 'b': (np.float32(0.5), np.int64(2))})
    {'a': [1.0, None], 'b': [0.5, 2]}
    """
    if isinstance(tree, Mapping):
        return {str(name): plain(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain(value) for value in tree]
    if isinstance(tree, np.ndarray | np.generic):
        return plain(tree.tolist())
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    return tree


def to_json(tree: Any) -> str:
    """Indented JSON in the order of the keys, with shortest exact floats and null for what is not finite."""
    return json.dumps(plain(tree), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: str | os.PathLike, tree: Any) -> pathlib.Path:
    """Write `to_json` of a tree atomically; its folder is made if missing. Returns the path."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_json(tree))
    return path


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object from a file of a workdir.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds something else than an object; the message names file and remedy.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"workdir={path.parent} has no {path.name}; give the workdir of a run") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}); move it away, or give another workdir") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__} and no object; move it away, or give another workdir")
    return found


def expanded(path: str | os.PathLike) -> pathlib.Path:
    """An absolute path, with `~` and variables replaced: shells do not do it after `--workdir=`."""
    return pathlib.Path(os.path.expandvars(os.path.expanduser(os.fspath(path)))).absolute()
