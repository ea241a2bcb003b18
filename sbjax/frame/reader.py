"""Reads the sections of one configuration into typed ones, and collects everything that is wrong with them."""

import json
from collections.abc import Mapping

from sbjax.common import options
from sbjax.common.names import near, shown
from sbjax.frame import sections as sections_lib
from sbjax.frame.plan import CONTROL, REFERENCE, TREATMENT, ArmPlan, Phase, Plan
from sbjax.optimizers import lookup
from sbjax.optimizers import section as optimizer_lib

# Taken whole: their fields depend on a name in them.
OPEN = ("model", "expansion", "optimizer", "second_phase")
ARM_SECTIONS = ("task", "model", "expansion", "optimizer", "second_phase")
ARM_WORDS = ("order", "role", "labels")
LONGEST = 100  # bytes of the name of an arm
MOST_ARMS = 500  # each is built and compiled for itself
SECOND_PHASE = {"steps": 0, **optimizer_lib.union_fields(), "name": "lbfgs", "weight_decay": 0.0}
SECOND_PHASE["schedule"] = "constant"


class Reader:
    """Reads the sections of one configuration and collects what is wrong with them."""

    def __init__(self, experiment, given):
        self.experiment, self.given, self.problems = experiment, given, []

    def plan(self) -> Plan | None:
        """The plan, or None if there are problems."""
        experiment, given = self.experiment, self.given
        general = self._values(
            options.describe(sections_lib.General),
            {k: given[k] for k in options.describe(sections_lib.General) if k in given},
            "",
        )
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
                    self.problems.append(f"{where}.{name}={shown(own[name])} must be {same!r} as in the whole run")
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
                found[name] = read(optimizer_lib.override(shared[name], mine), at, in_arm=bool(where))
        return found

    def _optimizer(self, fields, where, *, in_arm=False):
        choice, problems = optimizer_lib.read_optimizer(fields, where=where)
        self.problems += problems
        return choice

    def _second_phase(self, fields, where, *, in_arm=False):
        fields = dict(fields)
        values, problems = options.check(
            {"steps": sections_lib.PHASE_STEPS}, {"steps": fields.pop("steps", 0)}, where=where
        )
        if problems:
            self.problems += problems
            return None
        if steps := values["steps"]:
            choice = self._optimizer(fields, where)
            return choice and Phase(choice, steps)
        for name, value in fields.items():
            neutral = (name in SECOND_PHASE and lookup.same(value, SECOND_PHASE[name])) or (
                lookup.is_known(name) and lookup.is_neutral(name, value)
            )
            # The matched-bias control follows the expansion in both phases, whether there is a second one or not.
            neutral |= name == "first_bias_scale" and in_arm
            if not neutral:
                self.problems.append(
                    f"{where}.{name}={shown(value)} has no effect with second_phase.steps=0; set its steps, or "
                    "leave it out"
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
        if len(arms) > MOST_ARMS:
            self.problems.append(
                f"arms are {len(arms)}, more than {MOST_ARMS}: divide them among several runs, such as the members "
                "of a suite"
            )
            return
        folders: dict[str, str] = {}
        for arm, fields in arms.items():
            twin = folders.setdefault(arm.casefold(), arm)
            if twin != arm:
                self.problems.append(f"arms.{arm} and arms.{twin} name one folder on some disks; rename one")
            if len(arm.encode()) > LONGEST:
                self.problems.append(
                    f"arms.{shown(arm, 40)}: a name has at most {LONGEST} bytes, since it names a folder"
                )
            if not arm.replace("_", "").replace("-", "").isalnum():
                self.problems.append(
                    f"arms has {arm!r}: a name is made of letters, digits, '_' and '-', since it names a folder"
                )
            if not isinstance(fields, Mapping):
                self.problems.append(f"arms.{arm}={shown(fields)} must be a section with some of {', '.join(possible)}")
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
                    self.problems.append(f"arms.{arm}.{name}={shown(values)} must be a section with fields")

    def _arm(self, name, own, reference, sections):
        order, labels = own.pop("order", 0), own.pop("labels", {})
        role = own.pop("role", REFERENCE if name == reference else TREATMENT)
        where = f"arms.{name}."
        if isinstance(order, bool) or not isinstance(order, int) or abs(order) > options.LARGEST:
            self.problems.append(f"{where}order={shown(order)} must be a whole number: the arm's place in tables")
        if not isinstance(labels, Mapping) or not all(isinstance(x, str | int | float) for x in labels.values()):
            self.problems.append(
                f"{where}labels={shown(labels)} must be a section of texts and numbers, such as {{'size': 5}}"
            )
        if (role == REFERENCE) != (name == reference) or not (
            role in (REFERENCE, TREATMENT)
            or (isinstance(role, str) and role.startswith(CONTROL) and role.removeprefix(CONTROL).strip())
        ):
            said = f"reference={reference!r} has the role {REFERENCE!r}, every other arm {TREATMENT!r}"
            self.problems.append(f"{where}role={shown(role)}: {said} or '{CONTROL}WHAT'")
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


def _plain_part(part):
    """What `config.json` holds of an open section."""
    if part is None:
        return {"steps": 0}
    if isinstance(part, Phase):
        return {"steps": part.steps, **part.optimizer.fields()}
    return part.fields() if hasattr(part, "fields") else dict(part)
