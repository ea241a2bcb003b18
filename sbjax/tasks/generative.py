"""Diffusion over parameters of networks, prompted by a loss: is what comes out a network of that loss, and a new one?

Noise is added as x_t = a x + s e with a = cos(pi t / 2), s = sin(pi t / 2); the denoiser predicts x (arXiv 2209.12892,
section 3), and sampling follows the deterministic rule of arXiv 2010.02502, equation 12 with sigma = 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from sbjax import rng
from sbjax.data.shuffle import epoch_indices
from sbjax.metanets import Reading, split_vector, vector
from sbjax.metrics.agreement import explained
from sbjax.symmetry import permute, random_permutations
from sbjax.tasks.metanets import standardised
from sbjax.tasks.task import Aux, Average, Task

Sampler = Callable[[Key[Array, ""], Float[Array, " n"]], Float[Array, "n size"]]
LARGEST = 100.0  # losses above count as this


class Checkpoints(NamedTuple):
    """Networks along their trainings.

    Attributes:
        reading: see `sbjax.metanets.reading`.
        entries: [run, checkpoint, size] parameters as vectors.
        loss: [run, checkpoint] > 0.
        loss_of: a vector of parameters to its loss, on the same examples.
    """

    reading: Reading
    entries: Float[np.ndarray, "run checkpoint size"]
    loss: Float[np.ndarray, "run checkpoint"]
    loss_of: Callable[[Float[Array, " size"]], Float[Array, ""]]


class Prepared(NamedTuple):
    """Networks as the task has them: whole runs in one part each, parameters and log-losses standardised.

    Attributes:
        entries: by part, [n, size]: arrays by their mean and deviation in training, so that permuting units commutes.
        prompts: by part, [n]: log-losses likewise.
        level, scale: of the log-losses.
        restore: standardised vectors to parameters.
    """

    entries: dict[str, np.ndarray]
    prompts: dict[str, np.ndarray]
    level: float
    scale: float
    restore: Callable[[Array], Array]


def prepare(found: Checkpoints, train_share: float) -> Prepared:
    """The first runs for training, half of the rest for validation, the others for the test.

    Raises:
        ValueError: a part without a run, or losses that do not vary.
    """
    runs, each, size = found.entries.shape
    train = round(runs * train_share)
    validation = train + (runs - train) // 2
    if min(train, validation - train, runs - validation) < 1:
        raise ValueError(f"train_share={train_share} of {runs} runs leaves {train}, {validation - train} and "
                         f"{runs - validation} for training, validation and test: use more runs")  # fmt: skip
    rows = {"train": slice(0, train), "validation": slice(train, validation), "test": slice(validation, runs)}
    flat, losses = found.entries.reshape(-1, size), np.log(np.minimum(found.loss, LARGEST))
    first, groups = slice(0, train * each), found.reading.leaves
    if np.ptp(losses[rows["train"]]) == 0:
        raise ValueError("all networks for training have the same loss: use other checkpoints")
    mean, deviation = np.zeros(size), np.ones(size)
    for group in np.unique(groups):
        own = flat[first][:, groups == group]
        mean[groups == group], deviation[groups == group] = own.mean(), max(own.std(), 1e-12)
    scaled = standardised(flat, first, groups).reshape(runs, each, size)
    level, scale = float(losses[rows["train"]].mean()), float(losses[rows["train"]].std())
    mean, deviation = (jnp.asarray(x, jnp.float32) for x in (mean, deviation))
    return Prepared(
        {name: scaled[part].reshape(-1, size).astype(np.float32) for name, part in rows.items()},
        {name: ((losses[part].reshape(-1) - level) / scale).astype(np.float32) for name, part in rows.items()},
        level,
        scale,
        lambda x: mean + deviation * x,
    )


def spread(prompts: Float[np.ndarray, " n"], count: int) -> np.ndarray:
    """Rows of so many networks whose prompts are spread over all ranks.

    >>> spread(np.array([3.0, 1.0, 2.0]), 2).tolist()
    [1, 0]
    """
    order = np.argsort(prompts, kind="stable")
    return order[np.round(np.linspace(0, len(order) - 1, min(count, len(order)))).astype(int)]


def make_sampler(denoise: Callable[..., Array], steps: int, size: int) -> Sampler:
    """Networks for prompts, from noise in so many steps.

    Args:
        denoise: `(x [n, size], level [n], prompt [n]) -> [n, size]`.
        steps: of the noise level from 1 to 0.
        size: parameters of a network.
    """
    levels = jnp.linspace(1.0, 0.0, steps + 1)

    def sampled(key, prompts):
        def step(x, pair):
            now, then = pair
            clean = denoise(x, jnp.full(prompts.shape, now), prompts)
            noise = (x - jnp.cos(jnp.pi / 2 * now) * clean) / jnp.sin(jnp.pi / 2 * now)
            return jnp.cos(jnp.pi / 2 * then) * clean + jnp.sin(jnp.pi / 2 * then) * noise, None

        start = jax.random.normal(key, (len(prompts), size))
        return jax.lax.scan(step, start, (levels[:-1], levels[1:]))[0]

    return sampled


def make_generative_task(
    found: Checkpoints,
    module: Any,
    *,
    train_share: float = 0.8,
    batch_size: int = 128,
    permuted: bool = False,
    shuffled: bool = False,
    sampling_steps: int = 50,
    prompts: int = 64,
) -> Task:
    """Denoising of parameters, judged by whether networks that are sampled have the loss that they were prompted with.

    Args:
        found: networks along their trainings.
        module: Linen module, see `sbjax.metanets.denoisers`.
        train_share: of the runs, see `prepare`.
        batch_size: networks in a step.
        permuted: whether hidden units of each network are put in a random order at each step.
        shuffled: whether the prompts of training belong to other networks: the control.
        sampling_steps: of sampling.
        prompts: of each part, losses of its networks that are prompted for.

    Returns:
        A `Task` with '{validation,test}/r2', of the logarithm of the loss of sampled networks about the prompted one,
        and 'validation/error', the mean squared error of denoising.

    Raises:
        ValueError: see `prepare`; a batch that is too large.
    """
    made, layout = prepare(found, train_share), found.reading.layout
    examples, size = made.entries["train"].shape
    if not 1 <= batch_size <= examples:
        raise ValueError(f"batch_size={batch_size} must lie between 1 and the {examples} training networks: lower it")
    wanted = made.prompts["train"]
    wanted = np.random.default_rng(0).permutation(wanted) if shuffled else wanted
    arrays = {"entries": made.entries["train"], "prompts": wanted, "held": made.entries["validation"]}
    arrays |= {"held_prompts": made.prompts["validation"]}
    arrays |= {name: made.prompts[name][spread(made.prompts[name], prompts)] for name in ("validation", "test")}

    def init(key):
        return module.init(key, jnp.zeros((1, size)), jnp.zeros(1), jnp.zeros(1))

    def reordered(key, row):
        return vector(
            permute(found.reading.spec, split_vector(layout, row), random_permutations(key, found.reading.spec))
        )

    def sample(arrays, key, step):
        rows = epoch_indices(key, step, examples=examples, batch_size=batch_size)
        entries = arrays["entries"][rows]
        if permuted:
            keys = jax.random.split(rng.step_key(rng.stream(key, "units"), step), batch_size)
            entries = jax.vmap(reordered)(keys, entries)
        return {"entries": entries, "prompts": arrays["prompts"][rows]}

    def error(variables, entries, prompts, key):
        one, two = jax.random.split(key)
        level = jax.random.uniform(one, prompts.shape)
        noise = jax.random.normal(two, entries.shape)
        angle = jnp.pi / 2 * level[:, None]
        clean = module.apply(variables, jnp.cos(angle) * entries + jnp.sin(angle) * noise, level, prompts)
        return jnp.mean((clean - entries) ** 2)

    def loss(variables, batch, key):
        value = error(variables, batch["entries"], batch["prompts"], key)
        return value, Aux({}, {"train/error": value})

    def evaluate(arrays, variables, part):
        del part
        key = jax.random.key(0)  # the same noise for all arms and reports
        found_error = error(variables, arrays["held"], arrays["held_prompts"], rng.stream(key, "error"))
        numbers = {"validation/error": found_error}
        for name in ("validation", "test"):
            sampled = sampler(variables)(rng.stream(key, name), arrays[name])
            numbers[f"{name}/r2"] = explained(arrays[name], achieved(sampled))
        return {name: Average(value, jnp.float32(1)) for name, value in numbers.items()}

    def sampler(variables):
        return make_sampler(lambda *given: module.apply(variables, *given), sampling_steps, size)

    def achieved(entries):
        losses = jax.lax.map(found.loss_of, made.restore(entries))
        losses = jnp.where(jnp.isfinite(losses), jnp.minimum(losses, LARGEST), LARGEST)
        return (jnp.log(losses) - made.level) / made.scale

    return Task(
        about=(("input", f"float32 [n, {size}]: standardised noisy parameters; levels and prompts [n]"),
               ("output", f"[n, {size}]: parameters")),
        data=jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), arrays),
        init=init,
        sample=sample,
        loss=loss,
        evaluate=evaluate,
        parts=1,
        batch_size=batch_size,
        epoch_steps=examples // batch_size,
        primary="test/r2",
        selection="validation/r2",
        goal="max",
        model=module,
    )  # fmt: skip
