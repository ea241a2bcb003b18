"""Learning rates against the step."""

import abc
import dataclasses
from typing import ClassVar

import optax

from sbjax.optimizers.base import Schedule
from sbjax.options import MISSING, Spec, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Warmed(Schedule):
    """A schedule after a linear warm-up from 0."""

    warmup_share: float = option(0.05, "share of the steps with a rate that rises from 0", least=0, below=1, off=0.0)

    def make(self, learning_rate: float, train_steps: int) -> optax.Schedule:
        if not 0 <= learning_rate < float("inf"):
            raise ValueError(f"learning_rate={learning_rate} must be a number >= 0")
        warmup_steps = round(self.warmup_share * train_steps)
        schedule = self.after(learning_rate, train_steps - warmup_steps)
        if not warmup_steps:
            return schedule
        ramp = optax.linear_schedule(0.0, learning_rate, warmup_steps)
        return optax.join_schedules([ramp, schedule], [warmup_steps])

    @abc.abstractmethod
    def after(self, learning_rate: float, steps: int) -> optax.Schedule:
        """The schedule of the steps after the warm-up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Warmed):
    """Always the learning rate."""

    name: ClassVar[str] = "constant"

    def after(self, learning_rate: float, steps: int) -> optax.Schedule:
        del steps
        return optax.constant_schedule(learning_rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(Warmed):
    """Half a cosine from the learning rate to 0 at the last step.

    >>> round(float(Cosine(warmup_share=0.0).make(0.1, 100)(50)), 6)
    0.05
    """

    name: ClassVar[str] = "cosine"
    ends_at_zero: ClassVar[bool] = True

    def after(self, learning_rate: float, steps: int) -> optax.Schedule:
        return optax.cosine_decay_schedule(learning_rate, max(steps, 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step(Warmed):
    """The learning rate, multiplied by `decay_factor` every `decay_every_steps`.

    >>> stairs = Step(decay_every_steps=10, decay_factor=0.5, warmup_share=0.0).make(1.0, 30)
    >>> [float(stairs(step)) for step in (0, 9, 10, 29)]
    [1.0, 1.0, 0.5, 0.25]
    """

    name: ClassVar[str] = "step"

    # It must be given: there is no interval that suits trainings of all lengths.
    decay_every_steps: int = dataclasses.field(
        metadata={"option": Spec(MISSING, "steps between two decays", least=1, off=0, like=1)}
    )
    decay_factor: float = option(0.1, "factor of a decay", above=0, most=1)

    def after(self, learning_rate: float, steps: int) -> optax.Schedule:
        del steps
        return optax.exponential_decay(learning_rate, self.decay_every_steps, self.decay_factor, staircase=True)
