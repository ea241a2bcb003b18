"""The training of symmetry by duality: its start, one epoch against a loop by hand, and its choices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import rng
from sbjax.experiments.exact import duality_training as dt


def design(**changes):
    plain = dt.Design((6, 40, 4), 2, 0.3, "common", False, 1e-2, 0.5, 4, 6, (0.1, 0.3))
    return plain._replace(**changes)


def splits():
    random = np.random.default_rng(0)

    def images(n):
        return jnp.asarray(random.integers(0, 256, (n, 6)), jnp.uint8)

    def labels(n):
        return jnp.asarray(random.integers(0, 4, n))

    return dt.Splits(images(14), images(8), images(8), labels(14), labels(8), labels(8))


def test_starts_share_their_numbers_and_norms():
    key = jax.random.key(0)
    zero, *moved = (
        dt.init(key, design(mean=m, direction=d)) for m, d in [(0.0, "common"), *((2.0, d) for d in dt.DIRECTIONS)]
    )
    for params, direction in zip(moved, dt.DIRECTIONS, strict=True):
        np.testing.assert_array_equal(params["hidden"], zero["hidden"])
        added = params["readout"] - zero["readout"]
        np.testing.assert_array_equal(added[:, 2:], 0)
        np.testing.assert_allclose(np.abs(added[:, :2]), 2.0, rtol=1e-5)
        signs = np.sign(added[:, :2])
        assert (signs == 1).all() == (direction == "common")
        assert (np.ptp(signs, axis=0) > 0).all() == (direction == "entries")
    sizes = dt.init(key, design(sizes=(400, 900, 10), shifted=0))
    np.testing.assert_allclose([v.std() for v in sizes.values()], [1 / 20, 1 / 30], rtol=0.02)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("cold", [True, False])
def test_two_epochs_by_hand(cold):
    """14 images in batches of 4 are 3 steps an epoch; Adam by its formulas, the rate halved in the second epoch."""
    data, chosen, key = splits(), design(cold=cold), jax.random.key(1)
    found = dt.train(data, chosen, key=key, seeds=2, log=lambda text: None, stop=lambda: False)
    assert found.validation.shape == found.test.shape == (2, 2)
    seed = 1
    params = {k: np.asarray(v, float) for k, v in dt.init(rng.replica_stream(key, "start", seed), chosen).items()}
    first, second = ({k: 0.0 * v for k, v in params.items()} for _ in range(2))
    losses, hits = [], []
    for epoch in range(2):
        order = jax.random.permutation(jax.random.fold_in(rng.replica_stream(key, "order", seed), epoch), 14)
        for step in range(3):
            rows = np.asarray(order[4 * step : 4 * step + 4])
            x = (np.asarray(data.train[rows], float) / 255 - 0.1) / 0.3
            hot = np.eye(4)[np.asarray(data.train_labels[rows])]
            y = 1 - hot if cold else hot
            z = x @ params["hidden"]
            error = np.maximum(z, 0) @ params["readout"] - y
            losses.append((error**2).mean())
            back = 2 * error / error.size
            slopes = {
                "hidden": x.T @ ((back @ params["readout"].T) * (z > 0)),
                "readout": np.maximum(z, 0).T @ back,
            }
            count = 3 * epoch + step + 1
            for name, g in slopes.items():
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g**2
                moved = first[name] / (1 - 0.9**count) / (np.sqrt(second[name] / (1 - 0.999**count)) + 1e-8)
                params[name] = params[name] - 1e-2 * 0.5**epoch * moved
        x = (np.asarray(data.test, float) / 255 - 0.1) / 0.3
        outputs = np.maximum(x @ params["hidden"], 0) @ params["readout"]
        hits.append(((outputs.argmin(1) if cold else outputs.argmax(1)) == np.asarray(data.test_labels)).mean())
    assert found.start_loss[seed] == pytest.approx(losses[0], rel=1e-5)
    assert found.loss[seed] == pytest.approx(np.mean(losses[3:]), rel=1e-4)
    np.testing.assert_allclose(found.test[:, seed], hits)


def test_a_stop_is_heard():
    assert dt.train(splits(), design(), key=jax.random.key(0), seeds=1, log=print, stop=lambda: True) is None
