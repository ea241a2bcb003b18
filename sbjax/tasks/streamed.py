"""What an image task reads from a set that stays on disk: the batch of a step, and parts of the held-out splits."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from sbjax.common.files import FileError
from sbjax.data.streaming import Batches, ImageStream, Part, default_workers
from sbjax.tasks import classification

_NAMES = {"images": "eval_inputs", "labels": "eval_labels", "split": "eval_split"}


class ImageFeed:
    """A `sbjax.tasks.task.Stream` of images.

    Args:
        data: the set.
        batch_size: of a step.
        seed: of the order of the training examples, which all replicas share.
        workers: processes that decode; 0 = as many as `default_workers` says.
        eval_batch_size, eval_share: as in `sbjax.tasks.images.make_image_task`.

    Attributes:
        arrays: of the shapes that come, all zero.
        parts: of the evaluation.
    """

    def __init__(
        self, data: ImageStream, *, batch_size: int, seed: int, workers: int, eval_batch_size: int, eval_share: float
    ):
        splits = [(data.validation, classification.VALIDATION), (data.test, classification.TEST)]
        held = _Held([(part, max(1, round(eval_share * len(part))), code) for part, code in splits])
        self.parts = -(-len(held) // eval_batch_size)
        self._size = -(-len(held) // self.parts)
        self._train = Batches(data.train, batch_size=batch_size, seed=seed, workers=workers or default_workers())
        self._held = Batches(held, batch_size=self._size, shuffle=False)
        self.arrays = {
            "images": np.zeros((batch_size, *data.shape), np.uint8),
            "labels": np.zeros(batch_size, np.int32),
            "eval_inputs": np.zeros((self._size, *data.shape), np.uint8),
            "eval_labels": np.zeros(self._size, np.int32),
            "eval_split": np.full(self._size, classification.PADDING, np.int8),
        }

    def train(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step.

        Raises:
            FileError: a file was changed or lost since the set was opened.
        """
        with _told():
            return self._train(step)

    def evaluate(self, part: int) -> dict[str, np.ndarray]:
        """Examples of the held-out splits, the last part filled up with padding."""
        found = {name: self.arrays[name].copy() for name in _NAMES.values()}
        with _told():
            held = self._held(part)
        for name, values in held.items():
            found[_NAMES[name]][: len(values)] = values
        if part == self.parts - 1:
            self._held.close()
        return found

    def close(self) -> None:
        """Ends the processes that decode."""
        self._train.close()
        self._held.close()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What goes wrong with a file in the middle of a training, as an error that commands tell of."""
    try:
        yield
    except ValueError as error:
        raise FileError(f"{error}. What was saved is untouched: then start the same command again") from error


class _Held:
    """The first examples of both held-out splits, one after the other, with the code of the split."""

    def __init__(self, splits: list[tuple[Part, int, int]]):
        self.splits = splits

    def __len__(self) -> int:
        return sum(count for _, count, _ in self.splits)

    def __getitem__(self, index: int) -> dict[str, Any]:
        for part, count, code in self.splits:
            if index < count:
                return {**part[index], "split": np.int8(code)}
            index -= count
        raise IndexError(index)
