import itertools
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import data
from sbjax.data import arrays
from sbjax.data.digits import load_digits

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(4), 25)  # sorted by class
IMAGES = RNG.integers(0, 256, (100, 6, 6, 3), np.uint8)
FIELDS = ("train", "validation", "test")


def pairs(splits):
    """(image, label) of all examples, in order, by split."""
    return {
        part: [
            (image.tobytes(), int(label))
            for image, label in zip(getattr(splits, f"{part}_images"), getattr(splits, f"{part}_labels"), strict=True)
        ]
        for part in FIELDS
    }


@pytest.fixture
def function(tmp_path):
    """Writer of a file with a function; returns its name."""

    def write(body, name="load"):
        path = tmp_path / f"data_{len(list(tmp_path.iterdir()))}.py"
        path.write_text("import numpy as np\n\n" + textwrap.dedent(body))
        return f"{path}:{name}"

    return write


def test_unsplit_arrays_are_divided_once_and_every_split_holds_every_class():
    splits = arrays.from_arrays((IMAGES, LABELS))
    assert splits.classes == 4
    found = pairs(splits)
    assert sorted(itertools.chain(*found.values())) == sorted((x.tobytes(), int(y)) for x, y in zip(IMAGES, LABELS))
    assert [np.bincount(getattr(splits, f"{part}_labels")).tolist() for part in FIELDS] == [[19] * 4, [3] * 4, [3] * 4]
    # Every first part of every split holds all classes.
    assert all(set(getattr(splits, f"{part}_labels")[:4]) == {0, 1, 2, 3} for part in FIELDS)
    assert pairs(arrays.from_arrays({"images": IMAGES, "labels": LABELS})) == found
    assert splits.train_images.dtype == np.uint8
    assert splits.train_labels.dtype == np.int32


def test_given_splits_are_kept_and_shuffled():
    given = {
        "train": (IMAGES[::2], LABELS[::2]),
        "val": (IMAGES[1::4], LABELS[1::4]),
        "test": (IMAGES[3::4], LABELS[3::4]),
    }
    found = pairs(arrays.from_arrays(given))
    for part, (images, labels) in zip(FIELDS, given.values()):
        assert sorted(found[part]) == sorted((x.tobytes(), int(y)) for x, y in zip(images, labels))
    assert found["test"] != [(x.tobytes(), int(y)) for x, y in zip(*given["test"])]
    two = arrays.from_arrays({name: given[name] for name in ("train", "test")})
    assert pairs(two)["test"] == found["test"]
    assert np.bincount(two.validation_labels).tolist() == [1] * 4


def test_image_data_and_splits_are_taken_with_their_number_of_classes():
    whole = data.load("digits")._replace(classes=12)
    splits = arrays.from_arrays(whole)
    assert splits.classes == 12
    for part in FIELDS:
        expected = zip(getattr(whole, f"{part}_images"), getattr(whole, f"{part}_labels"))
        assert sorted(pairs(splits)[part]) == sorted((x.tobytes(), int(y)) for x, y in expected)
    assert len(arrays.from_arrays(load_digits()).test_labels) == 360


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, jnp.bfloat16])
def test_floats_are_kept_in_eight_bits_and_the_log_says_so(dtype):
    steps = np.arange(256).reshape(1, 16, 16) / 255
    images = (jnp.asarray if dtype is jnp.bfloat16 else np.asarray)(np.repeat(steps, 20, 0), dtype)
    splits = arrays.from_arrays((images, np.arange(20) % 2))
    error = splits.train_images[0, ..., 0].astype(int) - np.arange(256).reshape(16, 16)
    assert np.abs(error).max() <= (1 if dtype is jnp.bfloat16 else 0)
    assert splits.note == "float images are kept in 8 bits, as round(255 x)"


TRAIN, TEST = {"train": (IMAGES, LABELS)}, {"test": (IMAGES, LABELS)}
BAD = {
    "nothing": (None, "the function returned None; expected \\(images, labels\\)"),
    "one array": (IMAGES, "something of type ndarray; expected"),
    "three": ((IMAGES, LABELS, LABELS), "a tuple of length 3; expected"),
    "keras": (((IMAGES, LABELS), (IMAGES, LABELS)), "a tuple of length 2 of tuples; expected"),
    "split": ({"train": (IMAGES, LABELS), "tests": (IMAGES, LABELS)}, "a split 'tests', did you mean 'test'"),
    "no train": ({"test": (IMAGES, LABELS)}, "the splits test, but no 'train'"),
    "both": (dict.fromkeys(("train", "val", "validation"), (IMAGES, LABELS)), "both 'val' and 'validation'"),
    "keys": ({"images": IMAGES, "label": LABELS}, "a mapping of 'images', 'label'; expected 'images' and 'labels'"),
    "ragged": (([IMAGES[0], IMAGES[1, :3]], [0, 1]), "train images are no array .*one size"),
    "flat": ((IMAGES.reshape(100, -1), LABELS), r"shape \(100, 108\) and dtype uint8; expected \[n, h, w\]"),
    "empty": ((IMAGES[:0], LABELS[:0]), "there is none"),
    "channels first": ((IMAGES.transpose(0, 3, 1, 2), LABELS), r"channels come last: images.transpose\(0, 2, 3, 1\)"),
    "integers": ((IMAGES.astype(int), LABELS), r"dtype int64; expected uint8, .*images.astype\(np.uint8\)"),
    "strings": ((np.full((100, 2, 2), "x"), LABELS), "dtype <U1; expected uint8"),
    "nan": ((np.where(IMAGES == 3, np.nan, 0.5), LABELS), r": \d+ values are NaN or infinite"),
    "range": ((IMAGES.astype(np.float32), LABELS), r"values from 0 to 255; expected \[0, 1\]"),
    "lengths": ((IMAGES, LABELS[:99]), "train: 100 images and 99 labels"),
    "one-hot": ((IMAGES, np.eye(4)[LABELS]), r"labels.argmax\(1\)"),
    "column": ((IMAGES, LABELS[:, None]), r"labels\[:, 0\]"),
    "float labels": ((IMAGES, LABELS * 1.0), "dtype float64; expected integers"),
    "words": ((IMAGES, np.array(["cat", "dog"])[LABELS % 2]), "expected integers: np.unique"),
    "negative": ((IMAGES, LABELS - 1), "from -1 to 2; expected integers from 0"),
    "from one": ((IMAGES, LABELS + 1), "1 of the classes 0 to 4 have no training image, class 0 for one"),
    "gap": ((IMAGES, np.where(LABELS == 2, 10**9, LABELS)), "class 2 for one; number the classes without gaps"),
    "one class": ((IMAGES, LABELS * 0), "labels of 1 classes; expected two or more"),
    "unseen": ({"train": (IMAGES[:75], LABELS[:75])} | TEST, "labels go to 3, but train labels go to 2"),
    "few": ((IMAGES[::25], LABELS[::25]), "too few examples"),
    "channels": (TRAIN | {"test": (IMAGES[..., :1], LABELS)}, "test images have 1 channels, train .* 3"),
    "sizes": (TRAIN | {"test": (IMAGES[:, :5], LABELS)}, "test images are 5 x 6, train .* set image_size"),
    "declared": (data.load("digits")._replace(classes=9), "train labels go to 9, but classes = 9 goes to 8"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_named(case):
    value, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        arrays.from_arrays(value)


def test_a_function_is_called_by_name_and_all_options_apply(function, monkeypatch, tmp_path):
    body = """
        def load():
            rng = np.random.default_rng(0)
            return rng.random((200, 6, 9, 3)), np.repeat(np.arange(10), 20)
    """
    name = function(body)
    whole = data.load(name)
    assert whole.name == name
    assert whole.train_images.shape == (160, 6, 9, 3)
    assert pairs(data.load(name)) == pairs(whole)
    few = data.load(name, train_share=0.0625, image_size=8, quarter_turns=True)
    assert sorted(few.train_labels) == list(range(10))
    assert few.train_images.shape[1:] == (8, 8, 3)
    assert few.validation_images.shape == (20, 8, 8, 3)
    for share in (0.1, 0.5):
        part = pairs(data.load(name, train_share=share))
        assert part["train"] == pairs(whole)["train"][: round(160 * share)]
        assert (part["validation"], part["test"]) == (pairs(whole)["validation"], pairs(whole)["test"])
    module = name.partition(":")[0].rpartition("/")[2].removesuffix(".py")
    monkeypatch.chdir(tmp_path)
    assert pairs(data.load(f"{module}:load")) == pairs(whole)
    sys.modules.pop(module)


def test_turns_are_those_of_every_split(function):
    name = function("def load():\n    return np.arange(1800).reshape(200, 3, 3) / 1800, np.arange(200) % 2\n")
    straight, turned = data.load(name), data.load(name, quarter_turns=True)
    for part in FIELDS:
        for before, after in zip(getattr(straight, f"{part}_images"), getattr(turned, f"{part}_images"), strict=True):
            assert any(np.array_equal(np.rot90(before, k), after) for k in range(4))
        assert (getattr(straight, f"{part}_images") != getattr(turned, f"{part}_images")).any()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("load = 3", "it names a int, not a function"),
        ("def load(path): pass", "called without arguments, but: missing a required argument: 'path'"),
        ("def load():\n    return {}['a']", r"the function raised KeyError at line 4 of .*data_0.py: 'a'"),
        ("def other(): pass", "has no 'load'"),
    ],
)
def test_functions_that_cannot_be_called_are_named(function, body, message):
    with pytest.raises(ValueError, match=message):
        data.load(function(body))
