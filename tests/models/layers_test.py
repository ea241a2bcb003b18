"""Layers against flax's own and against numpy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sbjax.models import layers
from sbjax.models.layers import Conv, dropout, make_norm, max_pool_2x2, number_of_groups

EPS = float(jnp.finfo(jnp.float32).eps)


def images(*shape, seed=0, scale=1.0, shift=0.0):
    return jnp.asarray(shift + scale * np.random.default_rng(seed).normal(size=shape), jnp.float32)


class Normalised(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x, train):
        return make_norm(self.kind, train=train, name="norm_0")(x)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("size", "stride", "side", "channels", "use_bias"),
    [
        (3, 1, 9, 3, True),
        (3, 2, 9, 4, False),
        (3, 2, 8, 4, True),
        (7, 2, 16, 3, False),
        (1, 2, 7, 5, True),
        (3, 1, 2, 4, True),
    ],
)
def test_conv_is_flax_conv(size, stride, side, channels, use_bias):
    x = images(4, side, side, channels)
    ours = Conv(6, size, stride, use_bias=use_bias)
    padding = ((size // 2, size // 2),) * 2
    init = layers.he_normal_fan_out
    flax = nn.Conv(6, (size, size), (stride, stride), padding=padding, use_bias=use_bias, kernel_init=init)

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
    kernel = layers.he_normal_fan_out(jax.random.key(0), (3, 3, 64, 128))
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
        "group": wide.reshape(6, 20, 12, 2).transpose(0, 2, 1, 3).reshape(72, -1),
        "layer": wide.reshape(6, -1),
    }[kind]
    z = (grouped - grouped.mean(1, keepdims=True)) / np.sqrt(grouped.var(1, keepdims=True) + 1e-5)
    z = {
        "batch": lambda: z.reshape(24, 6, 5, 4).transpose(1, 2, 3, 0),
        "group": lambda: z.reshape(6, 12, 20, 2).transpose(0, 2, 1, 3).reshape(x.shape),
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
    np.testing.assert_allclose(
        y, (np.asarray(x) - 0.1 * mean) / np.sqrt(0.9 + 0.1 * var + 1e-5), rtol=0, atol=100 * EPS
    )


def test_no_normalisation_is_nothing():
    x = images(2, 3)
    assert Normalised("none").init(jax.random.key(0), x, False) == {}
    np.testing.assert_array_equal(Normalised("none").apply({}, x, True), x)


def test_number_of_groups_divides():
    for channels in range(1, 130):
        groups = number_of_groups(channels)
        assert channels % groups == 0
        assert groups == 1 or (groups <= 32 and channels // groups >= 2)


@pytest.mark.parametrize("side", [(4, 6), (7, 5), (2, 3)])
def test_pooling_is_flax_pooling(side):
    x = images(3, *side, 2)
    weights = images(3, *side, 2, seed=1)

    def both(pool):
        return jax.jit(lambda x: (pool(x), jax.grad(lambda x: jnp.sin(3 * pool(x * weights)).sum())(x)))(x)

    for a, e in zip(both(max_pool_2x2), both(lambda x: nn.max_pool(x, (2, 2), (2, 2))), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=10 * EPS)


class Dropped(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, train):
        return dropout(x, self.rate, train=train)


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


def test_layer_norm_of_vectors_is_flax_layer_norm():
    x = images(6, 24, scale=3, shift=2)
    expected = nn.LayerNorm(epsilon=1e-5).init_with_output(jax.random.key(0), x)[0]
    actual = Normalised("layer").init_with_output(jax.random.key(0), x, True)[0]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=10 * EPS)


@pytest.mark.parametrize("name", layers.ACTIVATIONS)
def test_activations_keep_shape_and_dtype(name):
    y = layers.ACTIVATIONS[name](jnp.linspace(-2, 2, 5, dtype=jnp.bfloat16))
    assert (y.shape, y.dtype) == ((5,), jnp.bfloat16)
