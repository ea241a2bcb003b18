"""Folded parameters on raw input against the expanded network, evaluated by a hand-written MLP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.expansion.folding import fold
from sbjax.expansion.transform import (
    ImageExpansion,
    SequenceExpansion,
    VectorExpansion,
    expand,
    expanded_shape,
    prepare,
)

HIDDEN = 6


def mlp(params, x):
    """tanh network of the layers dense_2 and dense_10, on flattened input."""
    first, last = params["dense_2"], params["dense_10"]
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    hidden = np.tanh(x @ np.asarray(first["kernel"], np.float64) + np.asarray(first.get("bias", 0), np.float64))
    return hidden @ np.asarray(last["kernel"], np.float64)


def make_params(rows, dtype=np.float64, seed=0):
    generator = np.random.default_rng(seed)
    kernel = generator.normal(size=(rows, HIDDEN)) / np.sqrt(rows)
    first = {"kernel": kernel.astype(dtype), "bias": generator.normal(size=HIDDEN).astype(dtype)}
    return {"dense_10": {"kernel": generator.normal(size=(HIDDEN, 2)).astype(dtype)}, "dense_2": first}


CASES = [
    (VectorExpansion(), (3,)),
    (VectorExpansion(1, 2, (0.5, -2.0, 7.0)), (1,)),
    *[
        (ImageExpansion(factor, fill, offset), (3, 4, 2))
        for factor, offset in ((2, 0), (3, 1))
        for fill in (0.5, (0.25, -1.0), "noise", "nearest", "bilinear")
    ],
    (SequenceExpansion(2, 0.5, "feature"), (4, 3)),
    (SequenceExpansion(3, -1.0, "token", 2), (4, 3)),
]


@pytest.mark.sampled(6)
@pytest.mark.parametrize(("expansion", "shape"), CASES, ids=str)
def test_outputs_agree(expansion, shape, x64):
    rows = int(np.prod(expanded_shape(expansion, shape)))
    x = np.random.default_rng(1).normal(size=(5, *shape))
    params = make_params(rows)
    folded = fold(expansion, params, input_shape=shape)
    assert folded["dense_2"]["kernel"].shape == (np.prod(shape), HIDDEN)
    atol = 32 * np.finfo(np.float64).eps
    np.testing.assert_allclose(mlp(folded, x), mlp(params, expand(expansion, x)), rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_narrow_dtypes_are_rounded_once(dtype):
    expansion = VectorExpansion(20, 20, 1.0)
    params = make_params(41, dtype)["dense_2"]
    folded = fold(expansion, params)
    assert folded["kernel"].dtype == folded["bias"].dtype == dtype
    rows = np.delete(params["kernel"].astype(np.float64), 20, axis=0)
    exact = params["bias"].astype(np.float64) + rows.sum(0)
    # Half an eps of rounding, and a sum of 41 terms in single precision.
    eps = float(jnp.finfo(dtype).eps) / 2 + 41 * np.finfo(np.float32).eps
    np.testing.assert_allclose(np.asarray(folded["bias"], np.float64), exact, rtol=eps, atol=eps)


def test_the_shift_of_the_bias_matters():
    params = make_params(7)
    folded = fold(VectorExpansion(), params)
    expected = params["dense_2"]["bias"] + np.pi * params["dense_2"]["kernel"][[0, 1, 5, 6]].sum(0)
    np.testing.assert_allclose(folded["dense_2"]["bias"], expected, rtol=1e-5)
    np.testing.assert_array_equal(folded["dense_2"]["kernel"], params["dense_2"]["kernel"][2:5].astype(np.float32))


def test_only_the_first_layer_changes():
    params = make_params(7)
    before = jax.tree.map(np.copy, params)
    folded = fold(VectorExpansion(), params)
    jax.tree.map(np.testing.assert_array_equal, params, before)
    assert folded["dense_10"] is params["dense_10"]
    assert fold(None, params) is params


def test_layer_by_name():
    """With and without a 'params' above, with and without it in the name, and nested."""
    params = make_params(7)
    expected = fold(VectorExpansion(), params)["dense_2"]
    block = {"block": params, "another": {"kernel": np.zeros((7, 1))}}
    variables = {"params": params, "batch_stats": {"mean": np.zeros(3)}}
    found = [
        fold(VectorExpansion(), params, layer="params/dense_2")["dense_2"],
        fold(VectorExpansion(), variables)["params"]["dense_2"],
        fold(VectorExpansion(), variables, layer="dense_2")["params"]["dense_2"],
        fold(VectorExpansion(), variables, layer="params/dense_2")["params"]["dense_2"],
        fold(VectorExpansion(), block, layer="block/dense_2")["block"]["dense_2"],
        fold(VectorExpansion(), params["dense_2"]),
    ]
    for layer in found:
        jax.tree.map(np.testing.assert_array_equal, layer, expected)
    assert fold(VectorExpansion(), variables)["batch_stats"] is variables["batch_stats"]
    # The first in natural order is the default, right or wrong.
    assert fold(VectorExpansion(), block)["another"]["kernel"].shape == (3, 1)


def test_a_missing_bias_is_created(x64):
    params = make_params(7)
    del params["dense_2"]["bias"]
    x = np.random.default_rng(1).normal(size=(5, 3))
    folded = fold(VectorExpansion(), params)
    np.testing.assert_allclose(mlp(folded, x), mlp(params, expand(VectorExpansion(), x)), atol=1e-14)
    assert "bias" not in params["dense_2"]


def test_stacked_replicas_under_jit():
    trees = [make_params(7, np.float32, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
    folded = jax.jit(jax.vmap(lambda params: fold(VectorExpansion(), params)))(stacked)
    for replica, params in enumerate(trees):
        one = fold(VectorExpansion(), params)["dense_2"]
        eps = np.finfo(np.float32).eps
        np.testing.assert_allclose(folded["dense_2"]["bias"][replica], one["bias"], atol=32 * eps)
        np.testing.assert_array_equal(folded["dense_2"]["kernel"][replica], one["kernel"])


@pytest.mark.parametrize("fill", [0.75, "bilinear"])
def test_prepared_images_fold_in_standardised_units(fill, x64):
    """The recipe in the docstring for order='before'."""
    images = np.random.default_rng(1).integers(0, 256, (5, 3, 4, 1), np.uint8)
    mean, std = 0.5, 0.25
    params = make_params(6 * 8)
    wide = mlp(params, prepare(ImageExpansion(2, fill, order="before"), images, mean=mean, std=std))
    standardised = ImageExpansion(2, fill if fill == "bilinear" else (fill - mean) / std)
    raw = mlp(fold(standardised, params, input_shape=(3, 4, 1)), prepare(None, images, mean=mean, std=std))
    np.testing.assert_allclose(raw, wide, rtol=0, atol=32 * np.finfo(np.float32).eps)


PARAMS = make_params(7)
INVALID = [
    (lambda: fold({"x": VectorExpansion()}, PARAMS), TypeError, "not one expansion"),
    (lambda: fold(ImageExpansion(), PARAMS), ValueError, "input_shape=None .*ImageExpansion"),
    (lambda: fold(ImageExpansion(), PARAMS, input_shape=(4, 4, 1)), ValueError, r"\(7, 6\).* 64 entries"),
    (lambda: fold(VectorExpansion(), PARAMS, input_shape=(4,)), ValueError, "'dense_2' .* 8 entries"),
    (lambda: fold(VectorExpansion(4, 3), PARAMS), ValueError, "'dense_2' .* 0 entries"),
    (lambda: fold(VectorExpansion(), PARAMS, layer="dense_0"), ValueError, "layer='dense_0': .*'dense_2', 'dense_10'"),
    (lambda: fold(VectorExpansion(), {"w": np.zeros((3, 3, 3))}), ValueError, "layer=None: .*vmap"),
    (lambda: fold(ImageExpansion(fill="mean"), make_params(64), input_shape=(4, 4, 1)), ValueError, "`resolve"),
]


@pytest.mark.wrong_types
@pytest.mark.parametrize(("call", "error", "message"), INVALID)
def test_errors_name_field_value_and_remedy(call, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        call()
