"""Posteriors that other libraries make, against closed forms of small models; refused where the library is missing."""

import importlib
import sys

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.integrate import quad

from sbjax import trees
from sbjax.asymmetry import AsymmetrySpec, MaskSpec, make_asymmetric
from sbjax.bayes import predict
from sbjax.bayes.laplace import laplace
from sbjax.bayes.optional import library
from sbjax.bayes.sampling import nuts, stochastic_gradient
from sbjax.metrics import calibration

KEY = jax.random.key(0)
needs_laplax = pytest.mark.skipif(importlib.util.find_spec("laplax") is None, reason="needs laplax")
needs_blackjax = pytest.mark.skipif(importlib.util.find_spec("blackjax") is None, reason="needs blackjax")


class Logistic(nn.Module):
    """One weight: logits (w x, 0)."""

    @nn.compact
    def __call__(self, x, train=False):
        y = nn.Dense(1, use_bias=False, name="dense_0")(x)
        return jnp.concatenate([y, jnp.zeros_like(y)], -1)


class Small(nn.Module):
    """Two layers."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3, name="dense_1")(jnp.tanh(nn.Dense(4, name="dense_0")(x)))


def points(n=24, d=2, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(
        (rng.integers(classes, size=n) if classes > 2 else x[:, 0] < 0.3).astype(np.int32)
    )


def gauss_newton(net, variables, x):
    """sum J^T (diag(q) - q q^T) J, over flattened weights."""
    flat, unravel = jax.flatten_util.ravel_pytree(variables["params"])
    logits = lambda flat: net.apply({**variables, "params": unravel(flat)}, x, train=False)  # noqa: E731
    jacobian, q = (
        np.asarray(jax.jacobian(logits)(flat), np.float64),
        np.asarray(jax.nn.softmax(logits(flat)), np.float64),
    )
    inner = [np.diag(row) - np.outer(row, row) for row in q]
    return sum(j.T @ h @ j for j, h in zip(jacobian, inner, strict=True)), jacobian


@needs_laplax
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "curvature", ["diagonal", *(pytest.param(name, marks=pytest.mark.extended) for name in ("full", "lanczos"))]
)
def test_laplace_has_the_precision_of_the_gauss_newton_matrix(curvature):
    net, (x, labels) = Small(), points()
    variables = net.init(KEY, x)
    exact, jacobian = gauss_newton(net, variables, x)
    if curvature == "diagonal":
        exact = np.diag(np.diag(exact))
    covariance = np.linalg.inv(exact + 2.0 * np.eye(len(exact)))
    posterior = laplace(net, variables, x, labels, curvature=curvature, prior_precision=2.0, rank=12, key=KEY)
    drawn = jax.vmap(posterior.draw)(jax.random.split(KEY, 20_000))
    flat = np.asarray(jax.vmap(lambda tree: jax.flatten_util.ravel_pytree(tree)[0])(drawn), np.float64)
    error = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / len(flat))
    # Lanczos leaves out what is small; the rest of the matrix is exact.
    loose = 0.05 if curvature == "lanczos" else 0.0
    assert (np.abs(flat.T @ flat / len(flat) - covariance) <= 4.5 * error + loose * np.diag(covariance).max()).all()
    outputs = np.asarray(posterior.outputs(x[:3], samples=4000, key=KEY), np.float64)
    expected = np.einsum("nop,pq,noq->no", jacobian[:3], covariance, jacobian[:3])
    np.testing.assert_allclose(outputs.var(0), expected, rtol=0.2 + loose)
    np.testing.assert_allclose(outputs.mean(0), net.apply(variables, x[:3]), atol=5 * np.sqrt(expected.max() / 4000))


@pytest.mark.extended
@needs_laplax
@pytest.mark.filterwarnings("ignore")
def test_laplace_of_an_asymmetric_network_leaves_constants_alone():
    spec = AsymmetrySpec("w", masks=(("dense_0/kernel", MaskSpec(2, 0.5, allow_all_frozen=True)),))
    net, (x, labels) = make_asymmetric(Small(), spec), points()
    variables = net.init(KEY, x)
    posterior = laplace(net, variables, x, labels, prior_precision=1.0, linearised=False)
    found = predict(posterior, x, samples=5, key=KEY)
    np.testing.assert_allclose(jnp.exp(found).sum(-1), 1, rtol=1e-5)


@needs_laplax
@pytest.mark.filterwarnings("ignore")
def test_the_scores_of_laplax_are_not_ours():
    """Its Brier score is minus ours over the number of classes: the day this fails, the note in the module can go."""
    from laplax.eval.metrics import multiclass_brier

    q = np.random.default_rng(0).dirichlet(np.ones(5), size=50)
    labels = np.arange(50) % 5
    theirs = float(multiclass_brier(prob=jnp.asarray(q), target=jnp.asarray(labels)))
    assert theirs == pytest.approx(-calibration.brier(np.log(q), labels) / 5, rel=1e-5)


def exact_moments(x, labels, prior_variance):
    """Mean and variance of the one weight of `Logistic`, by quadrature."""
    signs = np.where(np.asarray(labels) == 0, 1.0, -1.0) * np.asarray(x)[:, 0]
    log_density = lambda w: -np.logaddexp(0, -signs * w).sum() - w**2 / (2 * prior_variance)  # noqa: E731
    top = max(log_density(w) for w in np.linspace(-30, 30, 2001))
    moment = lambda k: quad(lambda w: w**k * np.exp(log_density(w) - top), -30, 30, limit=400, points=[0.0])[0]  # noqa: E731
    mean = moment(1) / moment(0)
    return mean, moment(2) / moment(0) - mean**2


@pytest.mark.sampled(1)
@needs_blackjax
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "method", ["sgld", *(pytest.param(name, marks=pytest.mark.extended) for name in ("nuts", "sghmc"))]
)
def test_chains_have_the_moments_of_the_posterior(method):
    net, (x, labels) = Logistic(), points(20, 1, 2)
    variables = net.init(KEY, x)
    mean, variance = exact_moments(x, labels, 4.0)
    if method == "nuts":
        draws = nuts(net, variables, x, labels, warmup_steps=300, keep=2000, prior_variance=4.0, key=KEY)
    else:  # the whole data in each step: no noise of batches, which would widen it
        settings = {"sgld": {"step_size": 0.03}, "sghmc": {"step_size": 0.1, "integration_steps": 10}}[method]
        draws = stochastic_gradient(
            net, variables, x, labels, method=method, warmup_steps=500, steps_between=20, keep=2000, batch_size=20,
            prior_variance=4.0, key=KEY, **settings,
        )  # fmt: skip
    (found,) = trees.flatten(draws.variables).values()
    found = np.asarray(found, np.float64).ravel()
    assert len(found) == 2000
    loose = 1.0 if method == "nuts" else 2.0
    assert found.mean() == pytest.approx(mean, abs=loose * 0.15 * np.sqrt(variance))
    assert found.var() == pytest.approx(variance, rel=loose * 0.2)
    probabilities = jnp.exp(predict(draws, x, samples=50, key=KEY))
    assert probabilities.shape == (20, 2)
    assert np.isfinite(probabilities).all()


@needs_blackjax
@pytest.mark.filterwarnings("ignore")
def test_what_a_chain_cannot_do_is_refused():
    net, (x, labels) = Logistic(), points(20, 1, 2)
    variables = net.init(KEY, x)
    with pytest.raises(ValueError, match="batch_size=21 must lie between 1 and the 20 examples"):
        stochastic_gradient(net, variables, x, labels, batch_size=21, key=KEY)
    with pytest.raises(ValueError, match="keep=0 must be > 0"):
        nuts(net, variables, x, labels, keep=0, key=KEY)
    with pytest.raises(ValueError, match="method='sgd' is unknown"):
        stochastic_gradient(net, variables, x, labels, method="sgd", key=KEY)
    with pytest.raises(ValueError, match="curvature='fu' is unknown"):
        laplace(net, variables, x, labels, curvature="fu")


def test_a_missing_library_is_told_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "laplax", None)
    monkeypatch.setitem(sys.modules, "blackjax", None)
    net, (x, labels) = Logistic(), points(20, 1, 2)
    variables = net.init(KEY, x)
    for call in (lambda: laplace(net, variables, x, labels), lambda: nuts(net, variables, x, labels, key=KEY)):
        with pytest.raises(ImportError, match=r"which is not installed .*pip install 'sbjax\[bayes\]'"):
            call()
    with pytest.raises(ImportError, match="made with nowhere_at_all"):
        library("nowhere_at_all.part", what="it is made")
