"""Decay about a static bias against its penalty."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.asymmetry import decay_weights, weighted_decay

PARAMS = {"a": jnp.array([1.0, -2.0, 3.0]), "b": {"kernel": jnp.full((2, 2), 0.5)}}
ZERO = jax.tree.map(jnp.zeros_like, PARAMS)


def close(actual, expected):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-6), actual, expected)


def test_it_is_the_gradient_of_the_penalty():
    """weight_decay / 2 theta^T D theta by autodiff."""
    weights = decay_weights(PARAMS, 0.5, seed=3)

    def penalty(params):
        return 0.05 * optax.tree.vdot(weights, jax.tree.map(jnp.square, params))

    decay = weighted_decay(0.1, spread=0.5, seed=3)
    close(decay.update(ZERO, decay.init(PARAMS), PARAMS)[0], jax.grad(penalty)(PARAMS))


def test_it_adds_to_the_updates_and_pulls_theta_to_zero():
    """Without a loss theta goes to 0, so that the network goes to theta0 and not to 0."""
    optimizer = optax.chain(weighted_decay(0.5, spread=0.5), optax.sgd(1.0))
    state = optimizer.init(PARAMS)
    theta = PARAMS
    for _ in range(60):
        updates, state = optimizer.update(ZERO, state, theta)
        theta = optax.apply_updates(theta, updates)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(theta)) < 1e-3
    decay = weighted_decay(0.1, spread=0.5)
    from_zero, _ = decay.update(ZERO, decay.init(PARAMS), PARAMS)
    close(decay.update(PARAMS, decay.init(PARAMS), PARAMS)[0], jax.tree.map(jnp.add, PARAMS, from_zero))


def test_without_spread_it_is_that_of_optax():
    ours, theirs = weighted_decay(0.1), optax.add_decayed_weights(0.1)
    close(ours.update(ZERO, ours.init(PARAMS), PARAMS)[0], theirs.update(ZERO, theirs.init(PARAMS), PARAMS)[0])


def test_law_of_the_diagonal():
    """Positive, distinct, of mean 1 and the log-normal deviation; by leaf and seed, whatever the values."""
    weights = np.asarray(decay_weights({"w": np.zeros((200, 200), np.float32)}, 0.3)["w"], np.float64)
    deviation = np.sqrt(np.exp(0.3**2) - 1)
    assert weights.min() > 0
    assert np.unique(weights).size > 0.98 * weights.size  # as far as float32 can tell them apart
    np.testing.assert_allclose(weights.mean(), 1, atol=5 * deviation / 200)
    np.testing.assert_allclose(weights.std(), deviation, rtol=0.05)
    one, same, other = (decay_weights({"w": np.full(4, v)}, 0.3, seed) for v, seed in ((0.0, 0), (7.0, 0), (0.0, 1)))
    np.testing.assert_array_equal(one["w"], same["w"])
    assert (one["w"] != other["w"]).all()


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_mask(spread):
    decay = weighted_decay(0.1, spread=spread, mask={"a": False, "b": True})
    updates, _ = decay.update(ZERO, decay.init(PARAMS), PARAMS)
    assert not updates["a"].any()
    assert updates["b"]["kernel"].all()


@pytest.mark.wrong_types
def test_errors():
    for arguments, message in (
        ({"weight_decay": -1.0}, r"weight_decay=-1.0 must be a finite number >= 0"),
        ({"weight_decay": 1.0, "spread": float("nan")}, r"spread=nan must be a finite number >= 0"),
        ({"weight_decay": 1.0, "seed": 1.5}, r"seed=1.5 must be a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            weighted_decay(**arguments)
    decay = weighted_decay(0.1, spread=1.0)
    with pytest.raises(ValueError, match="needs the parameters"):
        decay.update(ZERO, decay.init(PARAMS))
