"""Image files that are decoded when asked for, in this process or in another one."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from sbjax.data.image_files import File, read, reason, refuse_damaged


@dataclasses.dataclass
class Files:
    """Image files and their labels, decoded when asked for by their places. May be sent to other processes.

    Attributes:
        root: folder that `names` are below.
        names: UTF-8 bytes, in an array: a million names as strings would take hundreds of megabytes.
        shape: of every image, [h, w, c].
        cut: rows that are cut off at the bottom.
        what: the set, in words.
        bytes_each: mean bytes of a file, roughly.
    """

    root: str
    names: np.ndarray
    labels: Int32[np.ndarray, "n"]
    shape: tuple[int, int, int]
    cut: int
    what: str
    bytes_each: float

    def __len__(self) -> int:
        return len(self.names)

    def read(self, places: Sequence[int]) -> Iterator[tuple[UInt8[np.ndarray, "h w c"], int]]:
        """Pixels and labels of some files.

        Raises:
            ValueError: a file is damaged.
        """
        for place in places:
            name = os.fsdecode(self.names[place])
            try:
                pixels, _ = read(
                    os.path.join(self.root, name), grey=self.shape[-1] == 1, image_size=self.shape[0], cut=self.cut
                )
            except Exception as error:  # a damaged file may raise anything
                refuse_damaged(self.what, {name: reason(error)})
            yield pixels, int(self.labels[place])


def make_files(files: Sequence[File], root: Path, *, grey: bool, image_size: int, cut: int = 0) -> Files:
    """`Files` of these, resized to squares."""
    names = np.array([os.fsencode(os.path.relpath(file.path, root)) for file in files], np.bytes_)
    labels = np.array([file.label for file in files], np.int32)
    some = files[:: max(1, len(files) // 100)]
    bytes_each = float(np.mean([file.path.stat().st_size for file in some]))
    return Files(str(root), names, labels, (image_size, image_size, 1 if grey else 3), cut, str(root), bytes_each)
