import numpy as np
import pytest

from sbjax.data import strata


@pytest.fixture(params=["even", "uneven", "sorted"])
def labels(request):
    rng = np.random.default_rng(0)
    if request.param == "even":
        return np.arange(400) % 10
    if request.param == "uneven":
        return rng.permutation(np.repeat(np.arange(6), (500, 300, 100, 40, 7, 3)))
    return np.repeat(np.arange(20), 30)


def test_mix_is_splitmix64():
    # The first three numbers of the published generator seeded with 1234567.
    gamma, seed = 0x9E3779B97F4A7C15, 1234567

    def published(n):
        z = (seed + n * gamma) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    assert [published(n) for n in (1, 2, 3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    inverse = pow(gamma, -1, 2**64)
    index = np.array([(seed * inverse + n) % 2**64 for n in (1, 2, 3)], np.uint64)
    assert strata.mix(index).tolist() == [published(n) for n in (1, 2, 3)]


def test_every_first_part_holds_the_classes_in_their_proportions(labels):
    order = strata.spread(labels, strata.mix(np.arange(len(labels))))
    assert sorted(order) == list(range(len(labels)))
    classes, total = np.unique(labels, return_counts=True)
    seen = np.cumsum(labels[order][:, None] == classes, axis=0)
    assert (seen[len(classes) - 1] == 1).all()
    length = np.arange(1, len(labels) + 1)[:, None]
    # One of each class first moves a count by one at most; the classes that are few wait for the others meanwhile.
    assert np.abs(seen - length * total / len(labels)).max() <= 1 + len(classes) / 2
    assert (np.abs(seen - length * total / len(labels))[len(labels) // 2 :] <= 1.5).all()


def test_the_order_within_a_class_is_that_of_the_priority_alone(labels):
    priority = strata.mix(np.arange(len(labels)))
    order = strata.spread(labels, priority)
    for label in np.unique(labels):
        assert (np.diff(priority[order][labels[order] == label].astype(np.float64)) > 0).all()
    few = labels == labels[0]
    alone = strata.spread(labels[few], priority[few])
    np.testing.assert_array_equal(np.flatnonzero(few)[alone], order[labels[order] == labels[0]])


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (14, (12, 1, 1)), (15, (11, 2, 2)), (100, (80, 10, 10))],
)
def test_a_tenth_of_every_class_is_held_out_and_at_least_one(size, sizes):
    labels = np.concatenate([np.zeros(50, int), np.ones(size, int)])
    parts = strata.arrange({"train": labels}, {"train": strata.mix(np.arange(len(labels)))})
    assert tuple(int(np.sum(labels[parts[name][1]])) for name in ("train", "validation", "test")) == sizes
    assert sorted(np.concatenate([indices for _, indices in parts.values()])) == list(range(len(labels)))


@pytest.mark.parametrize(
    ("given", "sources"),
    [
        (("train",), ("train", "train", "train")),
        (("train", "test"), ("train", "train", "test")),
        (("train", "validation"), ("train", "train", "validation")),
        (("train", "validation", "test"), ("train", "validation", "test")),
    ],
)
def test_splits_that_are_given_are_kept(given, sources):
    labels = {name: np.arange(20 + i) % 2 for i, name in enumerate(given)}
    priority = {name: strata.mix(np.arange(len(part))) for name, part in labels.items()}
    parts = strata.arrange(labels, priority)
    assert tuple(parts[name][0] for name in ("train", "validation", "test")) == sources
    for name in given:
        used = np.concatenate([indices for source, indices in parts.values() if source == name])
        assert sorted(used) == list(range(len(labels[name])))


def test_too_few_examples_are_refused():
    labels = {"train": np.arange(4)}
    with pytest.raises(ValueError, match="4 in 4 classes; a class needs at least 3"):
        strata.arrange(labels, {"train": strata.mix(np.arange(4))})
