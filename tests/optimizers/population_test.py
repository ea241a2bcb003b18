"""Hyper-parameters of their own for every replica."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.optimizers.adam import population_adamw
from sbjax.optimizers.population import Population, with_population


def steps(optimizer, count=4, **extra):
    params = {"w": jnp.array([[1.0, -2.0]]), "b": jnp.array([0.5])}
    state = optimizer.init(params)
    for i in range(count):
        grads = jax.tree.map(lambda w, i=i: jnp.cos(w + i), params)
        updates, state = optimizer.update(grads, state, params, **extra)
        params = optax.apply_updates(params, updates)
    return params


def mask(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def test_without_draws_it_is_adamw():
    ours = steps(population_adamw(0.1, 0.9, 0.99, 0.3, mask))
    theirs = steps(optax.adamw(0.1, 0.9, 0.99, weight_decay=0.3, mask=mask))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_factors_are_those_of_learning_rate_and_decay():
    ours = steps(population_adamw(0.1, 0.9, 0.99, 0.3, mask), hyper={"learning_rate": 0.5, "weight_decay": 0.1})
    theirs = steps(optax.adamw(0.05, 0.9, 0.99, weight_decay=0.03, mask=mask))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, theirs)


def test_draws_follow_the_law(toys):
    task = with_population(toys.classification(), Population(2.0, 4.0, 0.2))
    keys = jax.random.split(jax.random.key(0), 400)
    hyper = jax.vmap(lambda key: task.init(key)["hyper"])(keys)
    for values, decades in ((hyper["learning_rate"], 2.0), (hyper["weight_decay"], 4.0)):
        shares = -np.log10(np.asarray(values)) / decades
        assert abs(np.quantile(shares, [0.25, 0.5, 0.75]) - [0.25, 0.5, 0.75]).max() < 0.08
        assert 0 <= shares.min() < shares.max() <= 1
    assert abs(float(hyper["label_smoothing"].mean()) - 0.1) < 0.01
    assert abs(np.corrcoef(np.log(hyper["learning_rate"]), np.log(hyper["weight_decay"]))[0, 1]) < 0.15
    plain = toys.classification()
    assert with_population(plain, Population()) is plain


@pytest.mark.parametrize("law", [Population(-1.0), Population(float("inf")), Population(label_smoothing=1.0)])
def test_impossible_laws(law):
    with pytest.raises(ValueError, match=r"\w+=.* must be >= 0"):
        with_population(None, law)
