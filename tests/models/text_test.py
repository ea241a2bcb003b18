"""Text classifiers: padding never matters, expansions stand where they should, parameters are counted."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax import trees
from sbjax.expansion.folding import fold
from sbjax.expansion.transform import SequenceExpansion, VectorExpansion
from sbjax.models import make_text_model

NAMES = ("bag", "textcnn", "lstm", "transformer")
KINDS = {
    "none": None,
    "features": SequenceExpansion(2, 0.5),
    "ends": VectorExpansion(2, 2, 0.5),
    "tokens": SequenceExpansion(2, 0.5, "token"),
    "tokens_noise": SequenceExpansion(2, "noise", "token"),
}
TEXTS = np.array([[3, 4, 5, 0, 0, 0], [6, 0, 0, 0, 0, 0], [2, 3, 4, 5, 6, 7]], np.int32)


def made(name, expansion=None, **given):
    model = make_text_model(name, classes=3, vocabulary=20, expansion=expansion, width=8, **given)
    return model, model.init(jax.random.key(0), jnp.ones((1, 6), jnp.int32))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name, kind):
    """Neither more of it, nor what the table holds for it."""
    model, variables = made(name, KINDS[kind])
    logits = model.apply(variables, TEXTS)
    longer = model.apply(variables, np.pad(TEXTS, ((0, 0), (0, 3))))
    np.testing.assert_allclose(longer, logits, rtol=2e-5, atol=2e-6)
    table = variables["params"]["embedding"].at[0].set(100.0)
    other = {"params": {**variables["params"], "embedding": table}}
    np.testing.assert_allclose(model.apply(other, TEXTS), logits, rtol=2e-5, atol=2e-6)
    assert np.ptp(np.asarray(logits), axis=0).max() > 0


@pytest.mark.parametrize(
    ("name", "given", "count"),
    [
        ("bag", {}, 20 * 8 + 8 * 3 + 3),
        ("textcnn", {"filters": 5, "windows": (3, 4)}, 20 * 8 + 5 * (24 + 1) + 5 * (32 + 1) + 10 * 3 + 3),
        ("lstm", {"hidden": 6}, 20 * 8 + 4 * (8 * 6 + 6 * 6 + 6) + 6 * 3 + 3),
        (
            "transformer",
            {"depth": 1, "heads": 2, "positions": 10},
            20 * 8 + 10 * 8 + 2 * 16 + 4 * (64 + 8) + (8 * 16 + 16) + (16 * 8 + 8) + 16 + 8 * 3 + 3,
        ),
    ],
)
def test_parameters_are_counted(name, given, count):
    assert trees.size(made(name, **given)[1]["params"]) == count


def test_windows_are_a_convolution():
    from sbjax.models.text import Windows

    x = jax.random.normal(jax.random.key(1), (2, 9, 4))
    for dilation in (1, 2):
        layer = Windows(3, 4, dilation)
        variables = layer.init(jax.random.key(0), x)
        kernel = variables["params"]["dense"]["kernel"].reshape(4, 4, 3)
        reach = dilation * 3
        wanted = jax.lax.conv_general_dilated(
            x, kernel, (1,), [(reach // 2, reach - reach // 2)], rhs_dilation=(dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )  # fmt: skip
        np.testing.assert_allclose(layer.apply(variables, x), wanted, rtol=1e-5, atol=1e-5)


def test_constants_of_a_bag_are_a_step_of_the_head_bias():
    """A mean of constants is the constants: under SGD the bias that they add up to moves by 1 + sum c^2 times the step
    of a plain one, and all else moves alike."""
    expansion = VectorExpansion(1, 2, (0.5, -1.0, 2.0))
    expanded, variables = made("bag", expansion)
    raw, _ = made("bag")
    start = fold(expansion, variables["params"], layer="dense_0")
    np.testing.assert_allclose(
        raw.apply({"params": start}, TEXTS), expanded.apply(variables, TEXTS), rtol=1e-5, atol=1e-6
    )

    def step(model, params, bias_scale):
        def loss(p):
            logits = model.apply({"params": p}, TEXTS)
            return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.array([0, 1, 2])).mean()

        gradient = jax.grad(loss)(params)
        scaled = {**gradient, "dense_0": {**gradient["dense_0"], "bias": bias_scale * gradient["dense_0"]["bias"]}}
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, scaled)

    squares = sum(c**2 for c in expansion.constants)
    wide, plain = variables["params"], start
    for _ in range(5):
        wide, plain = step(expanded, wide, 1.0), step(raw, plain, 1.0 + squares)
    folded = fold(expansion, wide, layer="dense_0")
    for name, leaf in trees.flatten(folded).items():
        np.testing.assert_allclose(leaf, trees.flatten(plain)[name], rtol=2e-5, atol=1e-6, err_msg=name)


def test_a_trained_token_starts_as_the_constant_and_moves():
    kind = SequenceExpansion(2, 0.5, "token")
    constant, variables = made("textcnn", kind, filters=4)
    trained, _ = made("textcnn", kind, filters=4, learned_fill=True)
    params = {**variables["params"], "fill": jnp.full((8,), 0.5)}
    np.testing.assert_allclose(trained.apply({"params": params}, TEXTS), constant.apply(variables, TEXTS), rtol=1e-6)
    moved = jax.grad(lambda p: trained.apply({"params": p}, TEXTS).sum())(params)
    assert float(jnp.abs(moved["fill"]).max()) > 0
    with pytest.raises(ValueError, match="learned_fill needs an expansion of kind='sequence'"):
        made("textcnn", learned_fill=True) and made("textcnn", SequenceExpansion(2, 0.5), learned_fill=True)


@pytest.mark.extended
def test_fills_of_sequences():
    x = jnp.arange(6.0).reshape(1, 3, 2)
    nearest = SequenceExpansion(2, "nearest", "token").expand(x)
    assert nearest[0, :, 0].tolist() == [0, 0, 2, 2, 4, 4]
    noise = SequenceExpansion(3, "noise", "token", offset=1)
    found = noise.expand(x)
    assert (noise.contract(found) == x).all()
    assert (found[0, 0] == found[0, 3]).all()
    assert not (found[0, 0] == found[0, 2]).all()
    between = SequenceExpansion(2, "noise")
    assert (between.contract(between.expand(x)) == x).all()
    with pytest.raises(ValueError, match="fill='noise' is for embeddings"):
        SequenceExpansion(2, "noise", "token").expand(jnp.array([1, 2]))
    with pytest.raises(ValueError, match="fill='nearst' is unknown"):
        SequenceExpansion(2, "nearst")
