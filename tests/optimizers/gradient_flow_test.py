import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.optimizers.gradient_flow import gradient_flow


def test_flow_of_a_stiff_quadratic_is_exact(x64):
    """Rates 1 and 1e5: an explicit method would need 1e5 steps."""
    rates = jnp.array([1.0, 1e5])
    start, times = jnp.array([2.0, 3.0]), np.array([0.0, 1e-5, 0.5, 2.0])
    flow = jax.jit(lambda w: gradient_flow(lambda w: jnp.sum(rates * w**2) / 2, w, times))(start)
    np.testing.assert_allclose(flow.params, start * np.exp(-times[:, None] * np.asarray(rates)), atol=1e-5)
    assert flow.finished
    assert flow.steps < 500


@pytest.mark.extended
def test_flow_that_is_given_up():
    flow = gradient_flow(lambda w: jnp.sum(w**2), jnp.ones(1), [1.0], max_steps=1)
    assert not flow.finished


@pytest.mark.parametrize("times", [[1.0, 0.5], [-1.0], [], 3.0])
def test_times_that_are_none(times):
    with pytest.raises(ValueError, match="times"):
        gradient_flow(jnp.sum, jnp.ones(1), times)
