"""MLP against a few lines of numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import trees
from sbjax.models import MLP


def test_against_numpy():
    model = MLP(classes=3, widths=(7, 5), activation="tanh")
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    p = {k: np.asarray(v, np.float64) for k, v in trees.flatten(variables["params"]).items()}
    h = x.reshape(4, 6)
    for i in range(2):
        h = np.tanh(h @ p[f"dense_{i}/kernel"] + p[f"dense_{i}/bias"])
    expected = h @ p["dense_2/kernel"] + p["dense_2/bias"]
    np.testing.assert_allclose(model.apply(variables, x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("widths", "count"), [((), 6 * 3 + 3), ((7,), 6 * 7 + 7 + 7 * 3 + 3)])
def test_parameter_count(widths, count):
    variables = MLP(classes=3, widths=widths).init(jax.random.key(0), jnp.ones((1, 6)))
    assert trees.size(variables) == count


def test_names():
    variables = MLP(classes=3, widths=(8, 8), norm="layer").init(jax.random.key(0), jnp.ones((1, 6)))
    modules = {"dense_0": ("bias", "kernel"), "dense_1": ("bias", "kernel"), "dense_2": ("bias", "kernel")}
    modules |= {"norm_0": ("bias", "scale"), "norm_1": ("bias", "scale")}
    assert sorted(trees.flatten(variables["params"])) == [f"{m}/{p}" for m in modules for p in modules[m]]


def test_ten_replicas_by_vmap():
    model = MLP(classes=3, widths=(8,))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
    replicas = [model.init(jax.random.key(r), x) for r in range(10)]
    together = jax.vmap(model.apply, (0, None))(trees.stack(replicas), x)
    np.testing.assert_allclose(together, jnp.stack([model.apply(v, x) for v in replicas]), rtol=0, atol=1e-6)
