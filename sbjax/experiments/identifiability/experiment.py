"""Which neurons can be told apart, and does that predict barriers? Data of a chosen dimension and coherence.

Identifiability itself is measured for every kind with `interpolation.identifiability`; this one brings the data.
"""

import dataclasses
from typing import ClassVar

from sbjax.asymmetry.options import build_asymmetric
from sbjax.common.options import one_of, option
from sbjax.data import images as images_lib
from sbjax.data import vectors as vectors_lib
from sbjax.expansion.kinds import Expansion
from sbjax.experiments.connectivity.experiment import ConnectivityExperiment
from sbjax.frame.errors import ConfigError, told_as
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.models import make_model
from sbjax.tasks.task import Task
from sbjax.tasks.vectors import make_vector_task

_GAUSSIAN = {"dataset": one_of("gaussian")}


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    dataset: str = option("gaussian", "'gaussian' classes on a subspace, or images as vectors: 'digits', 'mnist', ..")
    coherence: float = option(0.0, "of the subspace, from k/d to 1; 0 = as it is", least=0, most=1)
    dimension: int = option(8, "k, of the subspace of Gaussian classes", least=1, most=10**4, only=_GAUSSIAN)
    ambient: int = option(512, "d, of the inputs", least=2, most=10**5, only=_GAUSSIAN)
    classes: int = option(20, "of them", least=2, most=10**4, only=_GAUSSIAN)
    separation: float = option(0.3, "of their means", least=0, most=1000, only=_GAUSSIAN)
    examples: int = option(50_000, "of them for training; for the test a fifth", least=100, most=10**7, only=_GAUSSIAN)
    data_seed: int = option(0, "of them", least=0, only=_GAUSSIAN)
    batch_size: int = option(128, "examples in a step", least=1)
    eval_batch_size: int = option(5000, "examples in an evaluation call; bounds memory only", least=1)


class IdentifiabilityExperiment(ConnectivityExperiment):
    """Networks that classify vectors."""

    name: ClassVar[str] = "identifiability"
    fields: ClassVar[type] = Fields
    data_fields: ClassVar[tuple[str, ...]] = (
        *("dataset", "coherence", "dimension", "ambient", "classes", "separation", "examples", "data_seed"),
    )

    def shrink(self, config):
        """Few examples and narrow layers."""
        config.task.batch_size = 16
        if config.task.dataset == "gaussian":
            config.task.update(examples=200, classes=4)
        if config.interpolation.between:
            config.interpolation.update(points=3, examples=100)

    def load_data(self, task: Fields) -> vectors_lib.VectorData:
        """The vectors of one source."""
        try:
            if task.dataset == "gaussian":
                return vectors_lib.gaussian_classes(
                    dimension=task.dimension,
                    ambient=task.ambient,
                    classes=task.classes,
                    separation=task.separation,
                    train=task.examples,
                    test=max(task.examples // 5, 10),
                    coherence=task.coherence,
                    seed=task.data_seed,
                )
            return vectors_lib.flattened(images_lib.load(task.dataset), coherence=task.coherence)
        except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
            raise ConfigError(f"task.dataset={task.dataset!r}: {error}") from error

    def make_task(self, plan: Plan, arm: ArmPlan, data: vectors_lib.VectorData, expansion: Expansion | None) -> Task:
        """Classification of these vectors by this arm's network."""
        if expansion is not None:
            raise ConfigError("expansion.kind: these vectors are not expanded; leave the section out")
        model = dict(arm.model)
        asymmetry = model.pop("asymmetry", None)
        with told_as("model"):
            module = build_asymmetric(make_model(model.pop("name", None), classes=data.classes, **model), asymmetry)
        return make_vector_task(
            data,
            module,
            batch_size=arm.task.batch_size,
            eval_batch_size=arm.task.eval_batch_size,
            probe_size=plan.monitor.probe_size,
            line_examples=plan.interpolation.examples,
        )


EXPERIMENT = IdentifiabilityExperiment()
