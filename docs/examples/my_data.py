"""A data set of one's own: a function without arguments that returns arrays. Here digits, each drawn in some colour.

    python runs/train.py --config=configs/images.py:digits,cnn --workdir=/tmp/colour_digits \
        --config.task.dataset=docs/examples/my_data.py:colour_digits
"""

import numpy as np

from sbjax.data.digits import load_digits


def colour_digits():
    """Images [n, 8, 8, 3] of floats in [0, 1] and labels [n] by split; without 'validation', a tenth of 'train' is.

    The colour says nothing about the digit. The same numbers must come with every call: a run that is resumed calls
    the function again.
    """
    digits = load_digits()
    rng = np.random.default_rng(0)

    def paint(grey):
        colours = rng.uniform(0.3, 1.0, (len(grey), 1, 1, 3))
        return grey / 255 * colours

    return {
        "train": (paint(digits.train_images), digits.train_labels),
        "test": (paint(digits.test_images), digits.test_labels),
    }
