"""The small CNN against scipy and numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from sbjax import trees
from sbjax.models import CNN


def test_against_scipy():
    model = CNN(classes=3, channels=(2, 4))
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
    shapes = jax.eval_shape(CNN(classes=10).init, jax.random.key(0), jnp.ones((1, side, side, channels)))
    assert trees.size(shapes) == count


def test_flat_input_is_refused():
    with pytest.raises(ValueError, match=r"x has shape \(2, 64\): CNN takes images"):
        CNN(classes=10).init(jax.random.key(0), jnp.ones((2, 64)))
