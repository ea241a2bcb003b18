"""A configuration once it is checked: frozen and typed, made by `sbjax.frame.config.read` alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sbjax.frame.own_parts import code_of
from sbjax.frame.sections import Calibration, Checkpoint, Interpolation, Monitor, Placement, Population, Precision
from sbjax.optimizers.section import OptimizerChoice

REFERENCE, TREATMENT, CONTROL = "reference", "treatment", "control of "


@dataclasses.dataclass(frozen=True)
class Phase:
    """A second phase of training."""

    optimizer: OptimizerChoice
    steps: int


@dataclasses.dataclass(frozen=True)
class ArmPlan:
    """One side of the comparison.

    Attributes:
        name: also of its folders.
        order: place in tables and figures, after the reference.
        role: 'reference', 'treatment', or 'control of WHAT', the explanation that it removes.
        labels: what it is, for tables and figures: {'size': 5, 'place': 'middle'}.
        task: the section of the experiment's own fields.
        model: name and options of the network; {} where the experiment has none.
        expansion: kind and options; {} likewise.
        optimizer, second_phase: None where the experiment has none.
    """

    name: str
    order: int
    role: str
    labels: Mapping[str, Any]
    task: Any
    model: Mapping[str, Any]
    expansion: Mapping[str, Any]
    optimizer: OptimizerChoice | None
    second_phase: Phase | None

    def about(self) -> dict[str, Any]:
        """What a report is told of the arm."""
        return {"order": self.order, "role": self.role, "labels": dict(self.labels)}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is to do.

    Attributes:
        experiment: the kind of experiment, see `sbjax.frame.protocol`.
        seed, replicas, train_epochs, train_steps, reports, reference, callbacks: as in `sections.General`.
        task: the shared section of the experiment's own fields; arms may differ from it.
        settings: the resolved configuration as plain dicts, with the fields that are read and no others: what
            `config.json` holds and what a continued run is compared with.
        arms: the reference first, then by order and name.
        extend_steps: steps beyond those of the configuration, by which a finished run is trained longer.
        first_replica: the number of the first one, where `replicas` are a block of a larger run.
    """

    experiment: Any
    seed: int
    replicas: int
    train_epochs: float
    train_steps: int
    reports: int
    reference: str
    callbacks: str
    task: Any
    precision: Precision
    placement: Placement
    monitor: Monitor
    interpolation: Interpolation
    calibration: Calibration
    population: Population
    checkpoint: Checkpoint
    arms: tuple[ArmPlan, ...]
    settings: dict[str, Any]
    extend_steps: int = 0
    first_replica: int = 0

    @property
    def is_block(self) -> bool:
        """Whether these are not all replicas of the configuration."""
        return self.replicas != self.settings.get("replicas", self.replicas)

    @property
    def own_code(self) -> list[str]:
        """Import paths of a user's own code, as of `own_parts.code_in`."""
        return [entry for name, section in self.settings.items() for entry in code_of(name, section)]

    @property
    def one_gradient(self) -> bool:
        """Whether a step of every arm costs one loss and gradient, so that runs can be read at equal FLOPs."""
        choices = [arm.optimizer for arm in self.arms]
        choices += [arm.second_phase.optimizer for arm in self.arms if arm.second_phase is not None]
        return all(choice.options.one_gradient for choice in choices)

    def steps(self, epoch_steps: int | None) -> int:
        """Steps of training, of `train_steps` or of `train_epochs` epochs of so many steps."""
        return self.train_steps or max(1, round(self.train_epochs * epoch_steps))

    def about_arms(self) -> dict[str, dict[str, Any]]:
        """Order, role and labels by arm."""
        return {arm.name: arm.about() for arm in self.arms}
