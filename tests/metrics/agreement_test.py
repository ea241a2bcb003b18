"""R^2 and Kendall's tau against scipy, with ties, under jit and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sbjax.metrics.agreement import explained, kendall_tau


@pytest.mark.parametrize(("n", "ties"), [(2, False), (40, True), (600, False), (301, True)])
def test_tau_by_scipy(n, ties):
    """Also of more numbers than are looked at together, and of several predictors at once."""
    rng = np.random.default_rng(n)
    truth = rng.integers(0, 6, n) if ties else rng.normal(size=n)
    others = [truth + rng.normal(size=n) for _ in range(2)] + [rng.integers(0, 3, n)]
    found = jax.jit(jax.vmap(kendall_tau, (None, 0)))(jnp.asarray(truth, float), jnp.asarray(np.stack(others), float))
    wanted = [scipy.stats.kendalltau(truth, other.astype(np.float32)).statistic for other in others]
    wanted = np.nan_to_num(wanted)  # of two numbers the third may not vary
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_tau_of_what_does_not_vary_is_zero():
    assert float(kendall_tau(jnp.arange(5.0), jnp.ones(5))) == 0.0
    assert float(kendall_tau(jnp.arange(5.0), -jnp.arange(5.0))) == -1.0


def test_explained():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=50)
    best = np.polyval(np.polyfit(x := truth + rng.normal(size=50), truth, 1), x)
    assert float(explained(jnp.asarray(truth), jnp.asarray(best))) == pytest.approx(
        np.corrcoef(x, truth)[0, 1] ** 2, rel=1e-5
    )
    assert float(explained(jnp.asarray(truth), jnp.full(50, truth.mean()))) == pytest.approx(0, abs=1e-6)
