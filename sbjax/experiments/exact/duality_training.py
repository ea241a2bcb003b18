"""The training of symmetry by duality: two-layer networks without biases on images, all seeds in one program."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, UInt8

from sbjax import rng

DIRECTIONS = ("common", "outputs", "entries")
CHUNK = 100  # steps in one call, between looks at `stop`


class Splits(NamedTuple):
    """Images [n, pixel] as bytes, and labels."""

    train: UInt8[Array, "train pixel"]
    validation: UInt8[Array, "validation pixel"]
    test: UInt8[Array, "test pixel"]
    train_labels: Int[Array, "train"]
    validation_labels: Int[Array, "validation"]
    test_labels: Int[Array, "test"]


class Design(NamedTuple):
    """What `train` needs.

    Attributes:
        sizes: inputs, hidden units, outputs.
        shifted, mean, direction: see `init`.
        cold: one-cold targets, 0 for the class and 1 for the others.
        rate, decay: of Adam, and its factor after each epoch.
        batch, steps: images a step, steps.
        scale: mean and deviation that are taken off the pixels in [0, 1].
    """

    sizes: tuple[int, int, int]
    shifted: int
    mean: float
    direction: str
    cold: bool
    rate: float
    decay: float
    batch: int
    steps: int
    scale: tuple[float, float]


class Trained(NamedTuple):
    """Accuracies after each epoch [epoch, seed]; loss of the first batch, mean loss of the last epoch [seed]."""

    validation: Float[np.ndarray, "epoch seed"]
    test: Float[np.ndarray, "epoch seed"]
    start_loss: Float[np.ndarray, "seed"]
    loss: Float[np.ndarray, "seed"]


def init(key: Key[Array, ""], design: Design) -> dict[str, Array]:
    """{'hidden': [inputs, n], 'readout': [n, outputs]}, all N(0, 1 / fan in), and the mean in the first readouts.

    Directions of the mean:

    - 'common': `mean` is added to all weights of the first `shifted` outputs;
    - 'outputs': with one sign at random for each of these outputs;
    - 'entries': with a sign at random for each weight: as much is added, in no direction.

    The numbers drawn are the same whatever is added.

    >>> design = Design((4, 8, 3), 2, 10.0, 'common', False, 1e-3, 0.7, 2, 1, (0.0, 1.0))
    >>> (init(jax.random.key(0), design)['readout'].mean(0) > 5).tolist()
    [True, True, False]
    """
    first, second, third = jax.random.split(key, 3)
    d, n, o = design.sizes
    hidden = jax.random.normal(first, (d, n)) / np.sqrt(d)
    readout = jax.random.normal(second, (n, o)) / np.sqrt(n)
    shape = {"common": (0, 0), "outputs": (1, o), "entries": (n, o)}[design.direction]
    signs = jax.random.rademacher(third, shape, readout.dtype) if any(shape) else jnp.ones((1, o))
    return {
        "hidden": hidden,
        "readout": readout + jnp.where(jnp.arange(o) < design.shifted, design.mean, 0) * signs,
    }


def outputs(params: dict[str, Array], x: Float[Array, "n d"]) -> Float[Array, "n o"]:
    """relu(x W) A."""
    return jax.nn.relu(x @ params["hidden"]) @ params["readout"]


def train(
    splits: Splits,
    design: Design,
    *,
    key: Key[Array, ""],
    seeds: int,
    log: Callable[[str], object],
    stop: Callable[[], bool],
) -> Trained | None:
    """Adam on the mean squared error, each seed with its own weights and order of images; None if `stop()` was true.

    The last images of an epoch that fill no batch are left out.
    """
    size = len(splits.train)
    epoch_steps = size // design.batch
    keys = jnp.stack([rng.replica_stream(key, "start", seed) for seed in range(seeds)])
    params = jax.vmap(lambda one: init(one, design))(keys)
    state = jax.vmap(optax.scale_by_adam().init)(params)
    # Traced, so that arms which differ in these only share a program.
    flags = jnp.asarray([design.scale[0], design.scale[1], float(design.cold)])
    orders_of = jnp.stack([rng.replica_stream(key, "order", seed) for seed in range(seeds)])
    found, losses = [], []
    for epoch, first in enumerate(range(0, design.steps, epoch_steps)):
        orders = _orders(orders_of, epoch, size)
        rate = design.rate * design.decay**epoch
        count = min(epoch_steps, design.steps - first)
        for start in range(0, count, CHUNK):
            if stop():
                return None
            number = min(CHUNK, count - start)
            index = orders[:, start * design.batch : (start + number) * design.batch]
            index = jnp.swapaxes(index.reshape(seeds, number, design.batch), 0, 1)
            params, state, seen = _steps(params, state, index, splits.train, splits.train_labels, flags, rate)
            losses.append(np.asarray(seen))
        found.append([
            np.asarray(_accuracy(params, x, y, flags))
            for x, y in ((splits.validation, splits.validation_labels), (splits.test, splits.test_labels))
        ])  # fmt: skip
        log(f"epoch {epoch + 1}: validation accuracy {found[-1][0].mean():.4f}")
    validation, test = np.swapaxes(np.asarray(found, float), 0, 1)
    losses = np.concatenate(losses)
    return Trained(validation, test, losses[0], losses[-epoch_steps:].mean(0))


@functools.partial(jax.jit, static_argnums=2)
def _orders(keys, epoch, size):
    return jax.vmap(lambda key: jax.random.permutation(jax.random.fold_in(key, epoch), size))(keys)


def _scaled(x, flags):
    return (x.astype(jnp.float32) / 255 - flags[0]) / flags[1]


def _targets(y, o, flags):
    hot = jax.nn.one_hot(y, o)
    return jnp.where(flags[2] > 0, 1 - hot, hot)


@jax.jit
def _steps(params, state, index, x, y, flags, rate):
    def loss(params, x, y):
        found = outputs(params, _scaled(x, flags))
        return jnp.mean((found - _targets(y, found.shape[-1], flags)) ** 2)

    def step(carry, rows):
        params, state = carry
        losses, slopes = jax.vmap(jax.value_and_grad(loss))(params, x[rows], y[rows])
        updates, state = jax.vmap(optax.scale_by_adam().update)(slopes, state)
        return (optax.apply_updates(params, jax.tree.map(lambda u: -rate * u, updates)), state), losses

    (params, state), losses = jax.lax.scan(step, (params, state), index)
    return params, state, losses


@jax.jit
def _accuracy(params, x, y, flags):
    def one(params):
        found = outputs(params, _scaled(x, flags))
        return jnp.mean(jnp.where(flags[2] > 0, found.argmin(-1), found.argmax(-1)) == y)

    return jax.vmap(one)(params)
