import sys

import numpy as np
import pytest
from PIL import Image

from sbjax.data import decoding


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 12, 9, 5), np.uint8)


@pytest.mark.parametrize("size", [4, 9, 20])
def test_resizing_is_pillows_in_every_channel_whatever_their_number(pixels, size):
    def expected(image):
        left, side = 0, 9  # 9 of 12 rows, in the middle
        square = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, (left, 1.5, side, 10.5))
        return np.asarray(square)

    for channels in (1, 2, 3, 5):
        resized = decoding.resize(pixels[..., :channels], size)
        assert resized.shape == (3, size, size, channels)
        for image, result in zip(pixels, resized):
            for channel in range(channels):
                np.testing.assert_array_equal(result[..., channel], expected(image[..., channel]))
            if channels == 3:
                np.testing.assert_array_equal(result, expected(np.ascontiguousarray(image[..., :3])))


def test_images_of_that_size_stay_as_they_are(pixels):
    np.testing.assert_array_equal(decoding.resize(pixels[:, :9], 9), pixels[:, :9])


def test_without_pillow_the_install_line_is_told(pixels, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"Pillow, which is not installed: pip install 'sbjax\[images\]'"):
        decoding.resize(pixels, 4)
