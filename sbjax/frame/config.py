"""From a config file to a `Plan`: every field is checked once, here; everything below takes plain arguments."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from sbjax.common import options
from sbjax.common.elsewhere import hint
from sbjax.common.names import near, shown, writable
from sbjax.frame import sections as sections_lib
from sbjax.frame.errors import ConfigError
from sbjax.frame.plan import Plan
from sbjax.frame.protocol import Experiment
from sbjax.frame.reader import SECOND_PHASE, Reader
from sbjax.optimizers import lookup
from sbjax.optimizers import section as optimizer_lib

BETWEEN = ("pairs", "start")

Find = Callable[[Mapping[str, Any]], Experiment]


class Config(ConfigDict):
    """A `ConfigDict` that says what a field of an earlier version is called now."""

    def __getattr__(self, name: str) -> Any:
        new = sections_lib.RENAMED.get(name)
        if new is not None and not object.__getattribute__(self, "_fields").__contains__(name):
            raise ConfigError(f"the section {name!r} is now called {new!r}: config.{new}")
        return super().__getattr__(name)

    def __setitem__(self, name: str, value: Any) -> None:
        fields = object.__getattribute__(self, "_fields")
        if isinstance(fields.get(name), ConfigDict) and not isinstance(value, Mapping | ConfigDict | FieldReference):
            such = ", ".join(map(repr, fields[name])) or "names of runs or arms"
            raise ConfigError(f"{name}={shown(value)} must be a section with fields, such as {such}")
        super().__setitem__(name, value)


def base_config(experiment: Experiment, task: Mapping[str, Any] | None = None) -> ConfigDict:
    """Every field with its default, for an experiment. A config file changes fields of this one.

    Durations are given once: `train_epochs` or `train_steps`, the other one 0. `arms` maps a name to the fields of
    `task`, `model`, `expansion`, `optimizer` and `second_phase` in which this arm differs, and to its `order`, `role`
    and `labels`; all arms share seeds, data order and steps. `suite` maps a name to sections in which one of several
    runs differs.
    """
    general = {name: spec.default for name, spec in options.describe(sections_lib.General).items()}
    shared = {name: _defaults(part) for name, part in sections_lib.SHARED.items()}
    return Config(
        {
            **general,
            "task": {"kind": experiment.name, **_defaults(experiment.fields), **(task or {})},
            "model": dict(experiment.model),
            "expansion": {"kind": "none"},
            "optimizer": optimizer_lib.union_fields(),
            "second_phase": dict(SECOND_PHASE),
            **shared,
            "arms": {},
            "suite": {},
        }
    )


def parse_words(
    argument: str | None, choices: dict[str, Iterable[str]], *, flags: Iterable[str] = ("smoke",)
) -> dict[str, Any]:
    """Words after the colon of `--config=file.py:a,b,smoke`.

    Args:
        argument: the words, separated by commas, in any order; None or '' = defaults.
        choices: names with their possible words; the first one is the default.
        flags: words that are on or off.

    Returns:
        One word a name, and True or False a flag.

    Raises:
        ConfigError: an unknown word, or two words for one name.

    >>> parse_words('cnn,smoke', {'dataset': ['digits', 'mnist'], 'model': ['mlp', 'cnn']})
    {'dataset': 'digits', 'model': 'cnn', 'smoke': True}
    """
    words = options.words(argument or "")
    choices = {name: list(known) for name, known in choices.items()}
    chosen: dict[str, Any] = {name: known[0] for name, known in choices.items()} | dict.fromkeys(flags, False)
    seen: dict[str, str] = {}
    for word in words:
        name = next((name for name, known in choices.items() if word in known), word if word in flags else None)
        if name is None:
            every = [*(w for known in choices.values() for w in known), *flags]
            other = f"; any other set: --config.task.dataset={word}" if "dataset" in choices else ""
            raise ConfigError(
                f"config argument {word!r} is unknown{near(word, every)}; known: {', '.join(every)}{other}"
            )
        if name in seen and seen[name] != word:
            raise ConfigError(f"config arguments {seen[name]!r} and {word!r} are both a {name}; give one")
        seen[name] = word
        chosen[name] = True if word in flags else word
    return chosen


def shrink(config: ConfigDict, experiment: Experiment) -> ConfigDict:
    """What the word `smoke` does: two replicas, a few steps, little data; everything else as it was.

    Raises:
        ConfigError: a field that this changes was taken out of its section.
    """
    try:
        _shrink(config, experiment)
    except (AttributeError, KeyError) as error:
        if not (gone := _gone(config, experiment, str(error))):
            raise
        raise ConfigError(
            f"{gone[0]} has no field {gone[1]!r}, which shrink (the word `smoke`) reads: the file replaced the whole "
            f"section; give it, config.{gone[0]} = {{{gone[1]!r}: ..}}"
        ) from error
    return config


def _shrink(config, experiment):
    config.replicas = 2
    config.train_epochs, config.train_steps = 0.0, 4
    if "reports" in experiment.general:
        config.reports = 2
    if "checkpoint" in experiment.sections:
        config.checkpoint.saves = 2
    config.second_phase.steps = min(config.second_phase.steps, 2)
    experiment.shrink(config)


def _gone(config, experiment, said):
    """Section and field of a base config that an error of a missing field speaks of, or None."""
    for section, fields in base_config(experiment).items():
        own = config.get(section)
        for field in fields if isinstance(fields, ConfigDict) and isinstance(own, ConfigDict) else ():
            if field not in own and f"'{field}'" in said:
                return section, field
    return None


def read(config: ConfigDict | Mapping[str, Any], find: Find) -> Plan:
    """The plan of a configuration.

    Args:
        config: as `base_config`, or nested dicts in which any field with a default may be missing.
        find: `(section task) -> experiment`, see `sbjax.experiments.registry`.

    Raises:
        ConfigError: naming every unknown field, wrong type, impossible value, and field without effect.
    """
    given = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    given.pop("suite", None)
    if strange := _strange(given):
        raise ConfigError("\n".join(strange))
    task = given.get("task", {})
    if not isinstance(task, Mapping):
        raise ConfigError(f"task={shown(task)} must be a section with fields, such as {{'kind': 'images'}}")
    experiment = find(task)
    problems = _unknown(given, experiment)
    if problems:
        raise ConfigError("\n".join(problems))
    reader = Reader(experiment, given)
    plan = reader.plan()
    problems = reader.problems or _impossible(plan)
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return plan


def _defaults(part):
    return {name: spec.default for name, spec in options.describe(part).items() if spec.default is not options.MISSING}


def _unknown(given, experiment):
    """Sections and fields of the top level that do not exist, or that this experiment does not read."""
    base = base_config(experiment).to_dict()
    reads = {*experiment.general, *experiment.sections, "task", "arms"}
    problems = []
    for name, value in given.items():
        if name in sections_lib.RENAMED:
            problems.append(f"{name} is now called {sections_lib.RENAMED[name]!r}")
        elif name not in base:
            problems.append(f"{name}={shown(value)} is unknown{_where_else(name, base)}; known: {', '.join(base)}")
        elif isinstance(base[name], dict) and not isinstance(value, Mapping):
            problems.append(f"{name}={shown(value)} must be a section with fields, such as {{{', '.join(base[name])}}}")
        elif name not in reads:
            problems += _without_effect(name, value, base[name], experiment)
    section = given.get("interpolation")
    between = section.get("between", "") if isinstance(section, Mapping) else ""
    return problems + [  # told before what depends on it
        f"interpolation.between={word!r} is unknown{near(word, BETWEEN)}; known: {', '.join(BETWEEN)}"
        for word in (options.words(between) if isinstance(between, str) else ())
        if word not in BETWEEN
    ]


_NO_UTF8 = "text that is no UTF-8 cannot be written to config.json; rename what it names"


def _strange(value, path=""):
    """Sentences about values that `config.json` could not hold."""
    if isinstance(value, Mapping):
        found = [f"{path or 'the config'} has a field {shown(n)}: names are text" for n in value if type(n) is not str]
        found += [f"{path or 'the config'} has a field {n!a}: {_NO_UTF8}" for n in value if not writable(n)]
        return found + [s for n, inner in value.items() for s in _strange(inner, f"{path}.{n}".lstrip("."))]
    if isinstance(value, list | tuple):
        return [sentence for inner in value for sentence in _strange(inner, path)]
    if not writable(value):
        return [f"{path}={value!a}: {_NO_UTF8}"]
    if value is None or isinstance(value, str | bool | int | float):
        return []
    kind = type(value).__name__
    return [f"{path}={shown(value)} is a {kind}, and fields hold text, numbers, True, False, None, tuples and sections"]


def _where_else(name, base):
    """Near names, also of fields inside sections: ', did you mean 'replicas'?'."""
    inside = [f"{section}.{field}" for section, fields in base.items() if isinstance(fields, dict) for field in fields]
    exact = [path for path in inside if path.split(".")[1] == name]
    if exact:
        return f", did you mean {' or '.join(map(repr, exact))}?"
    return hint(name, [*base, *inside])


def _without_effect(name, value, default, experiment):
    """Sentences about fields that the experiment does not read and that are neither at their default nor off."""
    reads = ", ".join((*experiment.sections, *experiment.general))
    if not isinstance(default, dict):
        changed = {name: value} if value != default else {}
    else:
        changed = {
            f"{name}.{field}": found for field, found in value.items() if not _neutral(name, field, found, default)
        }
    return [
        f"{path}={shown(found)} has no effect with task.kind={experiment.name!r}, which reads {reads}; leave it out"
        for path, found in changed.items()
    ]


def _neutral(section, field, value, default):
    """Whether a field of a section that is not read is at its default, or says that it is off."""
    if field in default and lookup.same(value, default[field]):
        return True
    if section in ("optimizer", "second_phase"):
        return lookup.is_known(field) and lookup.is_neutral(field, value)
    specs = options.describe(sections_lib.SHARED[section]) if section in sections_lib.SHARED else {}
    return field in specs and specs[field].off is not options.MISSING and value == specs[field].off


def _impossible(plan):
    """What is wrong with the whole, field against field."""
    experiment, problems = plan.experiment, []
    if (plan.train_epochs > 0) == (plan.train_steps > 0):
        problems.append(
            f"train_epochs={plan.train_epochs} and train_steps={plan.train_steps}: give exactly one of them, the other "
            "one 0"
        )
    elif plan.train_epochs and "train_epochs" not in experiment.general:
        problems.append(
            f"train_epochs={plan.train_epochs}: task.kind={experiment.name!r} has no epochs; give train_steps"
        )
    if options.words(plan.monitor.kinds) and not options.words(plan.monitor.at):
        problems.append(
            f"monitor.at={plan.monitor.at!r}: monitor.kinds={plan.monitor.kinds!r} would be measured nowhere; give "
            "steps, such as 'end'"
        )
    for arm in plan.arms:
        second = arm.second_phase.steps if arm.second_phase else 0
        if plan.train_steps <= options.LARGEST < plan.train_steps + second:
            problems.append(
                f"train_steps={plan.train_steps} and second_phase.steps={second} add up to more than {options.LARGEST} "
                "steps; lower one"
            )
    if plan.interpolation.between:
        problems += _interpolation(plan)
    seen: dict[str, str] = {}
    for arm in plan.arms:
        twin = seen.setdefault(repr((arm.task, arm.model, arm.expansion, arm.optimizer, arm.second_phase)), arm.name)
        if twin != arm.name:
            problems.append(f"arms.{arm.name} has the settings of arms.{twin}: it would be trained a second time; "
                            "leave it out")  # fmt: skip
    return problems or experiment.check(plan)


def _interpolation(plan):
    section, problems = plan.interpolation, []
    if section.points % 2 == 0:
        problems.append(f"interpolation.points={section.points} must be odd: one of them is the midpoint")
    if "pairs" in options.words(section.between) and plan.replicas < 2:
        problems.append(f"interpolation.between='pairs' needs replicas >= 2, not {plan.replicas}")
    return problems
