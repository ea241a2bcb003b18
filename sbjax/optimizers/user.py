"""Optimisers and schedules of a user's own, by import path: `module:attribute` or `path/file.py:attribute`.

A part is a class with `make`, whose fields are its options, or a function, whose other keyword arguments are.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax

from sbjax.common import names, options
from sbjax.optimizers.base import Optimizer, Schedule, calls_the_loss, with_arguments

FLAGS = ("reads_population", "needs_residuals", "deterministic")


class UserPart(NamedTuple):
    """What an import path names.

    Attributes:
        path: the import path.
        target: a class or function.
        specs: its options.
    """

    path: str
    target: Any
    specs: dict[str, options.Spec]


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserOptimizer(Optimizer):
    """A user's optimiser with options; equal to another one of the same path and options."""

    name: str
    options: Mapping[str, Any]
    build: Callable[..., Any] = dataclasses.field(compare=False)
    unit: Callable[..., float] | None = dataclasses.field(compare=False)
    scheduled: bool
    reads_population: bool
    needs_residuals: bool
    deterministic: bool
    one_gradient: bool

    def __post_init__(self):
        """The options were checked against the user's part."""

    def values(self) -> dict[str, Any]:
        return dict(self.options)

    def make(self, learning_rate: optax.ScalarOrSchedule | None = None) -> optax.GradientTransformationExtraArgs:
        """As of every optimiser.

        Raises:
            ValueError: the user's part fails, or gives no transformation.
        """
        made = _call(self.name, self.build, *([learning_rate] if self.scheduled else []))
        if not (callable(getattr(made, "init", None)) and callable(getattr(made, "update", None))):
            raise ValueError(f"{self.name!r} gives {_short(made)}; it must give an optax.GradientTransformation")
        named = inspect.signature(made.update).parameters
        asked = {"hyper": self.reads_population, "residual_fn": self.needs_residuals}
        kept = ("value", "grad", "value_fn", *(name for name, wanted in asked.items() if wanted or name in named))
        return with_arguments(made, kept)

    def first_bias_unit(self, constants):
        return super().first_bias_unit(constants) if self.unit is None else self.unit(constants)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserSchedule(Schedule):
    """A user's schedule with options."""

    name: str
    options: Mapping[str, Any]
    build: Callable[..., Any] = dataclasses.field(compare=False)
    ends_at_zero: bool

    def __post_init__(self):
        """The options were checked against the user's part."""

    def values(self) -> dict[str, Any]:
        return dict(self.options)

    def make(self, learning_rate: float, train_steps: int) -> optax.Schedule:
        made = _call(self.name, self.build, learning_rate=learning_rate, train_steps=train_steps)
        if not callable(made):
            raise ValueError(f"{self.name!r} gives {_short(made)}; it must give a function step -> learning rate")
        return made


def load(path: str, *, arguments: tuple[str, ...]) -> UserPart:
    """The part that an import path names.

    Args:
        arguments: those that are no options of a function: its caller sets them.

    Raises:
        ValueError: there is none; it is neither a class with `make` nor a function; it takes any keyword.
    """
    target = names.import_path(path)
    is_class = inspect.isclass(target)
    if not callable(target) or (is_class and not callable(getattr(target, "make", None))):
        raise ValueError(
            f"{path!r} is {_short(target)}; it must be a class with make({', '.join(arguments)}), or a "
            f"function of {', '.join(arguments)} and its options"
        )
    if options.open_ended(target):
        raise ValueError(f"{path!r} takes any keyword, so that misspelt ones could not be told; name its options")
    return UserPart(path, target, options.describe(target, without=() if is_class else arguments))


def is_scheduled(part: UserPart) -> bool:
    """Whether an optimiser takes a learning rate: said by `scheduled`, else seen from its arguments."""
    if inspect.isclass(part.target):
        return getattr(part.target, "scheduled", len(inspect.signature(part.target.make).parameters) > 1)
    return getattr(part.target, "scheduled", "learning_rate" in inspect.signature(part.target).parameters)


def make_optimizer(part: UserPart, values: Mapping[str, Any]) -> UserOptimizer:
    """The optimiser with these options, tried once.

    Raises:
        ValueError: it fails, or what it makes is no optax transformation.
    """
    said = part.target
    if inspect.isclass(part.target):
        said = _call(part.path, part.target, **values)
        build = said.make
    elif is_scheduled(part):

        def build(learning_rate):
            return part.target(learning_rate=learning_rate, **values)
    else:
        build = functools.partial(part.target, **values)
    flags = {flag: bool(getattr(said, flag, False)) for flag in FLAGS}
    unit = getattr(said, "first_bias_unit", None)
    optimizer = UserOptimizer(
        name=part.path, options=dict(values), build=build, unit=unit, scheduled=is_scheduled(part), one_gradient=True,
        **flags,
    )  # fmt: skip
    made = optimizer.make(*([optax.constant_schedule(0.1)] if optimizer.scheduled else []))
    cheap = getattr(said, "one_gradient", True) and not calls_the_loss(made)
    return dataclasses.replace(optimizer, one_gradient=bool(cheap))


def make_schedule(part: UserPart, values: Mapping[str, Any]) -> UserSchedule:
    """The schedule with these options, tried once.

    Raises:
        ValueError: it fails, or what it makes is no function.
    """
    said = part.target
    if inspect.isclass(part.target):
        said = _call(part.path, part.target, **values)
        build = said.make
    else:
        build = functools.partial(part.target, **values)
    ends = bool(getattr(said, "ends_at_zero", False))
    schedule = UserSchedule(name=part.path, options=dict(values), build=build, ends_at_zero=ends)
    schedule.make(0.1, 10)
    return schedule


def _call(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except Exception as error:  # the user's own code may raise anything
        raise ValueError(f"{name!r} failed: {type(error).__name__}: {error}") from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"a {type(value).__name__}"
