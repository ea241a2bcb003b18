"""What is known of the colours of a set before any network: moments of the lightness, mean colours, classes."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from sbjax.data.colour_space import srgb_to_lab
from sbjax.data.images import ImageData

BIN = 10.0
"""Side of a class of colour, in units of a and b."""
LIGHTNESS_BINS = 21
"""Of the mean colour given the lightness: L* rounded to a multiple of 5."""
MOST_IMAGES = 10_000
"""Training images that statistics are taken of, from the front of the split."""
_REACH = 12  # cells to each side of 0 in which sRGB's colours lie


class ColourStatistics(NamedTuple):
    """Of training images.

    Attributes:
        lightness_mean, lightness_std: of L* / 100.
        ab_mean: mean of a and b.
        ab_given_lightness: the same of pixels whose L* rounds to 0, 5, .., 100; where there is none, `ab_mean`.
        shares: of pixels whose class of colour is this one of `classes_of_colour()`.
    """

    lightness_mean: float
    lightness_std: float
    ab_mean: Float[np.ndarray, "2"]
    ab_given_lightness: Float[np.ndarray, "lightness 2"]
    shares: Float[np.ndarray, "classes"]


class ColourData(NamedTuple):
    """Images in colour with their statistics."""

    images: ImageData
    statistics: ColourStatistics


def with_statistics(images: ImageData) -> ColourData:
    """The statistics of a set of images in colour.

    Raises:
        ValueError: images without three channels, or all of one lightness.
    """
    channels = images.train_images.shape[-1]
    if channels != 3:
        word = "channel" if channels == 1 else "channels"
        raise ValueError(f"images of {images.name!r} have {channels} {word}; colourisation needs red, green and blue")
    found = colour_statistics(images.train_images[:MOST_IMAGES])
    if found.lightness_std < 1e-6:
        raise ValueError(f"all pixels of {images.name!r} have one lightness; there is nothing to tell colours by")
    return ColourData(images, found)


def colour_statistics(images: UInt8[np.ndarray, "n h w 3"]) -> ColourStatistics:
    """See `ColourStatistics`.

    >>> red_and_grey = np.array([[[[255, 0, 0], [128, 128, 128]]]], np.uint8)
    >>> colour_statistics(red_and_grey).ab_mean.round(2).tolist()
    [40.05, 33.6]
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not len(images):
        raise ValueError(f"images are {images.dtype}{list(images.shape)}: give one or more as uint8 [n, h, w, 3]")
    classes = len(classes_of_colour())
    count = np.zeros(LIGHTNESS_BINS)
    sums, moments, shares = np.zeros((LIGHTNESS_BINS, 2)), np.zeros(2), np.zeros(classes)
    for start in range(0, len(images), 500):  # bounds the memory
        lab = srgb_to_lab(images[start : start + 500].reshape(-1, 3) / 255)
        lightness, ab = lab[:, 0], lab[:, 1:]
        moments += (lightness / 100).sum(), (lightness**2 / 100**2).sum()
        rows = lightness_bin(lightness)
        count += np.bincount(rows, minlength=LIGHTNESS_BINS)
        sums += np.stack([np.bincount(rows, ab[:, i], LIGHTNESS_BINS) for i in range(2)], axis=1)
        shares += np.bincount(_class_of(ab), minlength=classes)
    total = count.sum()
    mean, square = moments / total
    ab_mean = sums.sum(0) / total
    given = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], ab_mean)
    return ColourStatistics(float(mean), float(max(square - mean**2, 0.0) ** 0.5), ab_mean, given, shares / total)


def lightness_bin(lightness: Float[np.ndarray, "*batch"]) -> Int[np.ndarray, "*batch"]:
    """Rows of `ColourStatistics.ab_given_lightness`.

    >>> lightness_bin(np.array([0.0, 52.4, 100.0])).tolist()
    [0, 10, 20]
    """
    step = 100 / (LIGHTNESS_BINS - 1)
    return np.clip(np.round(lightness / step), 0, LIGHTNESS_BINS - 1).astype(np.int32)


@functools.cache
def classes_of_colour() -> Float[np.ndarray, "classes 2"]:
    """Centres of all squares of side `BIN` in a and b that hold a colour of sRGB: as many of a
    grid of 97^3 as of all colours of 8 bits.

    Zhang, Isola and Efros (arXiv 1603.08511) have squares of this size too, and count 313 as in gamut.

    >>> classes_of_colour().shape
    (261, 2)
    """
    side = np.linspace(0, 1, 97)
    grid = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1).reshape(-1, 3)
    cells = np.unique(np.round(srgb_to_lab(grid)[:, 1:] / BIN), axis=0)
    return BIN * (cells + 0.0)  # without -0


def _class_of(ab: Float[np.ndarray, "n 2"]) -> Int[np.ndarray, "n"]:
    """The class of colour of each pixel: that of its square, or of the nearest one where sRGB was not met in it."""
    rows = np.clip(np.round(ab / BIN).astype(int) + _REACH, 0, 2 * _REACH)
    return _table()[rows[:, 0], rows[:, 1]]


@functools.cache
def _table() -> Int[np.ndarray, "a b"]:
    side = BIN * np.arange(-_REACH, _REACH + 1)
    cells = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1)
    return ((cells[:, :, None] - classes_of_colour()) ** 2).sum(-1).argmin(-1)
