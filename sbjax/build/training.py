"""From settings (plain dicts, checked by `config.check`) to optimisers, devices and monitors."""

from typing import Any

import jax
import optax
from jaxtyping import PyTree

from sbjax import rng
from sbjax.expansion.transform import VectorExpansion
from sbjax.frame.config import ConfigError
from sbjax.metrics.monitor import Monitor, make_replica_monitor
from sbjax.names import near
from sbjax.optimizers import OPTIMIZERS, OptimizerChoice
from sbjax.optimizers import section as section_lib
from sbjax.optimizers.population import Population, with_population
from sbjax.tasks.task import Task
from sbjax.training.fit import Phase, boundaries
from sbjax.training.placement import Mapping


def read_optimizer(section: dict[str, Any], *, where: str = "optimizer") -> OptimizerChoice:
    """The choice of optimiser and schedule of a config section `optimizer`, or `finish` without its steps.

    Raises:
        ConfigError: all that is wrong with its fields.
    """
    choice, problems = section_lib.read_optimizer(section, where=where)
    if choice is None:
        raise ConfigError("\n".join(problems))
    return choice


def build_optimizer(
    section: dict[str, Any], *, train_steps: int, folded: VectorExpansion | None = None, where: str = "optimizer"
) -> optax.GradientTransformationExtraArgs:
    """Optimiser and schedule of a config section, see `read_optimizer`.

    Args:
        train_steps: the length of the schedule.
        folded: the expansion that was folded into the network, if there is one.
        where: what errors call the section.

    Raises:
        ConfigError: as `read_optimizer` and `OptimizerChoice.build`.
    """
    choice = read_optimizer(section, where=where)
    try:
        return choice.build(train_steps, folded_constants=None if folded is None else folded.constants)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def check_phases(phases: tuple[Phase, Phase | None], params: PyTree) -> None:
    """Refuse parameters that an optimiser cannot be made for, before the training.

    Raises:
        ConfigError: too many for a dense method; no first bias where it has a scale.
    """
    for where, phase in zip(("optimizer", "finish"), phases, strict=True):
        try:
            if phase is not None:
                jax.eval_shape(phase.optimizer.init, params)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error


def build_finish(section: dict[str, Any], *, folded: VectorExpansion | None = None) -> Phase | None:
    """The second phase of a config section `finish`; None without steps.

    Raises:
        ConfigError: as `build_optimizer`.
    """
    fields = dict(section)
    steps = fields.pop("steps")
    if not steps:
        return None
    return Phase(build_optimizer(fields, train_steps=steps, folded=folded, where="finish"), steps)


def build_population(settings: dict[str, Any], task: Task) -> Task:
    """The task with hyper-parameters of the section `population` drawn for each replica.

    Raises:
        ConfigError: an impossible law, or an optimiser or a task that does not read what is drawn.
    """
    section = settings["population"]
    try:
        drawn = with_population(task, Population(**section))
    except ValueError as error:
        raise ConfigError(f"population.{error}") from error
    optimizer = read_optimizer(settings["optimizer"]).options
    if (section["learning_rate"] or section["weight_decay"]) and not optimizer.reads_population:
        able = " or ".join(repr(name) for name, part in OPTIMIZERS.items() if part.reads_population)
        raise ConfigError(
            f"population: optimizer.name={optimizer.name!r} does not read the drawn learning rates; use {able}"
        )
    if section["label_smoothing"] and settings["task"]["kind"] != "images":
        raise ConfigError(f"population.label_smoothing={section['label_smoothing']} is for task.kind='images'; set 0")
    return drawn


def build_mapping(section: dict[str, Any]) -> Mapping:
    """How replicas and steps are laid on devices.

    Raises:
        ConfigError: as `Mapping`.
    """
    try:
        return Mapping(**section)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def build_monitor(settings: dict[str, Any], task: Task, *, steps: int) -> tuple[Monitor | None, tuple[int, ...]]:
    """What is measured over all replicas together, and at which steps.

    Raises:
        ConfigError: an unknown kind, solver or step, or 'function' for a task without outputs.
    """
    section = settings["monitor"]
    kinds = [kind.strip() for kind in section["kinds"].split(",") if kind.strip()]
    if not kinds:
        return None, ()
    if "function" in kinds and task.outputs is None:
        raise ConfigError("monitor.kinds: 'function' compares outputs, which this task has none of; leave it out")
    key = rng.stream(jax.random.key(settings["seed"]), "null")
    outputs_fn = None if task.outputs is None else lambda variables: task.outputs(task.data, variables)
    try:
        monitor = make_replica_monitor(kinds, key=key, outputs_fn=outputs_fn, solver=section["solver"])
    except ValueError as error:
        raise ConfigError(f"monitor.{error}") from error
    return monitor, parse_steps(section["at"], steps=steps, reports=settings["reports"])


def parse_steps(text: str, *, steps: int, reports: int) -> tuple[int, ...]:
    """The steps that `monitor.at` names: numbers, shares of the training, 'start', 'end', 'reports'.

    Raises:
        ConfigError: a word that is none of these, or a step outside the training.

    >>> parse_steps('start, 10%, 70, end', steps=200, reports=4)
    (0, 20, 70, 200)
    """
    known = {"start": [0], "end": [steps], "reports": boundaries(steps, reports)}
    found: set[int] = set()
    for word in filter(None, (part.strip() for part in text.split(","))):
        try:
            chosen = known.get(word) or [round(float(word[:-1]) / 100 * steps) if word.endswith("%") else int(word)]
        except (ValueError, OverflowError):  # the latter from 'inf%'
            raise ConfigError(
                f"monitor.at={text!r}: {word!r} is no step{near(word, known)}; give numbers, shares such as 10%, "
                f"or {', '.join(known)}"
            ) from None
        if not 0 <= chosen[0] <= steps:
            raise ConfigError(f"monitor.at={text!r}: {word!r} lies outside the training of {steps} steps")
        found.update(chosen)
    return tuple(sorted(found))


def train_steps(settings: dict[str, Any], task: Task) -> int:
    """Steps of a run, from `train_steps` or `train_epochs`."""
    if settings["train_steps"]:
        return settings["train_steps"]
    if task.epoch_steps is None:
        raise ConfigError(f"train_epochs={settings['train_epochs']}: this task has no epochs; give train_steps")
    return max(1, round(settings["train_epochs"] * task.epoch_steps))
