"""Digits that are flipped left and right at random: a small convolutional network with and without that symmetry.

3x3 convolution, relu, mean of 2x2, 3x3 convolution, relu, mean over the image, logits. Both means commute with flips,
so that kernels which are their own mirror images make the logits invariant ('tied').
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from sbjax import trees
from sbjax.data import images as image_sets
from sbjax.experiments.exact.training import train
from sbjax.symmetry import involution as symmetry

FLIP = symmetry.flip(-2)
CLASSES = 10


class Found(NamedTuple):
    """Test errors and violations [seed], and the parameters of one network."""

    errors: Float[np.ndarray, "seed"]
    violations: Float[np.ndarray, "seed"]
    parameters: int


def run(
    keys: Key[Array, "seed"],
    *,
    method: str,
    images: int,
    channels: int,
    steps: int,
    rate: float,
    penalty: float,
    stop: Callable[[], bool],
) -> Found | None:
    """Train a network a seed on `images` digits of its own; None if `stop()` was true.

    Args:
        keys: one a seed.
        method: 'plain', 'augmented' (every image both ways), 'penalty', 'projector' or 'tied'.
        images: for training, at most as many as there are.
        channels: of the first convolution; the second has twice as many.
        steps: of Adam on all of them.
        rate: at the start.
        penalty: factor of the squared change of logits under flips.
        stop: looked at between chunks of steps.
    """
    data = image_sets.load("digits")
    x, y = (jnp.asarray(part) for part in (data.train_images, data.train_labels))
    picked = jax.vmap(lambda key: _draw(key, _scaled(x), y, min(images, len(y))))(keys)
    if method == "augmented":
        picked = jax.vmap(lambda x, y: (jnp.concatenate([x, FLIP(x)]), jnp.concatenate([y, y])))(*picked)

    def loss(params, data, _):
        x, y = data
        found = logits(params, x, method)
        error = optax.softmax_cross_entropy_with_integer_labels(found, y).mean()
        if method == "penalty":
            error += penalty * jnp.mean((logits(params, FLIP(x), method) - found) ** 2)
        return error

    params = jax.vmap(lambda key: init(key, channels))(keys)
    params = train(loss, params, picked, keys, steps=steps, rate=rate, stop=stop)
    if params is None:
        return None
    tested = _scaled(jnp.asarray(data.test_images))
    both = jnp.concatenate([tested, FLIP(tested)])
    labels = jnp.concatenate([jnp.asarray(data.test_labels)] * 2)

    @jax.jit
    def measures(params):
        found = logits(params, both, method)
        there, back = jnp.split(found, 2)
        change = jnp.sqrt(jnp.mean((back - there) ** 2) / jnp.mean(found**2))
        return jnp.mean(found.argmax(-1) != labels), change

    errors, violations = (np.asarray(part, float) for part in jax.lax.map(measures, params))
    return Found(errors, violations, trees.size(jax.tree.map(lambda leaf: leaf[0], params)))


def init(key: Key[Array, ""], channels: int) -> dict[str, dict[str, Array]]:
    """He's normal kernels and zero biases.

    >>> [layer['kernel'].shape for layer in init(jax.random.key(0), 4).values()]
    [(3, 3, 1, 4), (3, 3, 4, 8), (8, 10)]
    """
    shapes = {"first": (3, 3, 1, channels), "second": (3, 3, channels, 2 * channels), "logits": (2 * channels, CLASSES)}
    keys = jax.random.split(key, len(shapes))
    return {
        name: {
            "kernel": jax.random.normal(one, shape) * np.sqrt(2 / np.prod(shape[:-1])).astype(np.float32),
            "bias": jnp.zeros(shape[-1]),
        }
        for one, (name, shape) in zip(keys, shapes.items())
    }


def logits(params: dict, x: Float[Array, "n h w 1"], method: str) -> Float[Array, "n class"]:
    """The network, with mirrored kernels ('tied'), as the mean over both ways ('projector'), or as it is."""
    if method == "projector":
        return symmetry.projected(lambda x: logits(params, x, "plain"), FLIP, 1)(x)
    for name in ("first", "second"):
        kernel = params[name]["kernel"]
        kernel = symmetry.flipped_kernel(kernel, 1) if method == "tied" else kernel
        x = jax.nn.relu(convolved(x, kernel) + params[name]["bias"])
        if name == "first":
            n, h, w, c = x.shape
            x = x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))
    return x.mean((1, 2)) @ params["logits"]["kernel"] + params["logits"]["bias"]


def convolved(x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "n h w o"]:
    """Convolution with zeros around, as one product: fast in loops and for many kernels, where XLA's is not on CPUs."""
    _, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return jnp.concatenate(parts, -1) @ kernel.reshape(9 * c, -1)


def _scaled(x):
    return x.astype(jnp.float32) / 128 - 1


def _draw(key, x, y, number):
    chosen, turned = jax.random.split(key)
    rows = jax.random.choice(chosen, len(y), (number,), replace=False)
    flips = jax.random.bernoulli(turned, shape=(number, 1, 1, 1))
    return jnp.where(flips, FLIP(x[rows]), x[rows]), y[rows]
