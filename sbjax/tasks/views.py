"""Predictions averaged over views of an image: itself, its mirror image, and both moved by a pixel."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

VIEWS = ("one", "mirror", "shift")


def check_views(views: str) -> None:
    """Refuses a word that names no views."""
    if views not in VIEWS:
        raise ValueError(f"views={views!r} is unknown; expected one of {', '.join(VIEWS)}")


def over_views(
    logits: Callable[[Array], Float[Array, "batch classes"]], images: UInt8[Array, "batch h w c"], *, views: str
) -> Float[Array, "batch classes"]:
    """Mean logits over views of images.

    'one': the image. 'mirror': and its mirror image. 'shift': half the weight on these two, the other half on both
    moved by a pixel up and left, and down and right, the border repeated by reflection.

    >>> over_views(lambda x: x[:, 0, :, 0].astype(float), jnp.asarray([[[[0], [4]]]]), views="mirror").tolist()
    [[2.0, 2.0]]
    """
    if views == "one":
        return logits(images)

    def both(x):
        return (logits(x) + logits(x[:, :, ::-1])) / 2

    if views == "mirror":
        return both(images)
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    moved = [padded[:, start : start + height, start : start + width] for start in (0, 2)]
    return both(images) / 2 + sum(map(both, moved)) / 4
