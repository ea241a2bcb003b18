"""Random augmentation of image batches inside the jitted step."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, Shaped


def random_crop_flip(
    images: Shaped[Array, "batch height width channel"],
    *,
    key: Key[Array, ""],
    padding: int = 4,
    flip: bool = True,
    reflect: bool = False,
    mirror: Bool[Array, "batch"] | None = None,
) -> Shaped[Array, "batch height width channel"]:
    """Random crops of zero-padded images, and random left-right flips.

    For each image independently: pad by `padding` on all sides, crop to the original size at an offset uniform on
    {0, .., 2 padding}^2, and mirror left to right with probability 1/2. This is the usual training augmentation for
    CIFAR (He et al., arXiv 1512.03385, section 4.2). Apply it to stored pixels, where zero is black.

    Args:
      images: [batch, height, width, channel], any dtype.
      key: random key of this step.
      padding: pixels on each side; 0 = no crop.
      flip: whether to mirror images.
      reflect: pad by the image's own pixels, mirrored at its border, which is not repeated; else by zeros.
      mirror: which images to mirror; None = by chance.

    Returns:
      An array of the same shape and dtype; the input itself for `padding=0, flip=False`.

    Raises:
      ValueError: a negative padding, one of an image's size or more with `reflect`, or an array that is not a batch
        of images.

    >>> import jax, jax.numpy as jnp
    >>> images = jnp.ones((2, 8, 8, 3), jnp.uint8)
    >>> random_crop_flip(images, key=jax.random.key(0), padding=2).shape
    (2, 8, 8, 3)
    """
    if padding < 0:
        raise ValueError(f"padding = {padding}: the number of pixels must be 0 or more.")
    if images.ndim != 4:
        raise ValueError(f"images has shape {images.shape}: expected [batch, height, width, channel].")
    if reflect and padding >= min(images.shape[1:3]):
        raise ValueError(f"padding = {padding}: images of {images.shape[1:3]} cannot be reflected so far; lower it")
    if padding == 0 and not flip:
        return images
    batch, height, width, _ = images.shape
    crop_key, flip_key = jax.random.split(key)
    shift = jax.random.randint(crop_key, (batch, 2), -padding, padding + 1)
    mirror = jax.random.bernoulli(flip_key, shape=(batch, 1)) if mirror is None else mirror[:, None]
    mirror = mirror & flip
    rows = shift[:, :1] + jnp.arange(height)[None]
    columns = jnp.arange(width)[None]
    columns = shift[:, 1:] + jnp.where(mirror, width - 1 - columns, columns)
    if reflect:
        rows, columns = _reflected(rows, height), _reflected(columns, width)
    inside = _inside(rows, height)[:, :, None] & _inside(columns, width)[:, None, :]
    # One gather with clipped indices, and a mask: 0.2 ms for 128 x 32 x 32 x 3 on two CPU cores, and about as fast
    # inside scan (0.3 ms) and vmap. A vmapped dynamic_slice of the padded batch takes 0.25 ms, but 4 ms inside scan.
    cropped = images[
        jnp.arange(batch)[:, None, None],
        jnp.clip(rows, 0, height - 1)[:, :, None],
        jnp.clip(columns, 0, width - 1)[:, None, :],
    ]
    return jnp.where(inside[..., None], cropped, jnp.zeros((), images.dtype))


def alternate(
    indices: Int[Array, "batch"], step: Int[Array, ""] | int, *, key: Key[Array, ""], epoch_steps: int
) -> Bool[Array, "batch"]:
    """Which examples to mirror, so that each is seen from the other side in the next epoch.

    By chance in the first epoch; from then on an example has its other side in every other epoch. Keller Jordan, arXiv
    2404.00498, section 3.6.

    Args:
      indices: of the examples in the set, non-negative.
      step: global step, counted from 0.
      key: of the replica, the same for all steps.
      epoch_steps: steps of an epoch.

    >>> sides = [alternate(jnp.arange(4), step, key=jax.random.key(0), epoch_steps=3) for step in (0, 2, 3)]
    >>> bool((sides[0] == sides[1]).all()), bool((sides[0] == sides[2]).any())
    (True, False)
    """
    coins = jax.vmap(lambda index: jax.random.bernoulli(jax.random.fold_in(key, index)))(indices)
    return coins ^ (jnp.asarray(step) // epoch_steps % 2 == 1)


def _reflected(index, size):
    return (size - 1) - jnp.abs((size - 1) - jnp.abs(index))


def _inside(index, size):
    return (index >= 0) & (index < size)
