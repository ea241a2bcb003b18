"""Find prepared TFDS folders on disk, or prepare them if TensorFlow and a network are available.

TFDS is used only for what cannot be read from disk: without a network, its builders and downloads retry for minutes
before they fail. Nothing here waits longer than `NETWORK_LIMIT_SECONDS` except for a running download.
"""

import difflib
import fnmatch
import hashlib
import importlib
import importlib.util
import logging
import os
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from sbjax.common.files import read_json
from sbjax.common.names import expanded
from sbjax.data import named

logger = logging.getLogger(__name__)


NETWORK_LIMIT_SECONDS = 15.0

# For suggestions without importing TFDS; all other TFDS names work as well.
WELL_KNOWN = (
    "beans", "caltech101", "caltech_birds2011", "cars196", "cassava", "cifar10", "cifar100", "cifar10_1",
    "cifar10_corrupted", "colorectal_histology", "deep_weeds", "dtd", "emnist", "eurosat",
    "fashion_mnist", "food101", "imagenet2012", "imagenet_a", "imagenet_r", "imagenet_resized",
    "imagenet_v2", "imagenette", "kmnist", "malaria", "mnist", "mnist_corrupted", "oxford_flowers102",
    "oxford_iiit_pet", "patch_camelyon", "places365_small", "quickdraw_bitmap", "resisc45",
    "rock_paper_scissors", "stanford_dogs", "stl10", "svhn_cropped", "tf_flowers", "uc_merced",
)  # fmt: skip

_NAME = re.compile(
    r"(?P<set>[a-z][a-z0-9_]*)(/(?P<config>\w[\w.+-]*))?(:(?P<version>(\d+|\*)(\.(\d+|\*)){2}))?", re.ASCII
)
_VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)
_CATALOGUE = "https://www.tensorflow.org/datasets/catalog/overview"


class SetName(NamedTuple):
    """A TFDS name 'set', 'set/config', 'set:version' or 'set/config:version'; '*' in a version matches any number."""

    set: str
    config: str | None
    version: str | None

    def __str__(self) -> str:
        config = f"/{self.config}" if self.config else ""
        return self.set + config + (f":{self.version}" if self.version else "")


def parse_name(name: str, embedded: tuple[str, ...] = ()) -> SetName:
    """Parse a TFDS name; raises ValueError with similar names if it is malformed.

    >>> parse_name('imagenet_resized/32x32:0.1.0')
    SetName(set='imagenet_resized', config='32x32', version='0.1.0')
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise unknown_name(name, embedded)
    return SetName(match["set"], match["config"], match["version"])


def unknown_name(name: str, known: tuple[str, ...]) -> ValueError:
    """The error for an unknown name, with similar names."""
    tidy = name.lower().replace("-", "").replace(" ", "_")
    near = difflib.get_close_matches(tidy, sorted({*known, *WELL_KNOWN}), n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "check the spelling."
    if os.path.isdir(os.path.expanduser(name)):
        hint = f"did you mean the folder {f'folder:{name}'!r}?"
    return ValueError(
        f"name = {name!r} is no known image set: {hint} Known are 'digits' (embedded) and the image "
        f"classification sets of TFDS, written 'set', 'set/config' or 'set:version' ({_CATALOGUE}); your own are "
        "'folder:PATH', 'module:function' or 'FILE.py:function'."
    )


def default_data_dir(data_dir: str | os.PathLike | None = None) -> Path:
    """`data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets, as in TFDS."""
    return expanded(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def import_tfds():
    """Import `tensorflow_datasets`; the ImportError says what to install."""
    for module in ("tensorflow_datasets", "array_record", "importlib_resources", "PIL"):
        if not installed(module):
            raise ImportError(
                f"Image sets other than 'digits' are read with TFDS, and the module {module} is not "
                "installed: pip install 'sbjax[tfds]'"
            )
    return importlib.import_module("tensorflow_datasets")


def find_folder(name: SetName, data_dir: Path) -> Path | None:
    """The prepared folder data_dir/set[/config]/version with the highest matching version, or None.

    Without a config, the default config of the set is used, as in TFDS. Incomplete folders (`.incomplete..`) are
    ignored.

    Raises:
      ValueError: the folder is not prepared as array_record.
      FileNotFoundError: no config is named, and only configs other than the default one are prepared.
    """
    root = data_dir / name.set
    if name.config is None and not _versions(root, "*") and root.is_dir():
        prepared = sorted(folder.name for folder in root.iterdir() if _versions(folder, "*"))
        name = name._replace(config=_default_config(name.set) if prepared else None)
        if prepared and name.config not in prepared:
            raise FileNotFoundError(
                f"{root} holds the configs {', '.join(prepared)} of {name.set!r}, but not the default one "
                f"({name.config}); name one of them, for example {name.set}/{prepared[0]}."
            )
    versions = _versions(root / name.config if name.config else root, name.version or "*")
    if not versions:
        return None
    form = {"fileFormat?": str, "alternativeFileFormats?": [str]}
    info = read_json(versions[-1] / "dataset_info.json", form, remedy="prepare the set again")
    formats = [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])]
    if "array_record" not in formats:
        raise ValueError(
            f"{versions[-1]} is prepared as {', '.join(formats)}, which only TensorFlow reads; array_record "
            "is needed. Convert it: `pip install tensorflow apache-beam`, then `python -m "
            f"tensorflow_datasets.scripts.convert_format --dataset_version_dir={versions[-1]} "
            "--out_file_format=array_record`; or prepare the set in another data_dir: "
            f"{prepare_command(name, Path('DATA_DIR'))}"
        )
    return versions[-1]


def fingerprint(folder: Path) -> str:
    """12 hexadecimal digits that identify how a set was prepared (image format, sizes)."""
    digest = hashlib.sha256()
    for file in ("dataset_info.json", "features.json"):
        digest.update((folder / file).read_bytes())
    return digest.hexdigest()[:12]


def decoded_bytes(folder: Path, *, image_size: int | None = None) -> int:
    """What the images of the splits that are read take once they are decoded, from the two files that describe a set.

    0 of images of many sizes without `image_size`, or where the files do not say it.
    """
    info = read_json(folder / "dataset_info.json", {"splits?": [dict]}, remedy="prepare the set again")
    counts = [
        sum(map(int, split.get("shardLengths", [])))
        for split in info.get("splits", [])
        if split.get("name") in ("train", "validation", "test")
    ]
    features = read_json(folder / "features.json", dict, remedy="prepare the set again")
    sides = []
    for feature in features.get("featuresDict", {}).get("features", {}).values():
        if found := feature.get("image", {}).get("shape", {}).get("dimensions"):
            height, width, channels = (int(size) for size in found)
            if image_size is not None:
                height = width = image_size
            sides.append(max(height, 0) * max(width, 0) * (3 if channels < 0 else channels))
    return sum(counts) * max(sides, default=0)


def prepare(name: SetName, data_dir: Path, embedded: tuple[str, ...] = ()) -> None:
    """Download and prepare a set as array_record; fails within seconds if that is not possible.

    Raises:
      ImportError: TFDS is not installed.
      ValueError: TFDS does not know the set or config.
      FileNotFoundError: TensorFlow is not installed; TFDS needs it to prepare sets (not to read them).
      ConnectionError: the hosts of the set do not answer in time.
    """
    if not installed("tensorflow_datasets") and name.set not in WELL_KNOWN:
        error = unknown_name(str(name), embedded)
        error.add_note("TFDS knows more sets but is not installed: pip install 'sbjax[tfds]'")
        raise error
    tfds = import_tfds()
    catalogue = tfds.list_builders(with_community_datasets=False)
    if name.set not in catalogue:
        raise unknown_name(str(name), (*embedded, *catalogue))
    builder_class = tfds.builder_cls(name.set)
    configs = tuple(builder_class.builder_configs)
    if name.config and name.config not in configs:
        near = difflib.get_close_matches(name.config, configs, n=3) or configs[:10]
        raise ValueError(f"{name.set!r} has no config {name.config!r}; it has {', '.join(near) or 'none'}.")
    missing = f"{str(name)!r} is not prepared in {data_dir} (set data_dir or TFDS_DATA_DIR if it is elsewhere)."
    command = prepare_command(name, data_dir)
    if not installed("tensorflow"):
        how = named.how_to_get(name.set, data_dir)
        raise FileNotFoundError(
            f"{str(name)!r} is not prepared in {data_dir} (set data_dir, task.data_dir in a config, or TFDS_DATA_DIR "
            "if it is elsewhere), and TFDS prepares images with TensorFlow, which is not installed and not needed "
            f"afterwards: `pip install tensorflow`, then run again or run: {command}{f' ({how})' if how else ''}"
        )

    def reach_and_build():
        _reach(builder_class.url_infos or {})
        # Constructing a builder may access the network, so it is subject to the limit too.
        return tfds.builder(str(name), data_dir=data_dir, file_format="array_record")

    builder = _within_limit(
        reach_and_build,
        f"{missing} Its hosts could not be reached within {NETWORK_LIMIT_SECONDS:g} s. Check the network "
        "(and http_proxy, https_proxy), or prepare it on a connected machine and copy the folder: " + command,
    )
    logger.info("Preparing %s in %s; this is done once.", name, data_dir)
    builder.download_and_prepare()


def prepare_command(name: SetName, data_dir: Path) -> str:
    """Command that prepares a set as array_record (`tfds build` would need apache-beam as well)."""
    return (
        f"python -c \"import tensorflow_datasets as tfds; tfds.builder('{name}', data_dir='{data_dir}', "
        "file_format='array_record').download_and_prepare()\""
    )


def installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def _versions(root: Path, pattern: str) -> list[Path]:
    if not root.is_dir():
        return []
    folders = [
        folder
        for folder in root.iterdir()
        if _VERSION.fullmatch(folder.name)
        and fnmatch.fnmatchcase(folder.name, pattern)
        and (folder / "dataset_info.json").is_file()
    ]
    return sorted(folders, key=lambda folder: [int(part) for part in folder.name.split(".")])


def _default_config(set_name: str) -> str | None:
    tfds = import_tfds()
    if set_name not in tfds.list_builders(with_community_datasets=False):
        return None
    config = tfds.builder_cls(set_name).default_builder_config
    return config.name if config else None


def _reach(urls) -> None:
    """Send a HEAD request to every host of a set; any answer of the host counts as reachable."""
    for url in {urlsplit(url).netloc: url for url in urls}.values():
        if not url.startswith(("http://", "https://")):
            continue
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=NETWORK_LIMIT_SECONDS).close()
        except urllib.error.HTTPError as error:
            # 407 and 502 to 504 come from a proxy that cannot reach the host; other codes from the host itself.
            if error.code in (407, 502, 503, 504):
                raise


def _within_limit(function, message: str):
    """Run `function` with a time limit; ConnectionError if it takes too long or cannot connect.

    It runs in a daemon thread, since name look-up and proxies can block longer than any socket time-out.
    """
    outcome = {}

    def work():
        try:
            outcome["result"] = function()
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(NETWORK_LIMIT_SECONDS)
    error = outcome.get("error")
    if "result" in outcome:
        return outcome["result"]
    if error is None or isinstance(error, OSError):
        raise ConnectionError(message) from error
    raise error
