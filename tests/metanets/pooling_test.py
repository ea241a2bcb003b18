"""The largest entry, by `max`, and its gradient where the same sums are rounded twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.metanets.pooling import largest


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_by_max(axis):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5)))
    np.testing.assert_array_equal(largest(x, axis), x.max(axis))
    weights = jnp.arange(x.size / x.shape[axis]).reshape(x.max(axis).shape)
    gradient = jax.jit(jax.grad(lambda x: (weights * largest(x, axis)).sum()))(x)
    np.testing.assert_allclose(gradient, jax.grad(lambda x: (weights * x.max(axis)).sum())(x))


def test_of_equal_entries_the_first_counts():
    """All of the gradient arrives, whatever the ties."""
    gradient = jax.jit(jax.grad(lambda x: largest(x, 1).sum()))(jnp.ones((2, 7)))
    np.testing.assert_array_equal(gradient, np.eye(7)[[0, 0]])
