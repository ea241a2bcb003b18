"""Which fields a configuration reads, as text and as a page of the docs."""

import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

from sbjax.common import options
from sbjax.expansion.registry import EXPANSIONS, expansion_specs
from sbjax.experiments import registry
from sbjax.frame import sections as sections_lib
from sbjax.frame.plan import Plan
from sbjax.frame.protocol import Experiment
from sbjax.models import FAMILIES, model_specs
from sbjax.optimizers import section as optimizer_lib
from sbjax.optimizers.registry import OPTIMIZERS, SCHEDULES


def fields_of(plan: Plan) -> dict[str, dict[str, options.Spec]]:
    """The fields that a plan reads, by section ('' = outside of any) and name.

    >>> from sbjax import config as config_lib
    >>> config = config_lib.base_config('ising')
    >>> config.update(train_steps=10, arms={'raw': {}})
    >>> list(fields_of(config_lib.read(config))['task'])
    ['size', 'temperature', 'field', 'mean_field_temperature']
    """
    experiment = plan.experiment
    general = options.describe(sections_lib.General)
    found = {"": {name: general[name] for name in experiment.general}, "task": _read(experiment.fields, plan.task)}
    for name in experiment.sections:
        if name in sections_lib.SHARED:
            found[name] = _read(sections_lib.SHARED[name], getattr(plan, name))
        elif name in ("optimizer", "second_phase"):
            fields = plan.settings[name]
            steps = {"steps": sections_lib.PHASE_STEPS} if name == "second_phase" else {}
            chosen = {k: v for k, v in fields.items() if k != "steps"}
            found[name] = steps | (optimizer_lib.field_specs(chosen) if chosen else {})
        else:
            found[name] = _open(name, plan)
    return found


def _open(section: str, plan: Plan) -> dict[str, options.Spec]:
    """The options of the model or expansion that a plan names, with its own values for defaults."""
    values = plan.settings[section]
    selector, of = ("name", model_specs) if section == "model" else ("kind", expansion_specs)
    try:
        specs = of(values[selector], *((_family(plan),) if section == "model" else ()))
    except (KeyError, ValueError):  # told where the thing is built
        specs = {}
    given = {name: options.Spec(value, "") for name, value in values.items()}
    return {**given, **{name: spec._replace(default=values.get(name, spec.default)) for name, spec in specs.items()}}


def _family(plan: Plan) -> str:
    """Which table of models an experiment takes its networks from: that of its default network."""
    default = plan.experiment.model["name"]
    return next((family for family, known in FAMILIES.items() if default in known), "image")


def _read(part: type, values: Any) -> dict[str, options.Spec]:
    given = {name: getattr(values, name) for name in options.describe(part)}
    return {n: spec for n, spec in options.describe(part).items() if options.unmet_condition(spec, given) is None}


def fields_text(plan: Plan) -> str:
    """The fields that a plan reads, a line each: flag, value, bounds or choices, help."""
    lines = []
    for section, specs in fields_of(plan).items():
        values = plan.settings.get(section, {}) if section else plan.settings
        for name, spec in specs.items():
            flag = f"--config.{section}.{name}" if section else f"--config.{name}"
            lines.append((f"{flag}={values.get(name, spec.default)!r}", _limits(spec), spec.help))
    width = [max(len(line[i]) for line in lines) for i in range(2)]
    text = [
        f"{flag:{min(width[0], 60)}s}  {limits:{min(width[1], 40)}s}  {about}".rstrip() for flag, limits, about in lines
    ]
    return "\n".join([f"task.kind={plan.experiment.name!r} reads:", *text])


def fields_page() -> str:
    """The page `docs/fields.md`: every field of every kind of experiment, and of every optimiser."""
    parts = [
        "# Fields",
        "",
        "Made by `python -m sbjax.runner.fields > docs/fields.md`; a test says when it differs. Each is a flag: "
        "`--config.optimizer.learning_rate=0.01`.",
        "",
    ]
    parts += _table("Outside of sections", options.describe(sections_lib.General))
    for name, part in sections_lib.SHARED.items():
        parts += _table(f"`{name}`", options.describe(part), _prose(part))
    for name, part in {**OPTIMIZERS, **SCHEDULES}.items():
        what = "schedule" if name in SCHEDULES else "name"
        parts += _table(f"`optimizer` and `second_phase`, `{what}='{name}'`", options.describe(part), _prose(part))
    for family, known in FAMILIES.items():
        for name in known:
            parts += _table(f"`model`, {family}: `name='{name}'`", model_specs(name, family))
    for name in EXPANSIONS:
        parts += _table(f"`expansion`, `kind='{name}'`", expansion_specs(name))
    for kind, experiment in _kinds():
        reads = ", ".join(f"`{name}`" for name in experiment.sections) or "none"
        parts += _table(
            f"`task`, {kind}", options.describe(experiment.fields), f"Other sections that it reads: {reads}."
        )
    return "\n".join(parts).rstrip() + "\n"


def _kinds() -> list[tuple[str, Experiment]]:
    """Kinds of one experiment, then those of several, which name them in `EXPERIMENTS` of their module."""
    several = {kind: getattr(importlib.import_module(path), "EXPERIMENTS", ()) for kind, path in registry.KINDS.items()}
    kinds = [(f"`kind='{kind}'`", registry.find({"kind": kind})) for kind, names in several.items() if not names]
    return kinds + [
        (f"`kind='{kind}'`, `experiment='{name}'`", registry.find({"kind": kind, "experiment": name}))
        for kind, names in several.items()
        for name in names
    ]


def _prose(part: type) -> str:
    """The docstring without its example. (Python 3.13 strips its indentation, earlier ones do not.)"""
    return (inspect.getdoc(part) or "").partition(">>> ")[0].strip()


def _table(title: str, specs: Mapping[str, options.Spec], text: str | None = "") -> list[str]:
    rows = [f"| `{name}` | `{_default(spec)}` | {_limits(spec)} | {spec.help} |" for name, spec in specs.items()]
    head = ["| field | default | values | |", "| --- | --- | --- | --- |"]
    return [f"## {title}", "", *([text, ""] if text else []), *(head if rows else []), *rows, ""]


def _default(spec: options.Spec) -> str:
    return "must be given" if spec.default is options.MISSING else repr(spec.default)


def _limits(spec: options.Spec) -> str:
    limits = ", ".join(map(str, spec.choices)) if spec.choices else spec.bounds
    only = [f"with {other}{condition.wording}" for other, condition in spec.only.items()]
    return "; ".join(filter(None, [limits, *only]))


if __name__ == "__main__":
    sys.stdout.write(fields_page())
