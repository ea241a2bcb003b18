from pathlib import Path

import numpy as np
import pytest

from sbjax.data import cache


@pytest.fixture
def splits():
    rng = np.random.default_rng(0)

    def images(n):
        return rng.integers(0, 256, (n, 5, 4, 3), np.uint8)

    labels = (np.arange(n, dtype=np.int32) for n in (9, 3))
    return cache.Splits(7, images(9), next(labels), images(3), next(labels), class_names=tuple("abcdefg"))


def assert_same(a, b):
    assert a.classes == b.classes
    assert (a.note, a.class_names) == (b.note, b.class_names)
    for x, y in zip(a[1:7], b[1:7], strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def test_what_is_saved_is_loaded_and_nothing_else_is_left(tmp_path, splits):
    path = tmp_path / "new" / "set.npz"
    assert cache.load_splits(path) is None
    cache.save_splits(path, splits)
    assert_same(cache.load_splits(path), splits)
    assert list(path.parent.iterdir()) == [path]
    three = splits._replace(validation_images=splits.test_images, validation_labels=splits.test_labels, note="1 of ü")
    cache.save_splits(path, three)
    assert_same(cache.load_splits(path), three)


def test_no_flipped_byte_and_no_truncation_passes(tmp_path, splits, caplog):
    path = tmp_path / "set.npz"
    cache.save_splits(path, splits)
    good = path.read_bytes()
    at = good.index(splits.train_images.tobytes())
    rebuilt = 0
    for position in [*range(0, len(good), 37), at, at + 200]:
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        loaded = cache.load_splits(path)
        if loaded is None:
            rebuilt += 1
        else:  # a byte of the container that means nothing, such as a date
            assert_same(loaded, splits)
            assert position not in (at, at + 200)
    assert rebuilt > 10
    for length in (0, 10, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        caplog.clear()
        assert cache.load_splits(path) is None
        assert len(caplog.records) == 1
        assert "rebuilt" in caplog.text


def test_a_folder_that_cannot_be_written_costs_only_a_warning(tmp_path, splits, caplog):
    (tmp_path / "file").write_text("in the way")
    cache.save_splits(tmp_path / "file" / "set.npz", splits)
    assert "SBJAX_CACHE" in caplog.text


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path, splits, monkeypatch, caplog):
    path = tmp_path / "set.npz"
    cache.save_splits(path, splits)

    def full(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    cache.save_splits(path, splits._replace(classes=8))
    assert "No space left" in caplog.text
    assert list(tmp_path.iterdir()) == [path]
    assert_same(cache.load_splits(path), splits)


def test_where_files_go(tmp_path, monkeypatch):
    monkeypatch.delenv("SBJAX_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.folder() == Path.home() / ".cache" / "sbjax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "sbjax"
    monkeypatch.setenv("SBJAX_CACHE", str(tmp_path / "own"))
    assert cache.folder() == tmp_path / "own"
    assert cache.folder(tmp_path / "given") == tmp_path / "given"
