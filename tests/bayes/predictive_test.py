"""One interface for all posteriors, against averages by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.bayes import Draws, Predictive, Variational, VariationalPosterior, VariationalSpec, predict
from sbjax.bayes.laplace import laplace
from sbjax.bayes.sampling import nuts, stochastic_gradient
from sbjax.models import make_model

KEY = jax.random.key(0)
MLP = make_model("mlp", classes=3, widths=(8,))
X = jax.random.normal(KEY, (5, 4))


@pytest.mark.extended
def test_an_ensemble_is_the_mean_of_its_members():
    stacked = jax.vmap(lambda key: MLP.init(key, X))(jax.random.split(KEY, 4))
    draws = Draws(MLP.apply, stacked)
    found = predict(draws, X, samples=4, key=KEY)
    each = [jax.nn.softmax(MLP.apply(jax.tree.map(lambda leaf, i=i: leaf[i], stacked), X)) for i in range(4)]
    np.testing.assert_allclose(jnp.exp(found), np.mean(each, 0), rtol=1e-5)
    two = predict(draws, X, samples=2, key=KEY)
    np.testing.assert_allclose(jnp.exp(two), np.mean([each[0], each[2]], 0), rtol=1e-5)
    with pytest.raises(ValueError, match="samples=5: there are 4 networks"):
        predict(draws, X, samples=5, key=KEY)


def test_a_variational_posterior_is_the_mean_of_its_draws():
    net = Variational(MLP, VariationalSpec(log_variance=-2.0))
    variables = net.init(KEY, X)
    posterior = VariationalPosterior(net, variables)
    outputs = posterior.outputs(X, samples=6, key=KEY)
    assert outputs.shape == (6, 5, 3)
    assert float(outputs.std(0).min()) > 0
    found = predict(posterior, X, samples=6, key=KEY)
    np.testing.assert_allclose(jnp.exp(found), jax.nn.softmax(outputs).mean(0), rtol=1e-5)
    np.testing.assert_allclose(jnp.exp(found).sum(-1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="samples=0 must be >= 1"):
        predict(posterior, X, samples=0, key=KEY)


@pytest.mark.extended
def test_in_evaluation_the_network_answers_with_the_average():
    net = Predictive(Variational(MLP, VariationalSpec(log_variance=-2.0)), samples=3)
    variables = net.init(KEY, X)
    found = net.apply(variables, X, train=False)
    by_hand = predict(VariationalPosterior(net.network, variables), X, samples=3, key=jax.random.key(0))
    np.testing.assert_array_equal(found, by_hand)
    np.testing.assert_allclose(jax.nn.log_softmax(found), found, atol=1e-6)
    means = Predictive(net.network, samples=0)
    np.testing.assert_array_equal(means.apply(variables, X), MLP.apply({"params": variables["params"]["mean"]}, X))
    y, _ = net.apply(variables, X, train=True, rngs={"dropout": KEY}, mutable=[])
    assert not np.array_equal(y, found)


LABELS = np.array([0, 2, 1, 1, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS + 1}, "labels lie in 1 to 3: give one of 0 to 2"),
        ({"labels": LABELS[:3]}, r"labels have the shape \(3,\): give the class of each of 5 examples"),
        ({"labels": LABELS + 0.5}, "give the class of each"),
        ({"inputs": X[:0], "labels": LABELS[:0]}, "of each of 0 examples, >= 1"),
        ({"inputs": X * np.nan}, "inputs have entries that are not finite"),
        ({"variables": {}}, "variables hold nothing: give"),
    ],
)
def test_examples_that_no_posterior_is_of_are_refused(change, message):
    """By all three ways to make one; jax would take the nearest class for a label beyond the last."""
    given = {"variables": MLP.init(KEY, X), "inputs": X, "labels": LABELS} | change
    for make in (laplace, nuts, functools.partial(stochastic_gradient, batch_size=1)):
        if make is not laplace and not len(given["labels"]):
            continue
        with pytest.raises(ValueError, match=message):
            make(MLP, **given, key=KEY)
