"""Against flax's own batch normalisation, forward, backward, statistics, sharded and under vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sbjax.models.batch_norm import BatchNorm, channel_sum

SHAPES = [(16, 8, 8, 16), (6, 5, 3, 7), (32, 24), (3, 1)]


def values(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(1.5, 2.0, size=shape), jnp.float32)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("shape", SHAPES)
def test_same_as_flax(shape):
    x, weights = values(shape), values(shape, 1)
    ours, flax = BatchNorm(train=True), nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)
    variables = flax.init(jax.random.key(0), x)
    params = {"scale": values(shape[-1:], 2), "bias": values(shape[-1:], 3)}
    assert jax.tree.structure(ours.init(jax.random.key(0), x)) == jax.tree.structure(variables)

    def everything(module):
        def loss(params, x):
            y, updates = module.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y) * weights), (y, updates)

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)

    for a, b in zip(*(jax.tree.leaves(everything(m)) for m in (ours, flax)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * max(1.0, float(jnp.abs(b).max())))


def test_evaluation_uses_running_statistics():
    x = values((4, 3))
    variables = {
        "params": {"scale": values((3,), 1), "bias": values((3,), 2)},
        "batch_stats": {"mean": values((3,), 3), "var": jnp.abs(values((3,), 4))},
    }
    expected = nn.BatchNorm(use_running_average=True, epsilon=1e-5).apply(variables, x)
    np.testing.assert_allclose(BatchNorm(train=False).apply(variables, x), expected, rtol=1e-5)


def test_gradient_against_finite_differences(x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)))
    module = BatchNorm(train=True, dtype=jnp.float64)
    variables = module.init(jax.random.key(0), x)

    def f(x):
        return jnp.sum(jnp.sin(module.apply(variables, x, mutable=["batch_stats"])[0]))

    gradient = jax.grad(f)(x)
    for index in [(0, 0), (3, 1), (5, 2)]:
        step = jnp.zeros_like(x).at[index].set(1e-6)
        np.testing.assert_allclose(gradient[index], (f(x + step) - f(x - step)) / 2e-6, rtol=1e-6, atol=1e-8)


def test_replicas_by_vmap_and_rows_over_devices():
    x = values((3, 16, 4, 4, 8))
    module = BatchNorm(train=True)
    variables = module.init(jax.random.key(0), x[0])
    apply = lambda x: module.apply(variables, x, mutable=["batch_stats"])  # noqa: E731
    single = [apply(one) for one in x]
    together = jax.vmap(apply)(x)
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    sharded = jax.jit(apply)(jax.device_put(x[0], NamedSharding(mesh, PartitionSpec("data"))))
    for a, b in zip(
        jax.tree.leaves(jax.tree.map(lambda leaf: leaf[0], together)), jax.tree.leaves(single[0]), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(single[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [*SHAPES, (5, 1000), (7, 7, 600)])
def test_channel_sum(shape):
    x = values(shape)
    expected = np.asarray(x, np.float64).sum(tuple(range(len(shape) - 1)))
    np.testing.assert_allclose(channel_sum(x), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_accelerators_the_same_and_kept_in_its_own_dtype(dtype, monkeypatch):
    """What the backward pass keeps of the input has its dtype; all else agrees with the CPU."""
    x, weights = values((16, 4, 4, 8)).astype(dtype), values((16, 4, 4, 8), 1)
    module = BatchNorm(train=True, dtype=dtype)
    variables = module.init(jax.random.key(0), x)

    def everything(x):
        def apply(params, x):
            return module.apply({**variables, "params": params}, x, mutable=["batch_stats"])

        (y, updates), back = jax.vjp(apply, variables["params"], x)
        kept = {str(leaf.dtype) for leaf in jax.tree.leaves(back) if np.size(leaf) == x.size}
        return y, updates, back((weights.astype(dtype), jax.tree.map(jnp.zeros_like, updates))), kept

    *expected, before = everything(x)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    *found, kept = everything(x)
    assert (before, kept) == ({"float32"}, {dtype})
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        a, b = (np.asarray(leaf.astype(jnp.float32)) for leaf in (a, b))
        scale = max(1.0, np.abs(b).max())  # sums of many numbers, some of which nearly cancel
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * scale)
