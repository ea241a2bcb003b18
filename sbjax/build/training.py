"""From settings (plain dicts, checked by `config.check`) to optimisers, devices and monitors."""

import math
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from sbjax import rng
from sbjax.expansion.transform import VectorExpansion
from sbjax.frame.config import ConfigError
from sbjax.metrics.monitor import Monitor, make_replica_monitor
from sbjax.names import near
from sbjax.optimizers import optimizer as optimizer_lib
from sbjax.optimizers.population import Population, with_population
from sbjax.optimizers.rescaled import rescaled
from sbjax.tasks.task import Task
from sbjax.training.fit import Phase, boundaries
from sbjax.training.placement import Mapping


def build_optimizer(
    section: dict[str, Any], *, train_steps: int, folded: VectorExpansion | None = None
) -> optax.GradientTransformationExtraArgs:
    """Optimiser and schedule of the config section `optimizer`, or `finish` without its steps.

    Args:
        train_steps: the length of the schedule.
        folded: the expansion that was folded into the network, if there is one: `first_bias_scale` = 0 then makes the
            bias move as its constants make it move, see `matched_bias_scale`.

    Raises:
        ConfigError: as `make_schedule` and `make_optimizer`.
    """
    fields = dict(section)
    schedule = {name: fields.pop(name) for name in ("schedule", "warmup_share", "decay_every_steps", "decay_factor")}
    try:
        learning_rate = optimizer_lib.make_schedule(
            schedule["schedule"],
            fields.pop("learning_rate"),
            train_steps=train_steps,
            warmup_steps=round(schedule["warmup_share"] * train_steps),
            decay_every_steps=schedule["decay_every_steps"],
            decay_factor=schedule["decay_factor"],
        )
        scale = fields.pop("first_bias_scale") or matched_bias_scale(fields["name"], folded)
        optimizer = optimizer_lib.make_optimizer(fields.pop("name"), learning_rate, **fields)
        return optimizer if scale == 1 else rescaled(optimizer, lambda params: _first_bias(params, scale))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def build_finish(section: dict[str, Any], *, folded: VectorExpansion | None = None) -> Phase | None:
    """The second phase of a config section `finish`; None without steps.

    Raises:
        ConfigError: as `build_optimizer`.
    """
    fields = dict(section)
    steps = fields.pop("steps")
    try:
        return Phase(build_optimizer(fields, train_steps=steps, folded=folded), steps) if steps else None
    except ConfigError as error:
        raise ConfigError(f"finish: {error}") from error


def build_population(settings: dict[str, Any], task: Task) -> Task:
    """The task with hyper-parameters of the section `population` drawn for each replica.

    Raises:
        ConfigError: an impossible law, or an optimiser or a task that does not read what is drawn.
    """
    section = settings["population"]
    try:
        drawn = with_population(task, Population(**section))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    name = settings["optimizer"]["name"]
    if (section["learning_rate"] or section["weight_decay"]) and name != "adamw":
        raise ConfigError(f"population: optimizer.name={name!r} does not read the drawn learning rates; use 'adamw'")
    if section["label_smoothing"] and settings["task"]["kind"] != "images":
        raise ConfigError(f"population.label_smoothing={section['label_smoothing']} is for task.kind='images'; set 0")
    return drawn


def matched_bias_scale(name: str, folded: VectorExpansion | None) -> float:
    """The unit of the bias b_0 in which a network with folded constants c trains as the expanded one does.

    There the bias is b = b_0 + sum_j c_j w_j. Gradient descent and methods that only know lengths and angles (L-BFGS,
    quasi-Newton, Gauss-Newton) see it in the unit sqrt(1 + sum c_j^2). A step of Adam has the same size in each w_j, so
    that b moves 1 + sum |c_j| times as far as b_0 alone; so too of AdamW and SOAP, where it is near and not exact.

    Raises:
        ConfigError: there is no folded expansion.

    >>> three = VectorExpansion(0, 3, 1.0)
    >>> matched_bias_scale('sgd', three), matched_bias_scale('adam', three)
    (2.0, 4.0)
    """
    if folded is None:
        raise ConfigError(
            "first_bias_scale=0 matches a folded expansion and there is none: set task.fold=True, or a scale > 0"
        )
    constants = [float(c) for c in folded.constants]
    if name in ("adam", "adamw", "soap"):
        return 1 + sum(map(abs, constants))
    return math.sqrt(1 + sum(c**2 for c in constants))


def _first_bias(params: PyTree, scale: float) -> PyTree:
    """`scale` at the bias of the first dense layer, 1 elsewhere."""
    if "bias" not in params.get("dense_0", {}):
        raise ConfigError("optimizer.first_bias_scale: the model has no layer dense_0 with a bias; set it to 1")
    scales = jax.tree.map(lambda leaf: 1.0, params)
    return scales | {"dense_0": scales["dense_0"] | {"bias": scale}}


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
        monitor = make_replica_monitor(
            kinds,
            key=key,
            outputs_fn=outputs_fn,
            solver=section["solver"],
            shapes=jax.eval_shape(task.init, key),
            **_applied(task),
        )
    except ValueError as error:
        raise ConfigError(f"monitor.{error}") from error
    return monitor, parse_steps(section["at"], steps=steps, reports=settings["reports"])


def _applied(task: Task) -> dict[str, Any]:
    """A function of parameters in which hidden units can be followed, and its inputs."""
    if task.lines is not None:
        return {"apply_fn": task.lines.apply, "inputs": task.lines.inputs(task.data)}
    if task.outputs is not None:
        return {"apply_fn": lambda variables, data: task.outputs(data, variables), "inputs": task.data}
    return {}


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
