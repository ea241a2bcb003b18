"""The program that trains networks of a zoo: all of one activation and one optimiser, each with its own numbers.

On a CPU networks run one after another *inside* the program (`lax.map`): the arrays of one stay in cache, no
convolution is grouped, and one whose epochs are over costs nothing. On accelerators they run side by side (`vmap`).
What comes out for a network does not depend on which others are beside it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree

from sbjax import rng
from sbjax.data.images import ImageData
from sbjax.data.shuffle import epoch_indices

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": optax.scale_by_adam,
    "sgd": lambda: optax.trace(0.9),
    "rmsprop": optax.scale_by_rms,
}
"""Directions; learning rate and decoupled decay are each network's own."""

SPLITS = ("train", "test")


class Data(NamedTuple):
    """Standardised images [n, h, w, c] in float32, and labels."""

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array


class Trained(NamedTuple):
    """Networks, stacked along the first axis."""

    params: PyTree
    batch_stats: PyTree
    accuracy: Float[Array, "n epoch"]
    loss: Float[Array, "n epoch"]


def standardised(data: ImageData, *, grey: bool = False, test_examples: int = 0) -> Data:
    """The training split, and the test split or its first examples, with mean 0 and deviation 1 in training.

    Args:
        grey: the mean of the channels instead of each.
        test_examples: at most so many; 0 = all.
    """

    def pixels(images):
        images = np.asarray(images, np.float32) / 255
        return images.mean(-1, keepdims=True) if grey else images

    train, some = pixels(data.train_images), slice(test_examples or None)
    mean, std = train.mean((0, 1, 2), dtype=np.float64), train.std((0, 1, 2), dtype=np.float64)
    std = np.where(std > 0, std, 1)

    def made(images):
        return jnp.asarray((pixels(images) - mean) / std, jnp.float32)

    labels = (jnp.asarray(data.train_labels, jnp.int32), jnp.asarray(data.test_labels[some], jnp.int32))
    return Data(made(data.train_images), labels[0], made(data.test_images[some]), labels[1])


def make_program(
    module: Any,
    optimizer: str,
    *,
    key: Key[Array, ""],
    epochs: int,
    batch_size: int,
    peak_epochs: float,
    side_by_side: bool | None = None,
) -> Callable[[Data, Int[Array, "n"], Mapping[str, Array]], Trained]:
    """A compiled function `(data, numbers of networks, hyper-parameters) -> Trained`.

    The learning rate rises linearly over `peak_epochs` and falls linearly to 0 at the network's last step; with 0 it
    stays. The loss is the cross-entropy with smoothed labels; the decay acts on arrays of two axes or more.

    Args:
        module: network with `init` and `apply` of a Linen module, called with `train=`.
        optimizer: of `OPTIMIZERS`.
        key: of the zoo; a network folds its own number into it.
        epochs: the most that any network is trained for.
        batch_size: examples in a step; the last ones of an epoch that fill no batch are dropped.
        peak_epochs: epochs to the largest learning rate, see above.
        side_by_side: `vmap` and not `lax.map`; None = on accelerators.
    """
    side_by_side = jax.default_backend() != "cpu" if side_by_side is None else side_by_side
    direction = OPTIMIZERS[optimizer]()

    def train(data: Data, net: Array, hyper: Mapping[str, Array]) -> Trained:
        examples = len(data.train_labels)
        steps = examples // batch_size
        keys = {name: rng.replica_stream(key, name, net) for name in ("init", "data", "dropout")}
        frozen, params, stats = start(module, keys["init"], data.train_images[:1])
        params = jax.tree.map(lambda leaf: leaf * hyper["init_scale"] if leaf.ndim >= 2 else leaf, params)
        last = hyper["epochs"] * steps

        def loss(params, stats, images, labels, key):
            variables = {"params": params, "batch_stats": stats, **frozen}
            with nn.intercept_methods(dropout_of(hyper["dropout"])):
                logits, updated = module.apply(
                    variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
                )
            smoothed = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), hyper["label_smoothing"])
            return optax.softmax_cross_entropy(logits, smoothed).mean(), updated.get("batch_stats", {})

        def step(i, carry):
            params, stats, state = carry
            rows = epoch_indices(keys["data"], i, examples=examples, batch_size=batch_size)
            images, labels = data.train_images[rows], data.train_labels[rows]
            gradient, stats = jax.grad(loss, has_aux=True)(params, stats, images, labels,
                                                          rng.step_key(keys["dropout"], i))  # fmt: skip
            updates, state = direction.update(gradient, state, params)
            rate = hyper["learning_rate"] * triangle(i, last, peak_epochs * steps)

            def moved(leaf, update):
                decay = hyper["weight_decay"] if leaf.ndim >= 2 else 0.0
                return leaf - rate * (update + decay * leaf)

            return jax.tree.map(moved, params, updates), stats, state

        def epoch(carry, number):
            def run(carry):
                trained = lax.fori_loop(number * steps, (number + 1) * steps, step, carry[:3])
                return (*trained, *evaluate(module, {"params": trained[0], "batch_stats": trained[1], **frozen}, data))

            carry = lax.cond(number < hyper["epochs"], run, lambda carry: carry, carry)
            return carry, carry[3:]

        none = jnp.zeros((), jnp.float32)
        carry = (params, stats, direction.init(params), none, none)
        (params, stats, *_), (accuracy, losses) = lax.scan(epoch, carry, jnp.arange(epochs))
        return Trained(params, stats, accuracy, losses)

    def every(data, nets, hyper):
        if side_by_side:
            return jax.vmap(lambda net, own: train(data, net, own))(nets, hyper)
        return lax.map(lambda one: train(data, *one), (nets, hyper))

    return jax.jit(every)


def start(module: Any, key: Key[Array, ""], image: Array) -> tuple[dict[str, PyTree], PyTree, PyTree]:
    """Constants {'frozen': ..} or {}, parameters and batch statistics of a network at its start."""
    variables = module.init(key, image, train=False)
    frozen = {"frozen": variables["frozen"]} if "frozen" in variables else {}
    return frozen, variables["params"], variables.get("batch_stats", {})


def evaluate(module: Any, variables: PyTree, data: Data) -> tuple[Array, Array]:
    """Accuracy and mean cross-entropy on the test images."""
    logits = module.apply(variables, data.test_images, train=False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, data.test_labels)
    return (logits.argmax(-1) == data.test_labels).mean(), losses.mean()


def triangle(step: Array, last: Array, peak: float) -> Array:
    """Factor of the learning rate: from 1/peak up to 1 at step peak - 1, then down to 1/(last - peak) at last - 1; 1 if
    peak is 0. A training shorter than twice the peak has it in its middle.

    >>> [round(float(triangle(i, 6, 2)), 2) for i in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if peak == 0:
        return jnp.ones(())
    top = jnp.minimum(peak, last / 2)
    return jnp.minimum((step + 1) / top, (last - step) / jnp.maximum(last - top, 1))


def dropout_of(rate: Array) -> Callable[..., Any]:
    """An interceptor of Linen methods that gives every dropout layer this rate, which may be traced.

    (A Linen layer asks whether its rate is 0, which a traced number does not tell.)
    """

    def intercept(call, args, kwargs, context):
        if not isinstance(context.module, nn.Dropout) or context.method_name != "__call__":
            return call(*args, **kwargs)
        x, kept = args[0], 1 - rate
        mask = jax.random.bernoulli(context.module.make_rng("dropout"), kept, x.shape)
        return jnp.where(mask, x / kept, 0)

    return intercept
