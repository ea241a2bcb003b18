import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from sbjax import data


@pytest.fixture
def load(tmp_path):
    def load(name, **arguments):
        return data.load(name, data_dir=tmp_path / "tfds", cache_dir=tmp_path / "cache", **arguments)

    return load


@pytest.fixture
def write(tmp_path, tiny_tfds):
    def write(*arguments, **options):
        return tiny_tfds.write_tiny_tfds(tmp_path / "tfds", *arguments, **options)

    return write


@pytest.mark.parametrize(("name", "shape"), [("cifar10", (32, 32, 3)), ("mnist", (28, 28, 1))])
def test_reads_what_tfds_itself_reads_without_tensorflow(load, write, tiny_tfds, name, shape):
    folder = write(name, shape)
    read = load(name)
    images, labels = tiny_tfds.tiny_images(60, shape)
    held = np.arange(60) % 10 == 9
    np.testing.assert_array_equal(read.train_images, np.stack(images)[~held])
    np.testing.assert_array_equal(read.train_labels, labels[~held])
    np.testing.assert_array_equal(read.validation_images, np.stack(images)[held])
    np.testing.assert_array_equal(read.validation_labels, labels[held])
    reference = list(tfds.builder_from_directory(folder).as_data_source("test"))
    np.testing.assert_array_equal(read.test_images, [record["image"] for record in reference])
    np.testing.assert_array_equal(read.test_labels, [record["label"] for record in reference])
    assert read.test_images.dtype == np.uint8
    assert read.test_labels.dtype == np.int32
    assert read.classes == 10
    assert sys.modules.get("tensorflow") is None


def test_the_second_call_reads_the_cache_and_damage_is_repaired(load, write, tmp_path, caplog):
    folder = write()
    first = load("cifar10")
    (path,) = (tmp_path / "cache" / "images").iterdir()
    assert path.name.startswith("cifar10-3.0.2-")
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    np.testing.assert_array_equal(load("cifar10").train_images, first.train_images)
    assert "rebuilt" in caplog.text
    assert path.read_bytes()[:-100] == good[:-100]
    for shard in folder.glob("*.array_record-*"):
        shard.unlink()
    np.testing.assert_array_equal(load("cifar10").test_images, first.test_images)


def test_the_cache_tells_differently_prepared_copies_apart(load, write, tmp_path):
    write()
    assert len(load("cifar10").test_labels) == 20
    shutil.rmtree(tmp_path / "tfds")
    write(test=15)
    assert len(load("cifar10").test_labels) == 15


def test_images_of_many_sizes_need_image_size(load, write, tiny_tfds):
    write("dtd", (None, None, 3), train=20, test=20)
    with pytest.raises(ValueError, match="set image_size"):
        load("dtd")
    read = load("dtd", image_size=16)
    assert read.train_images.shape == (18, 16, 16, 3)
    images, _ = tiny_tfds.tiny_images(20, (None, None, 3), first=500)
    compared = 0
    for image, result in zip(images, read.test_images):
        height, width = image.shape[:2]
        side = min(height, width)
        if (height - width) % 2:
            continue  # centred between two pixels
        compared += 1
        top, left = (height - side) // 2, (width - side) // 2
        square = Image.fromarray(image[top : top + side, left : left + side])
        expected = np.asarray(square.resize((16, 16), Image.Resampling.BILINEAR))
        # To rounding; the outermost pixels may also see what lies beside the square.
        difference = result[1:-1, 1:-1].astype(int) - expected[1:-1, 1:-1]
        assert np.abs(difference).max() <= 1
    assert compared >= 3
    assert load("dtd", image_size=8).train_images.shape == (18, 8, 8, 3)


def test_image_size_resizes_images_of_one_size_too(load, write, tiny_tfds):
    write("mnist", (28, 28, 1), train=20, test=3)
    images, _ = tiny_tfds.tiny_images(3, (28, 28, 1), first=500)
    for image, result in zip(images, load("mnist", image_size=14).test_images):
        resized = Image.fromarray(image[..., 0]).resize((14, 14), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(result[..., 0], resized)


def test_decoding_in_threads_gives_the_same(load, write, tmp_path, monkeypatch):
    write(train=600, test=20)
    read = load("cifar10")
    monkeypatch.setattr("sbjax.data.decoding._THREADS_FROM_BYTES", 0)
    monkeypatch.setattr("sbjax.data.decoding._CHUNK", 16)
    threaded = data.load("cifar10", data_dir=tmp_path / "tfds", cache_dir=tmp_path / "other")
    np.testing.assert_array_equal(threaded.train_images, read.train_images)
    np.testing.assert_array_equal(threaded.train_labels, read.train_labels)


def test_progress_is_logged(load, write, monkeypatch, caplog):
    monkeypatch.setattr("sbjax.data.decoding._LOG_EVERY_SECONDS", 0.0)
    write()
    with caplog.at_level("INFO", logger="sbjax"):
        load("cifar10")
    assert "60 of 60 images decoded, 0 s left" in caplog.text


def test_validation_stands_in_for_a_missing_or_unlabelled_test_split(load, write):
    write("food101", splits={"train": 20, "validation": 5})
    assert len(load("food101").test_labels) == 5
    write("imagenet2012", splits={"train": 20, "validation": 5, "test": 7}, hidden="test")
    assert len(load("imagenet2012").test_labels) == 5
    write("dtd", splits={"train": 20, "validation": 5, "test": 7})
    read = load("dtd")
    assert (len(read.train_labels), len(read.validation_labels), len(read.test_labels)) == (18, 2, 7)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_single_split_is_divided(load, write, tiny_tfds, split):
    write("eurosat", splits={split: 50})
    read = load("eurosat")
    images, _ = tiny_tfds.tiny_images(50)
    index = np.arange(50)
    np.testing.assert_array_equal(read.test_images, np.stack(images)[index % 5 == 4])
    others = np.stack(images)[index % 5 != 4]
    np.testing.assert_array_equal(read.validation_images, others[np.arange(40) % 10 == 9])
    assert len(read.train_labels) == 36


def test_missing_labels_and_strange_splits_are_refused(load, write):
    write("a", splits={"train": 4, "test": 4}, hidden="train")
    with pytest.raises(ValueError, match=r"4 of 4 examples have no label"):
        load("a")
    write("b", splits={"one": 4, "two": 4})
    with pytest.raises(ValueError, match="has the splits one, two"):
        load("b")


def test_the_image_and_the_label_are_the_supervised_pair_or_unique(load, write, tiny_tfds):
    coarse = {"coarse_label": tiny_tfds.label_feature(20)}
    write("unsupervised", supervised=False)
    assert load("unsupervised").classes == 10
    write("two_labels", features=coarse, supervised=False)
    with pytest.raises(ValueError, match=r"ClassLabel: \['coarse_label', 'label'\]"):
        load("two_labels")
    write("no_image", features={"image": tiny_tfds.label_feature(3)}, supervised=False)
    with pytest.raises(ValueError, match="Image: none"):
        load("no_image")


def test_images_that_are_not_uint8_or_not_as_declared_are_refused(load, write, tiny_tfds):
    write("deep", features={"image": tiny_tfds.image_feature((32, 32, 3), "uint16")})
    with pytest.raises(ValueError, match="dtype uint16 with 3 channels"):
        load("deep")
    write("wrong", features={"image": tiny_tfds.image_feature((16, 16, 3))})
    with pytest.raises(ValueError, match=r"\(32, 32, 3\), but \(16, 16, 3\) was declared"):
        load("wrong")
