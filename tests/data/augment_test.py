import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sbjax.data.augment import random_crop_flip


def candidates(image, padding, flip):
    """Every (dy, dx, mirrored) crop of one image, by numpy."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    for dy in range(2 * padding + 1):
        for dx in range(2 * padding + 1):
            crop = padded[dy : dy + height, dx : dx + width]
            for mirrored in range(2 if flip else 1):
                yield (dy, dx, mirrored), crop[:, ::-1] if mirrored else crop


def draws(images, out, padding, flip=True):
    found = []
    for image, result in zip(images, np.asarray(out)):
        match = [draw for draw, crop in candidates(image, padding, flip) if np.array_equal(crop, result)]
        assert len(match) == 1
        found.append(match[0])
    return np.array(found)


def noise(shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(1, 256, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, jnp.bfloat16])
@pytest.mark.parametrize(("padding", "flip"), [(4, True), (2, False), (0, True), (9, True)])
def test_every_image_is_a_crop_of_its_own(dtype, padding, flip):
    images = noise((12, 10, 11, 2), dtype)
    out = random_crop_flip(images=jnp.asarray(images), key=jax.random.key(0), padding=padding, flip=flip)
    assert out.dtype == dtype
    found = draws(images, out, padding, flip)
    if padding:
        assert len({tuple(draw) for draw in found}) > 6


def test_offsets_and_mirrors_are_uniform_and_independent():
    images = noise((4000, 3, 4, 1))
    out = jax.jit(lambda x, key: random_crop_flip(x, key=key, padding=1))(images, jax.random.key(1))
    found = draws(images, out, 1)
    counts = np.bincount(found @ [6, 2, 1], minlength=18)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    # Neighbouring images are drawn independently.
    table = np.histogram2d(found[:-1] @ [6, 2, 1], found[1:] @ [6, 2, 1], bins=18)[0]
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


def test_nothing_to_do_is_the_identity():
    images = jnp.asarray(noise((2, 5, 5, 3)))
    assert random_crop_flip(images, key=jax.random.key(0), padding=0, flip=False) is images


@pytest.mark.extended
def test_the_same_under_jit_and_vmap():
    images = jnp.asarray(noise((6, 8, 8, 3)))
    keys = jax.random.split(jax.random.key(2), 3)
    one_by_one = np.stack([random_crop_flip(images, key=key) for key in keys])
    together = jax.jit(jax.vmap(lambda key: random_crop_flip(images, key=key)))(keys)
    np.testing.assert_array_equal(together, one_by_one)
    assert not np.array_equal(one_by_one[0], one_by_one[1])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="padding = -1"):
        random_crop_flip(jnp.zeros((1, 4, 4, 1)), key=jax.random.key(0), padding=-1)
    with pytest.raises(ValueError, match=r"images has shape \(4, 4, 1\)"):
        random_crop_flip(jnp.zeros((4, 4, 1)), key=jax.random.key(0))
