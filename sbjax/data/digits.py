"""The UCI handwritten digits, embedded in `digits.npz`: real images that need neither network nor extras.

1,797 grey images of 8 x 8 pixels with values 0..16 and the digit each shows. They are the test part of
"Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, licence CC BY 4.0), in the form and order in which scikit-learn distributes
them as `sklearn.datasets.load_digits`. `digits.npz` holds them unchanged as uint8: `images` [1797, 8, 8] and
`labels` [1797].
"""

from importlib import resources

import numpy as np

from sbjax.data.cache import Splits

TEST_EXAMPLES = 360


def load_digits() -> Splits:
    """The digits as uint8 [n, 8, 8, 1], stored values v scaled to round(255 v / 16).

    The test split is the last 360 images in file order. The file is not shuffled and neighbouring images tend
    to come from the same writer, so the last images are largely by other writers than the first 1,437;
    writers are not recorded, so this cannot be made exact. A random split would put one writer's digits on
    both sides.

    >>> splits = load_digits()
    >>> splits.train_images.shape, splits.test_images.shape
    ((1437, 8, 8, 1), (360, 8, 8, 1))
    """
    with resources.files("sbjax.data").joinpath("digits.npz").open("rb") as stream, np.load(stream) as file:
        stored, labels = file["images"], file["labels"].astype(np.int32)
    images = np.rint(stored * (255 / 16)).astype(np.uint8)[..., None]
    return Splits(
        10, images[:-TEST_EXAMPLES], labels[:-TEST_EXAMPLES], images[-TEST_EXAMPLES:], labels[-TEST_EXAMPLES:]
    )
