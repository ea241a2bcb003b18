"""Blocks of a zoo on disk: some trained networks in one safetensors file, which says itself whether it is whole.

Arrays are named 'params/conv_0/kernel', 'hyperparameters/learning_rate', 'accuracy'; the first axis of each is that of
the networks. The metadata hold one entry, 'about', JSON with a SHA-256 of all arrays.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sbjax.common.files import FileError, misfit, write_atomically

FORMAT = 1
CARD = "zoo.json"
CONSTANTS = "constants.safetensors"
REMEDY = "delete it and start the command that made the zoo again, or fetch it anew"
_ABOUT = {"format": int, "digest": str, "start": int, "stop": int, "identity": str, "fingerprint": str}


def block_name(start: int, stop: int) -> str:
    """File of the networks start, .., stop - 1.

    >>> block_name(100, 200)
    'block-000100-000200.safetensors'
    """
    return f"block-{start:06d}-{stop:06d}.safetensors"


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, shapes, dtypes and bytes, sorted by name.

    >>> digest({'a': np.zeros(2)}) == digest({'a': np.zeros(3)})
    False
    """
    found = hashlib.sha256()
    for name in sorted(arrays):
        leaf = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {leaf.shape} {leaf.dtype.str}\n".encode())
        found.update(leaf.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def write_block(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], **about: Any) -> None:
    """Write a block atomically: the same arrays give the same bytes.

    Args:
        about: `start`, `stop`, `identity` and `fingerprint`, see `read_block`.
    """
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in arrays.items()}
    # One entry only: the library writes several in an order that differs between processes.
    told = json.dumps({"format": FORMAT, "digest": digest(arrays), **about}, sort_keys=True)
    write_atomically(path, save(arrays, metadata={"about": told}))


def read_block(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and what is said of them: start, stop, identity (of the settings), fingerprint (of the constants).

    Raises:
        FileNotFoundError: there is no such file.
        FileError: it is damaged, was changed, or is no block of this format.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get("about", "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        raise FileError(f"{path} cannot be read ({type(error).__name__}: {str(error)[:120]}); {REMEDY}") from error
    if problem := misfit(about, _ABOUT):
        raise FileError(f"{path} is no block of a zoo ({problem}); {REMEDY}")
    if about["format"] != FORMAT:
        raise FileError(f"{path} has the format {about['format']}, and this version reads {FORMAT}; make it anew")
    if digest(arrays) != about["digest"]:
        raise FileError(f"{path} was changed or damaged (SHA-256 differs); {REMEDY}")
    rows = about["stop"] - about["start"]
    for name, leaf in arrays.items():
        if leaf.shape[:1] != (rows,):
            raise FileError(f"{path}: {name!r} has the shape {leaf.shape}, of {rows} networks; {REMEDY}")
    return arrays, about
