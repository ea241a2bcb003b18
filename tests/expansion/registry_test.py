"""Expansions by name, and what a task asks of one."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.expansion.folding import fold
from sbjax.expansion.registry import EXPANSIONS, expansion_specs, make_expansion
from sbjax.expansion.transform import (
    ImageExpansion,
    SequenceExpansion,
    VectorExpansion,
    check_expansion,
    contract,
    expand,
    prepare,
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"kind": "none"}, None),
        ({"kind": "image"}, ImageExpansion()),
        ({"kind": "image", "factor": 3, "fill": "0.5", "offset": 2}, ImageExpansion(3, 0.5, 2)),
        ({"kind": "image", "fill": "0.5,0.4,0.3"}, ImageExpansion(fill=(0.5, 0.4, 0.3))),
        ({"kind": "image", "fill": "nearest", "order": "after"}, ImageExpansion(fill="nearest", order="after")),
        ({"kind": "vector"}, VectorExpansion(2, 2, math.pi)),
        ({"kind": "vector", "before": 0, "after": 2, "value": [1, 2]}, VectorExpansion(0, 2, (1, 2))),
        ({"kind": "sequence", "axis": "token", "fill": 0}, SequenceExpansion(2, 0, "token")),
    ],
)
def test_by_name(fields, expected):
    assert make_expansion(fields) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "^kind=None is unknown.*; known: none, image, vector, sequence"),
        ({"kind": "imgae"}, "^kind='imgae' is unknown, did you mean 'image'"),
        ({"kind": "none", "factor": 2}, "^factor=2 has no effect with kind='none'"),
        ({"kind": "image", "facto": 2}, "^facto=2 is unknown, did you mean 'factor'"),
        ({"kind": "image", "factor": 0}, "^factor=0 must be >= 1"),
        ({"kind": "image", "factor": 2.5}, "^factor=2.5 must be of type int"),
        ({"kind": "image", "fill": "maen"}, "^fill='maen' is unknown: choose one of 'mean'"),
        ({"kind": "image", "offset": 2}, "^offset=2 leaves the cell"),
        ({"kind": "vector", "value": "1,2"}, r"^value=\(1.0, 2.0\) has 2 numbers: give one number, or 4"),
        ({"kind": "nowhere:X"}, "^kind='nowhere:X': there is no module 'nowhere'"),
        ({"kind": "fractions:Fraction"}, "^kind='fractions:Fraction' has no method `expand`, `contract`"),
    ],
)
def test_refusals(fields, message):
    with pytest.raises(ValueError, match=message):
        make_expansion(fields)


@pytest.mark.parametrize("kind", EXPANSIONS)
def test_options_are_the_fields_and_have_help(kind):
    specs = expansion_specs(kind)
    assert list(specs) == [field.name for field in dataclasses.fields(EXPANSIONS[kind])]
    assert all(spec.help for spec in specs.values())
    assert make_expansion({"kind": kind, **{name: spec.default for name, spec in specs.items()}}) == EXPANSIONS[kind]()


class Broken:
    """An expansion whose two methods are given."""

    def __init__(self, expand, contract=lambda y: y):
        self._expand, self._contract = expand, contract

    def expand(self, x):
        return self._expand(x)

    def contract(self, y):
        return self._contract(y)


@pytest.mark.parametrize(
    ("expansion", "shape", "message"),
    [
        (ImageExpansion(2), (1,), r"ImageExpansion does not fit an input of shape \(1,\): .*\[..., H, W, C\]"),
        (SequenceExpansion(2), (3,), r"does not fit an input of shape \(3,\)"),
        (Broken(lambda x: x.widen()), (3,), r"Broken does not fit an input of shape \(3,\): AttributeError"),
        (Broken(lambda x: x.astype(jnp.bfloat16)), (3,), "must give one array of the same dtype"),
        (Broken(lambda x: (x, x)), (3,), "one array of the same dtype"),
        (Broken(lambda x: jnp.concatenate([x, x]), lambda y: y[:3]), (3,), "must leave leading axes alone"),
        (Broken(lambda x: jnp.concatenate([x, x], -1)), (3,), r"it must give back the data of shape \(3,\)"),
    ],
)
def test_expansions_that_do_not_fit(expansion, shape, message):
    with pytest.raises(ValueError, match=message):
        check_expansion(expansion, shape)


def test_kinds_are_checked_by_shape_and_not_by_class():
    """A vector's constants on an image are channels; a fill that is not known yet has no say in the shape."""
    assert check_expansion(None, (8, 8, 3)) == (8, 8, 3)
    assert check_expansion(ImageExpansion(2, "mean"), (8, 8, 3)) == (16, 16, 3)
    assert check_expansion(VectorExpansion(0, 2), (8, 8, 3)) == (8, 8, 5)
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.2, 0.3)
    prepared = prepare(VectorExpansion(0, 2, 1.0), images, mean=mean, std=std)
    np.testing.assert_allclose(prepared[..., :3], (images / 255 - np.array(mean)) / np.array(std), atol=1e-6)
    assert (prepared[..., 3:] == 1).all()


def test_an_expansion_of_ones_own_is_an_expansion():
    twice = Broken(lambda x: jnp.concatenate([x, jnp.ones_like(x)], -1), lambda y: y[..., : y.shape[-1] // 2])
    x = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    out = expand({"a": twice, "b": None}, {"a": [x, x], "b": x})
    assert out["a"][1].tolist() == [[0, 1, 2, 1, 1, 1], [3, 4, 5, 1, 1, 1]]
    np.testing.assert_array_equal(contract({"a": twice, "b": None}, out)["a"][0], x)
    with pytest.raises(TypeError, match="cannot be folded: nothing says that Broken is affine"):
        fold(twice, {"dense_0": {"kernel": jnp.ones((6, 2)), "bias": jnp.zeros(2)}})


def test_channels_with_an_order_need_moments():
    class Before(Broken):
        order = "before"

    more = Before(lambda x: jnp.concatenate([x, jnp.ones_like(x[..., :1])], -1))
    with pytest.raises(ValueError, match="order='before': 3 channels become 4"):
        prepare(more, np.zeros((4, 4, 3), np.uint8), mean=(0.5,) * 3, std=1.0)
