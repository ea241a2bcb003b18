"""Image sets that stay on disk: batches are decoded in other processes while the device works, through grain.

    stream = open_stream("folder:photos", image_size=64)
    batches = Batches(stream.train, batch_size=128, seed=0, workers=4)
    batches(17)["images"]                                   # uint8 [128, 64, 64, 3], of step 17

Splits and shares are those of `sbjax.data.load`. The batch of a step is a function of the seed and the step alone, and
so a run that was killed goes on with the same bytes. The order of examples is one for all replicas: every image is
decoded once a step, whatever their number.
"""

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from sbjax.common import files
from sbjax.common.names import is_import_path
from sbjax.data import cache, decoding, folders, image_files, images, named, tfds_folders, tfds_images
from sbjax.data.file_reader import Files, make_files

logger = logging.getLogger(__name__)

# Training images of which mean and standard deviation are taken.
_SAMPLE = 4096
_MOST_WORKERS = 8
# Batches that a process has ready.
_READY = 2


@dataclasses.dataclass
class Part:
    """The examples of a split, decoded when asked for. May be sent to other processes.

    Attributes:
        reader: files or records.
        places: of the examples among them.
        turns: quarter turns of each; None = none.
    """

    reader: tfds_images.Records | Files
    places: Int[np.ndarray, "n"]
    turns: Int[np.ndarray, "n"] | None = None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        ((pixels, label),) = self.reader.read([self.places[index]])
        if label < 0:
            raise ValueError(f"{self.reader.what}: example {self.places[index]} has no label (-1); choose another set")
        if self.turns is not None:
            pixels = np.rot90(pixels, int(self.turns[index]))
        return {"images": np.ascontiguousarray(pixels), "labels": np.int32(label)}

    def first(self, count: int) -> UInt8[np.ndarray, "count h w c"]:
        """The first images, in memory."""
        count = min(count, len(self))
        decoding.check_memory(count, self.reader.shape)
        found = np.empty((count, *self.reader.shape), np.uint8)

        def fill(indices):
            for i in indices:
                found[i] = self[i]["images"]

        decoding.in_chunks(fill, count, bytes_each=self.reader.bytes_each, what=self.reader.what)
        return found


class ImageStream(NamedTuple):
    """An image set that stays on disk; see `sbjax.data.images.ImageData`.

    Attributes:
        shape: of every image, [h, w, c].
        mean, std: of the first 4,096 training images of a shuffled order.
    """

    name: str
    classes: int
    train: Part
    validation: Part
    test: Part
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()


def open_stream(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    image_size: int | None = None,
    cache_dir: str | os.PathLike | None = None,
    train_share: float = 1.0,
    quarter_turns: bool = False,
    classes: str = "",
) -> ImageStream:
    """An image set, not decoded: the arguments, splits and errors of `sbjax.data.load`.

    Of a folder, the heads of all files are read, once: what is found is kept in `cache_dir`.

    Raises:
        ValueError: besides, for a set that is in memory anyway, 'digits' or arrays of a function; for a folder without
            `image_size`.
        ImportError: besides, without grain.
    """
    import_grain()
    images.check(image_size, train_share)
    listed = named.read_list(classes) if classes else ()
    source = images.source_of(name, data_dir, listed)
    if source in images.names() or (is_import_path(source) and not source.startswith(images.FOLDER)):
        raise ValueError(f"name={name!r} is in memory anyway, and is not streamed; leave stream at 'auto'")
    if source.startswith(images.FOLDER):
        parts, class_names, total = _folder(source.removeprefix(images.FOLDER), image_size, cache_dir, listed)
    else:
        parts, class_names, total = _records(source, data_dir, image_size, listed)
    if quarter_turns:
        parts = {name: dataclasses.replace(part, turns=images.turns(len(part))) for name, part in parts.items()}
    train = parts["train"]
    kept, held = images.division(len(train), train_share, given="validation" in parts)
    validation = parts["validation"] if "validation" in parts else _take(train, held)
    order = images.shuffled(kept) if "validation" not in parts else kept
    sample = _take(train, order[:_SAMPLE]).first(_SAMPLE)
    stream = ImageStream(
        *(name, total, _take(train, kept), validation, parts["test"], train.reader.shape, *images.moments(sample)),
        class_names=class_names,
    )
    logger.info(
        "%s: %d training, %d validation and %d test images of shape %s, %d classes, read from disk as they are needed",
        *(name, len(stream.train), len(stream.validation), len(stream.test), stream.shape, total),
    )
    return stream


def fits_memory(
    name: str, *, data_dir: str | os.PathLike | None = None, image_size: int | None = None, classes: str = ""
) -> bool:
    """Whether a set, decoded, takes at most a quarter of the memory: reading it needs some three times its size.

    A set that is in memory anyway fits, and so does a folder without `image_size`, which cannot be streamed.
    """
    from sbjax.common import devices  # JAX, which the processes that decode do not need

    return 4 * _decoded_bytes(name, data_dir, image_size, classes) <= devices.memory()


def _decoded_bytes(name, data_dir, image_size, classes) -> int:
    listed = named.read_list(classes) if classes else ()
    source = images.source_of(name, data_dir, listed)
    if source.startswith(images.FOLDER):
        found = folders.open_folder(source.removeprefix(images.FOLDER), classes=listed)
        return 0 if image_size is None else 3 * image_size**2 * sum(map(len, found.files.values()))
    if source in images.names() or is_import_path(source):
        return 0
    root = tfds_folders.default_data_dir(data_dir)
    prepared = tfds_images.prepared(source, root, (*images.names(), *named.SETS))
    if not listed:
        return tfds_folders.decoded_bytes(prepared, image_size=image_size)
    found = tfds_images.find(prepared, image_size=image_size, classes=listed)
    return sum(len(places) * int(np.prod(records.shape)) for records, places in found.parts.values())


class Batches:
    """Batches of a part by step, decoded ahead by grain in other processes.

    A new epoch is another permutation of the examples; what a whole number of batches leaves over of an epoch is
    dropped. Steps that follow one another cost no waiting as long as the processes keep up; any other step starts them
    anew.

    Args:
        workers: processes that decode; 0 = in this one.
        shuffle: else the examples come in their order, once, and the last batch is smaller.
    """

    def __init__(self, part: Part, *, batch_size: int, seed: int = 0, workers: int = 0, shuffle: bool = True):
        grain = import_grain()
        if shuffle and batch_size > len(part):
            raise ValueError(f"batch_size={batch_size} must be <= {len(part)}, the number of training examples")
        found = grain.MapDataset.source(part)
        if shuffle:
            found = found.seed(seed % 2**32).shuffle()
        found = found.batch(batch_size, drop_remainder=shuffle)
        self._batches = found.repeat() if shuffle else found
        self._workers = workers
        self._next, self._iterator = 0, None

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """'images' uint8 [batch, h, w, c] and 'labels' int32 [batch] of a step."""
        if self._iterator is None or step != self._next:
            self.close()
            self._iterator = self._start(step)
        try:
            batch = next(self._iterator)
        except BaseException:
            self.close()
            raise
        self._next = step + 1
        return batch

    def close(self) -> None:
        """Ends the other processes; the next call starts them again."""
        if self._iterator is not None and hasattr(self._iterator, "close"):
            self._iterator.close()
        self._iterator = None

    def _start(self, step: int) -> Any:
        grain = import_grain()
        threads = 0 if self._workers else min(4, os.cpu_count() or 1)
        reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(_READY, threads) if threads else 0)
        found = self._batches[step:].to_iter_dataset(reading)
        if self._workers:
            from absl import flags

            if not flags.FLAGS.is_parsed():  # in a notebook; grain reads some of its own
                flags.FLAGS.mark_as_parsed()
            ahead = grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=_READY)
            found = found.mp_prefetch(ahead, worker_init_fn=_end_with_parent)
        return iter(found)


def _end_with_parent(index: int, total: int) -> None:
    """Ends this process once the one that started it is gone: nothing tells it of kill -9."""
    del index, total
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def default_workers() -> int:
    """Processes that decode if it is not said how many: one fewer than there are cores, 1 to 8."""
    return min(max(1, len(os.sched_getaffinity(0)) - 1), _MOST_WORKERS)


def import_grain() -> Any:
    """The module `grain`; the ImportError says what to install."""
    try:
        import grain
    except ImportError as error:
        raise ImportError(
            f"image sets are streamed by grain, which cannot be imported ({error}): pip install 'sbjax[stream]'"
        ) from error
    return grain


def _take(part: Part, indices: Sequence[int]) -> Part:
    turns = None if part.turns is None else part.turns[indices]
    return dataclasses.replace(part, places=part.places[indices], turns=turns)


def _records(source, data_dir, image_size, listed):
    root = tfds_folders.default_data_dir(data_dir)
    prepared = tfds_images.prepared(source, root, (*images.names(), *named.SETS))
    found = tfds_images.find(prepared, image_size=image_size, classes=listed)
    return {name: Part(*part) for name, part in found.parts.items()}, found.class_names, found.classes


def _folder(path, image_size, cache_dir, listed):
    found = folders.open_folder(path, classes=listed)
    if image_size is None:
        raise ValueError(f"{found.root} is streamed, and needs image_size (task.image_size in a config), such as 64")
    grey = _all_grey(found, image_size, cache.folder(cache_dir) / "images" / f"heads-{found.digest}.txt")
    parts = {}
    for name, members in found.files.items():
        reader = make_files(members, found.root, grey=grey, image_size=image_size, cut=found.cut)
        parts[name] = Part(reader, np.arange(len(members)))
    return parts, found.classes, len(found.classes)


def _all_grey(found: folders.Found, image_size: int, kept) -> bool:
    """Whether all images have one channel; files that cannot be used are refused."""
    if kept.is_file() and (said := kept.read_text()) in ("grey", "colour"):
        return said == "grey"
    every = [file for part in found.files.values() for file in part]
    _, grey = image_files.look_at_all(
        [file.path for file in every],
        [file.name for file in every],
        image_size=image_size,
        what=str(found.root),
        cut=found.cut,
        bytes_each=0,
    )
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(kept, "grey" if grey else "colour")
    except OSError as error:
        logger.warning("%s cannot be written (%s): the next run looks at all files again; set cache_dir", kept, error)
    return grey
