"""Image sets as arrays that a function of the user's own returns."""

import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from sbjax.common.names import near
from sbjax.data import cache, decoding, strata

EXPECTED = (
    "(images, labels), or {'train': (images, labels), 'test': (images, labels), 'validation': (images, labels)}, or an "
    "ImageData; images [n, h, w] or [n, h, w, c] of uint8 or of floats in [0, 1], labels [n] of integers from 0"
)
# Accepted names of splits.
_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_HELD = ("validation", "test")
_PAIR = ("images", "labels")


def load_splits(function: Callable[[], Any], *, image_size: int | None = None) -> cache.Splits:
    """Training, validation and test split from what a function returns; see `from_arrays`.

    Raises:
        ValueError: it is no function without arguments, it raises, or what it returns cannot be used.
    """
    if not callable(function):
        raise ValueError(f"it names a {type(function).__name__}, not a function that returns {EXPECTED}")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise ValueError(f"the function is called without arguments, but: {error}; give them defaults") from error
    except ValueError:  # a built-in function tells no signature
        pass
    try:
        value = function()
    except Exception as error:  # the user's own code may raise anything
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"line {frame.lineno} of {frame.filename}"
        raise ValueError(f"the function raised {type(error).__name__} at {where}: {error}") from error
    return from_arrays(value, image_size=image_size)


def from_arrays(value: Any, *, image_size: int | None = None) -> cache.Splits:
    """Checks arrays and divides them by the rules of `sbjax.data.load`.

    Args:
        value: (images, labels) or {'images': images, 'labels': labels}, unsplit; a mapping from 'train', 'test' and
            'validation' to such pairs, 'train' at least; or an `ImageData`. Images are uint8, or floats in [0, 1],
            which are kept as round(255 x).
        image_size: side of the square the images are resized to; None keeps the size.

    Raises:
        ValueError: names what came and what is expected.

    >>> splits = from_arrays((np.zeros((20, 4, 4)), np.arange(20) % 2))
    >>> [len(labels) for labels in (splits.train_labels, splits.validation_labels, splits.test_labels)]
    [16, 2, 2]
    """
    given, classes = _given(value)
    given = {
        split: (_array(images, f"{split} images"), _array(labels, f"{split} labels"))
        for split, (images, labels) in given.items()
    }
    floats = any(images.dtype != np.uint8 for images, _ in given.values())
    checked = {split: _check(split, images, labels, image_size) for split, (images, labels) in given.items()}
    _check_together(checked)
    labels = {split: pair[1] for split, pair in checked.items()}
    classes = _check_classes(labels, classes)
    priority = {split: strata.mix(np.arange(len(part))) for split, part in labels.items()}
    arrays = {}
    for part, (split, indices) in strata.arrange(labels, priority).items():
        arrays[f"{part}_images"] = checked[split][0][indices]
        arrays[f"{part}_labels"] = labels[split][indices]
    note = "float images are kept in 8 bits, as round(255 x)" if floats else ""
    names = tuple(getattr(value, "class_names", ()))
    return cache.Splits(classes=classes, **arrays, note=note, class_names=names)


def _given(value: Any) -> tuple[dict[str, tuple[Any, Any]], int | None]:
    """Pairs by split, and the number of classes where it is said; unsplit pairs are 'train'."""
    if hasattr(value, "train_images") and hasattr(value, "classes"):  # ImageData, or Splits
        pairs = {s: (getattr(value, f"{s}_images"), getattr(value, f"{s}_labels")) for s in ("train", *_HELD)}
        return {split: pair for split, pair in pairs.items() if pair[0] is not None}, int(value.classes)
    if not isinstance(value, Mapping) or set(value) & set(_PAIR):
        return {"train": _pair(value, "the function returned")}, None
    given = {}
    for name, pair in value.items():
        if name not in _SPLITS:
            known = near(name, _SPLITS)
            raise ValueError(f"the function returned a split {name!r}{known}; expected 'train', 'validation', 'test'")
        if _SPLITS[name] in given:
            raise ValueError("the function returned both 'val' and 'validation', which are one split; give one")
        given[_SPLITS[name]] = _pair(pair, f"the split {name!r} is")
    if "train" not in given:
        raise ValueError(f"the function returned the splits {', '.join(given) or 'none'}, but no 'train'")
    return given, None


def _pair(value: Any, what: str) -> tuple[Any, Any]:
    if isinstance(value, Mapping):
        if set(value) != set(_PAIR):
            raise ValueError(f"{what} a mapping of {', '.join(map(repr, value))}; expected 'images' and 'labels'")
        return value["images"], value["labels"]
    if not isinstance(value, tuple | list):
        found = "None" if value is None else f"something of type {type(value).__name__}"
        raise ValueError(f"{what} {found}; expected {EXPECTED}")
    if len(value) != 2 or isinstance(value[0], tuple):
        inner = " of tuples" if value and isinstance(value[0], tuple) else ""
        raise ValueError(f"{what} a {type(value).__name__} of length {len(value)}{inner}; expected {EXPECTED}")
    return tuple(value)


def _check(split, images, labels, image_size) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, "n"]]:
    images = _check_images(split, images)
    labels = _check_labels(split, labels)
    if len(images) != len(labels):
        raise ValueError(f"{split}: {len(images)} images and {len(labels)} labels; expected as many of both")
    return (images if image_size is None else decoding.resize(images, image_size)), labels


def _array(value: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except Exception as error:  # arrays of any library
        raise ValueError(f"{what} are no array ({error}); images must have one size") from error


def _check_images(split: str, images: np.ndarray) -> np.ndarray:
    came = f"{split} images of shape {images.shape} and dtype {images.dtype}"
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise ValueError(f"{came}; expected [n, h, w] or [n, h, w, c]")
    if 0 in images.shape:
        raise ValueError(f"{came}: there is none; expected one at least")
    if images.shape[1] <= 4 < min(images.shape[2:]):
        raise ValueError(f"{came}; channels come last: images.transpose(0, 2, 3, 1)")
    if images.dtype == np.uint8:
        return images
    # bfloat16 and its like are of kind 'V'; NumPy compares them as numbers after a cast.
    if images.dtype.kind not in "fV" or images.dtype.names:
        raise ValueError(
            f"{came}; expected uint8, or floats in [0, 1]: of values 0 to 255, images.astype(np.uint8); of others, "
            "(images - low) / (high - low) over the range that matters"
        )
    if images.dtype.kind == "V":
        images = images.astype(np.float32)
    bad = np.count_nonzero(~np.isfinite(images))
    if bad:
        raise ValueError(f"{came}: {bad} values are NaN or infinite; expected floats in [0, 1]")
    low, high = images.min(), images.max()
    if low < 0 or high > 1:
        raise ValueError(
            f"{came} with values from {low:g} to {high:g}; expected [0, 1]: of values 0 to 255, "
            f"images.astype(np.uint8); of others, (images - low) / (high - low) with the same numbers for all splits"
        )
    return np.rint(images * 255).astype(np.uint8)


def _check_labels(split: str, labels: np.ndarray) -> np.ndarray:
    came = f"{split} labels of shape {labels.shape} and dtype {labels.dtype}"
    if labels.ndim == 2 and labels.shape[1] == 1:
        raise ValueError(f"{came}; expected [n]: labels[:, 0]")
    if labels.ndim == 2:
        raise ValueError(f"{came}; expected [n]: of one-hot rows, labels.argmax(1)")
    if labels.ndim != 1:
        raise ValueError(f"{came}; expected [n]")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{came}; expected integers: np.unique(labels, return_inverse=True)[1] numbers any values")
    if len(labels) and not 0 <= labels.min() <= labels.max() < 2**31:
        raise ValueError(f"{came} from {labels.min()} to {labels.max()}; expected integers from 0")
    return labels.astype(np.int32)


def _check_together(checked) -> None:
    shapes = {split: pair[0].shape[1:] for split, pair in checked.items()}
    for split, shape in shapes.items():
        if shape[-1] != shapes["train"][-1]:
            raise ValueError(f"{split} images have {shape[-1]} channels, train images {shapes['train'][-1]}")
        if shape != shapes["train"]:
            raise ValueError(
                f"{split} images are {shape[0]} x {shape[1]}, train images {shapes['train'][0]} x {shapes['train'][1]}:"
                " set image_size (task.image_size in a config), for example to 32"
            )


def _check_classes(labels: dict[str, np.ndarray], classes: int | None) -> int:
    """Their number: as said, else the largest label of the training images + 1, each of which must occur there."""
    present = np.unique(labels["train"])
    total = int(present[-1]) + 1 if classes is None else classes
    if total < 2:
        raise ValueError(f"there are labels of {max(total, 0)} classes; expected two or more, numbered from 0")
    for split, part in labels.items():
        if len(part) and part.max() >= total:
            where = "train labels go" if classes is None else f"classes = {classes} goes"
            raise ValueError(f"{split} labels go to {part.max()}, but {where} to {total - 1}")
    if classes is None and len(present) < total:
        gap = int(np.flatnonzero(np.append(present, -1) != np.arange(len(present) + 1))[0])
        raise ValueError(
            f"{total - len(present)} of the classes 0 to {total - 1} have no training image, class {gap} for one; "
            "number the classes without gaps: np.unique(labels, return_inverse=True)[1] over all splits"
        )
    return total
