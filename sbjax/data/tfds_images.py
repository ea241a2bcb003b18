"""Read TFDS image classification sets from array_record files, without TensorFlow."""

import io
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sbjax.data import cache, tfds_folders

logger = logging.getLogger(__name__)

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_CHUNK = 256
# Mean size of an encoded image above which decoding in threads is faster. Images per second with one and two threads
# on two busy x86-64 cores: 32 x 32 JPEG (1.4 kB) 10,600 and 9,000; 64 x 64 (2.5 kB) 8,100 and 9,100; 500 x 375 (34 kB)
# 700 and 830 (940 with four).
_THREADS_FROM_BYTES = 2048
_LOG_EVERY_SECONDS = 5.0


def load_splits(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    image_size: int | None = None,
    cache_dir: str | os.PathLike | None = None,
    embedded: tuple[str, ...] = (),
) -> cache.Splits:
    """Decoded training and test split of a TFDS set; see `sbjax.data.load` for the arguments.

    The first call decodes and writes a cache file, named by set, config, version, image_size and a digest of how the
    set was prepared; later calls read it.
    """
    set_name = tfds_folders.parse_name(name, embedded)
    data_dir = tfds_folders.default_data_dir(data_dir)
    folder = tfds_folders.find_folder(set_name, data_dir)
    if folder is None:
        tfds_folders.prepare(set_name, data_dir, embedded)
        folder = tfds_folders.find_folder(set_name, data_dir)
    parts = [*folder.relative_to(data_dir).parts, tfds_folders.fingerprint(folder)]
    if image_size is not None:
        parts.append(f"{image_size}px")
    path = cache.folder(cache_dir) / "images" / ("-".join(parts) + ".npz")
    splits = cache.load_splits(path)
    if splits is None:
        splits = decode(folder, image_size=image_size)
        cache.save_splits(path, splits)
    return splits


def decode(folder: Path, *, image_size: int | None = None) -> cache.Splits:
    """Decode a prepared folder; see `sbjax.data.load` for the choice of splits.

    Images are always decoded by Pillow, even if OpenCV (preferred by TFDS) is installed, so that pixels are the same
    on all machines.

    Raises:
      ImportError: TFDS, array_record or Pillow is not installed.
      ValueError: not a set of uint8 images with one class label each; images of different sizes without
        `image_size`; missing labels.
    """
    tfds = tfds_folders.import_tfds()
    builder = tfds.builder_from_directory(folder)
    image_key, label_key = _keys(tfds, builder)
    shape = _shape(builder, image_key, image_size)
    skip = {
        key: tfds.decode.SkipDecoding()
        for key, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Image)
    }

    def source(split):
        return builder.as_data_source(split, decoders=skip)

    def arrays(split):
        info = builder.info.splits[split]
        bytes_each = info.num_bytes / max(info.num_examples, 1)
        return _arrays(
            source(split),
            image_key,
            label_key,
            shape,
            image_size,
            workers=os.cpu_count() if bytes_each >= _THREADS_FROM_BYTES else 1,
            what=f"{builder.info.full_name}, split {split}",
        )

    # Unlabelled test splits of competitions have the label -1 throughout.
    held_out = [
        split for split in ("test", "validation") if split in builder.info.splits and source(split)[0][label_key] >= 0
    ]
    classes = builder.info.features[label_key].num_classes
    if "train" in builder.info.splits and held_out:
        return cache.Splits(classes, *arrays("train"), *arrays(held_out[0]))
    single = ["train"] if "train" in builder.info.splits else held_out
    if len(single) != 1:
        raise ValueError(
            f"{folder} has the splits {', '.join(builder.info.splits)}: expected 'train' and 'test' or "
            "'validation', or one labelled split alone; choose another set."
        )
    logger.info("%s has one labelled split: every fifth example is taken as its test split.", builder.info.full_name)
    images, labels = arrays(single[0])
    test = np.arange(len(labels)) % 5 == 4
    return cache.Splits(classes, images[~test], labels[~test], images[test], labels[test])


def resize(splits: cache.Splits, size: int) -> cache.Splits:
    """Resize all images of a set to size x size, as `image_size` in `sbjax.data.load`.

    >>> from sbjax.data.digits import load_digits
    >>> resize(load_digits(), 4).test_images.shape
    (360, 4, 4, 1)
    """
    if not tfds_folders.installed("PIL"):
        raise ImportError("Images are resized with Pillow, which is not installed: pip install Pillow")
    from PIL import Image

    def resized(images):
        pixels = [np.asarray(_fit(Image.fromarray(image.squeeze(-1)), size)) for image in images]
        return np.stack(pixels)[..., None]

    return splits._replace(train_images=resized(splits.train_images), test_images=resized(splits.test_images))


def _fit(image, size: int):
    """Resize a Pillow image to size x size: shorter side bilinearly (antialiased), then a centre crop."""
    from PIL import Image, ImageOps

    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)


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


def _arrays(source, image_key, label_key, shape, image_size, *, workers, what):
    from PIL import Image

    images = np.empty((len(source), *shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    mode = _MODES[shape[-1]]
    progress = _Progress(len(source), what)

    def fill(start):
        indices = range(start, min(start + _CHUNK, len(source)))
        for i, record in zip(indices, source.__getitems__(list(indices))):
            with Image.open(io.BytesIO(record[image_key])) as image:
                image = image if image.mode == mode else image.convert(mode)
                image = image if image_size is None else _fit(image, image_size)
                pixels = np.asarray(image)
            if pixels.shape[:2] != shape[:2]:
                raise ValueError(
                    f"{what}: image {i} has shape {pixels.shape}, but {shape} was declared; set image_size or prepare "
                    "the set again."
                )
            images[i] = pixels.reshape(shape)
            labels[i] = record[label_key]
        progress.add(len(indices))

    with ThreadPoolExecutor(workers) as executor:
        # `list` re-raises exceptions of workers.
        list(executor.map(fill, range(0, len(source), _CHUNK)))
    if (labels < 0).any():
        raise ValueError(
            f"{what}: {int((labels < 0).sum())} of {len(labels)} examples have no label (-1); choose another set."
        )
    return images, labels


class _Progress:
    """Logs progress and remaining time of the decoding every few seconds."""

    def __init__(self, total: int, what: str):
        self.total, self.what, self.done = total, what, 0
        self.start = self.last = time.monotonic()
        self.lock = threading.Lock()

    def add(self, count: int) -> None:
        with self.lock:
            self.done += count
            now = time.monotonic()
            if now - self.last < _LOG_EVERY_SECONDS:
                return
            self.last = now
            left = (now - self.start) * (self.total - self.done) / self.done
            logger.info("%s: %d of %d images decoded, %.0f s left", self.what, self.done, self.total, left)
