"""Layers against flax's own and against numpy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sbjax.models import layers
from sbjax.models.layers import Conv, dropout, get_activation, group_count, max_pool_2x2, max_pool_3x3, normalise

EPS = float(jnp.finfo(jnp.float32).eps)


def images(*shape, seed=0, scale=1.0, shift=0.0):
    return jnp.asarray(shift + scale * np.random.default_rng(seed).normal(size=shape), jnp.float32)


class Normalised(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x, train):
        return normalise(x, self.kind, train=train, dtype=jnp.float32, name="norm_0")


@pytest.mark.parametrize(
    ("implementation", "kernel_size", "strides", "side", "channels"),
    [
        ("cpu", (3, 3), 1, 9, 3),
        ("cpu", (3, 3), 2, 9, 4),
        ("cpu", (3, 3), 2, 8, 4),
        ("cpu", (7, 7), 2, 16, 3),
        ("cpu", (1, 1), 2, 7, 5),
        ("cpu", (3, 3), 1, 2, 4),
        ("xla", (3, 3), 2, 9, 4),
        ("xla", (1, 1), 2, 7, 5),
        ("auto", (7, 7), 2, 16, 3),
    ],
)
def test_conv_is_flax_conv(implementation, kernel_size, strides, side, channels):
    x = images(4, side, side, channels)
    ours = Conv(6, kernel_size, strides, implementation=implementation)
    padding = [(k // 2, k // 2) for k in kernel_size]
    flax = nn.Conv(6, kernel_size, strides, padding=padding, kernel_init=layers.he_normal)

    @partial(jax.jit, static_argnums=0)
    def everything(module, x):
        def loss(variables, x):
            y = module.apply(variables, x)
            return jnp.sin(y).sum(), y

        variables = module.init(jax.random.key(0), x)
        return variables, jax.grad(loss, (0, 1), has_aux=True)(variables, x)

    actual, expected = everything(ours, x), everything(flax, x)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=100 * EPS * max(1.0, float(np.abs(e).max())))


def test_he_normal_has_the_variance_of_the_paper():
    kernel = layers.he_normal(jax.random.key(0), (3, 3, 64, 128))
    draws = kernel.size
    np.testing.assert_allclose(kernel.var(), 2 / (9 * 128), rtol=5 * np.sqrt(2 / draws))


@pytest.mark.parametrize("kind", ["batch", "group", "layer"])
def test_normalise_against_numpy(kind):
    x = images(6, 5, 4, 24, scale=3, shift=2)
    module = Normalised(kind)
    variables = jax.jit(module.init, static_argnums=2)(jax.random.key(0), x, False)
    scale, shift = images(24, seed=1), images(24, seed=2)
    variables = variables | {"params": {"norm_0": {"scale": scale, "bias": shift}}}
    actual, _ = module.apply(variables, x, True, mutable=["batch_stats"])
    wide = np.asarray(x, np.float64)
    grouped = {
        "batch": wide.transpose(3, 0, 1, 2).reshape(24, -1),
        "group": wide.reshape(6, 20, 6, 4).transpose(0, 2, 1, 3).reshape(36, -1),
        "layer": wide.reshape(6, -1),
    }[kind]
    z = (grouped - grouped.mean(1, keepdims=True)) / np.sqrt(grouped.var(1, keepdims=True) + 1e-5)
    z = {
        "batch": lambda: z.reshape(24, 6, 5, 4).transpose(1, 2, 3, 0),
        "group": lambda: z.reshape(6, 6, 20, 4).transpose(0, 2, 1, 3).reshape(x.shape),
        "layer": lambda: z.reshape(x.shape),
    }[kind]()
    np.testing.assert_allclose(actual, z * np.asarray(scale) + np.asarray(shift), rtol=0, atol=100 * EPS)


def test_batch_statistics_move_by_a_tenth_and_serve_at_evaluation():
    x = images(16, 3, 3, 5, scale=3, shift=2)
    module = Normalised("batch")
    variables = module.init(jax.random.key(0), x, False)
    _, updates = module.apply(variables, x, True, mutable=["batch_stats"])
    stats = updates["batch_stats"]["norm_0"]
    mean, var = np.asarray(x).mean((0, 1, 2)), np.asarray(x).var((0, 1, 2))
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=100 * EPS)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=100 * EPS)
    y = module.apply(variables | updates, x, False)
    np.testing.assert_allclose(y, (x - 0.1 * mean) / np.sqrt(0.9 + 0.1 * var + 1e-5), rtol=0, atol=100 * EPS)


def test_no_normalisation_is_nothing():
    x = images(2, 3)
    assert Normalised("none").init(jax.random.key(0), x, False) == {}
    np.testing.assert_array_equal(Normalised("none").apply({}, x, True), x)


@pytest.mark.parametrize("channels", range(1, 130))
def test_group_count_divides(channels):
    groups = group_count(channels)
    assert channels % groups == 0
    assert groups == 1 or (groups <= 32 and channels // groups >= 4)


@pytest.mark.parametrize("side", [(4, 6), (7, 5), (2, 3)])
def test_pooling_is_flax_pooling(side):
    x = images(3, *side, 2)
    weights = images(3, *side, 2, seed=1)

    def both(pool):
        return jax.jit(lambda x: (pool(x), jax.grad(lambda x: jnp.sin(3 * pool(x * weights)).sum())(x)))(x)

    pairs = [
        (max_pool_2x2, lambda x: nn.max_pool(x, (2, 2), (2, 2))),
        (max_pool_3x3, lambda x: nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))),
    ]
    for ours, flax in pairs:
        for a, e in zip(both(ours), both(flax), strict=True):
            np.testing.assert_allclose(a, e, rtol=0, atol=10 * EPS)


class Dropped(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, train):
        return dropout(x, self.rate, train=train, name="dropout")


def test_dropout():
    x = jnp.ones((100, 100))
    y = Dropped(0.25).apply({}, x, True, rngs={"dropout": jax.random.key(0)})
    kept = y > 0
    np.testing.assert_allclose(y[kept], 1 / 0.75, rtol=EPS)
    np.testing.assert_allclose(kept.mean(), 0.75, atol=5 * np.sqrt(0.25 * 0.75 / x.size))
    np.testing.assert_array_equal(Dropped(0.25).apply({}, x, False), x)


def test_no_dropout_is_no_operation_and_needs_no_key():
    jaxpr = jax.make_jaxpr(lambda x: Dropped(0.0).apply({}, x, True))(jnp.ones(3))
    assert not jaxpr.eqns


def test_param_dtype():
    assert layers.param_dtype("bfloat16") == jnp.float32
    assert layers.param_dtype(jnp.float32) == jnp.float32
    assert layers.param_dtype("float64") == jnp.float64


@pytest.mark.parametrize("name", layers.ACTIVATIONS)
def test_activations_keep_shape_and_dtype(name):
    y = get_activation(name)(jnp.linspace(-2, 2, 5, dtype=jnp.bfloat16))
    assert (y.shape, y.dtype) == ((5,), jnp.bfloat16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: get_activation("rellu"), "activation='rellu' is unknown; did you mean 'relu'"),
        (lambda x: Normalised("btach").init(jax.random.key(0), x, True), "did you mean 'batch'"),
        (lambda x: Dropped(1.0).apply({}, x, True), r"dropout=1.0 is not in \[0, 1\)"),
        (lambda x: Conv(4, implementation="gpu").init(jax.random.key(0), x), "implementation='gpu' is unknown"),
        (lambda x: Conv(4, (2, 2)).init(jax.random.key(0), x), "has an even side"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((2, 4, 4, 3)))
