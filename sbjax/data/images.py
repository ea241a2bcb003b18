"""Image classification sets in memory: embedded ones, every one that TFDS knows, and the user's own."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt8

from sbjax.common.names import import_path, is_import_path
from sbjax.data import arrays, cache, decoding, folders, named, strata, tfds_folders, tfds_images
from sbjax.data.digits import load_digits

logger = logging.getLogger(__name__)

_EMBEDDED = {"digits": load_digits}
FOLDER = "folder:"


class ImageData(NamedTuple):
    """An image classification set, as it is stored; see `load`.

    Attributes:
      name: the name it was asked for by.
      classes: number of classes; labels are in range(classes).
      train_images, validation_images, test_images: uint8 [n, height, width, channel].
      train_labels, validation_labels, test_labels: int32 [n].
      mean, std: of the training images per channel, in units where 255 is 1.
      class_names: of the labels 0, 1, ..; () if they have none.
    """

    name: str
    classes: int
    train_images: UInt8[np.ndarray, "train height width channel"]
    train_labels: Int32[np.ndarray, "train"]
    validation_images: UInt8[np.ndarray, "validation height width channel"]
    validation_labels: Int32[np.ndarray, "validation"]
    test_images: UInt8[np.ndarray, "test height width channel"]
    test_labels: Int32[np.ndarray, "test"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()


def names() -> tuple[str, ...]:
    """The sets that come with the package; any other name is one of `load`'s other kinds.

    >>> names()
    ('digits',)
    """
    return tuple(_EMBEDDED)


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    image_size: int | None = None,
    cache_dir: str | os.PathLike | None = None,
    train_share: float = 1.0,
    quarter_turns: bool = False,
    classes: str = "",
) -> ImageData:
    """Loads an image set, split once and for all into training, validation and test examples.

    The splits depend on nothing but the set. Of embedded and TFDS sets:

    - test: the set's own 'test' split, or its 'validation' split if it has no labelled test split. No choice
      is ever made on it. A set with one labelled split only, such as eurosat or imagenet_r: its examples i
      with i % 5 == 4; the others take the place of the 'train' split.
    - validation: the examples of the set's 'train' split whose index i there has i % 10 == 9.
    - training: the rest of the 'train' split.

    If a set has both a 'test' and a 'validation' split, the latter is not used.

    Folders and arrays of your own are shuffled once, in an order that is fixed by the names of the files or the
    indices of the examples, before anything is cut. Every first part of a split, and so every share, holds the
    classes in their proportions, one example of each first. Splits that are given are kept. Without a test split,
    'validation' takes its place; without both, a tenth of every class, rounded and at least one, is for test; where
    no validation split is left, another tenth of every class of 'train' is for validation.

    Args:
      name: 'digits' (embedded); a set of `sbjax.data.named`, 'cifar100', 'imagenet100', 'aircraft', 'pets'; a TFDS
        name, 'imagenet_resized/32x32', 'mnist:3.0.1'; 'folder:PATH', where PATH/CLASS/* or
        PATH/{train,validation,test}/CLASS/* are image files; 'module:function' or
        'path/file.py:function', a function without arguments that returns arrays (`sbjax.data.arrays.from_arrays`).
      data_dir: where TFDS sets are prepared; default $TFDS_DATA_DIR or ~/tensorflow_datasets.
      image_size: side of the square the images are resized to: the shorter side bilinearly, then a crop at
        the centre. Needed for sets whose images differ in size; None keeps the size.
      cache_dir: where decoded TFDS sets and folders are kept; default $SBJAX_CACHE or ~/.cache/sbjax.
      train_share: share of the training examples to keep, in (0, 1]. Which ones is a fixed function of their
        indices (a hash order, of which the first are taken; of your own sets the shuffled order), so that the
        examples of a smaller share are among those of a larger one. Validation and test stay whole.
      quarter_turns: turn every image of every split by a multiple of 90 degrees that is a fixed function of
        its index, so that the four orientations are equally likely and the label keeps: a set with a
        symmetry that is known.
      classes: a text file that lists the classes to keep, one a line, of a set with named classes; '' keeps all.
        'imagenet100' needs one, unless it is read from a folder of its 100 classes.

    Returns:
      The set, its mean and std taken over the training examples kept.

    Raises:
      ValueError: for an unknown name (with near ones), a bad `image_size` or `train_share`, a set that is not
        one of labelled images or has images of different sizes while `image_size` is None; `quarter_turns`
        of images that are not square; a folder or function that does not hold what it should.
      ImportError: for a TFDS set without TFDS, array_record or Pillow; for a folder without Pillow.
      FileNotFoundError, ConnectionError: for a TFDS set that is not prepared and cannot be prepared here.
      OSError: for a folder that is not there.

    >>> data = load('digits')
    >>> data.train_images.shape, data.validation_images.shape, data.test_images.shape
    ((1294, 8, 8, 1), (143, 8, 8, 1), (360, 8, 8, 1))
    """
    check(image_size, train_share)
    listed = named.read_list(classes) if classes else ()
    source = source_of(name, data_dir, listed)
    if classes and (source in _EMBEDDED or (is_import_path(source) and not source.startswith(FOLDER))):
        raise ValueError(f"classes={classes!r} chooses among the classes of a folder or of a TFDS set, not of {name!r}")
    if source in _EMBEDDED:
        splits = _EMBEDDED[name]()
        if image_size is not None:
            splits = _changed(splits, lambda images: decoding.resize(images, image_size))
    elif source.startswith(FOLDER):
        path = source.removeprefix(FOLDER)
        splits = folders.load_splits(path, image_size=image_size, cache_dir=cache_dir, classes=listed)
    elif is_import_path(source):
        splits = arrays.load_splits(import_path(source), image_size=image_size)
    else:
        where = {"data_dir": data_dir, "cache_dir": cache_dir}
        splits = tfds_images.load_splits(
            source, **where, image_size=image_size, embedded=(*names(), *named.SETS), classes=listed
        )
    if listed or name == "imagenet100":
        logger.info("%s: %s", name, named.in_words(splits.class_names))
    if splits.note:
        logger.info("%s: %s", name, splits.note)
    if quarter_turns:
        splits = _changed(splits, _turn)
    data = _divide(name, splits, train_share)
    _warn_of_missing_classes(data)
    logger.info(
        "%s: %d training, %d validation and %d test images of shape %s, %d classes",
        *(name, len(data.train_labels), len(data.validation_labels), len(data.test_labels)),
        *(data.train_images.shape[1:], data.classes),
    )
    return data


def check(image_size: int | None, train_share: float) -> None:
    """Refuses what is no size or no share; see `load`."""
    if image_size is not None and (not isinstance(image_size, int) or image_size < 1):
        raise ValueError(f"image_size = {image_size!r}: expected a number of pixels, 1 or more, or None.")
    if not 0 < train_share <= 1:
        raise ValueError(f"train_share = {train_share}: expected a share in (0, 1]; 1.0 keeps all examples.")


def source_of(name: str, data_dir: str | os.PathLike | None, listed: Sequence[str] = ()) -> str:
    """What a named set is read from: 'folder:PATH', or its name in TFDS; any other name as it is.

    Raises:
        ValueError: 'imagenet100' from all of ImageNet, without the list of its classes.
        FileNotFoundError: the set is read from a folder that is not there.

    >>> source_of('pets', None), source_of('folder:mine', None)
    ('oxford_iiit_pet', 'folder:mine')
    """
    root = tfds_folders.default_data_dir(data_dir)
    folder = named.folder_of(name, root)
    if folder is not None:
        return f"{FOLDER}{folder}"
    if name == "imagenet100" and not listed:
        raise ValueError(
            f"'imagenet100' is read from {root / name}, folders of pictures of its classes, which is not there, or "
            "from TFDS' imagenet2012 with a list of the classes: give it, classes=FILE (task.classes in a config), one "
            "synset a line, such as imagenet100.txt of github.com/HobbitLong/CMC"
        )
    return named.tfds_name(name)


def _changed(splits: cache.Splits, change: Callable[[np.ndarray], np.ndarray]) -> cache.Splits:
    """The same set with other images in each split."""
    fields = [field for field in splits._fields if field.endswith("_images") and getattr(splits, field) is not None]
    return splits._replace(**{field: change(getattr(splits, field)) for field in fields})


def _divide(name: str, splits: cache.Splits, train_share: float) -> ImageData:
    validation = splits.validation_images, splits.validation_labels
    kept, held = division(len(splits.train_labels), train_share, given=validation[0] is not None)
    if validation[0] is None:
        validation = splits.train_images[held], splits.train_labels[held]
    images = splits.train_images[kept]
    return ImageData(
        name,
        splits.classes,
        images,
        splits.train_labels[kept],
        *validation,
        splits.test_images,
        splits.test_labels,
        *moments(images),
        class_names=splits.class_names,
    )


def division(total: int, train_share: float, *, given: bool) -> tuple[Int[np.ndarray, "kept"], Int[np.ndarray, "held"]]:
    """Places in a 'train' split of so many examples: those to train on, and those held out for validation.

    Args:
        given: whether there is a validation split; then the split is in an order of which every first part is fair.

    >>> [places.tolist() for places in division(12, 0.5, given=True)]
    [[0, 1, 2, 3, 4, 5], []]
    """
    every = np.arange(total)
    held = every[9:0] if given else every[9::10]
    kept = every if given else np.delete(every, held)
    if train_share < 1:
        kept = np.sort((kept if given else shuffled(kept))[: max(1, round(train_share * len(kept)))])
    return kept, held


def shuffled(places: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Places in the fixed order of which shares are taken."""
    return places[np.argsort(strata.mix(places), kind="stable")]


def _warn_of_missing_classes(data: ImageData) -> None:
    for split in ("train", "validation", "test"):
        missing = data.classes - len(np.unique(getattr(data, f"{split}_labels")))
        if missing:
            logger.warning(
                "%s: %d of %d classes are without a %s example; take a larger share",
                data.name,
                missing,
                data.classes,
                split,
            )


def _turn(images: np.ndarray) -> np.ndarray:
    if images.shape[1] != images.shape[2]:
        raise ValueError(f"quarter_turns need square images, not {images.shape[1:3]}; give image_size as well")
    return np.stack([np.rot90(image, int(turn)) for image, turn in zip(images, turns(len(images)))])


def turns(total: int) -> Int[np.ndarray, "n"]:
    """Quarter turns of the examples of a split, for `quarter_turns`.

    >>> turns(4).shape
    (4,)
    """
    return (strata.mix(np.arange(total)) % np.uint64(4)).astype(np.int8)


def moments(images: UInt8[np.ndarray, "n h w c"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel in [0, 1], from the exact counts of the 256 pixel values."""
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    # In chunks, because bincount copies its input to 64 bits.
    for start in range(0, len(images), 1024):
        chunk = images[start : start + 1024].reshape(-1, channels)
        for channel in range(channels):
            counts[channel] += np.bincount(chunk[:, channel], minlength=256)
    weights = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256) / 255
    mean = weights @ values
    std = np.sqrt(np.sum(weights * (values - mean[:, None]) ** 2, axis=1))
    return tuple(mean.tolist()), tuple(std.tolist())
