"""The divergence of low rank against that of dense matrices, and draws against their covariance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.bayes import gaussian


def pieces(d=7, rank=4, seed=0):
    rng = np.random.default_rng(seed)
    mean, variance = rng.normal(size=d), rng.uniform(0.1, 2, size=d)
    return mean, variance, rng.normal(size=(rank, d)), 0.7


def dense_kl(mean, covariance, prior_variance):
    d = len(mean)
    _, logdet = np.linalg.slogdet(covariance)
    trace = (np.trace(covariance) + mean @ mean) / prior_variance
    return 0.5 * (trace - d + d * np.log(prior_variance) - logdet)


@pytest.mark.parametrize("rank", [0, 1, 4, 9])
def test_divergence_is_that_of_dense_gaussians(x64, rank):
    mean, variance, factors, prior = pieces(rank=rank)
    found = gaussian.kl(mean, variance, factors, prior_variance=prior)
    matrix = np.asarray(gaussian.covariance(jnp.asarray(variance), jnp.asarray(factors)))
    np.testing.assert_allclose(matrix, np.diag(variance) + factors.T @ factors / max(rank, 1))
    assert float(found) == pytest.approx(dense_kl(mean, matrix, prior), rel=1e-12)


def test_divergence_of_a_tree_is_that_of_its_leaves_together(x64):
    mean, variance, factors, prior = pieces()
    cut = lambda x: {"bias": x[..., :2], "kernel": x[..., 2:].reshape(*x.shape[:-1], 5, 1)}  # noqa: E731
    whole = gaussian.kl(mean, variance, factors, prior_variance=prior)
    parts = gaussian.kl(cut(mean), cut(variance), cut(factors), prior_variance=prior)
    assert float(parts) == pytest.approx(float(whole), rel=1e-12)


def test_entries_without_noise_are_no_part_of_it(x64):
    mean, variance, factors, prior = pieces()
    mask = np.array([True, False, True, True, False, True, True])

    def masked(mean, factors):
        return gaussian.kl(mean, variance, factors, mask=mask, prior_variance=prior)

    rest = gaussian.kl(mean[mask], variance[mask], factors[:, mask], prior_variance=prior)
    assert float(masked(mean, factors)) == pytest.approx(float(rest), rel=1e-12)
    of_mean, of_factors = jax.grad(masked, (0, 1))(jnp.asarray(mean), jnp.asarray(factors))
    assert not of_mean[~mask].any()
    assert not of_factors[:, ~mask].any()
    assert of_mean[mask].all()
    assert of_factors[:, mask].all()


def test_factors_of_zero_are_no_factors(x64):
    mean, variance, factors, prior = pieces()
    zero = gaussian.kl(mean, variance, 0 * factors, prior_variance=prior)
    assert float(zero) == pytest.approx(
        float(gaussian.kl(mean, variance, factors[:0], prior_variance=prior)), rel=1e-12
    )


def test_draws_have_the_covariance():
    _mean, variance, factors, _ = pieces(d=4, rank=2)
    mask = np.array([True, True, False, True])
    like, count = jnp.zeros(4), 40_000
    one = lambda key: gaussian.draw(variance, factors, like=like, mask=mask, key=key)  # noqa: E731
    drawn = np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(0), count)), np.float64)
    expected = np.asarray(gaussian.covariance(jnp.asarray(variance), jnp.asarray(factors), mask=jnp.asarray(mask)))
    found = drawn.T @ drawn / count
    # The variance of x_i x_j of a Gaussian is S_ii S_jj + S_ij^2.
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / count)
    assert (np.abs(found - expected) <= 4 * error + 1e-12).all()


def test_what_is_impossible_is_refused():
    mean, variance, factors, _ = pieces()
    with pytest.raises(ValueError, match="prior_variance=0 must be > 0"):
        gaussian.kl(mean, variance, factors, prior_variance=0)
    with pytest.raises(ValueError, match=r"factors have \[2, 4\] rows"):
        gaussian.kl((mean, mean), (variance, variance), (factors, factors[:2]), prior_variance=1.0)
