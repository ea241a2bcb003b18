"""The UCI handwritten digits, shipped with the package: real images without a download or extra dependencies.

1,797 labelled grey images of 8 x 8 pixels with values 0..16: the test part of "Optical Recognition of Handwritten
Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, licence
CC BY 4.0), in the order of `sklearn.datasets.load_digits`. `digits.npz` holds them unchanged as uint8: `images`
[1797, 8, 8] and `labels` [1797].
"""

from importlib import resources

import numpy as np

from sbjax.data.cache import Splits

TEST_EXAMPLES = 360


def load_digits() -> Splits:
    """The digits as uint8 [n, 8, 8, 1], with stored values v scaled to round(255 v / 16).

    The test split consists of the last 360 images in file order. Neighbouring images tend to come from the same writer,
    so the two splits have largely different writers (not exactly: writers are not recorded). A random split would put
    digits of one writer in both.

    >>> splits = load_digits()
    >>> splits.train_images.shape, splits.test_images.shape
    ((1437, 8, 8, 1), (360, 8, 8, 1))
    """
    with resources.files("sbjax.data").joinpath("digits.npz").open("rb") as stream, np.load(stream) as file:
        stored, labels = file["images"], file["labels"].astype(np.int32)
    images = np.rint(stored * (255 / 16)).astype(np.uint8)[..., None]
    train, test = slice(None, -TEST_EXAMPLES), slice(-TEST_EXAMPLES, None)
    return Splits(10, images[train], labels[train], images[test], labels[test], class_names=tuple("0123456789"))
