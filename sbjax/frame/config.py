"""The configuration of an experiment: its fields, their defaults, and what is refused."""

import json
import math
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from sbjax.experiments.landscape.experiment import load_experiment
from sbjax.frame.sections import LEAST, OPTIMIZER, TASKS
from sbjax.names import near
from sbjax.report import roles

# Where a run reads and how many checkpoints it keeps may change between a run and its continuation.
FREE = ("task.data_dir", "task.cache_dir", "checkpoint.keep", "checkpoint.keep_best")

# Sections whose fields depend on a name in them; checked where the thing is built.
OPEN = ("model", "expansion", "arms", "suite", "lines.published")

MODELS = {"pinn": "field", "equation_of_state": "quasi_parton", "regression": "field"}  # by kind of task, else an MLP

LINES = ("pairs", "start")

ARM_SECTIONS = ("task", "model", "expansion", "optimizer", "finish")
# What an arm is for; nothing that is trained depends on it.
ARM_FACTS = ("order", "role", "labels")


class ConfigError(ValueError):
    """A configuration that cannot be run. The message names field, value and remedy."""


def base_config(task: str = "images", experiment: str = "two_layer") -> ConfigDict:
    """Every field with its default, for a kind of task. A config file changes fields of this one.

    Durations are given once: `train_epochs` or `train_steps`, the other one 0. `arms` maps a name to the fields of
    `task`, `model`, `expansion`, `optimizer` and `finish` in which this arm differs, and to what it is for: its place
    `order`, its `role` and its `labels`, see `sbjax.report.roles`; all arms share seeds, data order
    and steps. `suite` maps a name to sections in which one of several experiments differs, see `sbjax.runner.suite`. A
    task of kind 'landscape' has the fields of its `experiment`, see `sbjax.experiments.landscape.experiment`.
    """
    return ConfigDict(
        {
            "seed": 0,
            "replicas": 10,
            "train_epochs": 0.0,
            "train_steps": 0,
            "reports": 10,  # evaluations, evenly spaced, besides the one before the first step
            "reference": "raw",  # the arm that the others are compared with
            "task": TASKS[task] | (_of_experiment(experiment) if task == "landscape" else {}),
            "model": {"name": MODELS.get(task, "mlp")},
            "expansion": {"kind": "none"},
            "optimizer": OPTIMIZER,
            # A second phase after train_steps; no steps = none.
            "finish": {"steps": 0, **OPTIMIZER, "name": "lbfgs", "weight_decay": 0.0, "schedule": "constant"},
            # Hyper-parameters that are drawn for each replica: decades below the optimiser's learning rate and decay,
            # and the largest label smoothing; 0 = the same for all.
            "population": {"learning_rate": 0.0, "weight_decay": 0.0, "label_smoothing": 0.0},
            "precision": {"matmul": "default", "x64": False},
            "mapping": {"replicas": "auto", "steps": "auto", "compile": "jit", "devices": 0},
            "monitor": {
                "kinds": "marginal",  # replica distances: marginal, neuron_cloud, unmatched, function; '' = none
                "at": "end",  # steps: numbers, shares such as 10%, 'start', 'end', 'reports'; 'start,50,25%,end'
                "solver": "sliced",  # of neuron_cloud: sliced, assignment, sinkhorn
                "probe_size": 256,  # held-out examples that 'function' compares outputs on
            },
            # Losses on straight lines between networks, after training.
            "lines": {
                "between": "",  # pairs (of replicas), start (each replica's start and end); 'pairs,start'; '' = none
                "points": 25,
                "pairs": 10,  # at most so many; disjoint ones come first
                "rebase": False,  # pairs once more with hidden units matched, where the network has no constants
                "examples": 5000,  # training examples
                "published": {},  # (mean, standard deviation) of barriers by arm, for the table
            },
            "checkpoint": {"saves": 4, "keep": 2, "keep_best": 0},
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
    words = [word.strip() for word in (argument or "").split(",") if word.strip()]
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


def shrink(config: ConfigDict) -> ConfigDict:
    """What the word `smoke` does: two replicas, a few steps, little data; everything else as it was."""
    config.replicas = 2
    config.train_epochs, config.train_steps = 0.0, 4
    config.reports = 2
    config.checkpoint.saves = 2
    if config.task.kind == "pinn":
        config.finish.steps = min(config.finish.steps, 2)
        config.task.update(points=64, boundary_points=16, initial_points=16, test_points=256)
        return config
    if config.task.kind == "equation_of_state":
        config.finish.steps = min(config.finish.steps, 2)
        config.task.points = 8
        return config
    if config.task.kind == "regression":
        config.finish.steps = min(config.finish.steps, 2)
        config.task.update(points=32, test_points=64)
        return config
    if config.task.kind == "landscape":
        config.task.update(load_experiment(config.task.experiment).SMOKE)
        return config
    if config.task.kind == "ising":
        config.replicas = 32  # as many as share a word
        config.task.size = 8
        return config
    config.lines.points, config.lines.examples = 5, 64
    config.task.train_share = 0.05
    config.task.batch_size = 8
    config.task.eval_batch_size = 64
    config.task.eval_share = 0.05 if config.task.dataset == "digits" else 0.005
    if config.model.name.startswith("resnet"):
        config.task.image_size = 16  # at full size ResNet-18 takes minutes of a CPU
    return config


def check(config: ConfigDict | dict) -> dict[str, Any]:
    """The configuration as plain nested dicts, complete and of the right types.

    Raises:
        ConfigError: naming every unknown field, wrong type and impossible number found.
    """
    given = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    kind = (given.get("task") or {}).get("kind", "images") if isinstance(given.get("task"), dict) else "images"
    if kind not in TASKS:
        raise ConfigError(f"task.kind={kind!r} is unknown{near(kind, TASKS)}; known: {', '.join(TASKS)}")
    base = _base_of(given).to_dict()
    problems = _compare(given, base, "")
    if not problems:
        problems = _impossible(_merge(base, given))
    if problems:
        raise ConfigError("\n".join(problems))
    settings = _merge(base, given)
    arms, reference = settings["arms"], settings["reference"]
    # ConfigDict sorts names. The reference belongs first, in training and in tables; arms without an order come last.
    names = sorted(arms, key=lambda name: (name != reference, arms[name].get("order", math.inf)))
    return settings | {"arms": {name: arms[name] for name in names}}


def arm_settings(settings: dict[str, Any], arm: str) -> dict[str, Any]:
    """The settings of one arm: the shared sections with the arm's own fields on top.

    A section that names another kind or model replaces the shared one, whose fields would not fit.
    """
    own = settings["arms"][arm]
    merged = dict(settings)
    for section, fields in own.items():
        if section in ARM_FACTS:
            continue
        shared = settings[section]
        selector = {"model": "name", "expansion": "kind"}.get(section)
        replaces = selector is not None and fields.get(selector, shared.get(selector)) != shared.get(selector)
        merged[section] = dict(fields) if replaces else {**shared, **fields}
    return merged


def about_arms(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each arm is for: `{arm: {'order', 'role', 'labels'}}`, as far as the config says."""
    return {name: {fact: arm[fact] for fact in ARM_FACTS if fact in arm} for name, arm in settings["arms"].items()}


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """'field: a here, b there' for every field that may not change when a run goes on."""
    ours, theirs = (_flat(json.loads(json.dumps(_without_facts(side)))) for side in (ours, theirs))
    names = sorted(ours.keys() | theirs.keys())
    return [
        f"{name}: {ours.get(name, 'absent')!r} now, {theirs.get(name, 'absent')!r} in the workdir"
        for name in names
        if ours.get(name) != theirs.get(name) and name not in FREE
    ]


def _without_facts(settings):
    """The settings as far as something is trained by them."""
    arms = {
        name: {field: value for field, value in arm.items() if field not in ARM_FACTS}
        for name, arm in settings.get("arms", {}).items()
    }
    return {**settings, "arms": arms}


def _base_of(given):
    """The defaults for the kind of task of a config, and for its experiment."""
    task = given.get("task")
    task = task if isinstance(task, dict) else {}
    return base_config(task.get("kind", "images"), task.get("experiment", "two_layer"))


def _of_experiment(name):
    return {"experiment": name, **load_experiment(name).FIELDS}


def _compare(given, base, prefix):
    """Unknown fields and wrong types, recursively."""
    problems = []
    for name, value in given.items():
        field = prefix + name
        if name not in base:
            problems.append(f"{field}={value!r} is unknown{near(name, base)}; known: {', '.join(base)}")
        elif isinstance(base[name], dict):
            if not isinstance(value, dict):
                problems.append(f"{field}={value!r} must be a section with fields, such as {{{', '.join(base[name])}}}")
            elif field not in OPEN:
                problems += _compare(value, base[name], field + ".")
        elif not _fits(value, base[name]):
            problems.append(f"{field}={value!r} must be of type {type(base[name]).__name__}, such as {base[name]!r}")
    return problems


def _fits(value, example):
    if isinstance(example, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(example, bool)
    if isinstance(example, float):
        return isinstance(value, int | float)
    return isinstance(value, type(example))


def _impossible(settings):
    """Numbers and names that no run can have."""
    task, checkpoint = settings["task"], settings["checkpoint"]
    least = {
        "replicas": (settings["replicas"], 1),
        "reports": (settings["reports"], 1),
        "seed": (settings["seed"], 0),
        "train_epochs": (settings["train_epochs"], 0),
        "train_steps": (settings["train_steps"], 0),
        "finish.steps": (settings["finish"]["steps"], 0),
        **{f"task.{name}": (task[name], bound) for name, bound in LEAST.items() if name in task},
        "monitor.probe_size": (settings["monitor"]["probe_size"], 1),
        "lines.points": (settings["lines"]["points"], 3),
        "lines.pairs": (settings["lines"]["pairs"], 1),
        "lines.examples": (settings["lines"]["examples"], 1),
        "checkpoint.saves": (checkpoint["saves"], 0),
        "checkpoint.keep": (checkpoint["keep"], 1),
        "checkpoint.keep_best": (checkpoint["keep_best"], 0),
    }
    problems = [f"{field}={value} must be >= {bound}" for field, (value, bound) in least.items() if not value >= bound]
    problems += [
        f"{field}={value} must be a finite number"
        for field, value in _flat(settings).items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    between = [word.strip() for word in settings["lines"]["between"].split(",") if word.strip()]
    for word in between:
        if word not in LINES:
            problems.append(f"lines.between={word!r} is unknown{near(word, LINES)}; known: {', '.join(LINES)}")
    if between and task["kind"] != "images":
        problems.append(
            f"lines.between={settings['lines']['between']!r}: task.kind={task['kind']!r} has no lines; set ''"
        )
    if settings["lines"]["points"] % 2 == 0:
        problems.append(f"lines.points={settings['lines']['points']} must be odd: one of them is the midpoint")
    if "pairs" in between and settings["replicas"] < 2:
        problems.append(f"lines.between='pairs' needs replicas >= 2, not {settings['replicas']}")
    for field in ("train_share", "eval_share"):
        if not 0 < task.get(field, 1) <= 1:
            problems.append(f"task.{field}={task[field]} must lie in (0, 1]")
    if not 0 <= task.get("label_smoothing", 0) < 1:
        problems.append(f"task.label_smoothing={task['label_smoothing']} must lie in [0, 1)")
    for section in ("optimizer", "finish"):
        if not 0 <= settings[section]["warmup_share"] <= 1:
            problems.append(f"{section}.warmup_share={settings[section]['warmup_share']} must lie in [0, 1]")
        if not settings[section]["first_bias_scale"] > 0:
            problems.append(f"{section}.first_bias_scale={settings[section]['first_bias_scale']} must be > 0")
    if (settings["train_epochs"] > 0) == (settings["train_steps"] > 0):
        problems.append(
            f"train_epochs={settings['train_epochs']} and train_steps={settings['train_steps']}: "
            "give exactly one of them, the other one 0"
        )
    arms = settings["arms"]
    if settings["reference"] not in arms:
        problems.append(
            f"reference={settings['reference']!r} is not an arm{near(settings['reference'], arms)}; "
            f"arms: {', '.join(arms) or 'none'}"
        )
    for arm, fields in arms.items():
        if not arm.replace("_", "").replace("-", "").isalnum():
            problems.append(f"arms.{arm}: a name is made of letters, digits, '_' and '-', since it names a folder")
        if not isinstance(fields, dict):
            problems.append(f"arms.{arm}={fields!r} must be a section with some of {', '.join(ARM_SECTIONS)}")
            continue
        try:
            roles.check(arm, {f: fields[f] for f in ARM_FACTS if f in fields}, reference=settings["reference"])
        except ValueError as error:
            problems.append(f"arms.{error}")
        for section, values in fields.items():
            if section in ARM_FACTS:
                continue
            if section not in ARM_SECTIONS:
                problems.append(
                    f"arms.{arm}.{section} is unknown{near(section, ARM_SECTIONS)}; an arm may change "
                    f"{', '.join(ARM_SECTIONS)}"
                )
            elif section not in OPEN:
                problems += _compare(values, _base_of(settings).to_dict()[section], f"arms.{arm}.{section}.")
    return problems


def _merge(base, given, prefix=""):
    """`given` over `base`; open sections are taken whole."""
    merged = dict(base)
    for name, value in given.items():
        closed = isinstance(value, dict) and prefix + name not in OPEN
        merged[name] = _merge(base[name], value, f"{prefix}{name}.") if closed else value
    return merged


def _flat(tree, prefix=""):
    if not isinstance(tree, dict) or not tree:
        return {prefix[:-1]: tree}
    return {k: v for name, value in tree.items() for k, v in _flat(value, f"{prefix}{name}.").items()}
