"""Vectors on subspaces: their dimension, coherence, laws and what is refused."""

import numpy as np
import pytest
import scipy.stats

from sbjax.data import images, vectors
from sbjax.symmetry.identifiability import coherence, subspace_basis


@pytest.mark.parametrize("target", [0.0, 0.2, 0.9])
def test_gaussian_classes_fill_their_subspace_at_the_coherence(target):
    data = vectors.gaussian_classes(dimension=4, ambient=32, classes=3, train=400, test=50, coherence=target)
    x = np.concatenate([data.train[0], data.test[0]]).astype(np.float64)
    assert np.linalg.matrix_rank(x, tol=1e-3) == 4
    basis = subspace_basis(x, variance=1 - 1e-9).vectors
    assert basis.shape[1] == 4
    if target:
        assert coherence(basis) == pytest.approx(target, abs=1e-3)


def test_classes_have_their_means_and_one_width_each():
    """Of 30,000 draws a class: the means' norm is that of separation times a normal vector; spectra agree."""
    data = vectors.gaussian_classes(dimension=3, ambient=8, classes=2, separation=2.0, train=60_000, test=10)
    x, labels = data.train
    spectra = [np.linalg.eigvalsh(np.cov(x[labels == c].T))[-3:] for c in (0, 1)]
    np.testing.assert_allclose(*spectra, rtol=0.05)
    gap = x[labels == 0].mean(0) - x[labels == 1].mean(0)
    assert 0.5 < np.linalg.norm(gap) < 4 * 2 * np.sqrt(6)
    again = vectors.gaussian_classes(dimension=3, ambient=8, classes=2, separation=2.0, train=60_000, test=10)
    np.testing.assert_array_equal(again.train[0], x)


def test_best_accuracy_is_that_of_two_normal_laws():
    """In one dimension two classes of one width are told apart with probability Phi(|m_0 - m_1| / 2s)."""
    chosen = {"dimension": 1, "classes": 2, "separation": 1.0, "seed": 3}
    data = vectors.gaussian_classes(ambient=1, train=60_000, test=10, **chosen)
    rows = [data.train[0][data.train[1] == c, 0].astype(np.float64) for c in (0, 1)]
    gap, width = abs(rows[0].mean() - rows[1].mean()), np.mean([row.std() for row in rows])
    expected = scipy.stats.norm.cdf(gap / (2 * width))
    assert vectors.best_accuracy(test=40_000, **chosen) == pytest.approx(expected, abs=0.01)


def test_images_are_turned_and_otherwise_the_same():
    data = images.load("digits")
    plain, turned = (vectors.flattened(data, coherence=nu) for nu in (0.0, 0.5))
    rows = data.train_images.reshape(len(data.train_images), -1) / 255
    np.testing.assert_allclose(plain.train[0], rows - rows.mean(0), atol=1e-6)
    np.testing.assert_array_equal(plain.test[1], data.test_labels)
    x, y = plain.train[0].astype(np.float64), turned.train[0].astype(np.float64)
    np.testing.assert_allclose(x[:50] @ x[:50].T, y[:50] @ y[:50].T, atol=1e-4)
    assert coherence(subspace_basis(y).vectors) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dimension": 20, "ambient": 10}, "^dimension=20, ambient=10"),
        ({"classes": 1}, "classes=1"),
        ({"dimension": 8, "ambient": 16, "coherence": 0.1}, r"^target=0\.1 must lie in"),
    ],
)
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        vectors.gaussian_classes(train=20, test=10, **wrong)
