import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sbjax.metrics.replica import marginal_distance

KEY = jax.random.key(0)


def test_agrees_with_scipy():
    stacked = {"a": jax.random.normal(KEY, (4, 30)), "b": {"c": jax.random.uniform(KEY, (4, 5, 3))}}
    distances = marginal_distance(stacked)
    for name, leaf in (("a", stacked["a"]), ("b/c", stacked["b"]["c"])):
        pairs = [
            scipy.stats.wasserstein_distance(x.ravel(), y.ravel())
            for x, y in itertools.combinations(np.asarray(leaf), 2)
        ]
        np.testing.assert_allclose(distances[name], np.mean(pairs), rtol=1e-5)
    np.testing.assert_allclose(distances[""], (30 * distances["a"] + 15 * distances["b/c"]) / 45, rtol=1e-6)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_shift_and_formula(p):
    x = np.asarray(jax.random.normal(KEY, (2, 50)))
    expected = (np.abs(np.sort(x[0]) - np.sort(x[1])) ** p).mean() ** (1 / p)
    np.testing.assert_allclose(marginal_distance(x, p=p)[""], expected, rtol=1e-5)
    np.testing.assert_allclose(marginal_distance(np.stack([x[0], x[0] + 0.5]), p=p)[""], 0.5, rtol=1e-5)


def test_null_law():
    """Independent normal samples of size n are about 1.8 sigma / sqrt(n) apart."""
    n = 400
    distance = marginal_distance(3.0 * jax.random.normal(KEY, (8, n)))[""]
    assert 0.8 * 1.8 * 3 / np.sqrt(n) < distance < 1.2 * 1.8 * 3 / np.sqrt(n)


def test_blind_to_permutations_and_moved_by_the_norm():
    x = jax.random.normal(KEY, (3, 64))
    permuted = x.at[1].set(x[1, ::-1])
    assert marginal_distance(permuted)[""] == marginal_distance(x)[""]
    np.testing.assert_allclose(marginal_distance(2 * x)[""], 2 * marginal_distance(x)[""], rtol=1e-6)


def test_half_precision_is_summed_in_float32():
    x = jax.random.normal(KEY, (2, 1000))
    half = marginal_distance(x.astype(jnp.bfloat16))[""]
    exact = marginal_distance(x.astype(jnp.bfloat16).astype(jnp.float32))[""]
    assert half == exact


@pytest.mark.parametrize(
    ("stacked", "p", "words"),
    [(np.ones((1, 3)), 1.0, "at least 2 replicas"), (np.ones((2, 3)), 0.5, "p=0.5")],
)
def test_refusals(stacked, p, words):
    with pytest.raises(ValueError, match=words):
        marginal_distance(stacked, p=p)
