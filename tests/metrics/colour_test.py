"""Numbers of pictures against loops and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from sbjax.metrics import colour as lib


def pair(side=(20, 17), seed=0):
    rng = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(rng.random((*side, 3)), (2, 2, 0))
    truth = (truth - truth.min()) / np.ptp(truth)
    return np.clip(truth + 0.1 * rng.normal(size=truth.shape), 0, 1), truth


def ssim_by_window(x, y):
    """Window by window, with the weights of the paper."""
    at = np.arange(11) - 5
    weights = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for c in range(3):
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                a, b = x[i : i + 11, j : j + 11, c], y[i : i + 11, j : j + 11, c]
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
                both = (weights * (a - mean_a) * (b - mean_b)).sum()
                values.append(
                    (2 * mean_a * mean_b + 1e-4) * (2 * both + 9e-4)
                    / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
                )  # fmt: skip
    return np.mean(values)


def test_structural_similarity_window_by_window(x64):
    made, truth = pair()
    np.testing.assert_allclose(lib.ssim(jnp.asarray(made), jnp.asarray(truth)), ssim_by_window(made, truth), rtol=1e-10)
    assert lib.ssim(jnp.asarray(truth), jnp.asarray(truth)) == pytest.approx(1)


def test_structural_similarity_in_single_precision():
    made, truth = (np.asarray(x, np.float32) for x in pair(seed=1))
    np.testing.assert_allclose(jax.jit(lib.ssim)(made, truth), ssim_by_window(made, truth), atol=2e-4)


def test_small_images_have_a_smaller_window():
    made, truth = (x[:8, :6] for x in pair())
    assert 0 < float(lib.ssim(jnp.asarray(made), jnp.asarray(truth))) < 1


def test_signal_to_noise_ratio():
    made, truth = pair()
    mse = np.mean((made - truth) ** 2)
    np.testing.assert_allclose(lib.squared_error(jnp.asarray(made), jnp.asarray(truth)), mse, rtol=1e-5)
    np.testing.assert_allclose(lib.psnr(jnp.asarray(mse)), 10 * np.log10(1 / mse), rtol=1e-5)
    assert float(lib.psnr(jnp.zeros(()))) == pytest.approx(100)


def test_colourfulness_of_a_loop():
    image = pair()[0]
    r, g, b = (255 * image[..., i].ravel() for i in range(3))
    rg, yb = r - g, 0.5 * (r + g) - b
    wanted = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    found = lib.colourfulness(jnp.stack([jnp.asarray(image), jnp.full(image.shape, 0.4)]))
    np.testing.assert_allclose(found, [wanted, 0.0], rtol=1e-5, atol=1e-4)
