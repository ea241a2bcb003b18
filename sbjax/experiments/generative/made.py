"""Small perceptrons along their trainings: what a generative model of networks learns from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sbjax import trees
from sbjax.data import images
from sbjax.metanets import make_reading, split_vector, vector
from sbjax.models import make_model
from sbjax.symmetry import derive_spec
from sbjax.tasks.generative import Checkpoints

BATCH = 64


@functools.lru_cache(maxsize=4)
def make_checkpoints(
    *, runs: int, checkpoints: int, steps: int = 400, width: int = 16, features: int = 8, seed: int = 0
) -> Checkpoints:
    """Perceptrons `features`-`width`-10 on principal components of the embedded digits, saved while they learn.

    Each run has its own start, batches and learning rate of Adam, 0.01 * 10^-U(0, 1). Checkpoints lie at equal
    distances in the logarithm of the step, from 1 to `steps`; losses are the cross-entropy on the test images.

    Args:
        runs: trainings.
        checkpoints: of each.
        steps: of each.
        width: hidden units.
        features: principal components.
        seed: of everything.

    Raises:
        ValueError: more checkpoints than steps.
    """
    if checkpoints > steps:
        raise ValueError(f"checkpoints={checkpoints} must be <= steps={steps}, of which each gives one at most")
    data, key = images.load("digits"), jax.random.key(seed)
    train, test = (x.reshape(len(x), -1).astype(np.float64) for x in (data.train_images, data.test_images))
    mean = train.mean(0)
    axes = np.linalg.svd(train - mean, full_matrices=False)[2][:features].T
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(features)])  # which LAPACK leaves open
    scale = ((train - mean) @ axes).std(0)
    x, x_test = (jnp.asarray((part - mean) @ axes / scale, jnp.float32) for part in (train, test))
    labels, answers = jnp.asarray(data.train_labels), jnp.asarray(data.test_labels)
    module = make_model("mlp", classes=10, widths=(width,), norm="none")
    adam = optax.scale_by_adam()
    saved = np.unique(np.round(np.geomspace(1, steps, checkpoints)).astype(int))
    while len(saved) < checkpoints:  # early steps that fall together
        saved = np.union1d(saved, [next(step for step in range(1, steps) if step not in saved)])

    def cross(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(module.apply({"params": params}, x), y).mean()

    def trained(key):
        rate = 0.01 * 10.0 ** -jax.random.uniform(jax.random.fold_in(key, 0), dtype=jnp.float32)
        params = module.init(jax.random.fold_in(key, 1), x[:1])["params"]
        drawn = jax.random.fold_in(key, 2)

        def step(carry, number):
            params, state = carry
            rows = jax.random.randint(jax.random.fold_in(drawn, number), (BATCH,), 0, len(labels))
            updates, state = adam.update(jax.grad(cross)(params, x[rows], labels[rows]), state)
            params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
            return (params, state), vector({"params": params})

        entries = jax.lax.scan(step, (params, adam.init(params)), jnp.arange(steps))[1][saved - 1]
        return entries, jax.lax.map(loss_of, entries)

    variables = module.init(jax.random.key(0), x[:1])
    spec = derive_spec(lambda v, x: module.apply(v, x), variables, x[:1], verify=False)
    reading = make_reading(spec, variables)

    def loss_of(entries):
        return cross(trees.nest(split_vector(reading.layout, entries))["params"], x_test, answers)

    entries, loss = jax.jit(lambda keys: jax.lax.map(trained, keys))(jax.random.split(key, runs))
    return Checkpoints(reading, np.asarray(entries), np.asarray(loss), loss_of)
