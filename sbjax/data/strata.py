"""Fixed shuffles that know the classes: every part of a set holds every class, the same on every machine."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int, UInt64


def mix(index: Int[np.ndarray, "n"]) -> UInt64[np.ndarray, "n"]:
    """SplitMix64's output function: spreads consecutive integers over 64 bits, the same on every machine.

    >>> int(mix(np.array([1]))[0])
    16294208416658607535
    """
    x = index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def arrange(
    labels: Mapping[str, Int[np.ndarray, "n"]], priority: Mapping[str, UInt64[np.ndarray, "n"]]
) -> dict[str, tuple[str, Int[np.ndarray, "n"]]]:
    """Which examples of the given splits are for training, validation and test, and in which order.

    - 'train' alone: a tenth of every class is for test, another for validation (`held_out`), the rest for training.
    - no 'test': 'validation' takes its place.
    - no 'validation', or it took the place of 'test': a tenth of every class of 'train'.

    Each of the three is in `spread` order.

    Args:
        labels, priority: by given split, 'train' and perhaps 'validation' and 'test'.

    Returns:
        By 'train', 'validation', 'test': the given split it is taken from, and indices there.

    Raises:
        ValueError: there are too few examples for one in each.

    >>> ones = np.zeros(20, int), np.arange(20, dtype=np.uint64)
    >>> parts = arrange({'train': ones[0]}, {'train': ones[1]})
    >>> {name: len(indices) for name, (_, indices) in parts.items()}
    {'train': 16, 'validation': 2, 'test': 2}
    """
    source = {name: name for name in labels}
    if "test" not in labels and "validation" in labels:
        source = {"train": "train", "test": "validation"}
    missing = [name for name in ("test", "validation") if name not in source]
    masks = held_out(labels["train"], priority["train"], parts=len(missing))
    kept = ~np.any([np.zeros(len(labels["train"]), bool), *masks], axis=0)
    taken = {"train": kept, **dict(zip(missing, masks))}
    parts = {}
    for name in ("train", "validation", "test"):
        given = source.get(name, "train")
        indices = np.flatnonzero(taken[name]) if name in taken else np.arange(len(labels[given]))
        if not len(indices):
            raise ValueError(
                f"there are too few examples to take {' and '.join(missing)} examples from: {len(labels['train'])} "
                f"in {len(np.unique(labels['train']))} classes; a class needs at least {len(missing) + 1}"
            )
        parts[name] = given, indices[spread(labels[given][indices], priority[given][indices])]
    return parts


def spread(labels: Int[np.ndarray, "n"], priority: UInt64[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """A shuffled order of which every first part holds the classes in their proportions.

    One example of each class comes first, so that a part as long as there are classes holds them all. Then the
    example of rank r (by priority) among the n_c of its class has the place (r + 1/2) / n_c.

    Args:
        labels: of the examples.
        priority: what shuffles: numbers that have nothing to do with the labels.

    Returns:
        A permutation of range(n).

    >>> spread(np.array([0, 0, 0, 0, 1, 1]), np.arange(6, dtype=np.uint64)).tolist()
    [0, 4, 1, 2, 5, 3]
    """
    rank, size = _ranks(labels, priority)
    place = np.where(rank == 0, -1.0, (rank + 0.5) / size)
    return np.lexsort((priority, place))


def held_out(
    labels: Int[np.ndarray, "n"], priority: UInt64[np.ndarray, "n"], *, parts: int
) -> tuple[Bool[np.ndarray, "n"], ...]:
    """Masks of `parts` disjoint parts, each with a tenth of every class, rounded, and at least one example.

    The last class example is never taken: of a class with fewer than parts + 1 examples the later parts get none.

    >>> first, second = held_out(np.zeros(25, int), np.arange(25, dtype=np.uint64), parts=2)
    >>> np.flatnonzero(first).tolist(), np.flatnonzero(second).tolist()
    ([0, 1, 2], [3, 4, 5])
    """
    rank, size = _ranks(labels, priority)
    tenth = np.maximum(1, (size + 5) // 10)
    part = rank // tenth
    return tuple((part == number) & (rank < size - 1) for number in range(parts))


def _ranks(labels, priority):
    """By example: its rank by priority within its class, and the size of the class."""
    order = np.lexsort((priority, labels))
    _, first, inverse, counts = np.unique(labels[order], return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - first[inverse]
    size = np.empty(len(labels), np.int64)
    size[order] = counts[inverse]
    return rank, size
