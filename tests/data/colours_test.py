"""Statistics of colours against loops over pixels."""

import numpy as np
import pytest

from sbjax.data import colours as lib
from sbjax.data import images as images_lib
from sbjax.data.colour_space import srgb_to_lab


def test_statistics_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 5, 4, 3)).astype(np.uint8)
    found = lib.colour_statistics(images)
    lab = srgb_to_lab(images.reshape(-1, 3) / 255)
    np.testing.assert_allclose(found.lightness_mean, np.mean(lab[:, 0] / 100), rtol=1e-12)
    np.testing.assert_allclose(found.lightness_std, np.std(lab[:, 0] / 100), rtol=1e-10)
    np.testing.assert_allclose(found.ab_mean, lab[:, 1:].mean(0), rtol=1e-12)
    centres = lib.classes_of_colour()
    shares = np.zeros(len(centres))
    for i in range(lib.LIGHTNESS_BINS):
        rows = lab[np.abs(lab[:, 0] - 5 * i) < 2.5]
        wanted = rows[:, 1:].mean(0) if len(rows) else lab[:, 1:].mean(0)
        np.testing.assert_allclose(found.ab_given_lightness[i], wanted, rtol=1e-12)
    for pixel in lab:
        shares[((centres - pixel[1:]) ** 2).sum(1).argmin()] += 1 / len(lab)
    np.testing.assert_allclose(found.shares, shares, atol=1e-12)


def test_parts_add_up(monkeypatch):
    images = np.random.default_rng(1).integers(0, 256, (1203, 2, 2, 3)).astype(np.uint8)
    parts = lib.colour_statistics(images)
    lab = srgb_to_lab(images.reshape(-1, 3) / 255)
    np.testing.assert_allclose(parts.ab_mean, lab[:, 1:].mean(0), rtol=1e-10)
    assert parts.shares.sum() == pytest.approx(1)


def test_classes_hold_every_colour():
    """Every stored colour of a coarse grid lies in the square of a class, and classes lie on the grid of tens."""
    centres = lib.classes_of_colour()
    assert len({tuple(row) for row in centres}) == len(centres) == 261
    assert not np.any(centres % 10)
    side = np.arange(0, 256, 15) / 255
    lab = srgb_to_lab(np.stack(np.meshgrid(side, side, side), axis=-1).reshape(-1, 3))
    known = {tuple(row) for row in centres}
    assert all(tuple(row + 0.0) in known for row in 10 * np.round(lab[:, 1:] / 10))


def test_what_cannot_be_coloured_is_refused():
    digits = images_lib.load("digits")
    with pytest.raises(ValueError, match=r"'digits' have 1 channel; colourisation needs red, green and blue"):
        lib.with_statistics(digits)
    for images in (np.ones((2, 4, 4, 3)), np.ones((2, 4, 4, 1), np.uint8), np.ones((0, 4, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"give one or more as uint8 \[n, h, w, 3\]"):
            lib.colour_statistics(images)
    flat = digits._replace(train_images=np.full((10, 4, 4, 3), 99, np.uint8))
    with pytest.raises(ValueError, match="one lightness"):
        lib.with_statistics(flat)
