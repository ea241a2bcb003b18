"""L-BFGS with a zoom line search."""

import dataclasses
from typing import ClassVar

import optax

from sbjax.common.options import option
from sbjax.optimizers.base import Optimizer, chained, length_unit, with_arguments


@dataclasses.dataclass(frozen=True)
class Lbfgs(Optimizer):
    """`optax.lbfgs`: its line search finds the step length, on one objective that stays as it is."""

    name: ClassVar[str] = "lbfgs"
    scheduled: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True
    one_gradient: ClassVar[bool] = False
    first_bias_unit = staticmethod(length_unit)

    memory_size: int = option(10, "pairs of steps and gradients that are kept", least=1, most=1000)

    def make(self, learning_rate: optax.ScalarOrSchedule | None = None) -> optax.GradientTransformationExtraArgs:
        del learning_rate
        return chained(with_arguments(optax.lbfgs(memory_size=self.memory_size), ("value", "grad", "value_fn")))
