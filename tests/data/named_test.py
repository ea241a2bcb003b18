"""The sets of the figures by name, each as a small TFDS folder of the same features, or as its own archive."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from sbjax import data
from sbjax.data import aircraft, named


@pytest.fixture
def load(tmp_path):
    def load(name, **arguments):
        return data.load(name, data_dir=tmp_path / "tfds", cache_dir=tmp_path / "cache", **arguments)

    return load


@pytest.fixture
def no_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)


def png(shape):
    file = io.BytesIO()
    Image.fromarray(np.zeros(shape, np.uint8)).save(file, "PNG")
    return file.getvalue()


MANY = (None, None, 3)
# Set: shape of the images, its splits, and its other features.
KINDS = {
    "cifar100": ((32, 32, 3), ("train", "test"), ("id", "coarse_label")),
    "imagenet_r": (MANY, ("test",), ("file_name",)),
    "dtd": (MANY, ("train", "test", "validation"), ("file_name",)),
    "flowers": (MANY, ("train", "test", "validation"), ("file_name",)),
    "pets": (MANY, ("train", "test"), ("species", "file_name", "segmentation_mask", "head_bbox")),
    "stl10": ((96, 96, 3), ("train", "test", "unlabelled"), ()),
    "svhn": ((32, 32, 3), ("train", "test", "extra"), ("id",)),
    "eurosat": ((64, 64, 3), ("train",), ("filename",)),
    "cars196": (MANY, ("train", "test"), ("bbox", "id")),
    "food101": (MANY, ("train", "validation"), ("id",)),
    "imagenette": (MANY, ("train", "validation"), ()),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_set_is_read_by_its_name(load, tiny_tfds, tmp_path, name):
    shape, splits, others = KINDS[name]
    features = {
        **dict.fromkeys(("id", "file_name", "filename"), (tiny_tfds.text_feature(), b"a")),
        "coarse_label": (tiny_tfds.label_feature(20), 3),
        "species": (tiny_tfds.label_feature(2), 1),
        "segmentation_mask": (tiny_tfds.image_feature((None, None, 1)), png((8, 8))),
        **dict.fromkeys(("bbox", "head_bbox"), (tiny_tfds.box_feature(), (0.0, 0.0, 1.0, 1.0))),
    }
    source, _, config = named.tfds_name(name).partition("/")
    tiny_tfds.write_tiny_tfds(
        tmp_path / "tfds",
        source,
        shape,
        splits={split: 20 + 5 * i for i, split in enumerate(splits)},
        config=config or None,
        extra={other: features[other] for other in others},
        hidden="unlabelled",
    )
    read = load(name, image_size=None if shape[0] else 16)
    sizes = [len(getattr(read, f"{part}_labels")) for part in ("train", "validation", "test")]
    assert sizes == ([15, 1, 4] if len(splits) == 1 else [18, 2, 25])
    assert read.train_images.shape[1:] == (shape if shape[0] else (16, 16, 3))
    _, labels = tiny_tfds.tiny_images(20)
    if len(splits) == 1:
        np.testing.assert_array_equal(read.test_labels, labels[4::5])
    else:
        np.testing.assert_array_equal(np.sort(read.train_labels), np.sort(np.delete(labels, [9, 19])))
    assert load(name, image_size=8).test_images.shape[1:] == (8, 8, 3)


@pytest.mark.parametrize("name", [name for name in named.SETS if name not in ("aircraft", "imagenet100")])
def test_what_is_not_there_is_refused_in_a_sentence_with_its_size(load, no_tensorflow, name):
    with pytest.raises(FileNotFoundError, match=r"is not prepared in .*pip install tensorflow.*(MB|GB) are downloaded"):
        load(name)


def test_aircraft_is_read_from_its_own_archive_without_the_banner(load, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"fgvc_aircraft, which is not there: unpack fgvc-aircraft-2013b.tar.gz"
    ):
        load("aircraft", image_size=16)
    root = tmp_path / "tfds" / "fgvc_aircraft" / "fgvc-aircraft-2013b" / "data"
    (root / "images").mkdir(parents=True)
    number = 0
    for split, count in {"train": 6, "val": 4, "test": 2}.items():
        lines = []
        for i in range(count):
            pixels = np.full((40 + 20, 50, 3), 10 * number, np.uint8)
            pixels[-20:] = 255
            Image.fromarray(pixels).save(root / "images" / f"{number:07}.jpg", quality=95)
            lines.append(f"{number:07} {('Boeing 747-400', 'A340-300')[i % 2]}")
            number += 1
        (root / f"images_variant_{split}.txt").write_text("\n".join(lines) + "\n")
    read = load("aircraft", image_size=16)
    assert read.class_names == ("A340-300", "Boeing 747-400")
    assert [len(read.train_labels), len(read.validation_labels), len(read.test_labels)] == [6, 4, 2]
    assert sorted(read.train_images[:, 8, 8, 0]) == [0, 10, 20, 30, 40, 50]
    assert read.train_images.max() < 60  # nothing of the banner
    assert [int(image.mean()) // 10 % 2 for image in read.test_images] == [1 - label for label in read.test_labels]
    np.testing.assert_array_equal(load("aircraft").train_images.shape, (6, 40, 50, 3))
    np.testing.assert_array_equal(data.load(f"folder:{root}", image_size=16).test_images, read.test_images)
    (root / "images" / "0000003.jpg").unlink()
    with pytest.raises(ValueError, match=r"listed pictures that are not there: 1 \(0000003.jpg\)"):
        load("aircraft", image_size=16)
    (root / "images_variant_val.txt").write_text("0000001\n")
    with pytest.raises(ValueError, match="the line '0000001'; expected lines of a number and a variant"):
        aircraft.find(root)


def test_a_list_of_classes_chooses_those_of_a_tfds_set(load, tiny_tfds, tmp_path, caplog):
    names = [f"n{i:08}" for i in range(10)]
    tiny_tfds.write_tiny_tfds(
        tmp_path / "tfds", "imagenet2012", splits={"train": 60, "validation": 30}, label_names=names
    )
    listed = tmp_path / "classes.txt"
    with pytest.raises(ValueError, match=r"'imagenet100' is read from .*classes=FILE .*imagenet100.txt"):
        load("imagenet100")
    listed.write_text("# mine\nn00000007 bonnet\n\nn00000002\n")
    with caplog.at_level("INFO", logger="sbjax"):
        read = load("imagenet100", classes=str(listed))
    assert read.class_names == ("n00000002", "n00000007")
    assert f"imagenet100: 2 classes, digest {named.digest(['n00000002', 'n00000007'])}" in caplog.text
    images, labels = tiny_tfds.tiny_images(60)
    chosen = np.isin(labels, (2, 7))
    held = np.arange(chosen.sum()) % 10 == 9
    np.testing.assert_array_equal(read.train_images, np.stack(images)[chosen][~held])
    np.testing.assert_array_equal(read.train_labels, (labels[chosen][~held] == 7).astype(int))
    assert len(load("imagenet2012").train_labels) == 54  # another cache file
    listed.write_text("n00000002\nn99999999\n")
    with pytest.raises(ValueError, match="lacks 1 of the 2 listed classes, 'n99999999' for one"):
        load("imagenet100", classes=str(listed))


def test_a_list_of_classes_chooses_folders(load, tmp_path):
    root = tmp_path / "tfds" / "imagenet100"
    for split in ("train", "val"):
        for label in range(3):
            for i in range(10):
                path = root / split / f"n{label}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((4, 4, 3), 50 * label, np.uint8)).save(path)
    listed = tmp_path / "classes.txt"
    listed.write_text("n2\nn1\n")
    assert load("imagenet100").classes == 3
    read = load("imagenet100", classes=str(listed))
    assert read.class_names == ("n1", "n2")
    for part in ("train", "validation", "test"):
        labels = getattr(read, f"{part}_labels")
        np.testing.assert_array_equal(getattr(read, f"{part}_images")[:, 0, 0, 0], 50 * (labels + 1))
    assert len(read.test_labels) == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\n", "names 1 classes"), ("a\nb\na\n", "names 'a' twice"), (None, "cannot be read")],
)
def test_lists_that_cannot_be_used(load, tmp_path, text, message):
    if text is not None:
        (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        load("cifar10", classes=str(tmp_path / "list.txt"))
    (tmp_path / "list.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="chooses among the classes of a folder or of a TFDS set, not of 'digits'"):
        load("digits", classes=str(tmp_path / "list.txt"))


def test_the_published_list_is_known_by_its_digest():
    assert list(named.PUBLISHED) == ["d61d354b64beb3ce"]
    assert named.in_words(("a",)) == f"1 classes, digest {named.digest('a')}"
