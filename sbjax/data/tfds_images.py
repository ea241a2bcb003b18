"""Read TFDS image classification sets from array_record files, without TensorFlow."""

import dataclasses
import functools
import io
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt8

from sbjax.data import cache, decoding, named, tfds_folders

logger = logging.getLogger(__name__)

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_LABELS = 1024  # records whose labels are read in one go


def load_splits(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    image_size: int | None = None,
    cache_dir: str | os.PathLike | None = None,
    embedded: tuple[str, ...] = (),
    classes: Sequence[str] = (),
) -> cache.Splits:
    """Decoded training and test split of a TFDS set; see `sbjax.data.load` for the arguments.

    The first call decodes and writes a cache file, named by set, config, version, image_size, a digest of how the
    set was prepared and one of the classes that are kept; later calls read it.
    """
    data_dir = tfds_folders.default_data_dir(data_dir)
    folder = prepared(name, data_dir, embedded)
    parts = [*folder.relative_to(data_dir).parts, tfds_folders.fingerprint(folder)]
    parts += [f"classes_{named.digest(classes)}"] if classes else []
    parts += [f"{image_size}px"] if image_size is not None else []
    path = cache.folder(cache_dir) / "images" / ("-".join(parts) + ".npz")
    splits = cache.load_splits(path)
    if splits is None:
        splits = decode(folder, image_size=image_size, classes=classes)
        cache.save_splits(path, splits)
    return splits


def prepared(name: str, data_dir: Path, embedded: tuple[str, ...] = ()) -> Path:
    """The folder of a set, which is prepared if that is possible here; raises as `tfds_folders.prepare` does."""
    set_name = tfds_folders.parse_name(name, embedded)
    folder = tfds_folders.find_folder(set_name, data_dir)
    if folder is None:
        tfds_folders.prepare(set_name, data_dir, embedded)
        folder = tfds_folders.find_folder(set_name, data_dir)
    return folder


def decode(folder: Path, *, image_size: int | None = None, classes: Sequence[str] = ()) -> cache.Splits:
    """Decode a prepared folder; see `sbjax.data.load` for the choice of splits.

    Images are always decoded by Pillow, even if OpenCV (preferred by TFDS) is installed, so that pixels are the same
    on all machines.

    Raises:
      ImportError: TFDS, array_record or Pillow is not installed.
      ValueError: not a set of uint8 images with one class label each; images of different sizes without
        `image_size`; missing labels; a class of the list that the set lacks.
    """
    found = find(folder, image_size=image_size, classes=classes)
    arrays = [array for part in ("train", "test") for array in _arrays(*found.parts[part])]
    return cache.Splits(found.classes, *arrays, class_names=found.class_names)


class Found(NamedTuple):
    """A prepared set: where its training and test examples are.

    Attributes:
        classes: their number.
        class_names: of the labels 0, 1, ..; () if they have none.
        parts: 'train' and 'test': the records of a split, and places there.
    """

    classes: int
    class_names: tuple[str, ...]
    parts: dict[str, tuple["Records", Int[np.ndarray, "n"]]]


def find(folder: Path, *, image_size: int | None = None, classes: Sequence[str] = ()) -> Found:
    """What `decode` reads, not read yet; raises as it does."""
    builder = tfds_folders.import_tfds().builder_from_directory(folder)
    keys = _keys(tfds_folders.import_tfds(), builder)
    shape = _shape(builder, keys[0], image_size)
    label = builder.info.features[keys[1]]
    names = tuple(getattr(label, "names", None) or ())
    kept = named.choose(names, classes, what=builder.info.full_name) if classes else names
    total = len(kept) if classes else label.num_classes
    relabel = tuple(kept.index(name) if name in kept else -1 for name in names) if classes else ()

    def records(split):
        info = builder.info.splits[split]
        each = info.num_bytes / max(info.num_examples, 1)
        what = f"{builder.info.full_name}, split {split}"
        return Records(str(folder), split, *keys, shape, image_size, relabel, each, what)

    def part(split):
        found = records(split)
        return found, np.flatnonzero(found.labels() >= 0) if classes else np.arange(len(found))

    # Unlabelled test splits of competitions have the label -1 throughout.
    held_out = [
        split
        for split in ("test", "validation")
        if split in builder.info.splits and records(split).stored_label(0) >= 0
    ]
    if "train" in builder.info.splits and held_out:
        return Found(total, kept, {"train": part("train"), "test": part(held_out[0])})
    single = ["train"] if "train" in builder.info.splits else held_out
    if len(single) != 1:
        raise ValueError(
            f"{folder} has the splits {', '.join(builder.info.splits)}: expected 'train' and 'test' or "
            "'validation', or one labelled split alone; choose another set."
        )
    logger.info("%s has one labelled split: every fifth example is taken as its test split.", builder.info.full_name)
    found, places = part(single[0])
    test = np.arange(len(places)) % 5 == 4
    return Found(total, kept, {"train": (found, places[~test]), "test": (found, places[test])})


@dataclasses.dataclass
class Records:
    """Images and labels of one split, decoded when asked for by their places. May be sent to other processes.

    Attributes:
        shape: of every image, [h, w, c].
        image_size: side of the square that they are resized to; None = as stored.
        relabel: by stored label the label, -1 = not of a class that is kept; () = as stored.
        bytes_each: mean bytes of a stored image.
        what: the set and the split, in words.
    """

    folder: str
    split: str
    image_key: str
    label_key: str
    shape: tuple[int, int, int]
    image_size: int | None
    relabel: tuple[int, ...]
    bytes_each: float
    what: str

    @functools.cached_property
    def _source(self):
        tfds = tfds_folders.import_tfds()
        builder = tfds.builder_from_directory(self.folder)
        skip = {
            key: tfds.decode.SkipDecoding()
            for key, feature in builder.info.features.items()
            if isinstance(feature, tfds.features.Image)
        }
        return builder.as_data_source(self.split, decoders=skip)

    def __getstate__(self):
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __len__(self) -> int:
        return len(self._source)

    def stored_label(self, place: int) -> int:
        """The label of a record as it is stored."""
        return int(self._source[place][self.label_key])

    def labels(self) -> Int32[np.ndarray, "n"]:
        """Of all records."""
        found = np.empty(len(self), np.int32)
        for start in range(0, len(found), _LABELS):
            places = list(range(start, min(start + _LABELS, len(found))))
            found[places] = [self._label(record, i) for i, record in zip(places, self._source.__getitems__(places))]
        return found

    def read(self, places: Sequence[int]) -> Iterator[tuple[UInt8[np.ndarray, "h w c"], int]]:
        """Pixels and labels of some records.

        Raises:
            ValueError: an image has another shape than the set says it has, or no label.
        """
        from PIL import Image

        mode = _MODES[self.shape[-1]]
        for i, record in zip(places, self._source.__getitems__([int(place) for place in places])):
            with Image.open(io.BytesIO(record[self.image_key])) as image:
                image = image if image.mode == mode else image.convert(mode)
                image = image if self.image_size is None else decoding.fit(image, self.image_size)
                pixels = np.asarray(image)
            if pixels.shape[:2] != self.shape[:2]:
                raise ValueError(
                    f"{self.what}: image {i} has shape {pixels.shape}, but {self.shape} was declared; set image_size "
                    "or prepare the set again."
                )
            yield pixels.reshape(self.shape), self._label(record, i)

    def _label(self, record, place) -> int:
        label = int(record[self.label_key])
        if self.relabel and label >= 0:
            return self.relabel[label]
        return label


def _keys(tfds, builder) -> tuple[str, str]:
    """Names of the image and label features: the supervised pair, or the only features of their types."""
    features = builder.info.features
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    supervised = builder.info.supervised_keys
    if (
        supervised
        and len(supervised) == 2
        and all(isinstance(key, str) and key in features for key in supervised)
        and all(isinstance(features[key], kind) for key, kind in zip(supervised, kinds))
    ):
        return supervised
    found = [sorted(key for key, feature in features.items() if isinstance(feature, kind)) for kind in kinds]
    if [len(keys) for keys in found] != [1, 1]:
        raise ValueError(
            f"{builder.info.full_name} is no image classification set: expected one Image and one ClassLabel "
            f"feature, found Image: {found[0] or 'none'}, ClassLabel: {found[1] or 'none'}; choose another "
            "set or config."
        )
    return found[0][0], found[1][0]


def _shape(builder, image_key, image_size) -> tuple[int, int, int]:
    feature = builder.info.features[image_key]
    height, width, channels = feature.shape
    channels = channels or 3
    if feature.np_dtype != np.uint8 or channels not in _MODES:
        raise ValueError(
            f"{builder.info.full_name} has images of dtype {np.dtype(feature.np_dtype)} with {channels} "
            "channels: only uint8 with 1, 3 or 4 channels can be read; choose another set."
        )
    if image_size is not None:
        return image_size, image_size, channels
    if height is None or width is None:
        raise ValueError(
            f"{builder.info.full_name} has images of different sizes (shape {feature.shape}): set image_size, for "
            "example to 64."
        )
    return height, width, channels


def _arrays(records: Records, places) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((len(places), *records.shape), np.uint8)
    labels = np.empty(len(places), np.int32)

    def fill(indices):
        for i, (pixels, label) in zip(indices, records.read(places[indices.start : indices.stop])):
            images[i], labels[i] = pixels, label

    decoding.in_chunks(fill, len(places), bytes_each=records.bytes_each, what=records.what)
    if (labels < 0).any():
        raise ValueError(
            f"{records.what}: {int((labels < 0).sum())} of {len(labels)} examples have no label (-1); choose another "
            "set."
        )
    return images, labels
