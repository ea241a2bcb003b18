"""The equation of state of QCD: masses of quasi-partons fitted to lattice QCD."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from sbjax.common.options import one_of, option, values_of
from sbjax.expansion.kinds import Expansion
from sbjax.experiments.qcd import report as report_lib
from sbjax.frame.errors import told_as
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.frame.training import TrainingExperiment
from sbjax.models import make_quasi_partons
from sbjax.physics import lattice
from sbjax.tasks.equation_of_state import make_equation_of_state_task
from sbjax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    parametrisation: str = option("hotqcd_2014", "of lattice QCD", choices=tuple(lattice.NAMES))
    lower: float = option(0.155, "GeV, the lowest temperature of the training", above=0)
    upper: float = option(0.4, "GeV, the highest", above=0)
    points: int = option(50, "temperatures, evenly spaced", least=2, most=10**5)
    loss: str = option("chi2", "what is minimised", choices=("chi2", "l1"))
    relative_error: float = option(0.05, "of entropy density and trace anomaly", above=0, only={"loss": one_of("chi2")})
    mass_weight: float = option(1.0, "of the relations between the masses in the loss", least=0)
    nodes: int = option(20, "of the integrals over momenta in training", least=1, most=128)
    fold: bool = option(False, "start as the expanded network would, folded: the matched-bias control")


class Qcd(TrainingExperiment):
    """Quasi-partons."""

    name: ClassVar[str] = "qcd"
    fields: ClassVar[type] = Fields
    model: ClassVar[Mapping[str, Any]] = {"name": "quasi_parton"}
    smoke: ClassVar[Mapping[str, Any]] = {"task.points": 8}

    def make_task(self, plan: Plan, arm: ArmPlan, data: None, expansion: Expansion | None) -> Task:
        """The fit of this arm's networks."""
        with told_as("model"):
            network = make_quasi_partons(expansion=expansion, x64=plan.precision.x64, **arm.model)
        fields = {name: value for name, value in values_of(arm.task).items() if name != "parametrisation"}
        return make_equation_of_state_task(arm.task.parametrisation, network, **fields)

    def report(self, results, workdir: Path) -> Any:
        """Thermodynamics against lattice QCD."""
        return report_lib.report(results, workdir)


EXPERIMENT = Qcd()
