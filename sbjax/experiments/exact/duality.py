"""Symmetry by duality (arXiv 2106.00694): correlators of random networks, and what breaking their symmetry does.

`part='correlators'` compares networks drawn at random with the exact correlators at their width, and rotates their
outputs. `part='training'` is the published experiment: 784-50-10 without biases, the first `shifted` outputs with a
mean in their readouts, learns one-hot or one-cold targets of images. Here epochs are chosen on validation images, and
all seeds count.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sbjax import rng
from sbjax.common.options import one_of, option
from sbjax.experiments.exact import duality_training
from sbjax.experiments.exact.experiment import ExactExperiment, measured, result
from sbjax.experiments.landscape.experiment import load_images
from sbjax.frame.errors import ConfigError
from sbjax.symmetry import duality

TRAINING, CORRELATORS = {"part": one_of("training")}, {"part": one_of("correlators")}
MEAN, STD = 0.1307, 0.3081  # MNIST's, with which the published code normalises Fashion-MNIST


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    experiment: str = option("duality", "which experiment with closed forms")
    part: str = option("correlators", "what is done", choices=("correlators", "training"))
    width: int = option(50, "hidden units", least=1, most=10**5)
    shifted: int = option(0, "outputs whose readouts have the mean, the first ones", least=0, most=1000)
    mean: float = option(0.0, "of these readouts", least=0, most=1e3)
    inputs: int = option(3, "d of the correlators", least=1, most=100, only=CORRELATORS)
    outputs: int = option(3, "o of the correlators", least=1, most=20, only=CORRELATORS)
    networks: int = option(100_000, "that are drawn", least=100, most=10**7, only=CORRELATORS)
    rotations: int = option(10, "by which outputs are rotated", least=1, most=1000, only=CORRELATORS)
    direction: str = option(
        "common",
        "the mean: equal in all shifted readouts, of a random sign an output, or a random sign a readout",
        choices=duality_training.DIRECTIONS,
        only=TRAINING,
    )
    target: str = option("hot", "one-hot or one-cold", choices=("hot", "cold"), only=TRAINING)
    learning_rate: float = option(1e-3, "of Adam", above=0, most=1, only=TRAINING)
    decay: float = option(0.7, "factor of the rate after each epoch", above=0, most=1, only=TRAINING)
    batch: int = option(64, "images a step", least=1, most=10**5, only=TRAINING)
    dataset: str = option("fashion_mnist", "images", only=TRAINING)
    data_dir: str = option(
        "", "where TFDS has its data; '' = $TFDS_DATA_DIR or ~/tensorflow_datasets", free=True, only=TRAINING
    )
    cache_dir: str = option("", "decoded images; '' = $SBJAX_CACHE or ~/.cache/sbjax", free=True, only=TRAINING)


def check(plan, arm):
    """Refuse more shifted outputs than there are.

    Raises:
        ConfigError: as said, or images that are not there.
    """
    task = arm.task
    if task.part == "correlators":
        if task.shifted > task.outputs:
            raise ConfigError(f"task.shifted={task.shifted} must be <= task.outputs={task.outputs}")
        return
    classes = load_images(task.dataset, task.data_dir, task.cache_dir).classes
    if task.shifted > classes:
        raise ConfigError(f"task.shifted={task.shifted} must be <= {classes}, the classes of {task.dataset!r}")


def needs(plan, arm):
    """Bytes at least, see `LandscapeExperiment`."""
    task, d, o = arm.task, arm.task.inputs, arm.task.outputs
    if task.part == "training":
        return {"weights of all seeds and their moments": 3 * 4 * plan.replicas * 64 * task.width}
    return {
        "networks of a part": 4 * min(task.networks, duality.CHUNK) * task.width * (d + o),
        "products of outputs": 8 * task.networks * (2 * o) ** 2,
    }


def run_arm(plan, arm, key, log, stop):
    """Correlators at one width and mean, or a training."""
    return (_correlators if arm.task.part == "correlators" else _train)(plan, arm.task, key, log, stop)


def _correlators(plan, task, key, log, stop):
    points = np.asarray(jax.random.normal(rng.stream(key, "points"), (2, task.inputs)), float)
    means = np.where(np.arange(task.outputs) < task.shifted, task.mean, 0.0)
    exact = duality.two_point(points, points, means=means, width=task.width)
    fourth = duality.connected_four_point(*points, outputs=task.outputs, width=task.width)
    rotations = [
        np.asarray(duality.haar_rotation(rng.replica_stream(key, "rotation", number), task.outputs), float)
        for number in range(task.rotations)
    ]
    turned = [np.einsum("ia,jb,abnm->ijnm", r, r, exact) - exact for r in rotations]
    found = {name: [] for name in ("two", "rotated", "turned", "four")}
    for seed in range(plan.replicas):
        if stop():
            return None
        drawn = rng.replica_stream(key, "networks", seed)
        outputs = duality.sample_outputs(drawn, points, networks=task.networks, means=means, width=task.width)
        found["two"].append(np.abs(duality.scores(duality.products(outputs), exact)).max())
        found["rotated"].append(max(np.abs(duality.rotation_scores(outputs, r)).max() for r in rotations))
        if not means.any():
            found["four"].append(_fourth(outputs, exact, fourth))
    log(f"N = {task.width}, mean {task.mean}: largest deviation {max(found['two']):.1f} standard errors")
    cells = {
        "width": task.width,
        "mean": task.mean,
        "shifted": task.shifted,
        "two": measured(found["two"]),
        "rotated": measured(found["rotated"]),
        "turned": max(np.abs(turn).max() for turn in turned),
        "size": float(np.abs(exact).max()),
        "fourth": float(fourth[0, 0, 0, 0]),
        "four": measured(found["four"]) if found["four"] else None,
    }
    return result({"two_point/score": found["two"]}, cells)


def _fourth(outputs, exact, expected):
    """Largest deviation of the connected four-point function, in standard errors; exact two-point functions go off."""
    f, g = outputs[:, :, 0], outputs[:, :, 1]
    fourfold = np.einsum("si,sj,sk,sl->sijkl", f, f, g, g)
    xx, yy, xy = exact[:, :, 0, 0], exact[:, :, 1, 1], exact[:, :, 0, 1]
    parts = np.einsum("ij,kl->ijkl", xx, yy) + np.einsum("ik,jl->ijkl", xy, xy) + np.einsum("il,jk->ijkl", xy, xy)
    return np.abs(duality.scores(fourfold, expected + parts)).max()


def _train(plan, task, key, log, stop):
    data = load_images(task.dataset, task.data_dir, task.cache_dir)
    splits = duality_training.Splits(
        *(jnp.asarray(part.reshape(len(part), -1)) for part in (data.train_images, data.validation_images)),
        jnp.asarray(data.test_images.reshape(len(data.test_images), -1)),
        *(jnp.asarray(part) for part in (data.train_labels, data.validation_labels, data.test_labels)),
    )
    found = duality_training.train(
        splits,
        duality_training.Design(
            sizes=(splits.train.shape[1], task.width, data.classes),
            shifted=task.shifted,
            mean=task.mean,
            direction=task.direction,
            cold=task.target == "cold",
            rate=task.learning_rate,
            decay=task.decay,
            batch=min(task.batch, len(splits.train)),
            steps=plan.train_steps,
            scale=(MEAN, STD),
        ),
        key=key,
        seeds=plan.replicas,
        log=log,
        stop=stop,
    )
    if found is None:
        return None
    chosen = found.validation.argmax(0)  # the first of the best epochs of each seed
    seeds = np.arange(plan.replicas)
    metrics = {
        "test/accuracy": found.test[chosen, seeds],
        "test/last": found.test[-1],
        "validation/accuracy": found.validation[chosen, seeds],
        "test/best": found.test.max(0),
        "train/start_loss": found.start_loss,
        "train/loss": found.loss,
    }
    cells = {
        "target": task.target,
        "shifted": task.shifted,
        "mean": task.mean,
        "direction": task.direction if task.mean else "-",
        "learning_rate": task.learning_rate,
        "accuracy": measured(100 * metrics["test/accuracy"]),
        "last": measured(100 * metrics["test/last"]),
        "first": measured(100 * found.test[0]),
        "start_loss": measured(found.start_loss),
    }
    return result(metrics, cells, splits.train.shape[1] * task.width + task.width * data.classes)


EXPERIMENT = ExactExperiment(
    Fields,
    title="Symmetry by duality",
    columns={
        "width": "units N",
        "target": "target",
        "shifted": "shifted outputs",
        "mean": "mean of readouts",
        "direction": "signs of the mean",
        "learning_rate": "rate",
        "accuracy": "test accuracy, %",
        "last": "at the end",
        "first": "after an epoch",
        "start_loss": "loss at the start",
        "two": "two-point function, largest deviation in standard errors",
        "rotated": "after a rotation of outputs",
        "turned": "exact change by a rotation",
        "size": "largest two-point function",
        "fourth": "connected four-point function, exact",
        "four": "its largest deviation in standard errors",
    },
    note="Medians and quartiles over seeds.",
    primary="test/accuracy",
    goal="max",
    smoke={},
    check_arm=check,
    needs=needs,
    run_arm=run_arm,
)
