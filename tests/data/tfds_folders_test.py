import json
import sys
import threading
import time
import types
import urllib.request
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from sbjax import data
from sbjax.data import tfds_folders


@pytest.fixture
def load(tmp_path):
    def load(name, **arguments):
        return data.load(name, data_dir=tmp_path, cache_dir=tmp_path / "cache", **arguments)

    return load


@pytest.fixture
def tensorflow(monkeypatch):
    """Something that looks installed under the name tensorflow."""
    module = types.ModuleType("tensorflow")
    module.__spec__ = ModuleSpec("tensorflow", None)
    monkeypatch.setitem(sys.modules, "tensorflow", module)


@pytest.fixture
def no_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)


def test_names_are_split_and_written_as_tfds_does():
    for text, parts in {
        "cifar10": ("cifar10", None, None),
        "emnist/letters": ("emnist", "letters", None),
        "mnist:3.0.1": ("mnist", None, "3.0.1"),
        "imagenet_resized/32x32:0.*.*": ("imagenet_resized", "32x32", "0.*.*"),
    }.items():
        assert tfds_folders.parse_name(text) == parts
        assert str(tfds_folders.parse_name(text)) == text
    for text in ("CIFAR10", "../x", "a/../b", "a:1", "hf:b", "a/b/c"):
        with pytest.raises(ValueError, match="no known image set"):
            tfds_folders.parse_name(text)


def test_the_highest_complete_version_is_taken(tmp_path, tiny_tfds):
    for version in ("2.0.0", "10.0.0", "9.1.0"):
        tiny_tfds.write_tiny_tfds(tmp_path, version=version, train=2, test=1)
    (tmp_path / "cifar10" / "11.0.0").mkdir()
    (tmp_path / "cifar10" / "12.0.0.incompleteAB12").mkdir()

    def version(name):
        folder = tfds_folders.find_folder(tfds_folders.parse_name(name), tmp_path)
        return folder and folder.name

    assert version("cifar10") == "10.0.0"
    assert version("cifar10:9.1.0") == "9.1.0"
    assert version("cifar10:2.*.*") == "2.0.0"
    assert version("cifar10:3.0.0") is None
    assert version("cifar10/config") is None
    assert version("mnist") is None


def test_configs(load, tmp_path, tiny_tfds):
    tiny_tfds.write_tiny_tfds(tmp_path, "emnist", (28, 28, 1), config="letters", test=11)
    assert len(load("emnist/letters").test_labels) == 11
    with pytest.raises(FileNotFoundError, match="emnist/letters"):
        load("emnist")
    # TFDS's default config, not the only or the first one.
    tiny_tfds.write_tiny_tfds(tmp_path, "emnist", (28, 28, 1), config="byclass", test=12)
    assert len(load("emnist").test_labels) == 12


def test_folders_of_tfrecord_alone_are_refused_with_a_way_out(load, tmp_path, tiny_tfds):
    folder = tiny_tfds.write_tiny_tfds(tmp_path, info={"fileFormat": "tfrecord"})
    with pytest.raises(ValueError, match=r"is prepared as tfrecord.*convert_format.*array_record"):
        load("cifar10")
    info = json.loads((folder / "dataset_info.json").read_text())
    info["alternativeFileFormats"] = ["array_record"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    assert len(load("cifar10").test_labels) == 20


def test_data_dir_comes_from_the_environment(monkeypatch, tmp_path, tiny_tfds):
    tiny_tfds.write_tiny_tfds(tmp_path, test=13)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert len(data.load("cifar10", cache_dir=tmp_path / "cache").test_labels) == 13
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert tfds_folders.default_data_dir() == Path.home() / "tensorflow_datasets"


def test_without_tensorflow_an_unprepared_set_is_refused_at_once(load, tmp_path, no_tensorflow):
    start = time.monotonic()
    with pytest.raises(FileNotFoundError) as error:
        load("cifar10")
    assert time.monotonic() - start < 5
    for part in ("pip install tensorflow", str(tmp_path), "file_format='array_record'"):
        assert part in str(error.value)


@pytest.mark.usefixtures("tensorflow")
def test_a_silent_network_is_given_up_in_time(load, monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(tfds_folders, "NETWORK_LIMIT_SECONDS", 0.2)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: over.wait(60))
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"could not be reached within 0\.2 s"):
        load("cifar10")
    assert time.monotonic() - start < 5
    over.set()


@pytest.mark.usefixtures("tensorflow")
def test_proxies_are_honoured(load, monkeypatch):
    # Nothing listens there, so that asking the proxy fails without leaving the machine.
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ConnectionError) as error:
        load("cifar10")
    assert "refused" in str(error.value.__cause__)


@pytest.mark.usefixtures("tensorflow")
def test_with_tensorflow_and_a_network_the_set_is_prepared_as_array_record(load, tmp_path, monkeypatch, tiny_tfds):
    import tensorflow_datasets as tfds

    asked = []

    class Builder:
        def __init__(self, name, *, data_dir, file_format):
            assert (name, file_format) == ("cifar10", "array_record")
            self.data_dir = data_dir

        def download_and_prepare(self):
            tiny_tfds.write_tiny_tfds(self.data_dir, test=14)

    class Answer:
        def close(self):
            pass

    def urlopen(request, timeout):
        asked.append(request.full_url)
        return Answer()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(tfds, "builder", Builder)
    assert len(load("cifar10").test_labels) == 14
    assert asked
    assert len(load("cifar10").test_labels) == 14


def test_without_tfds_the_extra_is_named(load, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'sbjax\[tfds\]'"):
        load("cifar10")
    with pytest.raises(ValueError, match="did you mean 'cifar10'") as error:
        load("cifra10")
    assert "sbjax[tfds]" in error.value.__notes__[0]


def test_unknown_sets_and_configs_give_near_names(load):
    with pytest.raises(ValueError, match="'quickdraw_bitmap'"):
        load("quickdraw_bitmp")
    with pytest.raises(ValueError, match="no config '32x23'; it has 32x32"):
        load("imagenet_resized/32x23")
