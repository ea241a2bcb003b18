import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from sbjax.metrics.sorting import argsort, sort

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 50), (2, 3, 4)])
def test_order(x64, dtype, shape):
    x = jnp.asarray(RNG.normal(size=shape), dtype)
    expected = np.sort(np.asarray(x, np.float64), -1)
    for result in (sort(x), jax.jit(sort)(x), jnp.take_along_axis(x, argsort(x), -1)):
        assert result.dtype == dtype
        np.testing.assert_array_equal(np.asarray(result, np.float64), expected)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_nan_and_infinities_come_last(dtype):
    x = jnp.array([3.0, np.nan, -np.inf, np.inf, 1.0], dtype)
    expected = [-np.inf, 1.0, 3.0, np.inf, np.nan]
    np.testing.assert_array_equal(sort(x).astype(jnp.float32), expected)
    np.testing.assert_array_equal(x[argsort(x)].astype(jnp.float32), expected)


def test_host_and_compiled_agree():
    x = jnp.asarray(RNG.normal(size=(3, 20)), jnp.float32)
    for ours in (sort, argsort):
        np.testing.assert_array_equal(ours(x), jax.jit(ours)(x))


def test_derivatives(x64):
    x, weights = jnp.asarray(RNG.normal(size=(2, 9))), jnp.arange(9.0)
    np.testing.assert_array_equal(jax.grad(lambda x: sort(x) @ weights)(x[0])[np.argsort(x[0])], weights)
    check_grads(lambda x: jnp.sin(sort(x)) * weights[None], (x,), order=1, modes=("fwd", "rev"))
    assert not jax.grad(lambda x: x[argsort(x)].sum() * 0 + argsort(x).sum().astype(x.dtype))(x[0]).any()


def test_vmap_over_any_axis():
    x = jnp.asarray(RNG.normal(size=(3, 5, 4)), jnp.float32)
    for function in (sort, argsort):
        by_hand = jnp.stack([function(x[:, i]) for i in range(5)])
        np.testing.assert_array_equal(jax.vmap(function, 1)(x), by_hand)
        np.testing.assert_array_equal(jax.jit(jax.vmap(jax.vmap(function)))(x), function(x))


def test_traced_once():
    traced = []

    def count(x):
        traced.append(x)
        return sort(x)

    counted = jax.jit(count)
    for seed in range(3):
        counted(jax.random.normal(jax.random.key(seed), (4, 5)))
    assert len(traced) == 1


def test_no_callback_in_a_compiled_program():
    """A callback can wait forever for the thread that runs it, and loses the precision of a block."""
    lowered = jax.jit(lambda x: (sort(x), argsort(x), jax.grad(lambda x: sort(x)[0])(x))).lower(jnp.ones(3)).as_text()
    assert "callback" not in lowered


def test_double_precision_of_a_block_alone():
    with jax.enable_x64(True):
        x = jnp.asarray(RNG.normal(size=200_000))
        for result in (sort(x), jax.jit(sort)(x), x[argsort(x)]):
            assert result.dtype == jnp.float64
            np.testing.assert_array_equal(result, np.sort(np.asarray(x)))
