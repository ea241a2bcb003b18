"""Files that are either whole or not there."""

import json
import os
import pathlib
from typing import Any


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Write to a temporary name in the same folder, flush to the disk, then rename over `path`.

    Raises:
        OSError: the folder cannot be written or the disk is full; `path` is untouched.
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


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object from a file of a workdir.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds something else than an object; the message names file and remedy.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"workdir={str(path.parent)!r} has no {path.name}; give the workdir of a run") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}); move it away, or give another workdir") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__} and no object; move it away, or give another workdir")
    return found
