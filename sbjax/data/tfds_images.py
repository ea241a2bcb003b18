"""Read TFDS image classification sets from array_record files, without TensorFlow."""

import io
import logging
import os
from pathlib import Path

import numpy as np

from sbjax.data import cache, decoding, tfds_folders

logger = logging.getLogger(__name__)

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


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
            bytes_each=bytes_each,
            what=f"{builder.info.full_name}, split {split}",
        )

    # Unlabelled test splits of competitions have the label -1 throughout.
    held_out = [
        split for split in ("test", "validation") if split in builder.info.splits and source(split)[0][label_key] >= 0
    ]
    label = builder.info.features[label_key]
    classes, named = label.num_classes, {"class_names": tuple(getattr(label, "names", None) or ())}
    if "train" in builder.info.splits and held_out:
        return cache.Splits(classes, *arrays("train"), *arrays(held_out[0]), **named)
    single = ["train"] if "train" in builder.info.splits else held_out
    if len(single) != 1:
        raise ValueError(
            f"{folder} has the splits {', '.join(builder.info.splits)}: expected 'train' and 'test' or "
            "'validation', or one labelled split alone; choose another set."
        )
    logger.info("%s has one labelled split: every fifth example is taken as its test split.", builder.info.full_name)
    images, labels = arrays(single[0])
    test = np.arange(len(labels)) % 5 == 4
    return cache.Splits(classes, images[~test], labels[~test], images[test], labels[test], **named)


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


def _arrays(source, image_key, label_key, shape, image_size, *, bytes_each, what):
    from PIL import Image

    images = np.empty((len(source), *shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    mode = _MODES[shape[-1]]

    def fill(indices):
        for i, record in zip(indices, source.__getitems__(list(indices))):
            with Image.open(io.BytesIO(record[image_key])) as image:
                image = image if image.mode == mode else image.convert(mode)
                image = image if image_size is None else decoding.fit(image, image_size)
                pixels = np.asarray(image)
            if pixels.shape[:2] != shape[:2]:
                raise ValueError(
                    f"{what}: image {i} has shape {pixels.shape}, but {shape} was declared; set image_size or prepare "
                    "the set again."
                )
            images[i] = pixels.reshape(shape)
            labels[i] = record[label_key]

    decoding.in_chunks(fill, len(source), bytes_each=bytes_each, what=what)
    if (labels < 0).any():
        raise ValueError(
            f"{what}: {int((labels < 0).sum())} of {len(labels)} examples have no label (-1); choose another set."
        )
    return images, labels
