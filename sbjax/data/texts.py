"""Labelled texts in memory, as places in a vocabulary, in training, validation and test split."""

import hashlib
import logging
import os
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from sbjax.data import text_sources, tokens
from sbjax.data.text_sources import Texts

logger = logging.getLogger(__name__)

FOLDS = 5


class TextData(NamedTuple):
    """A text classification set; see `load`.

    Attributes:
        name: the name it was asked for by.
        classes: names of the classes; labels are places in it.
        vocabulary: words by place; 0 is padding, 1 an unknown word.
        train_tokens, validation_tokens, test_tokens: int32 [n, length], padded with 0.
        train_labels, validation_labels, test_labels: int32 [n].
    """

    name: str
    classes: tuple[str, ...]
    vocabulary: tuple[str, ...]
    train_tokens: Int32[np.ndarray, "train length"]
    train_labels: Int32[np.ndarray, "train"]
    validation_tokens: Int32[np.ndarray, "validation length"]
    validation_labels: Int32[np.ndarray, "validation"]
    test_tokens: Int32[np.ndarray, "test length"]
    test_labels: Int32[np.ndarray, "test"]


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    fold: int = 0,
    length: int = 64,
    vocabulary: int = 10_000,
    train_share: float = 1.0,
    shuffle_labels: bool = False,
) -> TextData:
    """Loads a set of texts, split by a fixed rule.

    A set without splits of its own is cut into `FOLDS` folds by group (of 'rotten_tomatoes' by film), else by text: a
    hash of the group decides, so that texts of a film are never in two splits. Fold `fold` is the test split, a tenth
    of the other groups is for validation. Splits that are given are kept, 'validation' takes the place of 'test' where
    there is none, and a tenth of 'train' is for validation. The vocabulary is made from the training texts alone.

    Args:
        name: see `text_sources.read`.
        data_dir: of TFDS.
        fold: 0 to 4, of a set without splits.
        length: words of a text at most; the log says how many texts are cut.
        vocabulary: its size at most, with the two reserved entries.
        train_share: share of the training texts to keep, in a hash order: a smaller share is part of a larger one.
        shuffle_labels: a control: training and validation labels in a fixed random order. Nothing can be learned.

    Raises:
        ValueError, ImportError, OSError: as `text_sources.read`; a fold of a set that has splits; one class alone.
    """
    given = text_sources.read(name, data_dir=data_dir)
    if "all" not in given and fold:
        raise ValueError(f"fold={fold}: this set has splits of its own ({', '.join(given)}); leave it 0")
    parts = _split(given, fold)
    classes = tuple(sorted({str(label) for part in parts.values() for label in part.labels}))
    if len(classes) < 2:
        raise ValueError(f"all texts have one label, {', '.join(classes)}; a classifier needs two")
    order = np.argsort([_hash(text) for text in parts["train"].texts], kind="stable")
    kept = sorted(order[: max(1, round(train_share * len(order)))].tolist())
    parts["train"] = Texts([parts["train"].texts[i] for i in kept], [parts["train"].labels[i] for i in kept])
    words = tokens.make_vocabulary(parts["train"].texts, size=vocabulary)
    _check_memory(sum(len(part.texts) for part in parts.values()), length)
    fields: dict[str, Any] = {}
    for split, part in parts.items():
        labels = np.array([classes.index(str(label)) for label in part.labels], np.int32)
        if shuffle_labels and split != "test":
            labels = np.random.default_rng(0).permutation(labels)
        fields |= {f"{split}_tokens": tokens.encode(part.texts, words, length=length), f"{split}_labels": labels}
    _tell(name, parts, fields, length)
    return TextData(name, classes, words, **fields)


def _split(given: dict[str, Texts], fold: int) -> dict[str, Texts]:
    """Training, validation and test texts."""
    parts = dict(given)
    if "all" in parts:
        rest = parts.pop("all")
        groups = rest.groups or rest.texts
        folds = np.array([_hash(group) % FOLDS for group in groups])
        parts |= {"test": _taken(rest, folds == fold), "train": _taken(rest, folds != fold)}
    elif "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    missing = [name for name in ("test", "validation") if name not in parts]
    for place, name in enumerate(missing):
        rest = parts["train"]
        held = np.array([_hash(f"{place} {group}") % 10 == 0 for group in rest.groups or rest.texts])
        parts |= {name: _taken(rest, held), "train": _taken(rest, ~held)}
    empty = [name for name, part in parts.items() if not part.texts]
    if empty:
        raise ValueError(f"there are too few texts, or groups of them, for a split: {', '.join(empty)} would be empty")
    return {name: parts[name] for name in ("train", "validation", "test")}


def _taken(part: Texts, mask: np.ndarray) -> Texts:
    rows = np.flatnonzero(mask)
    groups = None if part.groups is None else [part.groups[i] for i in rows]
    return Texts([part.texts[i] for i in rows], [part.labels[i] for i in rows], groups)


def _hash(text: str) -> int:
    """The same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _check_memory(texts: int, length: int) -> None:
    """Refuse what would be padded to more than there is, before it is."""
    from sbjax.common import devices  # JAX, which reading texts does not need

    needed, there = 4 * texts * length, devices.memory()
    if needed > there:
        raise ValueError(
            f"length={length}: {texts} texts of so many words take {devices.in_words(needed)} of memory, and there are "
            f"{devices.in_words(there)}; lower it"
        )


def _tell(name, parts, fields, length):
    cut = sum(len(tokens.split_words(text)) > length for part in parts.values() for text in part.texts)
    total = sum(len(part.texts) for part in parts.values())
    known = np.mean(fields["test_tokens"][fields["test_tokens"] > 0] != tokens.UNKNOWN)
    logger.info(
        "%s: %d training, %d validation and %d test texts; %d of %d are cut after %d words; %.1f %% of the words of "
        "test texts are in the vocabulary", name, *(len(part.texts) for part in parts.values()), cut, total, length,
        100 * known,
    )  # fmt: skip
