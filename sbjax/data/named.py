"""The sets of photographs that the configs name: where each is read from, and how to get it.

    name          source                            stored      classes  images for training, validation, test
    cifar10       TFDS cifar10                      32 px            10  45,000 / 5,000 / 10,000
    cifar100      TFDS cifar100                     32 px           100  45,000 / 5,000 / 10,000
    imagenet_r    TFDS imagenet_r                   many sizes      200  21,600 / 2,400 / 6,000: ours, see below
    imagenet100   DATA_DIR/imagenet100, or TFDS     many sizes      100  some 114,000 / 12,700 / 5,000
                  imagenet2012 and a list of classes
    dtd           TFDS dtd (first fold)             many sizes       47  1,692 / 188 / 1,880
    aircraft      DATA_DIR/fgvc_aircraft            many sizes      100  3,334 / 3,333 / 3,333
    flowers       TFDS oxford_flowers102            many sizes      102  918 / 102 / 6,149
    pets          TFDS oxford_iiit_pet              many sizes       37  3,312 / 368 / 3,669
    stl10         TFDS stl10                        96 px            10  4,500 / 500 / 8,000
    svhn          TFDS svhn_cropped                 32 px            10  65,932 / 7,325 / 26,032
    eurosat       TFDS eurosat                      64 px            10  19,440 / 2,160 / 5,400: ours, see below
    cars196       TFDS cars196                      many sizes      196  7,330 / 814 / 8,041
    food101       TFDS food101                      many sizes      101  68,175 / 7,575 / 25,250
    imagenette    TFDS imagenette/160px-v2          many sizes       10  8,523 / 946 / 3,925

ImageNet-R has a test split only, and EuroSAT a training split only: of either, the examples i with i % 5 == 4, in the
order in which TFDS stores them, are the test split. That is a fixed choice of this package; numbers of other work on
the same images have other splits.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sbjax.common.names import expanded, near

logger = logging.getLogger(__name__)


class Named(NamedTuple):
    """Where a set is read from.

    Attributes:
        tfds: its name in TFDS; '' if that has it not.
        folder: below `data_dir`, where it is read from image files, if that is there; '' = it is not.
        get: how to get the data, a part of a sentence.
    """

    tfds: str = ""
    folder: str = ""
    get: str = ""


_PICTURES = "unpack it as folders of pictures, and name them, folder:PATH"
SETS = {
    "cifar10": Named("cifar10", get="170 MB are downloaded"),
    "cifar100": Named("cifar100", get="169 MB are downloaded"),
    "imagenet_r": Named("imagenet_r", get="2.2 GB are downloaded"),
    "imagenet100": Named(
        "imagenet2012",
        "imagenet100",
        "put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar of image-net.org into DATA_DIR/downloads/manual first",
    ),
    "dtd": Named("dtd", get="625 MB are downloaded"),
    "aircraft": Named(
        "",
        "fgvc_aircraft",
        "unpack fgvc-aircraft-2013b.tar.gz (2.75 GB) of its home page at robots.ox.ac.uk/~vgg/data/fgvc-aircraft there",
    ),
    "flowers": Named("oxford_flowers102", get="345 MB are downloaded"),
    "pets": Named("oxford_iiit_pet", get="811 MB are downloaded"),
    "stl10": Named("stl10", get="2.6 GB are downloaded"),
    "svhn": Named("svhn_cropped", get="1.5 GB are downloaded"),
    "eurosat": Named("eurosat", get="94 MB are downloaded"),
    "cars196": Named("cars196", get=f"2 GB are downloaded; its host is often gone: else {_PICTURES}"),
    "food101": Named("food101", get="5 GB are downloaded"),
    "imagenette": Named("imagenette/160px-v2", get="99 MB are downloaded"),
}
# By digest, of `digest`: lists of classes that others published.
PUBLISHED = {"d61d354b64beb3ce": "the list of arXiv 1906.05849, which most work on ImageNet-100 uses"}


def digest(classes: Sequence[str]) -> str:
    """16 hexadecimal digits of SHA-256 of the names, sorted, one a line: the same for the same set of classes.

    >>> digest(['b', 'a']) == digest(['a', 'b'])
    True
    """
    return hashlib.sha256("\n".join(sorted(classes)).encode()).hexdigest()[:16]


def in_words(classes: Sequence[str]) -> str:
    """How many classes, their digest, and whose list it is.

    >>> in_words(['a', 'b'])
    '2 classes, digest 7e18f737311b2dc3'
    """
    found = digest(classes)
    known = f", {PUBLISHED[found]}" if found in PUBLISHED else ""
    return f"{len(classes)} classes, digest {found}{known}"


def read_list(path: str) -> tuple[str, ...]:
    """The classes that a text file lists, one a line; empty lines and what follows a '#' do not count.

    Raises:
        ValueError: there is no such file, it names fewer than two classes, or one twice.
    """
    try:
        text = expanded(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"classes={path!r} cannot be read ({error}); name a text file with one class a line, such as "
            "imagenet100.txt of github.com/HobbitLong/CMC"
        ) from error
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    found = tuple(line for line in lines if line)
    twice = sorted({name for name in found if found.count(name) > 1})
    if len(found) < 2 or twice:
        what = f"names {twice[0]!r} twice" if twice else f"names {len(found)} classes, and two at least are needed"
        raise ValueError(f"classes={path!r} {what}; write each class once, one a line")
    return found


def choose(known: Sequence[str], listed: Sequence[str], *, what: str) -> tuple[str, ...]:
    """The listed classes in the order in which the set has them. Of a line that is no class, its first word may be one.

    Raises:
        ValueError: the set has no names of classes, or lacks one of the list.

    >>> choose(['n1', 'n2', 'n3'], ['n3 dog', 'n1'], what='a set')
    ('n1', 'n3')
    """
    if not known:
        raise ValueError(f"{what} has no names of classes, so that no list of classes can choose among them")
    names = [line if line in known else line.split()[0] for line in listed]
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(
            f"{what} lacks {len(missing)} of the {len(names)} listed classes, {missing[0]!r} for one"
            f"{near(missing[0], known)}; its classes are named like {known[0]!r}"
        )
    kept = set(names)
    return tuple(name for name in known if name in kept)


def folder_of(name: str, data_dir: Path) -> Path | None:
    """The folder of image files that a named set is read from; None if it is read by TFDS.

    Raises:
        FileNotFoundError: the set is only read from such a folder, and that is not there.
    """
    entry = SETS.get(name)
    if entry is None or not entry.folder:
        return None
    root = data_dir / entry.folder
    if root.is_dir():
        return root
    if entry.tfds:
        return None
    raise FileNotFoundError(
        f"{name!r} is read from image files in {root}, which is not there: {entry.get}, set data_dir (task.data_dir "
        "in a config) or TFDS_DATA_DIR to the folder that holds it, or name folders of pictures, folder:PATH"
    )


def tfds_name(name: str) -> str:
    """What TFDS calls a set.

    >>> tfds_name('pets'), tfds_name('mnist')
    ('oxford_iiit_pet', 'mnist')
    """
    return SETS[name].tfds if name in SETS and SETS[name].tfds else name


def how_to_get(name: str, data_dir: Path) -> str:
    """Of a set by its name in TFDS: what else is needed to prepare it; '' = nothing is known."""
    found = [entry.get for entry in SETS.values() if entry.tfds and entry.tfds.split("/")[0] == name]
    return found[0].replace("DATA_DIR", str(data_dir)) if found else ""
