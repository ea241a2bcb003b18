"""Words as whole numbers: a small tokeniser with a vocabulary taken from the training texts."""

import collections
import re
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int32

PADDING, UNKNOWN = 0, 1
RESERVED = ("<padding>", "<unknown>")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[!?]")


def split_words(text: str) -> list[str]:
    """Words of a text in lower case: runs of letters and digits, apostrophes inside them, '!' and '?'.

    >>> split_words("It's a GREAT film - isn't it?")
    ["it's", 'a', 'great', 'film', "isn't", 'it', '?']
    """
    return _WORD.findall(text.replace("\u2019", "'").lower())


def make_vocabulary(texts: Iterable[str], *, size: int) -> tuple[str, ...]:
    """The reserved entries and the most frequent words, at most `size` in all; equally frequent ones by name.

    >>> make_vocabulary(['a b a', 'c b a'], size=4)
    ('<padding>', '<unknown>', 'a', 'b')
    """
    counts = collections.Counter(word for text in texts for word in split_words(text))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return (*RESERVED, *ranked[: size - len(RESERVED)])


def encode(texts: Sequence[str], vocabulary: Sequence[str], *, length: int) -> Int32[np.ndarray, "text length"]:
    """The places of words in the vocabulary, cut after `length` words and padded with 0.

    A text without words is one unknown word: there is something to pool over.

    >>> encode(['a b z', ''], ('<padding>', '<unknown>', 'a', 'b'), length=4).tolist()
    [[2, 3, 1, 0], [1, 0, 0, 0]]
    """
    places = {word: place for place, word in enumerate(vocabulary)}
    found = np.zeros((len(texts), length), np.int32)
    for row, text in zip(found, texts):
        words = split_words(text)[:length]
        row[: max(1, len(words))] = [places.get(word, UNKNOWN) for word in words] or [UNKNOWN]
    return found
