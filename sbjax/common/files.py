"""Files that are either whole or not there, what JSON can hold, and one reader for all that a run leaves.

Whatever is read of a folder goes through `read_json`, `read_lines` or `read_arrays`. What is damaged there is a
`FileError` with the file, the line and a remedy. Nothing is unpickled, and no name in a file is imported.
"""

import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

REMEDY = "move it away and start the command of the run again, or give another folder"


class FileError(ValueError):
    """A file of a run that cannot be used. The message names file, line and remedy."""


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
    except OSError as error:
        raise _named(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: str | os.PathLike, content: Any) -> None:
    """Append one object to a file with a JSON object a line.

    A last line that was cut off, by a kill or a full disk, is removed first, or it would swallow this one.

    Raises:
        OSError: the disk is full or the folder not writable; the message names the file.
    """
    try:
        with open(path, "ab+") as file:
            _end_last_line(file)
            file.write((json.dumps(content) + "\n").encode())
    except OSError as error:
        raise _named(error, path) from error


def _end_last_line(file: BinaryIO) -> None:
    """Remove a last line without an end, or end it where it is whole."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1))
    if file.read(1) in (b"", b"\n"):
        return
    file.seek(0)
    last = file.read().split(b"\n")[-1]
    try:
        json.loads(last)
        file.write(b"\n")
    except ValueError:
        file.truncate(size - len(last))


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


def read_json(path: str | os.PathLike, form: Any = dict, *, remedy: str = REMEDY) -> dict[str, Any]:
    """A JSON object from a file of a run.

    Args:
        form: what it must look like, see `misfit`.
        remedy: what the reader of an error can do.

    Raises:
        FileNotFoundError: there is no such file.
        FileError: it cannot be read, or does not have the form.
    """
    path = pathlib.Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"workdir={path.parent} has no {path.name}; give the workdir of a run that has got so far"
        ) from None
    except (ValueError, RecursionError, OSError) as error:
        raise FileError(f"{path} cannot be read ({_said(error)}); {remedy}") from error
    if not isinstance(found, dict):
        raise FileError(f"{path} holds a {type(found).__name__} and no object; {remedy}")
    if problem := misfit(found, form):
        raise FileError(f"{path}: {problem}; {remedy}")
    return found


def read_lines(path: str | os.PathLike, form: Any = dict) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a file with one a line, with the numbers of their lines.

    A last line without an end (the process was stopped while writing it) is left out where it cannot be read.

    Raises:
        FileNotFoundError: there is no such file.
        FileError: another line cannot be read or does not have the form, see `misfit`.
    """
    path = pathlib.Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"workdir={path.parent} has no {path.name}; give the workdir of a run that has got so far"
        ) from None
    except OSError as error:
        raise FileError(f"{path} cannot be read ({_said(error)}); {REMEDY}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode())
            problem = misfit(record, form)
        except (ValueError, RecursionError) as error:
            problem = _said(error)
        if problem is None:
            found.append((number, record))
        elif number < len(lines):
            raise FileError(f"{path} line {number} cannot be used ({problem}); remove the line, or {REMEDY}")
    return found


def read_arrays(path: str | os.PathLike, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file of a run, or those of `names`.

    Raises:
        FileNotFoundError: there is no such file.
        FileError: it is damaged, lacks an array, or holds Python objects.
    """
    path = pathlib.Path(path)
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in (file.files if names is None else names)}
    except FileNotFoundError:
        raise
    # zipfile, zlib and numpy raise BadZipFile, zlib.error, EOFError, KeyError, TypeError, ..: it depends on the byte.
    except Exception as error:
        said = "it is no .npz, or holds Python objects" if "pickle" in str(error) else _said(error)
        raise FileError(f"{path} cannot be used ({said}); {REMEDY}") from error


def misfit(found: Any, form: Any, where: str = "") -> str | None:
    """What in nested containers does not have a form, or None.

    A form is a type (whole numbers pass for floats, True and False for bool alone), None, a list with the form of each
    entry, a tuple of alternatives, a dict with the forms of fields ('name?' may be missing, others are not looked at),
    or `{str: form}` for any names.

    >>> misfit({'arms': {'raw': 'x'}}, {'arms': {str: int}, 'note?': str})
    "arms.raw='x' must be an int"
    >>> misfit({'arms': {}}, {'arms': dict, 'steps': [int]})
    'steps is missing'
    """
    here = where or "it"
    if isinstance(form, tuple):
        problems = [misfit(found, one, where) for one in form]
        return None if None in problems else problems[0]
    if isinstance(form, dict):
        if not isinstance(found, dict):
            return f"{here}={_short(found)} must be an object"
        if str in form:
            checked = ((name, form[str]) for name in found)
        else:
            missing = next((name for name in form if not name.endswith("?") and name not in found), None)
            if missing:
                return f"{where + '.' if where else ''}{missing} is missing"
            checked = ((name.rstrip("?"), own) for name, own in form.items() if name.rstrip("?") in found)
        each = (misfit(found[name], own, f"{where}.{name}" if where else name) for name, own in checked)
        return next(filter(None, each), None)
    if isinstance(form, list):
        if not isinstance(found, list):
            return f"{here}={_short(found)} must be a list"
        return next(filter(None, (misfit(one, form[0], f"{here}[{i}]") for i, one in enumerate(found))), None)
    if form is None:
        return None if found is None else f"{here}={_short(found)} must be null"
    kinds = (int, float) if form is float else (form,)
    if not isinstance(found, kinds) or (isinstance(found, bool) and form is not bool):
        return f"{here}={_short(found)} must be {'an' if form.__name__[0] in 'aeiou' else 'a'} {form.__name__}"
    return None


def digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changed(folder: pathlib.Path, digests: Mapping[str, str]) -> list[str]:
    """The files, of digests by relative path, that are missing or hold something else now."""

    def differs(name):
        try:
            return digest(folder / name) != digests[name]
        except OSError:
            return True

    return [name for name in digests if differs(name)]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _said(error: Exception) -> str:
    """What an error says, in one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(f"{type(error).__name__}: {said}".split())[:200]


def _named(error: OSError, path: str | os.PathLike) -> OSError:
    """The error with the file that the user knows."""
    return type(error)(error.errno, error.strerror, str(path)) if error.errno else error
