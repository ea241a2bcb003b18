"""What all image files share: Pillow where it is needed, one rule of resizing, decoding in threads with progress."""

import importlib
import importlib.util
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import UInt8

logger = logging.getLogger(__name__)

_CHUNK = 256
# Mean bytes of a stored image from which decoding in threads is faster: 32 x 32 JPEG (1.4 kB) 10,600 images a
# second with one thread and 9,000 with two, 64 x 64 (2.5 kB) 8,100 and 9,100, 500 x 375 (34 kB) 700 and 830,
# with four 940 (two busy x86-64 cores).
_THREADS_FROM_BYTES = 2048
_LOG_EVERY_SECONDS = 5.0


def import_pillow(*, what: str):
    """The module `PIL.Image`.

    Raises:
        ImportError: it is not installed; `what` begins the sentence.
    """
    if importlib.util.find_spec("PIL") is None:
        raise ImportError(f"{what} with Pillow, which is not installed: pip install 'sbjax[images]'")
    return importlib.import_module("PIL.Image")


def fit(image, size: int):
    """A Pillow image -> size x size: shorter side resized bilinearly (antialiased), then a centre crop."""
    from PIL import Image, ImageOps

    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)


def check_memory(count: int, shape: Sequence[int]) -> None:
    """Refuse images that do not fit, before they are decoded.

    Raises:
        ValueError: naming their size and what there is.
    """
    from sbjax.common import devices  # JAX, which reading images does not need

    needed, there = count * math.prod(shape), devices.memory()
    if needed > there:
        raise ValueError(
            f"image_size={shape[0]}: {count} images of this size take {devices.in_words(needed)} of memory, and "
            f"there are {devices.in_words(there)}; lower it"
        )


def resize(images: UInt8[np.ndarray, "n h w c"], size: int) -> UInt8[np.ndarray, "n size size c"]:
    """All images at size x size, as `image_size` has it in `sbjax.data.load`; any number of channels, each by itself.

    Raises:
        ImportError: without Pillow.

    >>> resize(np.full((2, 9, 6, 5), 7, np.uint8), 4).shape
    (2, 4, 4, 5)
    """
    pillow = import_pillow(what="Images are resized")
    if images.shape[1:3] == (size, size):
        return images
    check_memory(len(images), (size, size, images.shape[-1]))
    resized = np.empty((len(images), size, size, images.shape[-1]), np.uint8)
    for image, result in zip(images, resized):
        for channel in range(images.shape[-1]):
            plane = pillow.fromarray(np.ascontiguousarray(image[..., channel]))
            result[..., channel] = np.asarray(fit(plane, size))
    return resized


def in_chunks(fill: Callable[[range], None], total: int, *, bytes_each: float, what: str) -> None:
    """Call `fill` on pieces of range(total), in threads where the stored images are large; progress is logged."""
    progress = _Progress(total, what)

    def run(start):
        indices = range(start, min(start + _CHUNK, total))
        fill(indices)
        progress.add(len(indices))

    with ThreadPoolExecutor(os.cpu_count() if bytes_each >= _THREADS_FROM_BYTES else 1) as executor:
        # The list makes an exception of a worker come up here.
        list(executor.map(run, range(0, total, _CHUNK)))


class _Progress:
    """Logs how far the decoding is and how long it will take, every few seconds."""

    def __init__(self, total: int, what: str):
        self.total, self.what, self.done = total, what, 0
        self.start = self.last = time.monotonic()
        self.lock = threading.Lock()

    def add(self, count: int) -> None:
        with self.lock:
            self.done += count
            now = time.monotonic()
            if now - self.last < _LOG_EVERY_SECONDS:
                return
            self.last = now
            left = (now - self.start) * (self.total - self.done) / self.done
            logger.info("%s: %d of %d images decoded, %.0f s left", self.what, self.done, self.total, left)
