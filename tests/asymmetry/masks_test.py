"""Masks against enumeration and counting."""

import itertools
import math

import numpy as np
import pytest

from sbjax.asymmetry import MaskSpec, draws, make_mask


def rows_of(mask):
    """[out, (in, *window)], the authors' order of the entries of a row."""
    return np.moveaxis(mask, (-1, -2), (0, 1)).reshape(mask.shape[-1], -1)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (MaskSpec(2), (6, 15)),  # all subsets are needed
        (MaskSpec(2), (6, 14)),
        (MaskSpec(2), (9, 9)),  # drawn by rejection, with repeats on the way
        (MaskSpec(12), (3, 3, 3, 16)),
        (MaskSpec(5), (3, 3, 2, 7)),
        (MaskSpec(2, unit="filter"), (3, 3, 5, 10)),
        (MaskSpec(64), (784, 32)),
    ],
)
def test_random_subsets_are_different_and_of_their_size(spec, shape):
    for seed in range(5):
        mask = make_mask(spec, shape, draws.generator(seed, "w"))
        assert (mask.shape, mask.dtype) == (shape, bool)
        rows = rows_of(mask)
        assert len({row.tobytes() for row in rows}) == shape[-1]
        frozen = spec.n_fix * (math.prod(shape[:-2]) if spec.unit == "filter" else 1)
        assert (~rows).sum(1).tolist() == [frozen] * shape[-1]
        if spec.unit == "filter":
            assert (mask == mask[:1, :1]).all()


def test_random_subsets_are_uniform():
    """Six subsets of two of four inputs, the first of two rows: equally often to five standard deviations."""
    draw = draws.generator(0, "uniform")
    counts = dict.fromkeys(itertools.combinations(range(4), 2), 0)
    for spec, shape in ((MaskSpec(2), (4, 1)), (MaskSpec(2), (4, 4))):  # by rejection, and from the list of all
        counts = dict.fromkeys(counts, 0)
        for _ in range(3000):
            counts[tuple(np.flatnonzero(~rows_of(make_mask(spec, shape, draw))[0]))] += 1
        spread = math.sqrt(3000 * 1 / 6 * 5 / 6)
        assert max(abs(count - 500) for count in counts.values()) < 5 * spread


@pytest.mark.parametrize("smallest", [0, 1, 2])
def test_enumerated_subsets(smallest):
    """Against sorting all proper subsets by (size, lexicographic order)."""
    spec = MaskSpec(kind="densest") if smallest == 0 else MaskSpec(smallest, kind="bounded")
    subsets = [s for bits in range(2**4 - 1) if len(s := tuple(i for i in range(4) if bits >> i & 1)) >= smallest]
    subsets.sort(key=lambda s: (len(s), s))
    mask = make_mask(spec, (4, len(subsets)), draws.generator(0, "w"))
    assert [tuple(np.flatnonzero(~row)) for row in rows_of(mask)] == subsets
    with pytest.raises(ValueError, match=rf"gives {len(subsets)} different rows, but there are {len(subsets) + 1}"):
        make_mask(spec, (4, len(subsets) + 1), draws.generator(0, "w"))


def test_entries_run_over_the_window_first():
    """Index i of a row is channel i // k^2, then row and column of the window; a filter is all of it."""
    entry = make_mask(MaskSpec(1, kind="bounded"), (2, 3, 4, 24), draws.generator(0, "w"))
    for i in range(24):
        assert np.argwhere(~entry[..., i]).tolist() == [[i % 6 // 3, i % 3, i // 6]]
    filters = make_mask(MaskSpec(1, kind="bounded", unit="filter"), (2, 3, 4, 4), draws.generator(0, "w"))
    for i in range(4):
        assert not filters[:, :, i, i].any()
        assert filters[..., i].sum() == 18


def test_all_frozen_is_allowed_on_request_only():
    with pytest.raises(ValueError, match=r"conv/kernel: n_fix=36 freezes all 27 entries .* allow_all_frozen=True"):
        make_mask(MaskSpec(36), (3, 3, 3, 8), draws.generator(0, "w"), name="conv/kernel")
    with pytest.raises(ValueError, match="n_fix=3 freezes all 3 filters"):
        make_mask(MaskSpec(3, unit="filter"), (3, 3, 3, 8), draws.generator(0, "w"))
    mask = make_mask(MaskSpec(36, allow_all_frozen=True), (3, 3, 3, 8), draws.generator(0, "w"))
    assert (mask.shape, mask.any()) == ((3, 3, 3, 8), False)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_fix": 1, "kind": "random_subset"}, "mask.kind='random_subset' is unknown, did you mean 'random_subsets'"),
        ({"n_fix": 1, "unit": "filters"}, "mask.unit='filters' is unknown, did you mean 'filter'"),
        ({"n_fix": -1}, "mask.n_fix=-1 must be >= 0"),
        ({"n_fix": 1.5}, "mask.n_fix=1.5 must be of type int"),
        ({"n_fix": 1, "kappa": -1.0}, "mask.kappa=-1.0 must be >= 0"),
        ({"n_fix": 1, "kappa": math.nan}, "mask.kappa=nan must be a finite number"),
        ({"n_fix": 2, "kind": "densest"}, "mask.n_fix=2 has no effect with mask.kind='densest'"),
        ({"n_fix": 0}, "mask.n_fix=0 makes all rows equal"),
    ],
)
def test_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        MaskSpec(**fields)


def test_too_few_subsets():
    with pytest.raises(ValueError, match="head/kernel: n_fix=1 of 3 entries gives 3 different rows, but there are 10"):
        make_mask(MaskSpec(1), (3, 10), draws.generator(0, "w"), name="head/kernel")
    with pytest.raises(ValueError, match=r"bias has shape \(3,\): only kernels"):
        make_mask(MaskSpec(1), (3,), draws.generator(0, "w"), name="bias")
