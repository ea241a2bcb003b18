"""Labelled vectors on a subspace: Gaussian classes of a chosen dimension, or images, turned to a chosen coherence."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from sbjax.asymmetry import draws
from sbjax.data.images import ImageData
from sbjax.symmetry.identifiability import subspace_basis, targeted_rotation

VARIANCE = 0.9
"""Share of the variance that the subspace of images holds, as in arXiv 2606.04754."""


class VectorData(NamedTuple):
    """Labelled vectors in three splits.

    Attributes:
        name: what they are.
        classes: number of labels.
        train, validation, test: [n, d] and labels [n] of each.
    """

    name: str
    classes: int
    train: tuple[Float32[np.ndarray, "n d"], Int32[np.ndarray, " n"]]
    validation: tuple[Float32[np.ndarray, "n d"], Int32[np.ndarray, " n"]]
    test: tuple[Float32[np.ndarray, "n d"], Int32[np.ndarray, " n"]]


def gaussian_classes(
    *,
    dimension: int = 8,
    ambient: int = 512,
    classes: int = 20,
    separation: float = 0.3,
    train: int = 50_000,
    test: int = 10_000,
    coherence: float = 0.0,
    seed: int = 0,
) -> VectorData:
    """Gaussian classes in a subspace of k = `dimension` of d = `ambient` dimensions, of which networks see all d.

    x = P (separation m_c + R_c diag(s) e): standard normal means m_c, widths s and noise e, a random rotation R_c for
    each class, and orthonormal columns P. Validation examples, a tenth as many as for training, are drawn besides.

    Args:
        dimension: k.
        ambient: d >= k.
        classes: number of classes.
        separation: of class means; a small one is a hard problem.
        train, test: examples.
        coherence: of P, in [k / d, 1], by `targeted_rotation`; 0 leaves it as it is drawn, near (k + 2 log d) / d.
        seed: of everything.

    Raises:
        ValueError: a number out of its range.

    >>> data = gaussian_classes(dimension=2, ambient=16, classes=3, train=100, test=20)
    >>> data.train[0].shape, len(data.validation[1]), int(np.linalg.matrix_rank(data.test[0], tol=1e-4))
    ((100, 16), 10, 2)

    Source: arXiv 2606.04754, its synthetic subspace data.
    """
    if not 1 <= dimension <= ambient or classes < 2 or min(train, test) < 10 or not separation >= 0:
        raise ValueError(
            f"dimension={dimension}, ambient={ambient}, classes={classes}, train={train}, test={test}, separation="
            f"{separation}: need 1 <= dimension <= ambient, classes >= 2, 10 examples and separation >= 0"
        )
    random = draws.generator(seed, "subspace/structure")
    means, widths, turns = _structure(random, dimension, classes, separation)
    frame = np.linalg.qr(random.standard_normal((ambient, dimension)))[0]
    if coherence:
        frame = targeted_rotation(frame, coherence) @ frame

    def split(name, count):
        latent, labels = _drawn(draws.generator(seed, f"subspace/{name}"), count, means, widths, turns)
        return (latent @ frame.T).astype(np.float32), labels.astype(np.int32)

    counts = {"train": train, "validation": max(train // 10, 1), "test": test}
    parts = {name: split(name, count) for name, count in counts.items()}
    return VectorData(f"Gaussian classes, {dimension} of {ambient} dimensions", classes, **parts)


def best_accuracy(
    *, dimension: int = 8, classes: int = 20, separation: float = 0.3, test: int = 10_000, seed: int = 0
) -> float:
    """Accuracy on the test examples of `gaussian_classes` of who knows the law of every class: no network is better.

    The class of the largest density, argmin_c |diag(s)^-1 R_c^T (P^T x - separation m_c)|, as all are as wide.

    Args:
        dimension, classes, separation, test, seed: as of `gaussian_classes`; the others do not matter.

    >>> [round(best_accuracy(dimension=k, test=2000), 3) for k in (2, 8, 32)]
    [0.107, 0.922, 1.0]
    """
    means, widths, turns = _structure(draws.generator(seed, "subspace/structure"), dimension, classes, separation)
    latent, labels = _drawn(draws.generator(seed, "subspace/test"), test, means, widths, turns)
    far = [(((latent - mean) @ turn / widths) ** 2).sum(1) for mean, turn in zip(means, turns)]
    return float((np.argmin(far, axis=0) == labels).mean())


def _structure(random, dimension, classes, separation):
    """Means, widths and rotations of Gaussian classes."""
    means = separation * random.standard_normal((classes, dimension))
    widths = random.standard_normal(dimension)
    return means, widths, np.linalg.qr(random.standard_normal((classes, dimension, dimension)))[0]


def _drawn(random, count, means, widths, turns):
    """Examples in the subspace, [count, k], and their labels."""
    labels = random.integers(len(means), size=count)
    noise = random.standard_normal((count, len(widths))) * widths
    return means[labels] + np.einsum("nd,nkd->nk", noise, turns[labels]), labels


def flattened(data: ImageData, *, coherence: float = 0.0) -> VectorData:
    """Images as centred vectors in [-1, 1], turned so that 90 % of their variance has a coherence.

    Args:
        data: images, uint8.
        coherence: in [k / d, 1], with k the principal directions that hold the share; 0 does not turn them.

    Raises:
        ValueError: a coherence out of its range.
    """
    mean = data.train_images.reshape(len(data.train_images), -1).mean(0) / 255

    def rows(images):
        return images.reshape(len(images), -1) / 255 - mean

    turn = np.eye(len(mean))
    if coherence:
        turn = targeted_rotation(subspace_basis(rows(data.train_images), variance=VARIANCE).vectors, coherence)

    def split(name):
        images, labels = (getattr(data, f"{name}_{what}") for what in ("images", "labels"))
        return (rows(images) @ turn.T).astype(np.float32), np.asarray(labels, np.int32)

    return VectorData(data.name, data.classes, *(split(name) for name in ("train", "validation", "test")))
