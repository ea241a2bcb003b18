"""Cache of decoded image sets as uint8 files."""

import logging
import os
import uuid
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from sbjax.common.names import expanded

logger = logging.getLogger(__name__)


class Splits(NamedTuple):
    """The splits an image set comes with.

    With two, validation examples are still to be taken out of the first. A set with all three is in an order of which
    every first part is a fair sample (`strata.spread`).

    Attributes:
        note: what decoding changed, for the log.
        class_names: of the labels 0, 1, ..; () if they have none.
    """

    classes: int
    train_images: UInt8[np.ndarray, "train height width channel"]
    train_labels: Int32[np.ndarray, "train"]
    test_images: UInt8[np.ndarray, "test height width channel"]
    test_labels: Int32[np.ndarray, "test"]
    validation_images: UInt8[np.ndarray, "validation height width channel"] | None = None
    validation_labels: Int32[np.ndarray, "validation"] | None = None
    note: str = ""
    class_names: tuple[str, ...] = ()


def folder(cache_dir: str | os.PathLike | None = None) -> Path:
    """Folder of cache files: `cache_dir`, else $SBJAX_CACHE, else $XDG_CACHE_HOME/sbjax, else ~/.cache/sbjax.

    >>> folder('/tmp/here').name
    'here'
    """
    if cache_dir is None:
        cache_dir = os.environ.get("SBJAX_CACHE")
    if not cache_dir:
        cache_dir = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "sbjax"
    return expanded(cache_dir)


def load_splits(path: Path) -> Splits | None:
    """Read a file written by `save_splits`; None if it does not exist, or is damaged (logged as a warning).

    The CRC-32 of the zip container detects corrupted bytes.
    """
    try:
        with open(path, "rb") as stream, np.load(stream) as file:
            if unknown := set(file.files) - set(Splits._fields):  # a damaged name, of what would seem to be absent
                raise ValueError(f"unknown member {min(unknown)!r}")
            stored = {name: file[name] for name in Splits._fields if name in file}
        names = tuple(map(str, stored.get("class_names", ())))
        words = {"note": str(stored.get("note", "")), "class_names": names}
        splits = Splits(**stored | {"classes": int(stored["classes"])} | words)
    except FileNotFoundError:
        return None
    # A damaged file may raise BadZipFile, zlib.error, KeyError, ValueError, MemoryError, .., depending on the position.
    except Exception as error:
        logger.warning("The cache file %s cannot be read (%s); it is rebuilt.", path, error)
        return None
    return splits


def save_splits(path: Path, splits: Splits) -> None:
    """Write an uncompressed .npz atomically (temporary file and rename).

    If the folder is not writable, only a warning is logged: the next run decodes again.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "wb") as file:
                np.savez(file, **{name: value for name, value in splits._asdict().items() if value is not None})
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        logger.warning(
            "The decoded images cannot be cached in %s (%s), so the next run decodes them again; set "
            "cache_dir or SBJAX_CACHE to a writable folder.",
            path.parent,
            error,
        )
