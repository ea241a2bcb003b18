"""Learning rates against the step."""

import abc
import dataclasses
from typing import ClassVar

import optax

from sbjax.common.options import MISSING, Spec, option
from sbjax.optimizers.base import Schedule


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
class Triangle(Schedule):
    """A straight line up to the learning rate and one down, each from a share of it.

    >>> rate = Triangle(first_factor=0.2, peak_share=0.25, last_factor=0.1).make(1.0, 100)
    >>> [round(float(rate(step)), 3) for step in (0, 25, 100)]
    [0.2, 1.0, 0.1]
    """

    name: ClassVar[str] = "triangle"

    first_factor: float = option(0.2, "of the learning rate, at the first step", least=0, most=1)
    peak_share: float = option(0.23, "share of the steps up to the learning rate", above=0, below=1)
    last_factor: float = option(0.07, "of the learning rate, after the last step", least=0, most=1)

    def make(self, learning_rate: float, train_steps: int) -> optax.Schedule:
        if not 0 <= learning_rate < float("inf"):
            raise ValueError(f"learning_rate={learning_rate} must be a number >= 0")
        peak = max(1, round(self.peak_share * train_steps))
        up = optax.linear_schedule(self.first_factor * learning_rate, learning_rate, peak)
        down = optax.linear_schedule(learning_rate, self.last_factor * learning_rate, max(1, train_steps - peak))
        return optax.join_schedules([up, down], [peak])


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
