"""The small CNN against scipy and numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from sbjax import trees
from sbjax.models import CNN


def test_against_scipy():
    model = CNN(classes=3, channels=(2, 4), norm="none")
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    p = {k: np.asarray(v, np.float64) for k, v in trees.flatten(variables["params"]).items()}

    def one(h):
        for i in range(2):
            kernel = p[f"conv_{i}/kernel"]
            h = np.pad(h, ((1, 1), (1, 1), (0, 0)))
            h = [correlate(h, kernel[..., o], "valid")[..., 0] for o in range(kernel.shape[-1])]
            h = np.maximum(np.stack(h, -1) + p[f"conv_{i}/bias"], 0)
            even = h[: h.shape[0] // 2 * 2, : h.shape[1] // 2 * 2]
            h = np.max([even[a::2, b::2] for a in (0, 1) for b in (0, 1)], 0)
        return h.mean((0, 1)) @ p["head/kernel"] + p["head/bias"]

    np.testing.assert_allclose(
        jax.jit(model.apply)(variables, x), [one(h) for h in x.astype(np.float64)], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(("channels", "count"), [(1, 56_394), (3, 56_970)])
@pytest.mark.parametrize("side", [1, 8, 28, 64])
def test_parameter_count_does_not_depend_on_the_size(side, channels, count):
    shapes = jax.eval_shape(CNN(classes=10, norm="none").init, jax.random.key(0), jnp.ones((1, side, side, channels)))
    assert trees.size(shapes) == count


@pytest.mark.parametrize(
    ("side", "expected"), [(1, [1, 1, 1]), (3, [3, 3, 3]), (8, [4, 2, 2]), (28, [14, 7, 3]), (64, [32, 16, 8])]
)
def test_no_map_is_pooled_below_two(side, expected):
    """The input of each convolution but the first is the map of the block before."""
    model = CNN(classes=2, channels=(4, 4, 4, 4), norm="none")

    def maps(key, x):
        return model.init_with_output(key, x, capture_intermediates=True, mutable=True)[1]["intermediates"]

    states = jax.eval_shape(maps, jax.random.key(0), jnp.ones((1, side, side, 1)))
    assert [states[f"conv_{i}"]["__call__"][0].shape[1] for i in (1, 2, 3)] == expected
