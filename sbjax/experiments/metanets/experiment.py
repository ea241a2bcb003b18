"""Networks that read networks: how well is the test accuracy of a network predicted from its weights?"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from sbjax import trees
from sbjax.common.names import expanded
from sbjax.common.options import option
from sbjax.data import zoo as zoo_lib
from sbjax.expansion.kinds import Expansion
from sbjax.experiments.metanets import report as report_lib
from sbjax.experiments.metanets.made import NETWORKS, make_zoo
from sbjax.frame.errors import ConfigError, told_as
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.frame.training import TrainingExperiment
from sbjax.metanets import make_reading
from sbjax.models import make_metanet, make_model
from sbjax.symmetry import derive_spec
from sbjax.tasks import metanets as task_lib
from sbjax.tasks.task import Task

MADE = "made"


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    zoo: str = option(MADE, "folder of a run of kind 'zoo', or 'made': 96 small perceptrons that are trained first")
    nets: str = option("standard", "which networks of the zoo: an arm of its run")
    as_large_as: str = option(
        "", "an arm of the zoo: entries that are frozen there are not read of these networks either; '' = all are"
    )
    networks: int = option(0, "at most so many, the first ones; 0 = all", least=0, most=10**7)
    within: dict = option({}, "only networks with hyper-parameters between bounds: {'learning_rate': (0.01, 0.02)}")
    target: str = option("accuracy", "what is predicted: accuracy, its logit, or what hyper-parameters leave of it",
                         choices=task_lib.TARGETS)  # fmt: skip
    train_share: float = option(0.5, "of the networks, the first ones; half of the rest each for choices and test",
                                above=0, below=1)  # fmt: skip
    batch_size: int = option(32, "networks in a step", least=1)
    eval_batch_size: int = option(64, "networks that are evaluated together; bounds memory only", least=1)


class Metanets(TrainingExperiment):
    """Metanetworks that predict how accurate networks are."""

    name: ClassVar[str] = "metanets"
    fields: ClassVar[type] = Fields
    model: ClassVar[Mapping[str, Any]] = {"name": "functional"}
    smoke: ClassVar[Mapping[str, Any]] = {"task.zoo": MADE, "task.networks": 40, "task.batch_size": 8}
    data_fields: ClassVar[tuple[str, ...]] = ("zoo", "nets", "as_large_as", "networks", "within")

    def shrink(self, config):
        """A zoo that is made on the spot, small metanetworks."""
        super().shrink(config)
        config.task.within = {}

    def source(self, task: Fields) -> tuple:
        """Fields that say which networks are read."""
        return tuple(str(getattr(task, name)) for name in self.data_fields)

    def load_data(self, task: Fields) -> task_lib.Nets:
        """The networks of one arm of a zoo, and how they are read."""
        zoo = _read(task, task.nets)
        zoo = _within(zoo, task.within)
        zoo = zoo.take(slice(0, task.networks)) if 0 < task.networks < len(zoo) else zoo
        masks = zoo.masks
        if task.as_large_as:
            other = _read(task, task.as_large_as)
            if other.masks is None:
                raise ConfigError(f"task.as_large_as={task.as_large_as!r}: these networks have no frozen entries")
            masks = other.masks
        options = dict(zoo.model)
        module = make_model(options.pop("name"), classes=zoo.classes, **options)
        one = {"params": trees.nest({name: leaf[0] for name, leaf in trees.flatten(zoo.params).items()})}
        blank = jnp.zeros((1, *zoo.input_shape))
        variables = jax.eval_shape(lambda: module.init(jax.random.key(0), blank, train=False))
        with told_as("task.zoo"):
            spec = derive_spec(lambda v, x: module.apply(v, x, train=False), variables, blank, verify=False)
            reading = make_reading(spec, one, None if masks is None else {"params": masks})
        return task_lib.make_nets(reading, {"params": zoo.params}, zoo.hyperparameters, zoo.accuracy[:, -1])

    def make_task(self, plan: Plan, arm: ArmPlan, data: task_lib.Nets, expansion: Expansion | None) -> Task:
        """Prediction for these networks by this arm's metanetwork."""
        if expansion is not None:
            raise ConfigError("expansion.kind: parameters of networks are not expanded; leave the section out")
        model, task = dict(arm.model), arm.task
        with told_as("model"):
            module = make_metanet(model.pop("name", None), outputs=1, reading=data.reading, **model)
        return task_lib.make_metanet_task(
            data,
            module,
            target=task.target,
            train_share=task.train_share,
            batch_size=task.batch_size,
            eval_batch_size=task.eval_batch_size,
            probe_size=plan.monitor.probe_size,
        )

    def after_arm(self, plan, arm, fitted, folder, progress):
        """Predictions for the test networks, and what ridge regressions without a metanetwork reach."""
        progress.show(f"{arm.name}: predictions")
        own = next(one for one in plan.arms if one.name == arm.name)
        report_lib.save_arm(folder.path, arm.name, report_lib.measure(self.load_data(own.task), own.task, arm, fitted))

    def cells(self, workdir: Path, arms: Sequence[str]) -> dict[str, Any]:
        """The table of a record: numbers at the report that is best by validation, each replica by itself."""
        return report_lib.cells(workdir, arms)

    def report(self, results, workdir: Path) -> Any:
        """Numbers chosen by validation, beside regressions without a metanetwork, and a figure."""
        return report_lib.report(results, workdir)


def _read(task: Fields, nets: str) -> zoo_lib.Zoo:
    """The networks of one arm."""
    if task.zoo == MADE:
        try:
            return make_zoo(nets, networks=task.networks or NETWORKS)
        except ValueError as error:
            raise ConfigError(f"task.nets={nets!r}: {error}") from error
    try:
        return zoo_lib.read(expanded(task.zoo) / "zoo" / nets)
    except (ValueError, OSError) as error:
        raise ConfigError(f"task.zoo={task.zoo!r}, task.nets={nets!r}: {error}") from error


def _within(zoo: zoo_lib.Zoo, bounds: Mapping[str, Any]) -> zoo_lib.Zoo:
    """The networks whose hyper-parameters lie between bounds, both included."""
    kept = np.ones(len(zoo), bool)
    for name, pair in bounds.items():
        values = zoo.hyperparameters.get(name)
        if values is None or np.asarray(values).dtype.kind not in "iuf":
            numbers = [n for n, v in zoo.hyperparameters.items() if np.asarray(v).dtype.kind in "iuf"]
            raise ConfigError(f"task.within: {name!r} is no number of these networks; known: {', '.join(numbers)}")
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not pair[0] <= pair[1]:
            raise ConfigError(f"task.within: {name!r}={pair!r} must be two numbers, the least and the largest")
        kept &= (values >= pair[0]) & (values <= pair[1])
    return zoo if kept.all() else zoo.take(kept)


EXPERIMENT = Metanets()
