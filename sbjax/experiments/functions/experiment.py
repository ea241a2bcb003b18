"""Functions of one variable fitted from raw and expanded input, in the training loop or all arms in one program."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax

from sbjax import trees
from sbjax.common import options
from sbjax.common.options import one_of, option
from sbjax.expansion.kinds import Expansion
from sbjax.experiments.functions import report as report_lib
from sbjax.experiments.functions import run as grid_run
from sbjax.experiments.functions import suite_report as suite_report_lib
from sbjax.frame.errors import ConfigError, named_arm, told_as
from sbjax.frame.estimate import check_memory
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.frame.protocol import Experiment
from sbjax.frame.training import TrainingExperiment
from sbjax.models import make_field
from sbjax.optimizers import lbfgs_many
from sbjax.tasks.regression import LOWER, TARGETS, UPPER, make_regression_task, make_target
from sbjax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    function: str = option("sine", "which function", choices=tuple(TARGETS))
    points: int = option(256, "evenly spaced, fitted all at once", least=1, most=10**6)
    test_points: int = option(2000, "on which the fit is judged", least=1, most=10**6)
    fold: bool = option(False, "start as the expanded network would, folded: the matched-bias control")
    program: str = option(
        "loop", "loop: arm after arm, any optimiser; grid: all arms by L-BFGS in one program", choices=("loop", "grid")
    )
    tolerance: float = option(
        1e-9, "a fit ends where no entry of the gradient is larger", above=0, only={"program": one_of("grid")}
    )


SMOKE = {"task.points": 32, "task.test_points": 64}


class Functions(TrainingExperiment):
    """Fits in the training loop."""

    name: ClassVar[str] = "functions"
    fields: ClassVar[type] = Fields
    fixed: ClassVar[tuple[str, ...]] = ("program",)
    model: ClassVar[Mapping[str, Any]] = {"name": "field"}
    smoke: ClassVar[Mapping[str, Any]] = SMOKE

    def select(self, task: Mapping[str, Any]) -> Experiment:
        """Fits in one program, if `task.program` says so."""
        program = task.get("program", "loop")
        if program == "frame":
            raise ConfigError("task.program='frame' is now called 'loop'")
        return GRID if program == "grid" else self

    def make_task(self, plan: Plan, arm: ArmPlan, data: None, expansion: Expansion | None) -> Task:
        """The fit of one arm."""
        task = arm.task
        if task.fold and expansion is None:
            raise ConfigError("task.fold=True: there is no expansion to fold; set expansion.kind='vector'")
        with told_as("model"):
            field = make_field(
                unknowns=1, lower=(LOWER,), upper=(UPPER,), expansion=expansion, x64=plan.precision.x64, **arm.model
            )
        return make_regression_task(
            make_target(task.function), field, points=task.points, test_points=task.test_points, fold=task.fold
        )

    def report(self, results, workdir: Path) -> Any:
        """The fits drawn."""
        return report_lib.report(results, workdir)

    def suite_report(self, folder: Path, names: Any) -> Any:
        """All runs in one table, with the verdicts over all of them."""
        return suite_report_lib.suite_report(folder, names)


class FunctionsGrid(Experiment):
    """Fits by L-BFGS, all arms and replicas in one compiled program."""

    name: ClassVar[str] = "functions"
    fields: ClassVar[type] = Fields
    fixed: ClassVar[tuple[str, ...]] = ("program",)
    sections: ClassVar[tuple[str, ...]] = ("precision", "model", "expansion", "optimizer")
    general: ClassVar[tuple[str, ...]] = ("seed", "replicas", "train_steps", "reports", "reference", "callbacks")
    model: ClassVar[Mapping[str, Any]] = {"name": "field"}
    smoke: ClassVar[Mapping[str, Any]] = SMOKE

    def prepare(self, plan: Plan) -> Any:
        """Numbers of every arm, which must agree in all else."""
        found, shared = {}, None
        for arm in plan.arms:
            with named_arm(arm.name):
                found[arm.name], rest = grid_run.read_arm(plan, arm)
                # The same task as in the loop, to refuse what it refuses.
                with told_as("task"):
                    task = EXPERIMENT.make_task(plan, arm, None, found[arm.name].expansion)
                    params = jax.eval_shape(task.init, jax.random.key(0))["params"]
                vectors = 2 * lbfgs_many.MEMORY + 3  # of L-BFGS, in double precision
                check_memory(
                    {f"L-BFGS of {plan.replicas} replicas": 8 * plan.replicas * vectors * trees.size(params)},
                    {"replicas": plan.replicas, "task": options.values_of(arm.task), "model": arm.model},
                )
                shared = rest if shared is None else shared
                if rest != shared:
                    raise ConfigError(
                        "with task.program='grid' arms differ in expansion, task.fold, first of model.widths and "
                        "optimizer.first_bias_scale only; use task.program='loop'"
                    )
        return plan, found, shared

    def run(self, prepared: Any, folder, *, stop) -> bool:
        """Fit all arms."""
        return grid_run.run(folder, *prepared, stop=stop)

    def report(self, results, workdir: Path) -> Any:
        """The fits drawn, and the arms by size, place and constant."""
        return report_lib.report(results, workdir)

    def suite_report(self, folder: Path, names: Any) -> Any:
        """All runs in one table, with the verdicts over all of them."""
        return suite_report_lib.suite_report(folder, names)


EXPERIMENT = Functions()
GRID = FunctionsGrid()
