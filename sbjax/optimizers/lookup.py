"""Which fields a section reads, by the optimiser and the schedule that it names."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sbjax.common import options
from sbjax.common.names import check_choice, is_import_path
from sbjax.common.options import Spec
from sbjax.optimizers import user
from sbjax.optimizers.base import Part
from sbjax.optimizers.registry import OPTIMIZERS, SCHEDULES

NAME = Spec("sgd", f"{', '.join(OPTIMIZERS)}, or an import path")
LEARNING_RATE = Spec(0.1, "learning rate after the warm-up", least=0)
SCHEDULE = Spec("cosine", f"{', '.join(SCHEDULES)}, or an import path", off="constant")
FIRST_BIAS_SCALE = Spec(
    1.0,
    "the first layer's bias is trained in a unit so many times larger; 0 = the unit in which a folded expansion's "
    "constants move it",
    least=0,
)


class Kind(NamedTuple):
    """A part by its name: its options, and what makes it of their values."""

    name: str
    specs: dict[str, Spec]
    make: Callable[[Mapping[str, Any]], Part]

    def made_of(self, values: Mapping[str, Any]) -> Part:
        """The part with its own options among the values of a section."""
        return self.make({name: values[name] for name in self.specs})


class Found(NamedTuple):
    """What a section's names name, and all specs together."""

    optimizer: Kind
    schedule: Kind | None
    specs: dict[str, Spec]

    def is_users(self, name: str) -> bool:
        """Whether a field that some built-in part reads too is an option of a user's own, with a default."""
        kinds = ((self.optimizer, OPTIMIZERS), (self.schedule, SCHEDULES))
        own = any(kind and kind.name not in table and name in kind.specs for kind, table in kinds)
        return own and is_known(name) and self.specs[name].default is not options.MISSING

    def no_effect(self, name: str, prefix: str) -> str:
        """Why a field that others read is not read here."""
        known = _known()[name]
        if self.schedule is None and (name in ("learning_rate", "schedule") or known.decides == "schedule"):
            return f"has no effect with {prefix}name={self.optimizer.name!r}, which finds its own step length"
        chosen = self.optimizer if known.decides == "name" else self.schedule
        return f"has no effect with {prefix}{known.decides}={chosen.name!r}: it is read by {', '.join(known.readers)}"


class Known(NamedTuple):
    """A field that not every section reads: which field decides, who reads it, and its specs."""

    decides: str
    readers: tuple[str, ...]
    specs: tuple[Spec, ...]


def find(given: Mapping[str, Any], prefix: str) -> tuple[Found | None, list[str]]:
    """The parts that a section names, or None; and what is wrong."""
    problems: list[str] = []

    def part(field, spec, of):
        try:
            return of(given.get(field, spec.default), f"{prefix}{field}")
        except ValueError as error:
            problems.append(str(error))
            return None

    optimizer = part("name", NAME, _optimizer_kind)
    schedule = None
    if optimizer is not None and optimizer[1]:
        schedule = part("schedule", SCHEDULE, _schedule_kind)
    if problems:
        return None, problems
    kind, scheduled = optimizer
    around = {"first_bias_scale": FIRST_BIAS_SCALE}
    if scheduled:
        around = {"learning_rate": LEARNING_RATE, "schedule": SCHEDULE, **schedule.specs, **around}
    for name in kind.specs.keys() & {"name", *around}:
        problems.append(f"{prefix}name={kind.name!r} has an option {name!r}, which the section has already; rename it")
    return (None if problems else Found(kind, schedule, {"name": NAME, **kind.specs, **around})), problems


def _optimizer_kind(name: Any, field: str) -> tuple[Kind, bool]:
    """And whether it reads a learning rate."""
    if is_import_path(name):
        part = _user_part(name, field, ("learning_rate",))
        kind = Kind(name, part.specs, functools.partial(user.make_optimizer, part))
        return kind, user.is_scheduled(part)
    check_choice(name, OPTIMIZERS, what=field)
    part = OPTIMIZERS[name]
    return Kind(name, options.describe(part), lambda values: part(**values)), part.scheduled


def _schedule_kind(name: Any, field: str) -> Kind:
    if is_import_path(name):
        part = _user_part(name, field, ("learning_rate", "train_steps"))
        return Kind(name, part.specs, functools.partial(user.make_schedule, part))
    check_choice(name, SCHEDULES, what=field)
    part = SCHEDULES[name]
    return Kind(name, options.describe(part), lambda values: part(**values))


def _user_part(name: str, field: str, arguments: tuple[str, ...]) -> user.UserPart:
    try:
        return user.load(name, arguments=arguments)
    except ValueError as error:
        raise ValueError(f"{field}={name!r}: {error}") from error


@functools.cache
def _known() -> dict[str, Known]:
    """By name of the field."""
    found: dict[str, Known] = {}
    for decides, table in (("name", OPTIMIZERS), ("schedule", SCHEDULES)):
        for part in table.values():
            for name, spec in options.describe(part).items():
                before = found.get(name, Known(decides, (), ()))
                found[name] = Known(decides, (*before.readers, part.name), (*before.specs, spec))
    scheduled = tuple(part.name for part in OPTIMIZERS.values() if part.scheduled)
    for name, spec in (("learning_rate", LEARNING_RATE), ("schedule", SCHEDULE)):
        found[name] = Known("name", scheduled, (spec,))
    return found


def is_known(name: str) -> bool:
    """Whether some optimiser or schedule reads a field of this name."""
    return name in _known()


def is_default(name: str, value: Any) -> bool:
    """Whether a value is what base configs hold: the default of the parts that read it, or 'off' for want of one."""
    return any(
        value == (spec.off if spec.default is options.MISSING else spec.default) for spec in _known()[name].specs
    )


def is_neutral(name: str, value: Any) -> bool:
    """Whether a value says nothing: a default, or 'off'."""
    return any(same(value, known) for spec in _known()[name].specs for known in (spec.default, spec.off))


def same(value: Any, known: Any) -> bool:
    """Equality that tells True from 1 and False from 0.

    >>> same(1, 1.0), same(True, 1.0)
    (True, False)
    """
    return isinstance(value, bool) == isinstance(known, bool) and value == known
