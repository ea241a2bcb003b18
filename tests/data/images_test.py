import subprocess
import sys

import numpy as np
import pytest

from sbjax import data
from sbjax.data import images


def test_splits_follow_the_documented_rule():
    split = data.load("digits")
    whole = images.load_digits()
    index = np.arange(1437)
    for part, mask in (("validation", index % 10 == 9), ("train", index % 10 != 9)):
        np.testing.assert_array_equal(getattr(split, f"{part}_images"), whole.train_images[mask])
        np.testing.assert_array_equal(getattr(split, f"{part}_labels"), whole.train_labels[mask])
    np.testing.assert_array_equal(split.test_images, whole.test_images)
    assert split.classes == 10
    assert split.name == "digits"


def test_mean_and_std_are_those_of_the_training_images_in_float64(monkeypatch):
    rng = np.random.default_rng(0)
    # More than one chunk, and channels that differ.
    pixels = (rng.integers(0, 256, (2500, 3, 4, 3)) * np.array([1, 0.5, 0.1])).astype(np.uint8)
    whole = images.load_digits()._replace(train_images=pixels, train_labels=np.zeros(2500, np.int32))
    monkeypatch.setitem(images._EMBEDDED, "noise", lambda: whole)
    split = data.load("noise")
    scaled = split.train_images.astype(np.float64) / 255
    np.testing.assert_allclose(split.mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(split.std, scaled.std((0, 1, 2)), rtol=1e-12)


def test_smaller_shares_are_nested_spread_out_and_leave_the_other_splits_alone():
    whole = data.load("digits")

    def kept(share):
        part = data.load("digits", train_share=share)
        assert len(part.train_images) == round(share * 1294)
        np.testing.assert_array_equal(part.test_images, whole.test_images)
        np.testing.assert_array_equal(part.validation_images, whole.validation_images)
        rows = {image.tobytes(): i for i, image in enumerate(whole.train_images)}
        assert len(rows) == 1294
        return [rows[image.tobytes()] for image in part.train_images]

    shares = [kept(share) for share in (0.05, 0.3, 0.7)]
    assert set(shares[0]) < set(shares[1]) < set(shares[2])
    assert shares[1] == sorted(shares[1])
    # About 388 of 1294 examples, spread like a random choice over ten parts of the file.
    counts = np.histogram(shares[1], bins=10, range=(0, 1294))[0]
    assert np.all(np.abs(counts - 38.8) < 4 * np.sqrt(38.8 * 0.7))
    assert data.load("digits", train_share=0.3).mean != whole.mean


def test_image_size_resizes_embedded_images():
    split = data.load("digits", image_size=16)
    assert split.train_images.shape == (1294, 16, 16, 1)
    small = data.load("digits")
    np.testing.assert_allclose(split.mean, small.mean, rtol=0.01)


def test_image_size_resizes_embedded_images_of_any_number_of_channels(monkeypatch):
    grey = images.load_digits()
    colour = grey._replace(
        train_images=np.concatenate([grey.train_images, 255 - grey.train_images], -1),
        test_images=np.concatenate([grey.test_images, 255 - grey.test_images], -1),
    )
    monkeypatch.setitem(images._EMBEDDED, "colour", lambda: colour)
    split = data.load("colour", image_size=16)
    np.testing.assert_array_equal(split.test_images[..., :1], data.load("digits", image_size=16).test_images)
    assert split.test_images.shape == (360, 16, 16, 2)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("digit", "'digits'"),
        ("cifar-10", "'cifar10'"),
        ("Fashion MNIST", "'fashion_mnist'"),
        ("", "spelling"),
    ],
)
def test_an_unknown_name_gives_near_names(name, near):
    with pytest.raises(ValueError, match=near):
        data.load(name)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"image_size": 0}, "image_size"),
        ({"image_size": 8.5}, "image_size"),
        ({"train_share": 0}, "train_share"),
    ],
)
def test_bad_arguments_are_named(arguments, field):
    with pytest.raises(ValueError, match=field):
        data.load("digits", **arguments)


def test_import_and_embedded_sets_need_none_of_the_extras():
    code = (
        "import sys\n"
        "for module in ('tensorflow_datasets', 'PIL', 'tensorflow', 'sklearn', 'array_record'):\n"
        "    sys.modules[module] = None\n"
        "from sbjax import data\n"
        "assert data.names() == ('digits',)\n"
        "assert len(data.load('digits').train_labels) == 1294\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def turned(monkeypatch):
    """A set in which every turn of an image is another image, straight and turned."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1200, 5, 5, 2)).astype(np.uint8)
    labels = np.arange(1200, dtype=np.int32) % 10
    whole = images.load_digits()._replace(
        train_images=pixels[0], train_labels=labels, test_images=pixels[1], test_labels=labels
    )
    monkeypatch.setitem(images._EMBEDDED, "noise", lambda: whole)
    return data.load("noise"), data.load("noise", quarter_turns=True)


def test_quarter_turns_are_equally_likely_turns_of_the_same_images(turned):
    straight, bent = turned
    for part in ("train", "validation", "test"):
        before, after = (getattr(split, f"{part}_images") for split in turned)
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        turns = [[np.array_equal(np.rot90(x, k), y) for k in range(4)] for x, y in zip(before, after, strict=True)]
        assert (np.sum(turns, 1) == 1).all()
        counts = np.sum(turns, 0)
        n = len(before)
        assert np.all(np.abs(counts - n / 4) < 4 * np.sqrt(n * 3 / 16))
        np.testing.assert_array_equal(getattr(bent, f"{part}_labels"), getattr(straight, f"{part}_labels"))
    np.testing.assert_allclose(bent.mean, straight.mean, rtol=1e-12)


def test_quarter_turns_depend_on_nothing_but_the_index(turned):
    straight, bent = turned
    again = data.load("noise", quarter_turns=True)
    for field in ("train_images", "validation_images", "test_images"):
        np.testing.assert_array_equal(getattr(again, field), getattr(bent, field))
    few = data.load("noise", quarter_turns=True, train_share=0.2)
    every = {image.tobytes() for image in bent.train_images}
    assert all(image.tobytes() in every for image in few.train_images)
    assert (straight.train_images != bent.train_images).any()


def test_quarter_turns_refuse_images_that_are_not_square(monkeypatch):
    oblong = images.load_digits()
    oblong = oblong._replace(train_images=oblong.train_images[:, :, :6], test_images=oblong.test_images[:, :, :6])
    monkeypatch.setitem(images._EMBEDDED, "oblong", lambda: oblong)
    with pytest.raises(ValueError, match=r"quarter_turns need square images, not \(8, 6\); give image_size as well"):
        data.load("oblong", quarter_turns=True)
    assert data.load("oblong", quarter_turns=True, image_size=8).train_images.shape[1:] == (8, 8, 1)
