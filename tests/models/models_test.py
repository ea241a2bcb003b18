"""Properties every architecture has, and make_model."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import models, trees
from sbjax.models import ResNet, make_model
from sbjax.models.quasi_parton import MassNet

SMALL = {
    "cnn": partial(make_model, "cnn", channels=(8, 8)),
    "mlp": partial(make_model, "mlp", widths=(16, 16)),
    "resnet, CIFAR stem": partial(ResNet, stages=(1, 1), base=4),
    "resnet, ImageNet stem": partial(ResNet, stages=(1, 1), base=4, stem="imagenet", shortcut="identity"),
}


def images(batch=8, side=8):
    return jnp.asarray(np.random.default_rng(0).normal(size=(batch, side, side, 3)), jnp.float32)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("name", "norm"),
    [(name, "batch") for name in SMALL]
    + [("cnn", "group"), ("mlp", "none")]
    + [pytest.param("cnn", norm, marks=pytest.mark.extended) for norm in ("layer", "none")],
)
def test_training_step(name, norm):
    """Shapes, dtypes, batch statistics if and only if batch norm, and a gradient for every parameter."""
    model = SMALL[name](classes=5, norm=norm, dropout=0.1, activation="silu")
    x = images()
    variables = jax.jit(model.init)(jax.random.key(0), x)
    assert isinstance(variables, dict)
    assert ("batch_stats" in variables) == (norm == "batch")
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))
    rngs = {"dropout": jax.random.key(1)}

    @jax.jit
    def gradient(params):
        def loss(params):
            logits, updates = model.apply(variables | {"params": params}, x, True, rngs=rngs, mutable=["batch_stats"])
            return (logits**2).sum(), (logits, updates)

        return jax.grad(loss, has_aux=True)(params)

    grads, (logits, updates) = gradient(variables["params"])
    assert (logits.shape, logits.dtype) == ((8, 5), jnp.float32)
    for key, g in trees.flatten(grads).items():
        assert np.isfinite(g).all(), key
        assert np.abs(g).max() > 0, key
    statistics = {k: v for k, v in variables.items() if k == "batch_stats"}
    for key, old in trees.flatten(statistics).items():
        assert np.abs(trees.flatten(updates)[key] - old).max() > 0, key


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", SMALL)
def test_evaluation_is_deterministic_and_treats_images_one_by_one(name):
    model = SMALL[name](classes=5, norm="batch", dropout=0.5)
    x = images()
    variables = jax.jit(model.init)(jax.random.key(0), x)
    apply = jax.jit(model.apply)
    first, alone = apply(variables, x)[0], apply(variables, x.at[1:].set(0))[0]
    np.testing.assert_allclose(first, alone, rtol=0, atol=1e-5 * np.abs(first).max())


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["cnn", "mlp", pytest.param("resnet, CIFAR stem", marks=pytest.mark.extended)])
def test_bfloat16_computes_close_to_float32(name):
    x = images()
    wide, narrow = (SMALL[name](classes=5, dtype=dtype, norm="none") for dtype in ("float32", "bfloat16"))
    variables = jax.jit(narrow.init)(jax.random.key(0), x)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))
    expected, actual = jax.jit(wide.apply)(variables, x), jax.jit(narrow.apply)(variables, x)
    assert actual.dtype == jnp.float32
    error = float(jnp.abs(actual - expected).max() / jnp.abs(expected).max())
    assert 0 < error < 16 * float(jnp.finfo(jnp.bfloat16).eps)


def normal(variance):
    return ("normal", variance**0.5)


def uniform(bound):
    return ("uniform", bound / 3**0.5)


@pytest.mark.parametrize(
    ("model", "shape", "laws"),
    [
        (
            models.MLP(classes=100, widths=(200, 150)),
            (1, 300),
            {
                "dense_0/kernel": normal(2 / 300),
                "dense_1/kernel": normal(2 / 200),
                "dense_2/kernel": normal(1 / 150),
                "dense_1/bias": None,
            },
        ),
        (
            models.CNN(classes=300, channels=(40, 60), norm="none"),
            (1, 4, 4, 30),
            {
                "conv_0/kernel": normal(2 / (9 * 40)),
                "conv_1/kernel": normal(2 / (9 * 60)),
                "head/kernel": normal(1 / 60),
                "conv_1/bias": None,
                "head/bias": None,
            },
        ),
        (
            MassNet(first=900, width=700, blocks=1),
            (1,),
            {
                "dense_0/kernel": uniform(6**0.5),
                "dense_0/bias": uniform(1.0),
                "dense_1/kernel": uniform((6 / 900) ** 0.5),
                "dense_1/bias": uniform(900**-0.5),
                "block_0_in/kernel": uniform((6 / 700) ** 0.5),
                "block_0_out/bias": uniform(700**-0.5),
                "dense_2/bias": uniform(700**-0.5),
            },
        ),
    ],
    ids=["mlp", "cnn", "quasi_parton"],
)
def test_laws_of_the_start(model, shape, laws):
    """Mean zero and the deviation of the law; uniform numbers fill [-b, b] and no more. None: zeros."""
    leaves = trees.flatten(jax.jit(model.init)(jax.random.key(0, impl="rbg"), jnp.zeros(shape))["params"])
    for name, law in laws.items():
        leaf = np.asarray(leaves[name], np.float64)
        if law is None:
            assert not leaf.any(), name
            continue
        kind, deviation = law
        assert abs(leaf.mean()) < 5 * deviation / np.sqrt(leaf.size), name
        np.testing.assert_allclose(leaf.std(), deviation, rtol=5 / np.sqrt(2 * leaf.size), err_msg=name)
        if kind == "uniform":
            bound = deviation * 3**0.5
            assert leaf.min() < -0.97 * bound < 0.97 * bound < leaf.max(), name
            assert np.abs(leaf).max() <= bound * (1 + 1e-6), name


def test_lists_from_a_config():
    assert hash(make_model("mlp", classes=2, widths=[3, 4])) == hash(models.MLP(classes=2, widths=(3, 4)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet2O", {}, "^name='resnet2O' is unknown, did you mean 'resnet20'"),
        ("mlp", {"width": (3,)}, r"^width=\(3,\) is unknown, did you mean 'widths'"),
        ("mlp", {"norm": "btach"}, "^norm='btach' is unknown, did you mean 'batch'"),
        ("cnn", {"activation": "rellu"}, "^activation='rellu' is unknown, did you mean 'relu'"),
        ("cnn", {"dtype": "float23"}, "^dtype='float23' is unknown, did you mean 'float32'"),
        ("resnet18", {"stem": "image_net"}, "^stem='image_net' is unknown, did you mean 'imagenet'"),
        ("resnet18", {"shortcut": "identiy"}, "^shortcut='identiy' is unknown, did you mean 'identity'"),
        ("cnn", {"dropout": 1.0}, "^dropout=1.0 must be >= 0, < 1"),
        ("resnet20", {"width": 0}, "^width=0 must be > 0"),
        ("mlp", {"widths": 64}, r"^widths=64 must be of type tuple, such as \(128, 128\)"),
        ("cnn", {"channels": (8, 0)}, r"^channels=\(8, 0\) holds an entry that must be >= 1"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_model(name, classes=2, **options)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet20"])
@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
def test_float64_is_float64_throughout(name, norm, x64):
    model = make_model(name, classes=3, norm=norm, dtype="float64")
    x = jnp.zeros((2, 16, 16, 3), jnp.float64)
    logits, variables = jax.eval_shape(lambda key: model.init_with_output(key, x, train=False), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, variables))} == {jnp.dtype("float64")}
