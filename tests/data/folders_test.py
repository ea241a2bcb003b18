import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from sbjax import data
from sbjax.data import folders
from sbjax.data.digits import load_digits

FIELDS = ("train", "validation", "test")
DIGITS = load_digits()


@pytest.fixture
def load(tmp_path):
    def load(path=tmp_path / "set", **arguments):
        return data.load(f"folder:{path}", cache_dir=tmp_path / "cache", **arguments)

    return load


@pytest.fixture
def write(tmp_path):
    """Writer of images of digits, `write('3/a.png')` or `write('3', 20)`; returns their paths."""

    def write(name, count=None, **options):
        if count is not None:
            return [write(f"{name}/{i:03}.png", **options) for i in range(count)]
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = options.get("image")
        if image is None:
            # Another one for each file, so that no two are the same.
            number = len(list((tmp_path / "set").rglob("*.png")))
            image = DIGITS.train_images[number, ..., 0]
        Image.fromarray(image).convert(options.get("mode")).save(path)
        return path

    return write


def pairs(loaded):
    return {
        part: [
            (image.tobytes(), int(label))
            for image, label in zip(getattr(loaded, f"{part}_images"), getattr(loaded, f"{part}_labels"), strict=True)
        ]
        for part in FIELDS
    }


def stored(paths):
    return sorted((np.asarray(Image.open(path)).tobytes(), int(path.parent.name[-1])) for path in paths)


def test_an_unsplit_folder_is_divided_and_every_split_and_share_holds_every_class(load, write):
    paths = [path for label in (0, 1, 2) for path in write(f"class {label}", (30, 12, 3)[label])]
    whole = load()
    assert whole.classes == 3
    assert whole.train_images.shape[1:] == (8, 8, 1)
    found = pairs(whole)
    assert sorted(found["train"] + found["validation"] + found["test"]) == stored(paths)
    counts = [np.bincount(getattr(whole, f"{part}_labels")).tolist() for part in FIELDS]
    assert counts == [[24, 10, 1], [3, 1, 1], [3, 1, 1]]
    small = load(train_share=0.0858)  # 3 of 35 images
    assert sorted(small.train_labels) == [0, 1, 2]
    assert pairs(small)["train"] == found["train"][:3]
    assert pairs(small)["test"] == found["test"]
    assert sorted(whole.test_labels[:3]) == [0, 1, 2]


def test_six_percent_of_fifty_classes_hold_every_class(load, write):
    for label in range(50):
        write(f"{label:02}", 25, image=np.full((1, 1), label, np.uint8))
    small = load(train_share=0.06)
    assert len(small.train_labels) == 57  # of 950
    assert len(set(small.train_labels)) == 50
    assert (small.train_images[:, 0, 0, 0] == small.train_labels).all()


def test_neither_the_order_of_writing_nor_the_place_nor_the_cache_matter(load, write, tmp_path):
    paths = [path for label in (0, 1, 2) for path in write(str(label), 20)]
    first = pairs(load())
    assert pairs(load()) == first
    shutil.rmtree(tmp_path / "cache")
    assert pairs(load()) == first
    other = tmp_path / "elsewhere"
    for path in reversed(paths):
        copy = other / path.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    assert pairs(load(other)) == first


def test_a_new_image_moves_hardly_any_other(load, write):
    for label in (0, 1):
        write(str(label), 100)
    before = pairs(load())
    write("0/new.png", image=np.zeros((8, 8), np.uint8))
    after = pairs(load())
    assert sum(len(set(after[part])) for part in FIELDS) == 201
    assert sum(len(set(before[part]) - set(after[part])) for part in FIELDS) <= 3


def test_the_cache_is_read_until_a_file_changes(load, write, tmp_path, caplog):
    paths = [path for label in (0, 1) for path in write(str(label), 10)]
    write("1/colour.png", image=np.zeros((8, 8, 3), np.uint8))
    with caplog.at_level("INFO", logger="sbjax"):
        first = pairs(load())
        (cached,) = (tmp_path / "cache" / "images").iterdir()
        date = cached.stat().st_mtime_ns
        logged = [record.message for record in caplog.records]
        caplog.clear()
        assert pairs(load()) == first
    assert [record.message for record in caplog.records] == logged
    assert cached.stat().st_mtime_ns == date
    content = Image.fromarray(np.full((8, 8), 77, np.uint8))
    status = paths[0].stat()
    content.save(paths[0])
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    again = pairs(load())
    assert (np.full(192, 77, np.uint8).tobytes(), 0) in sum(again.values(), [])  # noqa: RUF017
    assert load(image_size=4).train_images.shape[1:] == (4, 4, 3)


@pytest.mark.parametrize(
    ("given", "sources"),
    [
        (("train", "test"), ("train", "train", "test")),
        (("train", "val"), ("train", "train", "val")),
        (("Training", "valid", "Testing"), ("Training", "valid", "Testing")),
        (("train",), ("train", "train", "train")),
    ],
)
def test_given_splits_are_kept(load, write, given, sources):
    paths = {split: [p for label in (0, 1) for p in write(f"{split}/{label}", 10 + label)] for split in given}
    found = pairs(load())
    for split in given:
        used = [pair for part, source in zip(FIELDS, sources) if source == split for pair in found[part]]
        assert sorted(used) == stored(paths[split])
    for part in FIELDS:
        assert {label for _, label in found[part]} == {0, 1}
        assert {label for _, label in found[part][:2]} == {0, 1}


def test_all_kinds_of_images_in_one_folder_are_named_in_one_line(load, write, caplog):
    write("0", 3)
    write("0/colour.png", image=np.zeros((8, 8, 3), np.uint8))
    write("1", 3)
    write("1/palette.png", mode="P")
    write("1/alpha.png", mode="RGBA")
    write("1/print.jpg", mode="CMYK")
    with caplog.at_level("INFO", logger="sbjax"):
        assert load().train_images.shape[1:] == (8, 8, 3)
    (line,) = [record.message for record in caplog.records if "changed" in record.message]
    for words in (
        "grey among colour, its value put into all three channels: 6 (0/000.png, 0/001.png, 0/002.png and 3 more)",
        "transparent, laid on white: 1 (1/alpha.png)",
        "CMYK, turned into RGB: 1 (1/print.jpg)",
        "with a palette, turned into RGB: 1 (1/palette.png)",
    ):
        assert words in line


def test_grey_sets_stay_grey_and_nothing_is_said(load, write, caplog):
    write("0", 3)
    write("1", 3)
    with caplog.at_level("INFO", logger="sbjax"):
        assert load().train_images.shape[1:] == (8, 8, 1)
    assert "changed" not in caplog.text
    assert "classes 0 = 0, 1 = 1" in caplog.text


def test_hidden_files_and_others_are_ignored_and_named(load, write, tmp_path, caplog):
    write("0", 3)
    write("1", 3)
    for name in ("0/.hidden.png", "0/notes.txt", ".git/config", "__MACOSX/0/._a.png", "README", "1/scan.dcm"):
        path = tmp_path / "set" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"")
    write("stray.png")
    with caplog.at_level("INFO", logger="sbjax"):
        assert sum(len(part) for part in pairs(load()).values()) == 6
    assert "ignored, since they are no images in a class folder: 7 (" in caplog.text


def test_images_of_different_sizes_need_image_size(load, write):
    write("0", 3)
    write("1", 3)
    write("1/wide.png", image=np.zeros((8, 20), np.uint8))
    message = r"0/000.png of 8 x 8 and 1/wide.png of 8 x 20 pixels \(height x width\): set image_size"
    with pytest.raises(ValueError, match=message):
        load()
    assert load(image_size=16).train_images.shape[1:] == (16, 16, 1)


def test_damaged_files_are_named(load, write, tmp_path):
    paths = write("0", 6) + write("1", 6)
    for path in paths[:5]:
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"5 image files cannot be read \(0/000.png: no image, .* and 2 more\)"):
        load()
    for path in paths[:5]:
        path.unlink()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    cut = write("1/cut.png", image=noise)
    cut.write_bytes(cut.read_bytes()[:1000])  # its head is whole
    with pytest.raises(ValueError, match=r"1 image files cannot be read \(1/cut.png: OSError: .*\); mend or remove"):
        load(image_size=8)
    assert not (tmp_path / "cache").exists()


def _one_class(write, root):
    write("0", 5)


def _no_class(write, root):
    root.mkdir()


def _bare(write, root):
    write("a.png")


def _empty_class(write, root):
    write("0", 5)
    write("1", 5)
    (root / "cat").mkdir()
    (root / "cat" / "a.heic").touch()


def _nested(write, root):
    write("set/0", 5)
    write("set/1", 5)


def _no_train(write, root):
    write("val/0", 5)
    write("test/0", 5)


def _twice(write, root):
    write("train/0", 5)
    write("val/0", 5)
    write("valid/0", 5)


def _other_folder(write, root):
    write("train/0", 5)
    write("test/a.png")


def _new_class(write, root):
    for label in ("cat", "dog"):
        write(f"train/{label}", 5)
    write("test/Dog", 5)


def _too_few(write, root):
    write("0", 1)
    write("1", 2)


def _broken_link(write, root):
    write("0", 5)
    write("1", 5)
    (root / "0" / "link.png").symlink_to(root / "nowhere.png")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_one_class, "one class folder only, '0'; expected one folder of images for each of two classes"),
        (_no_class, "holds no class folders; expected one folder of images for each"),
        (_bare, "holds images, such as a.png, but no folders"),
        (_empty_class, r"the class folder .*/cat holds no images, only cat/a.heic; remove it, or fill it .*\.png"),
        (_nested, r"the class folder .*/set holds folders \(0, 1\); expected images"),
        (_no_train, r"has the split folders test, val but no 'train'"),
        (_twice, "val and valid are both the validation split"),
        (_other_folder, r"split folders \(train\) and others \(test\) that hold no class folders or are no split"),
        (_new_class, "the test split has the class 'Dog', which the training split lacks, did you mean 'dog'"),
        (_too_few, "too few examples to take test and validation examples from: 3 in 2 classes"),
        (_broken_link, "link.png cannot be read: No such file or directory"),
    ],
)
def test_layouts_that_are_no_image_set_are_refused_by_name(load, write, tmp_path, make, message):
    make(write, tmp_path / "set")
    with pytest.raises(ValueError, match=message):
        load()


def test_a_class_may_be_called_train(load, write):
    for name in ("car", "train", "test"):
        write(name, 5)
    assert load().classes == 3


def test_paths_are_expanded_and_links_are_followed(load, write, tmp_path, monkeypatch):
    write("0", 5)
    write("1", 5)
    (tmp_path / "set" / "2").symlink_to(tmp_path / "set" / "1")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    expected = pairs(load())
    assert load().classes == 3
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", "set")
    monkeypatch.chdir(tmp_path)
    for path in ("~/set", "$HOME/${PLACE}", "link", "set/", "./set"):
        assert pairs(load(path)) == expected


def test_folders_that_are_not_there_are_named(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*/set', looked for from .*; write folder:PATH"):
        load()
    with pytest.raises(FileNotFoundError, match=r"environment variable in '\$NOWHERE_AT_ALL/set' is not set"):
        load("$NOWHERE_AT_ALL/set")
    with pytest.raises(FileNotFoundError, match="no path is given"):
        load("")
    (tmp_path / "set.zip").touch()
    with pytest.raises(NotADirectoryError, match=r"set.zip is no folder; unpack it"):
        load(tmp_path / "set.zip")


def test_a_folder_without_the_word_is_told_how_to_write_it(tmp_path):
    with pytest.raises(ValueError, match=f"did you mean the folder 'folder:{tmp_path}'"):
        data.load(str(tmp_path))


def test_accents_are_the_same_on_all_systems(write, tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    for name in (composed, "tea"):
        write(name, 10)
    _, files = folders.find(tmp_path / "set")
    priority = folders._priority(files["train"], (composed, "tea"))
    (tmp_path / "set" / composed).rename(tmp_path / "set" / apart)
    classes, files = folders.find(tmp_path / "set")
    assert classes == (composed, "tea")
    np.testing.assert_array_equal(folders._priority(files["train"], classes), priority)


def test_without_pillow_the_install_line_is_told(load, write, monkeypatch):
    write("0", 3)
    monkeypatch.setitem(sys.modules, "PIL", None)
    message = r"Image folders are read with Pillow, which is not installed: pip install 'sbjax\[images\]'"
    with pytest.raises(ImportError, match=message):
        load()
