"""Image classification data in memory: loading, random-access shuffling, augmentation."""

from sbjax.data.augment import random_crop_flip
from sbjax.data.images import ImageData, load, names
from sbjax.data.shuffle import epoch_indices

__all__ = ["ImageData", "epoch_indices", "load", "names", "random_crop_flip"]
