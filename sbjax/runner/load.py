"""Take a trained network home: model, variables, task and config of one arm, from the folder of its run."""

import dataclasses
import json
import os
import pathlib
from typing import Any, NamedTuple

from sbjax import config as config_lib
from sbjax.common.files import read_json
from sbjax.common.names import expanded, near
from sbjax.frame.arm_training import identity
from sbjax.frame.arms import precision
from sbjax.frame.errors import ConfigError
from sbjax.frame.own_parts import code_in
from sbjax.frame.training import TrainingExperiment
from sbjax.frame.workdir import FORMAT
from sbjax.report.results import CONFIG
from sbjax.tasks.task import Task, Variables
from sbjax.training.checkpoint import CheckpointError
from sbjax.training.load import load_variables


class Loaded(NamedTuple):
    """What `load` returns.

    Attributes:
        model: the network: of images a Linen module, called `model.apply(variables, x, train=False)`.
        variables: {'params', 'batch_stats', ..} of one replica, or of all of them, stacked.
        task: data, loss and evaluation as they were in training, see `sbjax.tasks.task.Task`.
        config: the resolved configuration, nested dicts.
        arm, step: which arm, after how many steps.
        metrics: of that step, by name: one number, or one a replica.
    """

    model: Any
    variables: Variables
    task: Task
    config: dict[str, Any]
    arm: str
    step: int
    metrics: dict[str, Any]


def load(
    workdir: str | os.PathLike,
    *,
    arm: str | None = None,
    replica: int | None = None,
    step: int | None = None,
    trust: bool = False,
) -> Loaded:
    """The trained networks of one arm of a run.

    Args:
        workdir: the folder that `runs/train.py` wrote.
        arm: which one; None = the reference.
        replica: which one; None = all, stacked along a first axis.
        step: of the checkpoint; None = the newest.
        trust: whether code of yours that the config names by import path may be imported: its model, data, equation.
            A folder from somebody else can name any code.

    Raises:
        ConfigError: no such arm, replica or step; no checkpoints; a damaged file; code without `trust`.

    Example:
        >>> import sbjax
        >>> net = sbjax.load('/tmp/quickstart', arm='expanded', replica=0)  # doctest: +SKIP
        >>> net.task.evaluate(net.task.data, net.variables, 0)              # doctest: +SKIP
    """
    try:
        folder = expanded(workdir)
        found = read_json(folder / "config.json", CONFIG)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    if found.get("format") != FORMAT:
        raise ConfigError(
            f"{folder / 'config.json'} is of format {found.get('format', 1)}, this version reads {FORMAT}: use the "
            "version that made the run"
        )
    settings = found["config"]
    if not trust and (names := code_in(settings)):
        raise ConfigError(
            f"{folder / 'config.json'} names code by import path ({', '.join(names)}); if you trust this folder, give "
            "trust=True (on the command line --trust)"
        )
    plan = config_lib.read(_given(settings))
    if not isinstance(plan.experiment, TrainingExperiment):
        raise ConfigError(f"workdir={folder}: task.kind={plan.experiment.name!r} leaves no checkpoints of networks")
    names = [own.name for own in plan.arms]
    arm = plan.reference if arm is None else arm
    if arm not in names:
        raise ConfigError(f"arm={arm!r} is not in {folder}{near(arm, names)}; arms: {', '.join(names)}")
    if replica is not None and not 0 <= replica < plan.replicas:
        raise ConfigError(f"replica={replica} must lie between 0 and {plan.replicas - 1}")
    with precision(plan.precision):
        try:
            variables, meta = load_variables(folder / "checkpoints" / arm, step=step, replica=replica)
        except (CheckpointError, ValueError, OSError) as error:
            raise ConfigError(str(error)) from error
        _check_belongs(meta.get("identity", {}), identity(dataclasses.replace(plan, settings=settings), arm), folder)
        task = plan.experiment.task_of(plan, arm)
    metrics = _metrics_at(meta["history"], meta["step"], replica)
    return Loaded(task.model, variables, task, settings, arm, meta["step"], metrics)


def _check_belongs(found: dict[str, Any], expected: dict[str, Any], folder: pathlib.Path) -> None:
    """Refuse networks that were trained with other settings than `config.json` says."""
    different = [name for name in expected if name in found and found[name] != expected[name]]
    if different:
        raise ConfigError(
            f"{folder / 'config.json'} was changed since these networks were trained ({', '.join(different)} differ): "
            "put the one of the run back, or start its command again"
        )


def _given(config: dict[str, Any]) -> dict[str, Any]:
    """A resolved config as something to be read again."""
    return json.loads(json.dumps(config))


def _metrics_at(history: list[dict[str, Any]], step: int, replica: int | None) -> dict[str, Any]:
    """What was reported last up to a step."""
    record = [record for record in history if record["step"] <= step][-1]
    lists = {name: value for name, value in record.items() if isinstance(value, list)}
    return lists if replica is None else {name: value[replica] for name, value in lists.items()}
