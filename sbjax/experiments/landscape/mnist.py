"""Loss, gradient and Adam's update against the width of a network that fits images in full batches.

As in figure 8 of Simsek et al., arXiv 2105.12221 (settings from their published code): the 10,000 *test* images of
MNIST are the one full batch, so that every loss here is a training loss; networks 784-m-10 with softplus units and
biases, uniform initial weights of Glorot and zero biases, cross-entropy, 500 steps of Adam at 1e-3.

Pixels that are 0 in every image are left out. That is exact: their weights have no gradient and stay where they are,
and nothing else sees them; initial weights are drawn as if they were there.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from sbjax import rng
from sbjax.common.options import option
from sbjax.experiments.landscape.arm_results import ArmResult
from sbjax.experiments.landscape.experiment import LandscapeExperiment, load_images
from sbjax.frame.errors import ConfigError
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.training.timeline import boundaries


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    experiment: str = option("mnist", "which experiment on the loss landscape")
    dataset: str = option("mnist", "images, of which the test split is the batch")
    data_dir: str = option("", "where TFDS has its data; '' = $TFDS_DATA_DIR or ~/tensorflow_datasets", free=True)
    cache_dir: str = option("", "decoded images; '' = $SBJAX_CACHE or ~/.cache/sbjax", free=True)
    width: int = option(10, "hidden units", least=1, most=10**4)
    share: float = option(1.0, "of the test images, the first ones", above=0, most=1)
    runs: int = option(0, "where a width is to have fewer than `replicas`; 0 = as many", least=0, most=10**6)
    learning_rate: float = option(1e-3, "of Adam", above=0)


SMOKE: dict[str, Any] = {"dataset": "digits"}
PRIMARY = "train/loss"
# Hidden units that one matrix product computes, of several runs where one has fewer.
COLUMNS = 256

Params = dict[str, Float[Array, "..."]]
"""Runs side by side: 'w1' [pixel, run, m], 'b1' [run, m], 'w2' [run, m, class], 'b2' [run, class]."""


def check(plan: Plan, arm: ArmPlan) -> None:
    """Refuse more runs than there are replicas, and images that are not there."""
    if arm.task.runs > plan.replicas:
        raise ConfigError(
            f"task.runs={arm.task.runs} must lie between 0 (as many as replicas) and replicas={plan.replicas}"
        )
    load_images(arm.task.dataset, arm.task.data_dir, arm.task.cache_dir)


def init_runs(
    key: Key[Array, ""], runs: range, sizes: tuple[int, int, int], kept: Int[np.ndarray, "pixel"] | None = None
) -> Params:
    """Networks of sizes (inputs, m, classes): weights uniform on +-sqrt(6 / (fan in + fan out)), zero biases.

    Args:
        key: shared by all runs; a run's weights depend on its number only.
        runs: their numbers.
        sizes: with all inputs.
        kept: inputs whose weights are returned; None = all.

    >>> params = init_runs(jax.random.key(0), range(2, 4), (6, 3, 5))
    >>> {name: params[name].shape for name in ('w1', 'b1', 'w2', 'b2')}
    {'w1': (6, 2, 3), 'b1': (2, 3), 'w2': (2, 3, 5), 'b2': (2, 5)}
    """
    params = _init(key, jnp.asarray(runs), sizes)
    return params if kept is None else {**params, "w1": jnp.asarray(np.asarray(params["w1"])[kept])}


def run_losses(
    params: Params, x: Float[Array, "n pixel"], y: Int[Array, "n"]
) -> tuple[Float[Array, "run"], Float[Array, "run"]]:
    """Mean cross-entropy and accuracy of every run on the whole batch.

    >>> params = init_runs(jax.random.key(0), range(1), (2, 3, 4))
    >>> loss, accuracy = run_losses(jax.tree.map(jnp.zeros_like, params), jnp.ones((1, 2)), jnp.zeros(1, int))
    >>> round(float(loss[0]) - math.log(4), 6), float(accuracy[0])
    (0.0, 1.0)
    """
    inputs, runs, m = params["w1"].shape
    # One product for all runs.
    z = (x @ params["w1"].reshape(inputs, runs * m)).reshape(len(x), runs, m)
    h = jax.nn.softplus(z + params["b1"])
    logits = jnp.einsum("nrm,rmc->nrc", h, params["w2"]) + params["b2"]
    targets = jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype)
    losses = optax.softmax_cross_entropy(logits, targets[:, None]).mean(0)
    return losses, jnp.mean(logits.argmax(-1) == y[:, None], axis=0)


def squares(tree: Params) -> Float[Array, "run"]:
    """Squared norm of all entries of every run.

    >>> squares(jax.tree.map(jnp.ones_like, init_runs(jax.random.key(0), range(2), (2, 3, 4)))).tolist()
    [25.0, 25.0]
    """
    others = {"w1": (0, 2), "b1": 1, "w2": (1, 2), "b2": 1}
    return sum(jnp.sum(leaf**2, others[name]) for name, leaf in tree.items())


def train_runs(
    params: Params,
    x: Float[Array, "n pixel"],
    y: Int[Array, "n"],
    *,
    steps: int,
    learning_rate: float = 1e-3,
    stop: Callable[[], bool] = lambda: False,
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, Float[np.ndarray, "steps+1 run"]] | None:
    """Adam on full batches, all runs in one program.

    Not through `sbjax.training.fit`: its replicas do not share one matrix product, and a task's numbers, which are
    averaged between reports, have neither the gradient nor the update.

    Returns:
        'train/loss', 'train/accuracy', 'gradient_squared' and 'update_squared' after 0, .., `steps` steps: the update
        is the one that Adam makes from there. None if `stop()` came true.

    >>> params = init_runs(jax.random.key(0), range(2), (2, 3, 2))
    >>> found = train_runs(params, jnp.eye(2), jnp.arange(2), steps=3)
    >>> found['train/loss'].shape, bool((found['train/loss'][-1] < found['train/loss'][0]).all())
    ((4, 2), True)
    """
    state, rows, said = optax.adam(learning_rate).init(params), [], time.monotonic()
    for step in range(steps + 1):
        if stop():
            return None
        params, state, row = _advance(params, state, x, y, learning_rate)
        rows.append(jax.block_until_ready(row))
        if time.monotonic() > said + 10:
            said = time.monotonic()
            log(f"step {step} of {steps}, loss {float(np.median(row['train/loss'])):.4f}")
    return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}


def needs(plan: Plan, arm: ArmPlan) -> dict[str, int]:
    """Bytes at least, see `LandscapeExperiment`."""
    return {"weights of all runs and their moments": 3 * 4 * (arm.task.runs or plan.replicas) * 64 * arm.task.width}


def run_arm(
    plan: Plan, arm: ArmPlan, key: Key[Array, ""], log: Callable[[str], Any], stop: Callable[[], bool]
) -> ArmResult | None:
    """All runs of one width. Runs that a width does not have are NaN in the metrics."""
    task, steps, replicas = arm.task, plan.train_steps, plan.replicas
    x, y, kept, sizes = _batch(task)
    runs = task.runs or replicas
    at_once = max(1, min(runs, COLUMNS // task.width))
    parts = []
    for first in range(0, runs, at_once):
        numbers = range(first, min(first + at_once, runs))
        found = train_runs(
            init_runs(key, numbers, sizes, kept),
            x,
            y,
            steps=steps,
            learning_rate=task.learning_rate,
            stop=stop,
            log=lambda text, numbers=numbers: log(f"runs {numbers.start + 1} to {numbers.stop} of {runs}: {text}"),
        )
        if found is None:
            return None
        parts.append(found)
    curves = {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}

    def at(step):
        missing = [math.nan] * (replicas - runs)
        return {name: curve[step].tolist() + missing for name, curve in curves.items()}

    return ArmResult(
        metrics=at(steps),
        summary={"width": task.width, "runs": runs, "images": len(y), "pixels": len(kept), "inputs": sizes[0]},
        arrays={name.removeprefix("train/"): curve for name, curve in curves.items()},
        parameters=sum(fan_in * fan_out + fan_out for fan_in, fan_out in itertools.pairwise(sizes)),
        history={step: at(step) for step in [0, *boundaries(steps, plan.reports)] if step < steps},
    )


@partial(jax.jit, static_argnums=2)
def _init(key, runs, sizes):
    inputs, m, classes = sizes

    def one(run):
        first, second = jax.random.split(rng.replica_stream(key, "init", run))
        ends = [math.sqrt(6 / sum(fans)) for fans in itertools.pairwise(sizes)]
        return {
            "w1": jax.random.uniform(first, (inputs, m), minval=-ends[0], maxval=ends[0]),
            "b1": jnp.zeros(m),
            "w2": jax.random.uniform(second, (m, classes), minval=-ends[1], maxval=ends[1]),
            "b2": jnp.zeros(classes),
        }

    return jax.vmap(one, out_axes={"w1": 1, "b1": 0, "w2": 0, "b2": 0})(runs)


@jax.jit
def _advance(params, state, x, y, learning_rate):
    def total(params):
        losses, accuracy = run_losses(params, x, y)
        return losses.sum(), (losses, accuracy)  # runs share no parameter

    grads, (losses, accuracy) = jax.grad(total, has_aux=True)(params)
    updates, state = optax.adam(learning_rate).update(grads, state, params)
    row = {
        "train/loss": losses,
        "train/accuracy": accuracy,
        "gradient_squared": squares(grads),
        "update_squared": squares(updates),
    }
    return optax.apply_updates(params, updates), state, row


def _batch(task):
    """Images with the pixels that are not 0 everywhere, labels, which pixels, and (pixels, width, classes)."""
    data = load_images(task.dataset, task.data_dir, task.cache_dir)
    count = math.ceil(task.share * len(data.test_labels))
    pixels = data.test_images[:count].reshape(count, -1)
    kept = np.flatnonzero(pixels.any(0))
    x = jnp.asarray(pixels[:, kept] / np.float32(255))
    return x, jnp.asarray(data.test_labels[:count]), kept, (pixels.shape[1], task.width, data.classes)


EXPERIMENT = LandscapeExperiment(
    Fields, primary=PRIMARY, smoke=SMOKE, check_arm=check, needs=needs, run_arm=run_arm, reports=True
)
