"""Differential equations: a network is trained until it meets an equation and its conditions."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from sbjax.common.names import import_path, is_import_path, line_of
from sbjax.common.options import one_of, option, words
from sbjax.expansion.kinds import Expansion
from sbjax.experiments.pinn import classical
from sbjax.experiments.pinn import report as report_lib
from sbjax.experiments.pinn import suite_report as suite_report_lib
from sbjax.frame.errors import ConfigError, told_as
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.frame.training import TrainingExperiment
from sbjax.models import make_field
from sbjax.physics.equation import Equation, check_conditions
from sbjax.physics.pdes import make_equation
from sbjax.physics.sampling import SAMPLERS
from sbjax.physics.trial import try_equation, try_reference
from sbjax.tasks.balance import BALANCES
from sbjax.tasks.pinn import Points, make_pinn_task
from sbjax.tasks.smoothness import check_activation
from sbjax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    equation: str = option("burgers", "a name of sbjax.physics.pdes, or 'module:function' of a builder of yours")
    coefficients: str = option("", "coefficients other than its own, 'nu=0.01'")
    points: int = option(2000, "collocation points of the equation", least=1, most=10**7)
    boundary_points: int = option(200, "of each condition on a face", least=1, most=10**7)
    initial_points: int = option(200, "of each condition at t = 0", least=1, most=10**7)
    sampler: str = option("uniform", "how points are drawn", choices=tuple(SAMPLERS))
    resample_every: int = option(0, "steps between two draws of points; 0 = the same points all the time", least=0)
    weights: str = option("", "of terms of the loss other than 1, 'initial_u=10'")
    balance: str = option("fixed", "how terms are weighed during training", choices=tuple(BALANCES))
    balance_every: int = option(
        100, "steps between two changes of the weights", least=1, only={"balance": one_of("gradient_norm")}
    )
    derivatives: str = option(
        "auto", "how residuals are differentiated",
        choices=("auto", "mlp", "nested", "forward_over_reverse", "forward", "taylor"),
    )  # fmt: skip
    hard: bool = option(False, "meet conditions by the equation's ansatz instead of by the loss")
    fold: bool = option(False, "start as the expanded network would, folded: the matched-bias control")
    test_points: int = option(4096, "points of each held-out set", least=1, most=10**6)


class Pinn(TrainingExperiment):
    """Physics-informed networks."""

    name: ClassVar[str] = "pinn"
    fields: ClassVar[type] = Fields
    model: ClassVar[Mapping[str, Any]] = {"name": "field"}
    data_fields: ClassVar[tuple[str, ...]] = ("equation", "coefficients")
    smoke: ClassVar[Mapping[str, Any]] = {
        "task.points": 64,
        "task.boundary_points": 16,
        "task.initial_points": 16,
        "task.test_points": 256,
    }

    def load_data(self, task: Fields) -> Equation:
        """The equation."""
        return build_equation(task.equation, task.coefficients)

    def make_task(self, plan: Plan, arm: ArmPlan, data: Equation, expansion: Expansion | None) -> Task:
        """This equation for this arm's network."""
        task, second = arm.task, arm.second_phase
        if task.fold and expansion is None:
            raise ConfigError("task.fold=True: there is no expansion to fold; set expansion.kind='vector'")
        weights = parse_numbers("task.weights", task.weights)
        for name, weight in weights.items():
            if not 0 < weight < math.inf:
                raise ConfigError(f"task.weights={task.weights!r}: the weight of {name!r} must be a number > 0")
        with told_as("model"):
            field = make_field(
                unknowns=len(data.unknowns),
                lower=data.lower,
                upper=data.upper,
                expansion=expansion,
                x64=plan.precision.x64,
                **arm.model,
            )
            check_activation(data, field)
        # A deterministic method in the second phase, such as L-BFGS, needs the objective to stay as it is.
        deterministic = second is not None and second.optimizer.options.deterministic
        points = Points(
            interior=task.points,
            boundary=task.boundary_points,
            initial=task.initial_points,
            sampler=task.sampler,
            every=task.resample_every,
            steps=plan.train_steps if deterministic else None,
        )
        return make_pinn_task(
            data,
            field,
            points=points,
            weights=weights,
            balance=task.balance,
            balance_every=task.balance_every,
            balance_steps=plan.train_steps if second is not None else None,
            derivatives=task.derivatives,
            hard=task.hard,
            fold=task.fold,
            test_points=task.test_points,
        )

    def report(self, results, workdir: Path) -> Any:
        """Errors compared, seconds to each error, and the solutions drawn."""
        return report_lib.report(results, workdir)

    def suite_report(self, folder: Path, names: Any) -> Any:
        """All runs in one table, with the verdicts over all of them."""
        return suite_report_lib.suite_report(folder, names)

    def measure_classical(self, tasks: Mapping[str | None, Mapping[str, Any]]) -> dict[str, Any]:
        """Seconds of a classical solver to each error, for equations of this package alone."""

        def make(name, coefficients):
            if is_import_path(name):  # a name in a workdir may not run code
                raise ConfigError(f"--classical: task.equation={name!r} is not one of this package; leave it out")
            return build_equation(name, coefficients)

        return classical.measure_classical(tasks, make)


def build_equation(name: str, coefficients: str = "") -> Equation:
    """An equation by name, or by the import path of a function that returns one, tried before it is trained.

    Raises:
        ConfigError: it does not exist, its coefficients are impossible, or it cannot be trained, see
            `sbjax.physics.trial`.

    >>> build_equation('burgers', 'nu=0.05').unknowns
    ('u',)
    """
    numbers = parse_numbers("task.coefficients", coefficients)
    own = is_import_path(name)
    try:
        equation = import_path(name)(**numbers) if own else make_equation(name, **numbers)
        if not isinstance(equation, Equation):
            raise ValueError(f"it returned {type(equation).__name__}, not a sbjax.physics.equation.Equation")
        if own:  # those of the package are tried by its tests
            try_equation(equation)
        check_conditions(equation)
        if own:
            try_reference(equation)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"task.equation={name!r}: {error}") from error
    except Exception as error:  # the user's own code may raise anything
        raise ConfigError(f"task.equation={name!r}: {type(error).__name__}: {error}{line_of(error, name)}") from error
    return equation


def parse_numbers(field: str, text: str) -> dict[str, float]:
    """'nu=0.01, beta=30' as a dict.

    Raises:
        ConfigError: a part that is not name=number.

    >>> parse_numbers('task.weights', 'a=1, b=2.5')
    {'a': 1.0, 'b': 2.5}
    """
    found = {}
    for part in words(text):
        name, _, number = part.partition("=")
        if name.strip() in found:
            raise ConfigError(f"{field}={text!r} gives {name.strip()!r} twice; give it once")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            raise ConfigError(f"{field}={text!r}: {part!r} must be name=number, such as 'nu=0.01'") from None
    return found


EXPERIMENT = Pinn()
