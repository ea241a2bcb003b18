"""Experiments on the geometry of the loss landscape, each a module of this package that `run.py` runs arm by arm.

A config of kind 'landscape' names one of them in `task.experiment`; the module adds its own fields to the section
`task`. An experiment is a module `sbjax.experiments.landscape.experiment.<experiment>` with

`FIELDS: dict[str, Any]`
    Fields of `task` besides kind and experiment, with their defaults. Any of them may differ between arms.
`SMOKE: dict[str, Any]`
    Those that the word `smoke` changes. (Seeds become 2 and train_steps 4.)
`PRIMARY: str`, `GOAL: str`
    The metric that arms are compared in, and 'min' or 'max': what `run_arm` returns for each seed.
`check(settings) -> None`
    Raises `sbjax.frame.config.ConfigError` with field, value and remedy. `settings` are those of one arm
    (`config.arm_settings`): `settings['task']` the fields, `settings['replicas']` the seeds, `settings['train_steps']`
    the steps of the optimiser. Called for every arm before anything is written.
`run_arm(settings, arm_settings, key, say, stop) -> ArmResult | None`
    Runs one arm in the precision of the config. `settings` are those of the experiment, `arm_settings` of the arm,
    `key` is the same for all arms, `say(text)` tells of progress, `stop()` is true once the run was asked to end: look
    every some seconds and return None.

The tables and figures of its report are made by a module `<experiment>_report`, see
`sbjax.experiments.landscape.report`.
An arm that is finished is kept in
`workdir/landscape`, so that a run that was stopped goes on with the next one.
"""

import importlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from sbjax.files import write_atomically, write_json

EXPERIMENTS = ("two_layer", "deep", "counts", "recovery", "mnist", "copy_average")
FOLDER = "landscape"


class ArmResult(NamedTuple):
    """What an arm leaves.

    Attributes:
        metrics: a list with a number for each seed, by name; the same names in all arms, the primary one among them.
        summary: what JSON can hold: tallies, shares with their intervals, counts by kind.
        arrays: by name, for figures and further use.
        parameters: trained parameters of one network; 0 where nothing is trained.
        history: earlier metrics, {step: {name: [seed]}}, for curves; {} for none.
    """

    metrics: dict[str, list[float]]
    summary: dict[str, Any]
    arrays: dict[str, np.ndarray]
    parameters: int = 0
    history: Mapping[int, dict[str, list[float]]] = {}


def load_experiment(name: str) -> ModuleType:
    """The module of an experiment.

    Raises:
        ConfigError: there is none of that name.

    >>> load_experiment('counts').PRIMARY
    'path_loss'
    """
    from sbjax.frame.config import ConfigError  # which imports this package to know the fields
    from sbjax.names import near

    if name not in EXPERIMENTS:
        raise ConfigError(
            f"task.experiment={name!r} is unknown{near(str(name), EXPERIMENTS)}; known: {', '.join(EXPERIMENTS)}"
        )
    return importlib.import_module(f"sbjax.experiments.landscape.{name}")


def save_arm(workdir: Path, arm: str, result: ArmResult) -> None:
    """Write `landscape/<arm>.npz`, then `landscape/<arm>.json`, which says that the arm is finished."""
    folder = Path(workdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.savez_compressed(content, **result.arrays)
    write_atomically(folder / f"{arm}.npz", content.getvalue())
    history = {str(step): numbers for step, numbers in sorted(result.history.items())}
    rest = {"metrics": result.metrics, "summary": result.summary, "parameters": result.parameters, "history": history}
    write_json(folder / f"{arm}.json", rest)


def load_arm(workdir: Path, arm: str) -> ArmResult | None:
    """What `save_arm` wrote; None for an arm that is not finished. Numbers that are not finite come back as None."""
    path = Path(workdir) / FOLDER / f"{arm}.json"
    if not path.exists():
        return None
    rest = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz")) as arrays:
        rest["arrays"] = dict(arrays)
    rest["history"] = {int(step): numbers for step, numbers in rest["history"].items()}
    return ArmResult(**rest)


def load_arms(workdir: Path, arms: Iterable[str]) -> dict[str, ArmResult]:
    """Those of `arms` that are finished, the narrowest first where they differ in their width."""
    found = {arm: one for arm in arms if (one := load_arm(workdir, arm)) is not None}
    return dict(sorted(found.items(), key=lambda item: item[1].summary.get("width", 0)))
