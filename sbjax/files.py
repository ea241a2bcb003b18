"""Atomic writing of files."""

import os
import pathlib


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
