"""Streamed sets hold what sets in memory hold, and every step has its batch whatever went before."""

import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from sbjax import data
from sbjax.common.files import FileError
from sbjax.data import streaming
from sbjax.data.streaming import Batches, fits_memory, open_stream
from sbjax.tasks.streamed import ImageFeed

PARTS = ("train", "validation", "test")


@pytest.fixture
def places(tmp_path):
    return {"data_dir": tmp_path / "tfds", "cache_dir": tmp_path / "cache"}


@pytest.fixture
def photos(tmp_path):
    """A folder of 60 images of many sizes in three classes."""
    generator = np.random.default_rng(0)
    for i in range(60):
        path = tmp_path / "photos" / f"class {i % 3}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (9 + i % 4, 12, 3), np.uint8)).save(path)
    return tmp_path / "photos"


def assert_alike(stream, loaded):
    for part in PARTS:
        found = getattr(stream, part)
        np.testing.assert_array_equal(found.first(10**6), getattr(loaded, f"{part}_images"))
        labels = [int(found[i]["labels"]) for i in range(len(found))]
        np.testing.assert_array_equal(labels, getattr(loaded, f"{part}_labels"))
    assert (stream.classes, stream.class_names) == (loaded.classes, loaded.class_names)
    np.testing.assert_allclose((stream.mean, stream.std), (loaded.mean, loaded.std), rtol=1e-12)


def test_more_than_there_is_is_refused(photos, places):
    stream = open_stream(f"folder:{photos}", image_size=8, **places)
    with pytest.raises(ValueError, match=r"batch_size=100 must be <= \d+, the number of training examples"):
        Batches(stream.train, batch_size=100)
    with pytest.raises(ValueError, match=r"image_size=1000000: \d+ images of this size take .* TB of memory, and"):
        open_stream(f"folder:{photos}", image_size=10**6, **places)


def test_a_file_that_is_lost_in_a_training_is_told(photos, places):
    stream = open_stream(f"folder:{photos}", image_size=8, **places)
    feed = ImageFeed(stream, batch_size=4, seed=0, workers=1, eval_batch_size=50, eval_share=1.0)
    feed._train = Batches(stream.train, batch_size=4)  # in this process
    for path in photos.glob("*/*.png"):
        path.write_bytes(path.read_bytes()[:50])
    for read in (feed.train, feed.evaluate):
        with pytest.raises(FileError, match=r"cannot be read .*\.png.*mend or remove them. What was saved is"):
            read(0)
    feed.close()


@pytest.mark.parametrize("given", [{}, {"train_share": 0.3}, {"quarter_turns": True}])
def test_a_folder_holds_what_it_holds_in_memory(photos, places, given):
    name, given = f"folder:{photos}", {**given, **places, "image_size": 8}
    assert_alike(open_stream(name, **given), data.load(name, **given))


@pytest.mark.parametrize(
    ("name", "splits", "given"),
    [
        ("cifar10", {"train": 60, "test": 20}, {"train_share": 0.4}),
        ("eurosat", {"train": 50}, {"quarter_turns": True}),
        ("dtd", {"train": 40, "test": 20}, {"image_size": 16}),
    ],
)
def test_a_tfds_set_holds_what_it_holds_in_memory(places, tiny_tfds, name, splits, given):
    shape = (None, None, 3) if "image_size" in given else (32, 32, 3)
    config = "rgb" if name == "eurosat" else None
    tiny_tfds.write_tiny_tfds(places["data_dir"], name, shape, splits=splits, config=config)
    assert_alike(open_stream(name, **given, **places), data.load(name, **given, **places))


def test_lists_of_classes_choose_records(places, tiny_tfds, tmp_path):
    tiny_tfds.write_tiny_tfds(places["data_dir"], "imagenet2012", splits={"train": 60, "validation": 30})
    (tmp_path / "list.txt").write_text("digit 3\ndigit 1\n")
    given = {"classes": str(tmp_path / "list.txt"), **places}
    assert_alike(open_stream("imagenet100", **given), data.load("imagenet100", **given))


def test_the_heads_of_files_are_read_once(photos, places, monkeypatch):
    given = {**places, "image_size": 8}
    first = open_stream(f"folder:{photos}", **given)
    monkeypatch.setattr("sbjax.data.image_files.look", None)
    assert open_stream(f"folder:{photos}", **given).shape == first.shape == (8, 8, 3)


def test_batches_are_permutations_and_a_function_of_the_step(photos, places):
    part = open_stream(f"folder:{photos}", **places, image_size=8).train  # of 48
    batches = Batches(part, batch_size=9, seed=1)
    every = [batches(step) for step in range(10)]
    assert every[0]["images"].shape == (9, 8, 8, 3)
    assert every[0]["labels"].dtype == np.int32
    known = {part[i]["images"].tobytes(): i for i in range(len(part))}
    orders = [[known[image.tobytes()] for batch in every[e : e + 5] for image in batch["images"]] for e in (0, 5)]
    assert all(len(set(order)) == 45 for order in orders)  # no example twice in an epoch, three left over
    assert orders[0] != orders[1]
    for step in (7, 2, 3, 0):
        np.testing.assert_array_equal(batches(step)["images"], every[step]["images"])
    other = Batches(part, batch_size=9, seed=2)
    assert not np.array_equal(other(0)["images"], every[0]["images"])
    for each in (batches, other):
        each.close()


def test_in_order_the_last_batch_is_what_is_left(photos, places):
    part = open_stream(f"folder:{photos}", **places, image_size=8).test  # of 6
    batches = Batches(part, batch_size=4, shuffle=False)
    np.testing.assert_array_equal(
        np.concatenate([batches(step)["images"] for step in (0, 1)]), part.first(6)
    )  # fmt: skip
    batches.close()


@pytest.mark.extended
def test_other_processes_decode_the_same(photos, places, tiny_tfds):
    tiny_tfds.write_tiny_tfds(places["data_dir"], train=30, test=5)
    for stream in (open_stream(f"folder:{photos}", **places, image_size=8), open_stream("cifar10", **places)):
        assert len(pickle.dumps(stream.train)) < 10**4
        here, there = (Batches(stream.train, batch_size=5, seed=3, workers=workers) for workers in (0, 2))
        for step in (4, 5, 6):
            found, expected = there(step), here(step)
            np.testing.assert_array_equal(found["images"], expected["images"])
            np.testing.assert_array_equal(found["labels"], expected["labels"])
        here.close()
        there.close()


def test_damage_stops_with_the_name_of_the_file(photos, places):
    stream = open_stream(f"folder:{photos}", **places, image_size=8)
    for path in photos.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:80])
    batches = Batches(stream.train, batch_size=4)
    with pytest.raises(ValueError, match=r"1 image files cannot be read \(class \d/\d\d.png: "):
        batches(0)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("digits", {}, "is in memory anyway"),
        ("docs/examples/my_data.py:colour_digits", {}, "is in memory anyway"),
        ("folder:PHOTOS", {}, "needs image_size"),
        ("folder:PHOTOS", {"image_size": 8, "train_share": 0.0}, "expected a share"),
        ("folder:PHOTOS", {"image_size": 0}, "expected a number of pixels"),
    ],
)
def test_what_cannot_be_streamed(photos, places, name, given, message):
    with pytest.raises(ValueError, match=message):
        open_stream(name.replace("PHOTOS", str(photos)), **given, **places)


def test_without_grain_the_extra_is_named(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"pip install 'sbjax\[stream\]'"):
        open_stream(f"folder:{photos}", image_size=8)


def test_a_set_that_is_too_large_is_told_apart(photos, places, tiny_tfds, monkeypatch):
    tiny_tfds.write_tiny_tfds(places["data_dir"], train=50, test=10)
    needed = {f"folder:{photos}": 60 * 8 * 8 * 3, "cifar10": 60 * 32 * 32 * 3}
    for name, size in needed.items():
        given = {"data_dir": places["data_dir"], "image_size": 8 if name.startswith("folder") else None}
        for memory, fits in ((4 * size, True), (4 * size - 1, False)):
            monkeypatch.setattr("sbjax.common.devices.memory", lambda memory=memory: memory)
            assert fits_memory(name, **given) is fits
    assert fits_memory("digits")
    assert fits_memory(f"folder:{photos}")
    assert 1 <= streaming.default_workers() <= 8
