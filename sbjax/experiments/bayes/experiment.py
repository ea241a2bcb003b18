"""Variational networks that classify images: does asymmetry of the network make its posterior easier to find?"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from sbjax import trees
from sbjax.asymmetry import constants
from sbjax.asymmetry.options import build_asymmetric
from sbjax.bayes.predictive import Predictive
from sbjax.bayes.spec import VariationalSpec
from sbjax.bayes.variational import Started, Variational
from sbjax.common.options import option
from sbjax.data.images import ImageData
from sbjax.expansion.kinds import Expansion
from sbjax.experiments.images.experiment import Fields as ImageFields
from sbjax.experiments.images.experiment import Images
from sbjax.frame.errors import ConfigError
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.frame.training import TrainingExperiment
from sbjax.tasks.task import Aux, Task


@dataclasses.dataclass(frozen=True)
class Fields(ImageFields):
    """Fields of `task`: those of images, the posterior, and what the loss weighs it with."""

    start: str = option(
        "module", "law of the means: of the network, 'uniform' on +-1/sqrt(fan-in), or 'normal' of variance 2/fan-in",
        choices=("module", "uniform", "normal"),
    )  # fmt: skip
    rank: int = option(4, "factors of the covariance of a layer; 0 = a diagonal one", least=0, most=1000)
    log_variance: float = option(-10.0, "logarithm of the variance of every weight", least=-50, most=10)
    learn_diagonal: bool = option(False, "train the variance of every weight")
    prior_precision: float = option(0.01, "p; the prior of a layer has the variance 1 / (p m)", above=0)
    prior_scale: str = option("layer", "m: outputs or input channels of the layer, or 1", choices=("layer", "one"))
    group: int = option(1, "examples in a row that share a draw of the factors; several are faster", least=1,
                        most=10**6)  # fmt: skip
    multiplier: float = option(1.0, "counts every training example so many times against the divergence", above=0)
    samples: int = option(25, "draws of the weights in evaluation; 0 = their means", least=0, most=10**4)
    noise_of: dict = option({}, "an asymmetry: covariances are multiplied by the share it would leave trainable")


class Bayes(Images):
    """Networks with Gaussian weights that classify images."""

    name: ClassVar[str] = "bayes"
    fields: ClassVar[type] = Fields
    sections: ClassVar[tuple[str, ...]] = (*TrainingExperiment.sections, "calibration")
    model: ClassVar[Mapping[str, Any]] = {"name": "mlp", "widths": (256,) * 8, "norm": "layer"}

    def shrink(self, config):
        """Little data, and few draws in evaluation."""
        super().shrink(config)
        config.task.samples = min(config.task.samples, 3)

    def check(self, plan: Plan) -> list[str]:
        """Labels are not smoothed: the loss is a likelihood."""
        return [
            f"task.label_smoothing={arm.task.label_smoothing}: the loss is a likelihood of the labels; leave it 0"
            for arm in plan.arms
            if arm.task.label_smoothing
        ][:1]

    def make_module(self, arm: ArmPlan, data: ImageData) -> Any:
        """The network with its posterior, which answers with averaged probabilities."""
        task, model = arm.task, dict(arm.model)
        network = self.make_network(model, data.classes)
        if task.start != "module":
            network = Started(network, task.start)
        shares = {} if not task.noise_of else _shares(network, task.noise_of, data)
        spec = VariationalSpec(
            rank=task.rank,
            log_variance=task.log_variance,
            learn_diagonal=task.learn_diagonal,
            prior_precision=task.prior_precision,
            prior_scale=task.prior_scale,
            group=task.group,
            noise_shares=shares,
        )
        return Predictive(Variational(build_asymmetric(network, model.get("asymmetry")), spec), task.samples)

    def make_task(self, plan: Plan, arm: ArmPlan, data: ImageData, expansion: Expansion | None) -> Task:
        """Classification of these images, with the divergence of the posterior in the loss."""
        return with_divergence(
            super().make_task(plan, arm, data, expansion),
            examples=len(data.train_labels) * arm.task.multiplier,
        )


def with_divergence(task: Task, *, examples: float) -> Task:
    """The negative evidence bound of an example: the task's loss + KL(posterior | prior) / examples.

    Args:
        task: whose model is a `Predictive`.
        examples: of the training split; more, where augmentation is said to make several of one, as published: a
            posterior that is colder than that of the data.

    Returns:
        The task, with the two terms as 'train/nll' and 'train/kl', the latter over the examples.
    """
    network = task.model.network

    def loss(variables: PyTree, batch: Any, key: jax.Array) -> tuple[jax.Array, Aux]:
        value, aux = task.loss(variables, batch, key)
        divergence = network.kl(variables) / examples
        scalars = {**aux.scalars, "train/nll": value, "train/kl": divergence}
        return value + divergence, aux._replace(scalars=scalars)

    return task._replace(loss=loss)


def _shares(network: Any, fields: Mapping[str, Any], data: ImageData) -> dict[str, float]:
    """The share of each kernel that an asymmetry leaves trainable."""
    made = build_asymmetric(network, fields)
    spec = getattr(made, "spec", None)
    if spec is None or spec.kind != "w":
        raise ConfigError(
            f"task.noise_of={dict(fields)!r} must be of kind 'w', without start_only: only its masks count"
        )
    blank = jnp.zeros((1, *data.train_images.shape[1:]))
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), blank, train=False))["params"]
    masks = trees.flatten(constants(shapes, spec)["trainable"])
    return {name: float(np.mean(mask)) for name, mask in masks.items()}


EXPERIMENT = Bayes()
