import numpy as np
import sklearn.datasets

from sbjax.data.digits import load_digits


def test_the_same_images_and_labels_as_scikit_learn_has():
    bunch = sklearn.datasets.load_digits()
    splits = load_digits()
    images = np.concatenate([splits.train_images, splits.test_images])
    labels = np.concatenate([splits.train_labels, splits.test_labels])
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int32
    # The scale is one-to-one, so the stored values come back exactly.
    np.testing.assert_array_equal(np.rint(images[..., 0] * (16 / 255)), bunch.images)
    assert np.abs(images[..., 0] - bunch.images * 255 / 16).max() <= 0.5
    np.testing.assert_array_equal(labels, bunch.target)


def test_the_test_split_is_the_end_of_the_file():
    splits = load_digits()
    assert splits.classes == 10
    np.testing.assert_array_equal(splits.test_labels, sklearn.datasets.load_digits().target[-360:])
    assert np.bincount(splits.test_labels).min() >= 30
