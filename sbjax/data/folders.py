"""Image sets in folders, one folder a class: PATH/CLASS/*, or PATH/{train,validation,test}/CLASS/*."""

import hashlib
import logging
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sbjax.common.names import near
from sbjax.data import aircraft, cache, decoding, image_files, named, strata
from sbjax.data.image_files import File, count, some

logger = logging.getLogger(__name__)

# Folder names, in lower case, that are splits where they hold folders.
SPLITS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
# What operating systems leave behind, beside names that begin with a dot.
_HIDDEN = ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini")
# In the names of cache files; to be raised when a rule of splitting or decoding changes.
_RULES = 1


class Found(NamedTuple):
    """An image folder that was looked through.

    Attributes:
        root: the folder.
        classes: names of the labels 0, 1, ..
        files: by 'train', 'validation', 'test', in `strata.spread` order.
        cut: rows that are cut off at the bottom of each image.
        digest: of all that the pixels depend on.
    """

    root: Path
    classes: tuple[str, ...]
    files: dict[str, list[File]]
    cut: int
    digest: str


def load_splits(
    path: str,
    *,
    image_size: int | None = None,
    cache_dir: str | os.PathLike | None = None,
    classes: Sequence[str] = (),
) -> cache.Splits:
    """Training, validation and test split of an image folder; see `sbjax.data.load` for the rules.

    The first call decodes and writes a cache file, later calls read that. Its name holds a digest of the names,
    sizes and dates of all files.

    Raises:
        ImportError: without Pillow.
        ValueError: the folder is not laid out so, or holds images that cannot be used; the message names them.
        FileNotFoundError, NotADirectoryError: there is no such folder.
    """
    found = open_folder(path, classes=classes)
    size = "" if image_size is None else f"-{image_size}px"
    stored = cache.folder(cache_dir) / "images" / f"folder-{found.digest}{size}.npz"
    splits = cache.load_splits(stored)
    if splits is None:
        splits = _read(found, image_size)
        cache.save_splits(stored, splits)
    logger.info("%s: classes %s", found.root, some([f"{i} = {name}" for i, name in enumerate(found.classes)], most=20))
    return splits._replace(class_names=found.classes)


def open_folder(path: str, *, classes: Sequence[str] = ()) -> Found:
    """The files of an image folder by split; no picture is read yet.

    Args:
        classes: the classes to keep; () = all.

    Raises:
        As `load_splits`.
    """
    decoding.import_pillow(what="Image folders are read")
    root = locate(path)
    lists = aircraft.locate(root)
    names, given = find(root) if lists is None else aircraft.find(lists)
    cut = 0 if lists is None else aircraft.BANNER_ROWS
    if classes:
        kept = named.choose(names, classes, what=str(root))
        number = {names.index(name): label for label, name in enumerate(kept)}
        names, given = kept, {
            split: [file._replace(label=number[file.label]) for file in files if file.label in number]
            for split, files in given.items()
        }  # fmt: skip
    labels = {split: np.array([file.label for file in files], np.int32) for split, files in given.items()}
    priority = {split: _priority(files, names) for split, files in given.items()}
    try:
        parts = strata.arrange(labels, priority)
    except ValueError as error:
        raise ValueError(f"{root}: {error}") from error
    if parts["test"][0] == "validation":
        logger.info("%s has no test split: its validation split takes the place.", root)
    files = {part: [given[split][i] for i in indices] for part, (split, indices) in parts.items()}
    return Found(root, names, files, cut, _digest(files, cut))


def locate(path: str) -> Path:
    """The folder that a user names, with `~` and `$NAME` expanded.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
    """
    root = Path(os.path.expanduser(os.path.expandvars(path)))
    if not path or not root.exists():
        unset = f" (an environment variable in {path!r} is not set)" if "$" in str(root) else ""
        where = f"there is no folder {str(root)!r}{unset}, looked for from {Path.cwd()}" if path else "no path is given"
        raise FileNotFoundError(f"{where}; write folder:PATH, where PATH holds one folder of images for each class")
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is no folder; unpack it, and name the folder that holds the class folders")
    return root


def find(root: Path) -> tuple[tuple[str, ...], dict[str, list[File]]]:
    """The classes of an image folder, sorted by name, and its files by given split; unsplit ones are 'train'.

    Raises:
        ValueError: the layout is not one of the two; a class is empty or missing.
    """
    ignored: list[str] = []
    folders, images = _entries(root, root, ignored)
    splits = _split_folders(root, folders)
    if images and not folders:
        raise ValueError(f"{root} holds images, such as {images[0].name}, but no folders: put each in its class's")
    ignored += [image.name for image in images]
    found: dict[str, dict[str, list[Path]]] = {}
    for split, folder in (splits or {"train": root}).items():
        inner = _entries(root, folder, ignored)[0] if splits else folders
        found[split] = {_plain(path.name): _class_images(root, path, ignored) for path in inner}
    if ignored:
        logger.info("%s: %s", root, count("ignored, since they are no images in a class folder", ignored))
    classes = tuple(sorted(found["train"]))
    _check_classes(root, classes, found)
    number = {name: label for label, name in enumerate(classes)}
    files = {
        split: [
            File(path, path.relative_to(root).as_posix(), number[name])
            for name in sorted(by_class)
            for path in by_class[name]
        ]
        for split, by_class in found.items()
    }
    return classes, files


def _read(found: Found, image_size: int | None) -> cache.Splits:
    """The three splits, decoded in their order."""
    every = [file for part in found.files.values() for file in part]
    paths, names = [file.path for file in every], [file.name for file in every]
    pixels, note = image_files.read_all(paths, names, image_size=image_size, what=str(found.root), cut=found.cut)
    arrays, start = {}, 0
    for part, members in found.files.items():
        arrays[f"{part}_images"] = pixels[start : start + len(members)]
        arrays[f"{part}_labels"] = np.array([file.label for file in members], np.int32)
        start += len(members)
    return cache.Splits(classes=len(found.classes), **arrays, note=note)


def _split_folders(root: Path, folders: Sequence[Path]) -> dict[str, Path]:
    """The split folders; none if the folders are classes."""
    named = [path for path in folders if path.name.lower() in SPLITS and _entries(root, path, [])[0]]
    if not named:
        return {}
    others = [path for path in folders if path not in named]
    if others:
        raise ValueError(
            f"{root} holds split folders ({some([p.name for p in named])}) and others "
            f"({some([p.name for p in others])}) that hold no class folders or are no split; move these away"
        )
    splits: dict[str, Path] = {}
    for path in named:
        split = SPLITS[path.name.lower()]
        if split in splits:
            raise ValueError(f"{root}: {splits[split].name} and {path.name} are both the {split} split; move one away")
        splits[split] = path
    if "train" not in splits:
        raise ValueError(f"{root} has the split folders {some([p.name for p in named])} but no 'train'")
    return splits


def _entries(root: Path, folder: Path, ignored: list[str]) -> tuple[list[Path], list[Path]]:
    """Folders and image files in a folder, sorted; names of all else are added to `ignored`."""
    folders, images = [], []
    for path in sorted(folder.iterdir(), key=lambda path: _plain(path.name)):
        if path.name.startswith(".") or path.name in _HIDDEN:
            ignored.append(path.relative_to(root).as_posix())
        elif path.is_dir():
            folders.append(path)
        elif path.suffix.lower() in image_files.ENDINGS:
            images.append(path)
        else:
            ignored.append(path.relative_to(root).as_posix())
    return folders, images


def _class_images(root: Path, folder: Path, ignored: list[str]) -> list[Path]:
    before = len(ignored)
    folders, images = _entries(root, folder, ignored)
    if folders:
        raise ValueError(
            f"the class folder {folder} holds folders ({some([path.name for path in folders])}); expected images: name "
            "the folder whose folders are the classes"
        )
    if not images:
        others = ignored[before:]
        found = f", only {some(others)}" if others else ""
        raise ValueError(
            f"the class folder {folder} holds no images{found}; remove it, or fill it with files that end in "
            f"{', '.join(image_files.ENDINGS)}"
        )
    return images


def _check_classes(root, classes, found) -> None:
    if len(classes) < 2:
        what = f"one class folder only, {classes[0]!r}" if classes else "no class folders"
        raise ValueError(f"{root} holds {what}; expected one folder of images for each of two classes or more")
    for split, by_class in found.items():
        unknown = sorted(set(by_class) - set(classes))
        if unknown:
            raise ValueError(
                f"{root}: the {split} split has the class {unknown[0]!r}, which the training split lacks"
                f"{near(unknown[0], classes)}; give it training images or remove it"
            )


def _plain(name: str) -> str:
    """The name in the form that is the same on all systems: macOS writes accents apart from their letters."""
    return unicodedata.normalize("NFC", name)


def _priority(files: Sequence[File], classes: Sequence[str]) -> np.ndarray:
    """By file, 64 bits of SHA-256 of 'class/file': a new file moves no other one to another place."""
    names = [f"{classes[file.label]}/{_plain(file.path.name)}" for file in files]
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8] for name in names]
    return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)


def _digest(files: Mapping[str, Sequence[File]], cut: int) -> str:
    """Of everything that the decoded arrays depend on: rules, splits, names, sizes, dates, rows that are cut off."""
    digest = hashlib.sha256(f"rules {_RULES}\n{f'cut {cut}' if cut else ''}".encode())
    for part, members in files.items():
        for file in members:
            try:
                status = file.path.stat()
            except OSError as error:
                raise ValueError(f"{file.path} cannot be read: {error.strerror}; remove it") from error
            line = f"{part}/{file.label}/{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:24]
