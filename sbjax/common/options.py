"""Options that describe and check themselves.

A section of a config, a model, an optimiser, an expansion: each is a dataclass (or a function) whose fields are its
options. A field made by `option` carries one line of help, its bounds or choices, and when it is read at all. From
these come the types, the errors with near names, `--help`, the list of fields in the docs, and the error tests.

A class or function that knows nothing of this module works as well: its annotations and defaults are read.
"""

import dataclasses
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sbjax.common.names import near, shown

MISSING = dataclasses.MISSING
LARGEST = 2**31 - 1
"""Of whole numbers without a bound of their own: steps and sizes are counted in 32 bits."""
LONGEST = 300
"""Entries of a tuple: each may be a layer, and a layer takes a while to build."""
# Of a Flax module, not the user's to set.
_RESERVED = ("parent", "name")


class Spec(NamedTuple):
    """One option.

    Attributes:
        default: its value where none is given; `MISSING` = it must be given.
        help: one line.
        least, above, most, below: bounds, `>=`, `>`, `<=`, `<`; of a tuple they hold for each of its numbers, of which
            there must be one.
        choices: the only values, for words.
        off: a value that says 'not used', accepted where the option is not read.
        only: `{another option: condition}`: read only where the conditions hold, see `one_of`, `given`, `has`.
        free: may differ between a run and its continuation.
        like: for options without a default of their own type: a value of the right type.
    """

    default: Any = MISSING
    help: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: tuple | None = None
    off: Any = MISSING
    only: Mapping[str, "Condition"] = {}
    free: bool = False
    like: Any = MISSING

    @property
    def bounds(self) -> str:
        """The bounds in words: '>= 0, < 1'."""
        signs = (("least", ">="), ("above", ">"), ("most", "<="), ("below", "<"))
        given = [(sign, getattr(self, name)) for name, sign in signs]
        return ", ".join(
            f"{sign} {bound if isinstance(bound, int) else f'{bound:g}'}" for sign, bound in given if bound is not None
        )


class Condition(NamedTuple):
    """A test of another option's value, and its wording: 'schedule is {wording}'."""

    test: Callable[[Any], bool]
    wording: str


def one_of(*values: Any) -> Condition:
    """The other option has one of these values."""
    return Condition(lambda value: value in values, " or ".join(f"={shown(value)}" for value in values))


def given() -> Condition:
    """The other option is set: not empty, not 0, not False."""
    return Condition(bool, " given")


def has(word: str) -> Condition:
    """The other option, words separated by commas or a list of words, holds this one."""
    return Condition(lambda value: word in words(value), f" holding {word!r}")


def words(value: Any) -> list[str]:
    """A list of words, from one or from a text with commas.

    >>> words('a, b,'), words(('a',))
    (['a', 'b'], ['a'])
    """
    parts = value.split(",") if isinstance(value, str) else list(value)
    return [part.strip() if isinstance(part, str) else part for part in parts if str(part).strip()]


def option(default: Any, help: str, **about: Any) -> Any:
    """A dataclass field with its help and bounds, see `Spec`.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Adam:
    ...     learning_rate: float = option(1e-3, 'step size', above=0)
    >>> read(Adam, {'learning_rate': 1}, where='optimizer')
    (Adam(learning_rate=1.0), [])
    >>> read(Adam, {'learning_rat': 1}, where='optimizer')[1]
    ["optimizer.learning_rat=1 is unknown, did you mean 'learning_rate'?; known: learning_rate"]
    """
    spec = Spec(default, help, **about)
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata={"option": spec})
    return dataclasses.field(default=default, metadata={"option": spec})


def describe(part: Any, *, without: tuple[str, ...] = ()) -> dict[str, Spec]:
    """The options of a dataclass, a Flax module, a function or a `functools.partial` of one, by name.

    Options that a partial has set to something are its defaults; those in `without` are set by the caller.

    >>> def gaussian(rate: float = 0.1, *, seed: int = 0): ...
    >>> [(name, spec.default) for name, spec in describe(gaussian).items()]
    [('rate', 0.1), ('seed', 0)]
    """
    if isinstance(part, functools.partial):
        own = describe(part.func, without=without)
        return {name: spec._replace(default=part.keywords.get(name, spec.default)) for name, spec in own.items()}
    if dataclasses.is_dataclass(part):
        found = {}
        for field in dataclasses.fields(part):
            if field.init and field.name not in (*_RESERVED, *without):
                plain = Spec(field.default if field.default_factory is MISSING else field.default_factory())
                found[field.name] = field.metadata.get("option", plain)
        return found
    parameters = inspect.signature(part).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in without]
    return {p.name: Spec(MISSING if p.default is p.empty else p.default) for p in named}


def open_ended(part: Any) -> bool:
    """Whether a function takes any keyword, so that unknown names cannot be told."""
    part = part.func if isinstance(part, functools.partial) else part
    if dataclasses.is_dataclass(part):
        return False
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(part).parameters.values())


def check(specs: Mapping[str, Spec], given: Mapping[str, Any], *, where: str) -> tuple[dict[str, Any], list[str]]:
    """Values of all options, the given ones over the defaults, and what is wrong with them.

    Args:
        specs: as `describe` returns.
        given: values by name.
        where: what errors call the whole, such as 'optimizer'.

    Returns:
        values by name, with numbers turned into the type of the default; and sentences with field, value and remedy.
    """
    prefix = f"{where}." if where else ""
    if not isinstance(given, Mapping):
        return {}, [f"{where or 'it'}={shown(given)} must be a section with fields, such as {', '.join(specs)}"]
    values = {name: spec.default for name, spec in specs.items() if spec.default is not MISSING}
    problems = []
    for name, value in given.items():
        if name not in specs:
            listed = ", ".join(specs) or "none"
            problems.append(f"{prefix}{name}={shown(value)} is unknown{near(name, specs)}; known: {listed}")
            continue
        converted, problem = _convert(specs[name], value)
        if problem:
            problems.append(f"{prefix}{name}={shown(value)} {problem}")
        else:
            values[name] = converted
    problems += [f"{prefix}{name} is missing; give it" for name in specs if name not in values and name not in given]
    for name, spec in specs.items():
        unmet = unmet_condition(spec, values)
        if unmet and name in values:
            value, other = values[name], unmet[0]
            if value != spec.default and not (spec.off is not MISSING and value == spec.off):
                said = f"{prefix}{other}={shown(values.get(other))}"
                problems.append(
                    f"{prefix}{name}={shown(value)} has no effect with {said}: it is read only with"
                    f" {other}{unmet[1].wording}; leave it out"
                )
    return values, problems


def unmet_condition(spec: Spec, values: Mapping[str, Any]) -> tuple[str, Condition] | None:
    """The first condition under which an option would be read and that does not hold."""
    for other, condition in spec.only.items():
        if other in values and not condition.test(values[other]):
            return other, condition
    return None


def read(part: Any, given: Mapping[str, Any], *, where: str, without: tuple[str, ...] = ()) -> tuple[Any, list[str]]:
    """An instance of a dataclass (or what a function returns) with the given options, or None; and what is wrong."""
    values, problems = check(describe(part, without=without), given, where=where)
    if problems:
        return None, problems
    try:
        return part(**values), []
    except (TypeError, ValueError, ArithmeticError) as error:
        return None, [f"{where}: {error}" if where else str(error)]


def check_instance(instance: Any) -> None:
    """Refuse a dataclass instance that was made with values its options do not admit.

    Raises:
        ValueError: the first of them.

    >>> @dataclasses.dataclass
    ... class Net:
    ...     depth: int = option(2, 'layers', least=1)
    >>> check_instance(Net(0))
    Traceback (most recent call last):
        ...
    ValueError: depth=0 must be >= 1
    """
    specs = describe(type(instance))
    _, problems = check(specs, {name: getattr(instance, name) for name in specs}, where="")
    if problems:
        raise ValueError(problems[0])


def values_of(instance: Any) -> dict[str, Any]:
    """The options of a dataclass instance that are read, as plain values; those without effect are left out."""
    specs = describe(type(instance))
    values = {name: getattr(instance, name) for name in specs}
    return {name: value for name, value in values.items() if unmet_condition(specs[name], values) is None}


def _convert(spec: Spec, value: Any) -> tuple[Any, str | None]:
    """The value in the type of the default, or what is wrong with it."""
    if value is None and spec.default is None:
        return value, None
    example = spec.default if spec.like is MISSING else spec.like
    if example is not MISSING and example is not None and not (spec.choices and value in spec.choices):
        if not fits(value, example):
            return value, f"must be of type {type(example).__name__}, such as {example!r}"
        if isinstance(example, int | float) and not isinstance(value, bool):
            try:
                value = type(example)(value)
            except OverflowError:
                return value, "must be a finite number"
        if isinstance(example, tuple):
            return _convert_each(spec, value, example)
    if spec.choices is not None and value not in spec.choices:
        return value, f"is unknown{near(value, map(str, spec.choices))}; known: {', '.join(map(str, spec.choices))}"
    if isinstance(value, float) and not math.isfinite(value):
        return value, "must be a finite number"
    unbounded = spec.most is None and spec.below is None
    if unbounded and isinstance(value, int) and not -LARGEST <= value <= LARGEST:
        return value, f"must be <= {LARGEST}, the largest whole number of 32 bits"
    if isinstance(value, int | float) and not isinstance(value, bool):
        inside = (
            (spec.least is None or value >= spec.least)
            and (spec.above is None or value > spec.above)
            and (spec.most is None or value <= spec.most)
            and (spec.below is None or value < spec.below)
        )
        if not inside:
            return value, f"must be {spec.bounds}"
    return value, None


def _convert_each(spec: Spec, value: Any, example: tuple) -> tuple[Any, str | None]:
    """The entries of a tuple, each in the type and within the bounds of the example's, where these are of one type."""
    value, kinds = tuple(value), {type(entry) for entry in example}
    if not value and (example and spec.bounds):
        return value, f"must hold at least one number, such as {example!r}"
    if len(value) > LONGEST:
        return value, f"holds {len(value)} entries, more than {LONGEST}"
    if len(kinds) != 1:
        return value, None
    each = spec._replace(default=example[0], like=MISSING)
    converted = [_convert(each, entry) for entry in value]
    wrong = next((problem for _, problem in converted if problem), None)
    return tuple(entry for entry, _ in converted), wrong and f"holds an entry that {wrong}"


def fits(value: Any, example: Any) -> bool:
    """Whether a value has the type of an example; whole numbers pass for floats, lists for tuples."""
    if isinstance(example, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(example, bool)
    if isinstance(example, int | float):
        return isinstance(value, numbers.Integral if isinstance(example, int) else numbers.Real)
    if isinstance(example, tuple):
        return isinstance(value, list | tuple)
    if callable(example):
        return True
    return isinstance(value, type(example))
