"""From a config file to a `Plan`: every field is checked once, here; everything below takes plain arguments."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from sbjax import options
from sbjax.frame import sections as sections_lib
from sbjax.frame.errors import ConfigError
from sbjax.frame.plan import CONTROL, REFERENCE, TREATMENT, ArmPlan, Phase, Plan
from sbjax.frame.protocol import GENERAL, Experiment
from sbjax.names import near
from sbjax.optimizers import section as optimizer_lib

# Taken whole by `read`: their fields depend on a name in them.
OPEN = ("model", "expansion", "optimizer", "second_phase")
ARM_SECTIONS = ("task", "model", "expansion", "optimizer", "second_phase")
ARM_WORDS = ("order", "role", "labels")
SECOND_PHASE = {"steps": 0, **optimizer_lib.union_fields(), "name": "lbfgs", "weight_decay": 0.0}
SECOND_PHASE["schedule"] = "constant"

Find = Callable[[Mapping[str, Any]], Experiment]


class Config(ConfigDict):
    """A `ConfigDict` that says what a field of an earlier version is called now."""

    def __getattr__(self, name: str) -> Any:
        new = sections_lib.RENAMED.get(name)
        if new is not None and not object.__getattribute__(self, "_fields").__contains__(name):
            raise ConfigError(f"the section {name!r} is now called {new!r}: config.{new}")
        return super().__getattr__(name)


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
            raise ConfigError(f"config argument {word!r} is unknown{near(word, every)}; known: {', '.join(every)}")
        if name in seen and seen[name] != word:
            raise ConfigError(f"config arguments {seen[name]!r} and {word!r} are both a {name}; give one")
        seen[name] = word
        chosen[name] = True if word in flags else word
    return chosen


def shrink(config: ConfigDict, experiment: Experiment) -> ConfigDict:
    """What the word `smoke` does: two replicas, a few steps, little data; everything else as it was."""
    config.replicas = 2
    config.train_epochs, config.train_steps = 0.0, 4
    config.reports = 2
    config.checkpoint.saves = 2
    config.second_phase.steps = min(config.second_phase.steps, 2)
    experiment.shrink(config)
    return config


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
    task = given.get("task", {})
    if not isinstance(task, Mapping):
        raise ConfigError(f"task={task!r} must be a section with fields, such as {{'kind': 'images'}}")
    experiment = find(task)
    problems = _unknown(given, experiment)
    if problems:
        raise ConfigError("\n".join(problems))
    reader = _Reader(experiment, given)
    plan = reader.plan()
    problems = reader.problems or _impossible(plan)
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return plan


def differences(ours: dict[str, Any], theirs: dict[str, Any], experiment: Experiment) -> list[str]:
    """'field: a here, b there' for every field that may not change when a run goes on."""
    ours, theirs = (flat(json.loads(json.dumps(side))) for side in (ours, theirs))
    free = free_fields(experiment)
    return [
        f"{name}: {ours.get(name, 'absent')!r} now, {theirs.get(name, 'absent')!r} in the workdir"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name) and name not in free
    ]


def free_fields(experiment: Experiment) -> set[str]:
    """Fields that may change between a run and its continuation: where data lie, what is kept of checkpoints."""
    parts = {"task": experiment.fields, **sections_lib.SHARED}
    specs = {f"{name}.{field}": s for name, part in parts.items() for field, s in options.describe(part).items()}
    return {name for name, spec in specs.items() if spec.free}


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{'a.b': leaf} of nested dicts.

    >>> flat({'a': {'b': 1, 'c': {}}, 'd': 2})
    {'a.b': 1, 'a.c': {}, 'd': 2}
    """
    if not isinstance(tree, Mapping) or not tree:
        return {prefix[:-1]: tree}
    return {k: v for name, value in tree.items() for k, v in flat(value, f"{prefix}{name}.").items()}


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
            problems.append(f"{name}={value!r} is unknown{_where_else(name, base)}; known: {', '.join(base)}")
        elif isinstance(base[name], dict) and not isinstance(value, Mapping):
            problems.append(f"{name}={value!r} must be a section with fields, such as {{{', '.join(base[name])}}}")
        elif name not in reads:
            problems += _without_effect(name, value, base[name], experiment)
    return problems


def _where_else(name, base):
    """Near names, also of fields inside sections: ', did you mean 'replicas'?'."""
    inside = [f"{section}.{field}" for section, fields in base.items() if isinstance(fields, dict) for field in fields]
    exact = [path for path in inside if path.split(".")[1] == name]
    if exact:
        return f", did you mean {' or '.join(map(repr, exact))}?"
    return near(name, base) or near(name, inside)


def _without_effect(name, value, default, experiment):
    """Sentences about fields that the experiment does not read and that are neither at their default nor off."""
    reads = ", ".join((*experiment.sections, *experiment.general))
    if not isinstance(default, dict):
        changed = {name: value} if value != default else {}
    else:
        off = {field: spec.off for field, spec in _specs(name).items()}
        changed = {
            f"{name}.{field}": found
            for field, found in value.items()
            if (field not in default or found != default[field]) and not (field in off and found == off[field])
        }
    return [
        f"{path}={found!r} has no effect with task.kind={experiment.name!r}, which reads {reads}; leave it out"
        for path, found in changed.items()
    ]


def _specs(section):
    if section in sections_lib.SHARED:
        return options.describe(sections_lib.SHARED[section])
    if section in ("optimizer", "second_phase"):
        return optimizer_lib.union_specs()
    return {}


class _Reader:
    """Reads the sections of one configuration and collects what is wrong with them."""

    def __init__(self, experiment, given):
        self.experiment, self.given, self.problems = experiment, given, []

    def plan(self) -> Plan | None:
        """The plan, or None if there are problems."""
        experiment, given = self.experiment, self.given
        general = self._values(options.describe(sections_lib.General), {k: given[k] for k in GENERAL if k in given}, "")
        shared = {}
        for name, part in sections_lib.SHARED.items():
            fields = given.get(name, {}) if name in experiment.sections else {}
            shared[name] = self._section(part, fields, name)
        task = self._task(given.get("task", {}), {}, "task")
        sections = {name: dict(given.get(name) or self._default(name)) for name in OPEN if name in experiment.sections}
        parts = self._parts(sections, {}, "")
        arms = given.get("arms", {})
        self._check_arm_names(arms, general["reference"])
        if self.problems:
            return None
        plans = [self._arm(name, dict(own), general["reference"], sections) for name, own in arms.items()]
        if self.problems:
            return None
        plans.sort(key=lambda arm: (arm.name != general["reference"], arm.order, arm.name))
        settings = {name: general[name] for name in experiment.general}
        settings |= {"task": {"kind": self._kind(), **options.values_of(task)}}
        settings |= {name: _plain_part(parts[name]) for name in sections}
        settings |= {name: options.values_of(shared[name]) for name in experiment.sections if name in shared}
        settings["arms"] = {plan.name: {**arms[plan.name], **plan.about()} for plan in plans}
        return Plan(
            experiment=experiment, task=task, arms=tuple(plans), settings=json.loads(json.dumps(settings)), **general,
            **shared,
        )  # fmt: skip

    def _kind(self):
        return self.given.get("task", {}).get("kind", self.experiment.name)

    def _default(self, name):
        return {
            "model": self.experiment.model,
            "expansion": {"kind": "none"},
            "optimizer": optimizer_lib.union_fields(),
            "second_phase": SECOND_PHASE,
        }[name]

    def _values(self, specs, fields, where):
        values, problems = options.check(specs, fields, where=where)
        self.problems += problems
        return values

    def _section(self, part, fields, where):
        made, problems = options.read(part, fields, where=where)
        self.problems += problems
        return part() if made is None else made

    def _task(self, shared, own, where):
        """The experiment's own section, the fields of an arm over the shared ones."""
        specs = options.describe(self.experiment.fields)
        shared = {name: value for name, value in shared.items() if name != "kind"}
        for name in (*shared, *own):
            new = sections_lib.RENAMED.get(f"task.{name}")
            if new and name not in specs:
                self.problems.append(f"task.{name} is now called {new!r}")
                shared.pop(name, None), own.pop(name, None)
        own = self._fixed(own, shared, specs, where)
        merged = _inherit(specs, shared, own)
        made, problems = options.read(self.experiment.fields, merged, where=where)
        self.problems += problems
        return made

    def _fixed(self, own, shared, specs, where):
        """An arm's fields without those that must be the same in all arms."""
        kind = self._kind()
        for name in ("kind", *self.experiment.fixed):
            if name in own:
                same = kind if name == "kind" else shared.get(name, specs[name].default)
                if own[name] != same:
                    self.problems.append(f"{where}.{name}={own[name]!r} must be {same!r} as in the whole run")
        return {name: value for name, value in own.items() if name != "kind"}

    def _parts(self, shared, own, where):
        """Model, expansion, optimiser and second phase of an arm, or of all arms."""
        found = {}
        for name, selector in (("model", "name"), ("expansion", "kind")):
            if name in shared:
                mine = dict(own.get(name, {}))
                # Another model or expansion brings all of its fields: the shared ones would not fit.
                other = mine.get(selector, shared[name].get(selector)) != shared[name].get(selector)
                found[name] = mine if other else {**shared[name], **mine}
        for name in ("optimizer", "second_phase"):
            if name in shared:
                mine = dict(own.get(name, {}))
                at = f"{where}{name}" if mine or not where else name
                read = self._optimizer if name == "optimizer" else self._second_phase
                found[name] = read(_inherit_optimizer(shared[name], mine), at, in_arm=bool(where))
        return found

    def _optimizer(self, fields, where, *, in_arm=False):
        choice, problems = optimizer_lib.read_optimizer(fields, where=where)
        self.problems += problems
        return choice

    def _second_phase(self, fields, where, *, in_arm=False):
        fields = dict(fields)
        steps = fields.pop("steps", 0)
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            self.problems.append(f"{where}.steps={steps!r} must be a whole number >= 0")
            return None
        if steps:
            choice = self._optimizer(fields, where)
            return choice and Phase(choice, steps)
        union, specs = optimizer_lib.union_fields(), optimizer_lib.union_specs()
        for name, value in fields.items():
            neutral = [SECOND_PHASE.get(name), union.get(name), specs[name].off if name in specs else None]
            # The matched-bias control follows the expansion in both phases, whether there is a second one or not.
            neutral += [0.0] if name == "first_bias_scale" and in_arm else []
            if value not in neutral:
                self.problems.append(
                    f"{where}.{name}={value!r} has no effect with second_phase.steps=0; set its steps, or leave it out"
                )
        return None

    def _check_arm_names(self, arms, reference):
        if not isinstance(arms, Mapping) or reference not in arms:
            known = arms if isinstance(arms, Mapping) else {}
            self.problems.append(
                f"reference={reference!r} is not an arm{near(reference, known)}; arms: {', '.join(known) or 'none'}"
            )
            return
        possible = tuple(name for name in ARM_SECTIONS if name in (*self.experiment.sections, "task"))
        for arm, fields in arms.items():
            if not arm.replace("_", "").replace("-", "").isalnum():
                self.problems.append(
                    f"arms.{arm}: a name is made of letters, digits, '_' and '-', since it names a folder"
                )
            if not isinstance(fields, Mapping):
                self.problems.append(f"arms.{arm}={fields!r} must be a section with some of {', '.join(possible)}")
                continue
            for name, values in fields.items():
                if name in sections_lib.RENAMED:
                    self.problems.append(f"arms.{arm}.{name} is now called {sections_lib.RENAMED[name]!r}")
                elif name in ARM_SECTIONS and name not in possible:
                    self.problems.append(
                        f"arms.{arm}.{name} has no effect with task.kind={self.experiment.name!r}, whose arms "
                        f"differ in {', '.join(possible)}; leave it out"
                    )
                elif name not in (*possible, *ARM_WORDS):
                    self.problems.append(
                        f"arms.{arm}.{name} is unknown{near(name, (*possible, *ARM_WORDS))}; an arm may change "
                        f"{', '.join(possible)}, and has {', '.join(ARM_WORDS)}"
                    )
                elif name in ARM_SECTIONS and not isinstance(values, Mapping):
                    self.problems.append(f"arms.{arm}.{name}={values!r} must be a section with fields")

    def _arm(self, name, own, reference, sections):
        order, labels = own.pop("order", 0), own.pop("labels", {})
        role = own.pop("role", REFERENCE if name == reference else TREATMENT)
        where = f"arms.{name}."
        if isinstance(order, bool) or not isinstance(order, int):
            self.problems.append(f"{where}order={order!r} must be a whole number: the arm's place in tables")
        if not isinstance(labels, Mapping):
            self.problems.append(f"{where}labels={labels!r} must be a section, such as {{'size': 5}}")
        if (role == REFERENCE) != (name == reference) or not (
            role in (REFERENCE, TREATMENT) or (isinstance(role, str) and role.startswith(CONTROL))
        ):
            said = f"reference={reference!r} has the role {REFERENCE!r}, every other arm {TREATMENT!r}"
            self.problems.append(f"{where}role={role!r}: {said} or '{CONTROL}WHAT'")
        shared = self.given.get("task", {})
        task = self._task(shared, dict(own.get("task", {})), f"{where}task" if "task" in own else "task")
        parts = self._parts(sections, own, where)
        none = {"model": {}, "expansion": {}, "optimizer": None, "second_phase": None}
        return ArmPlan(name, order, role, labels, task, **{**none, **parts})


def _inherit(specs, shared, own):
    """The arm's fields over the shared ones, without shared ones that the arm's choices leave without effect."""
    merged = {**shared, **own}
    complete = {name: spec.default for name, spec in specs.items() if spec.default is not options.MISSING} | merged
    if not own:
        return merged
    idle = [n for n in shared if n in specs and n not in own and options.unmet_condition(specs[n], complete)]
    return {name: value for name, value in merged.items() if name not in idle}


def _inherit_optimizer(shared, own):
    """Likewise of an optimiser: an arm with another one inherits the fields that this one reads."""
    merged = {**shared, **own}
    if not ({"name", "schedule"} & own.keys()):
        return merged
    read = optimizer_lib.applicable(merged)
    return {n: v for n, v in merged.items() if n in own or n in read or n == "steps"}


def _plain_part(part):
    """What `config.json` holds of an open section."""
    if part is None:
        return {"steps": 0}
    if isinstance(part, Phase):
        return {"steps": part.steps, **part.optimizer.fields()}
    return part.fields() if hasattr(part, "fields") else dict(part)


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
    section, known, problems = plan.interpolation, ("pairs", "start"), []
    for word in options.words(section.between):
        if word not in known:
            problems.append(f"interpolation.between={word!r} is unknown{near(word, known)}; known: {', '.join(known)}")
    if section.points % 2 == 0:
        problems.append(f"interpolation.points={section.points} must be odd: one of them is the midpoint")
    if "pairs" in options.words(section.between) and plan.replicas < 2:
        problems.append(f"interpolation.between='pairs' needs replicas >= 2, not {plan.replicas}")
    return problems
