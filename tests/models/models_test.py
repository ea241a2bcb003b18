"""Properties every architecture has, and make_model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import models, trees
from sbjax.models import MODELS, make_model

SMALL = {
    "cnn": {"channels": (8, 8)},
    "mlp": {"widths": (16, 16)},
    "resnet18": {"blocks": (1, 1), "channels": (8, 16), "stem": "imagenet"},
    "resnet20": {"blocks": (1, 1), "channels": (8, 16)},
}


def images(batch=8, side=8):
    return jnp.asarray(np.random.default_rng(0).normal(size=(batch, side, side, 3)), jnp.float32)


def test_every_model_is_here():
    assert set(SMALL) == set(MODELS)


@pytest.mark.parametrize(
    ("name", "norm"),
    [(name, "batch") for name in SMALL] + [("cnn", "group"), ("cnn", "layer"), ("mlp", "none"), ("resnet20", "none")],
)
def test_training_step(name, norm):
    """Shapes, dtypes, batch statistics if and only if batch norm, and a gradient for every parameter."""
    model = make_model(name, classes=5, norm=norm, dropout=0.1, activation="silu", **SMALL[name])
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


@pytest.mark.parametrize("name", SMALL)
def test_evaluation_is_deterministic_and_takes_images_one_by_one(name):
    model = make_model(name, classes=5, norm="batch", dropout=0.5, **SMALL[name])
    x = images()
    variables = jax.jit(model.init)(jax.random.key(0), x)
    apply = jax.jit(model.apply, static_argnames=("train", "mutable"))
    together, alone = apply(variables, x), np.concatenate([apply(variables, x[i : i + 1]) for i in range(8)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4 * np.abs(together).max())
    dropped, _ = apply(variables, x, train=True, rngs={"dropout": jax.random.key(1)}, mutable=("batch_stats",))
    assert np.abs(dropped - together).max() > 1e-2


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_computes_close_to_float32(name):
    options = SMALL[name] | {"norm": "none"}
    x = images()
    wide, narrow = (make_model(name, classes=5, dtype=dtype, **options) for dtype in ("float32", "bfloat16"))
    variables = jax.jit(narrow.init)(jax.random.key(0), x)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))
    expected, actual = jax.jit(wide.apply)(variables, x), jax.jit(narrow.apply)(variables, x)
    assert actual.dtype == jnp.float32
    error = float(jnp.abs(actual - expected).max() / jnp.abs(expected).max())
    assert 0 < error < 16 * float(jnp.finfo(jnp.bfloat16).eps)


@pytest.mark.parametrize("name", SMALL)
def test_float64_throughout(name, x64):
    model = make_model(name, classes=5, dtype="float64", norm="layer", **SMALL[name])
    logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images())
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, variables))} == {jnp.dtype("float64")}


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_implementations_agree(name, x64):
    cpu, xla = (make_model(name, classes=5, dtype="float64", implementation=i, **SMALL[name]) for i in ("cpu", "xla"))
    x = images()
    variables = jax.jit(cpu.init)(jax.random.key(0), x)

    def gradient(model):
        def loss(variables):
            return (model.apply(variables, x, True, mutable=["batch_stats"])[0] ** 2).sum()

        return jax.jit(jax.grad(loss))(variables)

    for a, e in zip(*(jax.tree.leaves(gradient(m)) for m in (cpu, xla)), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-11 * max(1.0, np.abs(e).max()))


def test_lists_from_a_config():
    assert hash(make_model("mlp", classes=2, widths=[3, 4])) == hash(models.MLP(classes=2, widths=(3, 4)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_model("resnet2O", classes=2), "model='resnet2O' is unknown; did you mean 'resnet20'"),
        (lambda: make_model("mlp", classes=2, width=(3,)), "option of mlp='width' is unknown; did you mean 'widths'"),
        (lambda: make_model("cnn", classes=2, parent=None), "option of cnn='parent' is unknown"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
