"""Image files as uint8 pixels, by rules that hide nothing: what is changed is named, what would be lost is refused.

- Grey (8 bit, bilevel) stays one channel if every image of the set is grey, else its value goes into all three.
- Palettes, CMYK and other colour models become RGB.
- Transparent pixels are laid on white.
- The orientation of EXIF is applied.
- Of several frames (GIF, TIFF, WebP) the first is taken.
- More than 8 bits a channel are refused: which range to keep is the owner's choice.
"""

import contextlib
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from sbjax.data import decoding

# Endings of the formats that are read, in lower case.
ENDINGS = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip

# What `read` says that it changed.
GREY = "grey among colour, its value put into all three channels"
ALPHA = "transparent, laid on white"
UPRIGHT = "turned upright by EXIF"
FRAMES = "of several frames, the first taken"

_GREY_MODES = ("1", "L", "LA", "La")
# Tags of TIFF, the first also of EXIF.
_ORIENTATION, _BITS_PER_SAMPLE, _WIDTH, _HEIGHT = 274, 258, 256, 257


class File(NamedTuple):
    """An image file: its path, its name below the root, and its class."""

    path: Path
    name: str
    label: int


def read_all(
    paths: Sequence[Path], names: Sequence[str], *, image_size: int | None, what: str, cut: int = 0
) -> tuple[UInt8[np.ndarray, "n h w c"], str]:
    """Pixels of all files in one array, with one channel if all are grey, else three; and what was changed, in words.

    Args:
        paths, names: of the files; the names are for messages.
        image_size: side of the square they are resized to; None = they must have one size.
        what: begins messages.
        cut: rows to cut off at the bottom of each, before it is resized.

    Raises:
        ValueError: files are damaged, have more than 8 bits a channel, or differ in size while `image_size` is None.
    """
    bytes_each = float(np.mean([path.stat().st_size for path in paths]))
    size, grey = look_at_all(paths, names, image_size=image_size, what=what, cut=cut, bytes_each=bytes_each)
    faults: dict[str, str] = {}
    shape = (len(paths), *size, 1 if grey else 3)
    try:
        pixels = np.empty(shape, np.uint8)
    except MemoryError as error:
        raise ValueError(f"{what}: {error}; set a smaller image_size (task.image_size in a config)") from error
    changes = defaultdict(list)

    def fill(indices):
        for i in indices:
            try:
                image, changed = read(paths[i], grey=grey, image_size=image_size, cut=cut)
            except Exception as error:
                faults[names[i]] = reason(error)
                continue
            for change in changed:
                changes[change].append(names[i])
            if image.shape == shape[1:]:
                pixels[i] = image
            else:  # an orientation that stands behind the pixels
                faults[names[i]] = f"upright it is {_words(image.shape)} pixels, others {_words(size)}; set image_size"

    decoding.in_chunks(fill, len(paths), bytes_each=bytes_each, what=what)
    refuse_damaged(what, faults)
    note = "; ".join(count(change, sorted(changes[change])) for change in sorted(changes))
    return pixels, f"changed: {note}" if note else ""


def look_at_all(
    paths: Sequence[Path], names: Sequence[str], *, image_size: int | None, what: str, cut: int, bytes_each: float
) -> tuple[tuple[int, int], bool]:
    """The size that all have after `cut` and resizing, and whether all are grey, from the heads of the files.

    Raises:
        ValueError: as `read_all`.
    """
    faults: dict[str, str] = {}
    looks: list[Look | None] = [None] * len(paths)

    def see(indices):
        for i in indices:
            try:
                looks[i] = look(paths[i])
            except Exception as error:  # a damaged file may raise anything
                faults[names[i]] = reason(error)

    decoding.in_chunks(see, len(paths), bytes_each=bytes_each, what=f"{what}, heads of files")
    refuse_damaged(what, faults)
    deep = sorted(f"{name} ({found.deep})" for name, found in zip(names, looks) if found.deep)
    if deep:
        raise ValueError(
            f"{what}: {count('images with more than 8 bits a channel', deep)}; scale them to 8 bits yourself, over the "
            "range that matters, or return arrays from a function (dataset='FILE.py:FUNCTION')"
        )
    low = sorted(name for name, found in zip(names, looks) if found.size[0] <= cut)
    if low:
        raise ValueError(f"{what}: {count(f'images of {cut} rows, which are cut off, or fewer', low)}; remove them")
    size = _one_size(what, names, looks) if image_size is None else (image_size, image_size)
    return (size if image_size is not None else (size[0] - cut, size[1])), all(found.grey for found in looks)


def some(names: Collection[str], *, most: int = 3) -> str:
    """The first few names, and how many more there are.

    >>> some(['a', 'b', 'c', 'd', 'e'])
    'a, b, c and 2 more'
    """
    shown = [name.encode("utf-8", "backslashreplace").decode() for name in list(names)[:most]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def count(what: str, names: Collection[str]) -> str:
    """Of what, how many, and the first few names.

    >>> count('damaged files', ['a', 'b'])
    'damaged files: 2 (a, b)'
    """
    return f"{what}: {len(names)} ({some(names)})"


class Look(NamedTuple):
    """What the head of a file says.

    Attributes:
        size: (height, width), upright.
        grey: it has one channel.
        deep: in words, how it has more than 8 bits a channel; '' = it has not.
    """

    size: tuple[int, int]
    grey: bool
    deep: str


def look(path: str | os.PathLike) -> Look:
    """Reads the head of an image file; raises whatever Pillow raises of a damaged one."""
    from PIL import Image

    with Image.open(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # Pillow may have swapped them
            width, height = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
        if _orientation(image) >= 5:
            width, height = height, width
        return Look((height, width), image.mode in _GREY_MODES, _deep(image))


def read(
    path: str | os.PathLike, *, grey: bool, image_size: int | None = None, cut: int = 0
) -> tuple[UInt8[np.ndarray, "h w c"], tuple[str, ...]]:
    """Pixels of an image file with one channel (`grey`) or three, and what was changed, in words.

    `cut` rows are cut off at the bottom before the picture is resized to `image_size`.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        changes = []
        # The second picture of an MPO is a view of the same scene.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            changes.append(FRAMES)
        turned = _orientation(image) != 1  # before `load`, which turns a TIFF itself
        image.load()
        if image.mode in _GREY_MODES and not grey:
            changes.append(GREY)
        elif image.mode in ("P", "PA"):
            changes.append("with a palette, turned into RGB")
        elif image.mode not in (*_GREY_MODES, "RGB", "RGBA"):
            changes.append(f"{image.mode}, turned into RGB")
        if turned or _orientation(image) != 1:
            changes.append(UPRIGHT)
            image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            changes.append(ALPHA)
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if grey else "RGB")
        if cut:
            image = image.crop((0, 0, image.width, image.height - cut))
        pixels = np.asarray(image if image_size is None else decoding.fit(image, image_size))
    return (pixels[..., None] if grey else pixels), tuple(changes)


def _orientation(image) -> int:
    """1 to 8 as EXIF has it; 1 if there is none that can be read, or none yet."""
    found = 1
    if image.format == "PNG" and "exif" not in image.info and image.tile:
        return found  # it may stand behind the pixels, but asking would decode them
    with contextlib.suppress(Exception):  # a damaged EXIF block is no damaged picture
        found = image.getexif().get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def _deep(image) -> str:
    """How an image has more than 8 bits a channel: Pillow cuts colour down to 8 without a word."""
    if image.mode == "F" or image.mode.startswith("I"):
        return f"mode {image.mode}"
    arguments = image.tile[0][3] if image.tile else ""
    if image.format == "PNG" and ";16" in str(arguments):
        return "16 bits"
    if image.format == "TIFF":
        bits = max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
        return f"{bits} bits" if bits > 8 else ""
    if image.format == "PPM" and isinstance(arguments, tuple) and arguments[-1] > 255:
        return f"maximum {arguments[-1]}"
    return ""


def _one_size(what, names, looks) -> tuple[int, int]:
    by_name = sorted((name, found.size) for name, found in zip(names, looks))
    first, size = by_name[0]
    for name, other in by_name:
        if other != size:
            raise ValueError(
                f"{what} has images of different sizes, {first} of {_words(size)} and {name} of {_words(other)} pixels "
                "(height x width): set image_size (task.image_size in a config), for example to 64"
            )
    return size


def refuse_damaged(what: str, faults: Mapping[str, str]) -> None:
    """Raises of files that cannot be read, each with its reason, if there are any."""
    if faults:
        named = [f"{name}: {faults[name]}" for name in sorted(faults)]
        raise ValueError(f"{what}: {len(named)} image files cannot be read ({some(named)}); mend or remove them")


def _words(size) -> str:
    return f"{size[0]} x {size[1]}"


def reason(error: Exception) -> str:
    """What a damaged file raised, in words."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "no image"  # Pillow repeats the whole path
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
