"""FGVC-Aircraft as its archive is laid out: one folder of pictures, and lists of them by split.

`images_variant_train.txt`, `.._val.txt` and `.._test.txt` hold lines `NUMBER VARIANT` of `images/NUMBER.jpg`. The
lowest 20 rows of each picture are a banner with the owner's name, which is cut off, as the owners of the set ask for.
Classes are the 100 variants. Maji et al., arXiv 1306.5151.
"""

from pathlib import Path

from sbjax.data.image_files import File, count

BANNER_ROWS = 20
_LISTS = {"train": "train", "validation": "val", "test": "test"}


def locate(root: Path) -> Path | None:
    """The folder below `root` that holds the lists; None if there is none."""
    places = (root, root / "data", root / "fgvc-aircraft-2013b" / "data")
    return next((place for place in places if _list(place, "train").is_file()), None)


def find(data: Path) -> tuple[tuple[str, ...], dict[str, list[File]]]:
    """The variants, sorted by name, and the pictures by split.

    Raises:
        ValueError: a list or pictures are missing, or a line of a list cannot be read.
    """
    rows = {split: _read(_list(data, name)) for split, name in _LISTS.items()}
    classes = tuple(sorted({variant for split in rows.values() for _, variant in split}))
    number = {name: label for label, name in enumerate(classes)}
    files = {
        split: [File(data / "images" / f"{image}.jpg", f"{image}.jpg", number[variant]) for image, variant in found]
        for split, found in rows.items()
    }
    missing = [file.name for members in files.values() for file in members if not file.path.is_file()]
    if missing:
        raise ValueError(
            f"{data / 'images'}: {count('listed pictures that are not there', missing)}; unpack them again"
        )
    return classes, files


def _list(data: Path, name: str) -> Path:
    return data / f"images_variant_{name}.txt"


def _read(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; unpack the archive again") from error
    rows = [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]
    bad = [" ".join(row) for row in rows if len(row) != 2]
    if bad or not rows:
        found = f"the line {bad[0]!r}" if bad else "no line"
        raise ValueError(f"{path} has {found}; expected lines of a number and a variant: unpack the archive again")
    return rows
