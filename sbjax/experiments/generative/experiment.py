"""Networks that make networks: diffusion over checkpoints, prompted by a loss."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from sbjax.common.options import option
from sbjax.expansion.kinds import Expansion
from sbjax.experiments.generative import report as report_lib
from sbjax.experiments.generative.made import make_checkpoints
from sbjax.frame.errors import ConfigError, told_as
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.frame.training import TrainingExperiment
from sbjax.models import make_denoiser
from sbjax.tasks import generative as task_lib
from sbjax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    runs: int = option(300, "trainings of small perceptrons, made first", least=3, most=10**5)
    checkpoints: int = option(12, "of each training", least=2, most=10**4)
    steps: int = option(400, "of each training", least=2, most=10**6)
    width: int = option(16, "hidden units of a perceptron", least=1, most=1000)
    features: int = option(8, "principal components of the digits that it is given", least=1, most=64)
    train_share: float = option(0.8, "of the trainings, the first ones; half of the rest each for choices and test",
                                above=0, below=1)  # fmt: skip
    batch_size: int = option(128, "networks in a step", least=1)
    permuted: bool = option(False, "hidden units of each network in a random order at each step")
    shuffled: bool = option(False, "prompts of training that belong to other networks: the control")
    sampling_steps: int = option(50, "from noise to a network", least=1, most=10**4)
    prompts: int = option(64, "losses that are prompted for, of each part", least=3, most=10**4)


class Generative(TrainingExperiment):
    """Diffusion models of networks."""

    name: ClassVar[str] = "generative"
    fields: ClassVar[type] = Fields
    model: ClassVar[Mapping[str, Any]] = {"name": "equivariant_denoiser"}
    smoke: ClassVar[Mapping[str, Any]] = {
        **{"task.runs": 12, "task.checkpoints": 4, "task.batch_size": 8, "task.width": 6, "task.steps": 20},
        **{"task.sampling_steps": 4, "task.prompts": 4},
    }
    data_fields: ClassVar[tuple[str, ...]] = ("runs", "checkpoints", "steps", "width", "features")

    def load_data(self, task: Fields) -> task_lib.Checkpoints:
        """The perceptrons, trained in one program."""
        with told_as("task"):
            return make_checkpoints(**{name: getattr(task, name) for name in self.data_fields})

    def make_task(self, plan: Plan, arm: ArmPlan, data: task_lib.Checkpoints, expansion: Expansion | None) -> Task:
        """Denoising of these networks by this arm's model."""
        if expansion is not None:
            raise ConfigError("expansion.kind: parameters of networks are not expanded; leave the section out")
        model, task = dict(arm.model), arm.task
        with told_as("model"):
            module = make_denoiser(model.pop("name", None), reading=data.reading, **model)
        return task_lib.make_generative_task(
            data,
            module,
            train_share=task.train_share,
            batch_size=task.batch_size,
            permuted=task.permuted,
            shuffled=task.shuffled,
            sampling_steps=task.sampling_steps,
            prompts=task.prompts,
        )

    def after_arm(self, plan, arm, fitted, folder, progress):
        """Networks for the prompts of the test, their losses, and how new they are."""
        progress.show(f"{arm.name}: sampling")
        own = next(one for one in plan.arms if one.name == arm.name)
        found = report_lib.measure(self.load_data(own.task), own.task, arm, fitted)
        report_lib.save_arm(folder.path, arm.name, found)

    def cells(self, workdir: Path, arms: Sequence[str]) -> dict[str, Any]:
        """The table of a record."""
        return report_lib.cells(workdir, arms)

    def report(self, results, workdir: Path) -> Any:
        """The table, and prompted against achieved losses."""
        return report_lib.report(results, workdir)


EXPERIMENT = Generative()
