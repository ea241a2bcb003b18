"""Code and data of a user's own that a configuration names, and digests that tell whether they were changed."""

import hashlib
import importlib.util
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from sbjax.common.names import is_import_path


def code_in(config: dict[str, Any]) -> list[str]:
    """Import paths of a user's own code in a resolved config: 'task.equation=my:equation'.

    >>> code_in({'task': {'kind': 'pinn', 'equation': 'os:abort'}, 'model': {'name': 'field'}})
    ['task.equation=os:abort']
    """
    return [entry for name, section in config.items() for entry in code_of(name, section)]


def code_of(path: str, value: Any) -> list[str]:
    """The same of one section or field, `path` of which leads to it."""
    if isinstance(value, Mapping):
        return [entry for name, inner in value.items() for entry in code_of(f"{path}.{name}", inner)]
    if isinstance(value, list | tuple):
        return [entry for inner in value for entry in code_of(path, inner)]
    if not isinstance(value, str) or path.rpartition(".")[2] == "published":
        return []
    words = [word.strip() for word in value.split(",")]
    return [f"{path}={word}" for word in words if is_import_path(word)]


def tree_digest(tree: Any) -> str:
    """SHA-256 of the arrays of a tree, with their places, shapes and dtypes; whatever is no array does not count.

    >>> tree_digest({'x': np.ones(2), 'name': 'a'}) == tree_digest({'x': np.ones(2), 'name': 'b'})
    True
    """
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, np.ndarray | jax.Array) and leaf.dtype != object:
            leaf = np.ascontiguousarray(leaf)
            found.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
            found.update(leaf.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def code_digests(entries: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the files of a user's own parts, by import path; `entries` as of `code_in`."""
    found = {}
    for entry in entries:
        path = entry.partition("=")[2]
        module = path.rpartition(":")[0]
        if not is_import_path(path) or not (file := _file_of(module)):
            continue
        found[path] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _file_of(module: str) -> pathlib.Path | None:
    if module.endswith(".py"):
        file = pathlib.Path(module).expanduser()
    else:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return None
        file = pathlib.Path(spec.origin) if spec is not None and spec.origin else pathlib.Path()
    return file if file.is_file() else None


def data_digests(loaded: Mapping[tuple, Any]) -> dict[str, str]:
    """SHA-256 of the arrays of data of a user's own, by what names them; data that are known by name never change.

    >>> list(data_digests({('folder:/pictures', 0.5): {'x': np.ones(2)}, ('digits', 1.0): {'x': np.ones(2)}}))
    ['folder:/pictures, 0.5']
    """
    own = lambda word: isinstance(word, str) and (word.startswith("folder:") or is_import_path(word))  # noqa: E731
    return {", ".join(map(str, source)): tree_digest(data) for source, data in loaded.items() if any(map(own, source))}
