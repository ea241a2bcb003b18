"""From settings (plain dicts, checked by `config.check`) to the objects of an experiment."""

from typing import Any

import jax
import optax

from sbjax import expansion as expansion_lib
from sbjax import rng
from sbjax.config import ConfigError
from sbjax.data import images as images_lib
from sbjax.metrics.monitor import Monitor, make_replica_monitor
from sbjax.models import make_model
from sbjax.suggest import near
from sbjax.tasks.images import make_image_task
from sbjax.tasks.task import Task
from sbjax.training import optimizer as optimizer_lib
from sbjax.training.fit import boundaries
from sbjax.training.mapping import Mapping

EXPANSIONS = {
    "image": expansion_lib.ImageExpansion,
    "vector": expansion_lib.VectorExpansion,
    "sequence": expansion_lib.SequenceExpansion,
}


def build_expansion(section: dict[str, Any]) -> expansion_lib.Expansion | None:
    """The expansion of a config section `{'kind': 'image', 'factor': 2, 'fill': '0.5'}`; kind 'none' = None.

    `fill` is given as text, so that a flag can set a number, several numbers ('0.5,0.4,0.3') or a word ('mean').

    Raises:
        ConfigError: unknown kind, field or value.
    """
    fields = dict(section)
    kind = fields.pop("kind", None)
    if kind == "none":
        return None
    if kind not in EXPANSIONS:
        known = ["none", *EXPANSIONS]
        raise ConfigError(f"expansion.kind={kind!r} is unknown{near(kind, known)}; known: {', '.join(known)}")
    known = EXPANSIONS[kind].__dataclass_fields__
    for name in fields:
        if name not in known:
            raise ConfigError(
                f"expansion.{name} is unknown for kind {kind!r}{near(name, known)}; known: {', '.join(known)}"
            )
    if isinstance(fields.get("fill"), str):
        fields["fill"] = parse_fill(fields["fill"])
    try:
        return EXPANSIONS[kind](**fields)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"expansion: {error}") from error


def parse_fill(text: str) -> float | tuple[float, ...] | str:
    """'0.5' -> 0.5, '0.5,0.4,0.3' -> a tuple, any other word unchanged.

    >>> parse_fill('0.5'), parse_fill('0.5, 0.4'), parse_fill('mean')
    (0.5, (0.5, 0.4), 'mean')
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        return text
    return numbers[0] if len(numbers) == 1 else numbers


def build_data(section: dict[str, Any]) -> images_lib.ImageData:
    """The data of a task section.

    Raises:
        ConfigError: unknown kind of task.
        Whatever `sbjax.data.images.load` raises.
    """
    if section["kind"] != "images":
        raise ConfigError(f"task.kind={section['kind']!r} is unknown{near(section['kind'], ['images'])}; known: images")
    return images_lib.load(
        section["dataset"],
        data_dir=section["data_dir"] or None,
        cache_dir=section["cache_dir"] or None,
        image_size=section["image_size"] or None,
        train_share=section["train_share"],
        quarter_turns=section["quarter_turns"],
    )


def build_task(settings: dict[str, Any], data: images_lib.ImageData) -> Task:
    """The task of one arm (`config.arm_settings`).

    Raises:
        ConfigError: the model does not exist, or does not fit the expanded input.
    """
    section, model = settings["task"], dict(settings["model"])
    expansion = build_expansion(settings["expansion"])
    if not isinstance(expansion, expansion_lib.ImageExpansion | None):
        raise ConfigError(
            f"expansion.kind={settings['expansion']['kind']!r} does not fit task.kind='images'; use 'image'"
        )
    try:
        task = make_image_task(
            data,
            make_model(model.pop("name"), classes=data.classes, **model),
            expansion=expansion,
            batch_size=section["batch_size"],
            crop_padding=section["crop_padding"],
            flip=section["flip"],
            label_smoothing=section["label_smoothing"],
            eval_batch_size=section["eval_batch_size"],
            eval_share=section["eval_share"],
            probe_size=settings["monitor"]["probe_size"],
        )
        jax.eval_shape(task.init, jax.random.key(0))
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error
    return task


def build_optimizer(section: dict[str, Any], *, train_steps: int) -> optax.GradientTransformationExtraArgs:
    """Optimiser and schedule of a config section.

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
        return optimizer_lib.make_optimizer(fields.pop("name"), learning_rate, **fields)
    except ValueError as error:
        raise ConfigError(str(error)) from error


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
        except ValueError:
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
