"""Which kinds of experiment there are. A new one needs a folder here and a line in `KINDS`."""

import importlib
import pathlib
from collections.abc import Mapping
from typing import Any

from sbjax.common.files import read_json
from sbjax.common.names import import_path, is_import_path, near
from sbjax.frame.errors import ConfigError, told_of_files
from sbjax.frame.protocol import Experiment
from sbjax.frame.sections import RENAMED_KINDS
from sbjax.report.results import CONFIG

# Modules with an EXPERIMENT, imported when asked for.
KINDS = {
    "images": "sbjax.experiments.images.experiment",
    "text": "sbjax.experiments.text.experiment",
    "identifiability": "sbjax.experiments.identifiability.experiment",
    "graphs": "sbjax.experiments.graphs.experiment",
    "colour": "sbjax.experiments.colour.experiment",
    "metanets": "sbjax.experiments.metanets.experiment",
    "generative": "sbjax.experiments.generative.experiment",
    "pinn": "sbjax.experiments.pinn.experiment",
    "qcd": "sbjax.experiments.qcd.experiment",
    "functions": "sbjax.experiments.functions.experiment",
    "ising": "sbjax.experiments.ising.experiment",
    "landscape": "sbjax.experiments.landscape.experiment",
    "bayes": "sbjax.experiments.bayes.experiment",
    "exact": "sbjax.experiments.exact.experiment",
    "zoo": "sbjax.experiments.zoo.experiment",
}


def find(task: Mapping[str, Any]) -> Experiment:
    """The experiment of a section `task`: by its `kind`, 'images' if it has none.

    Raises:
        ConfigError: an unknown kind, or an import path of something else than an experiment.

    >>> find({'kind': 'pinn'}).name
    'pinn'
    """
    kind = task.get("kind", "images")
    if not isinstance(kind, str):
        raise ConfigError(f"task.kind={kind!r} must be a name; known: {', '.join(KINDS)}")
    if kind in RENAMED_KINDS:
        raise ConfigError(f"task.kind={kind!r} is now called {RENAMED_KINDS[kind]!r}")
    if kind in KINDS:
        return importlib.import_module(KINDS[kind]).EXPERIMENT.select(task)
    if not is_import_path(kind):
        raise ConfigError(f"task.kind={kind!r} is unknown{near(kind, KINDS)}; known: {', '.join(KINDS)}, or "
                          "'module:EXPERIMENT' of yours")  # fmt: skip
    try:
        found = import_path(kind)
    except ValueError as error:
        raise ConfigError(f"task.kind={kind!r}: {error}") from error
    try:
        found = found() if isinstance(found, type) else found
    except Exception as error:  # a class of the user may raise anything
        raise ConfigError(f"task.kind={kind!r} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(found, Experiment):
        raise ConfigError(f"task.kind={kind!r} is no experiment; inherit from sbjax.frame.protocol.Experiment")
    return found.select(task)


def of_workdir(workdir: pathlib.Path, *, trust: bool = False) -> Any:
    """The experiment of a workdir, by its `config.json`.

    Raises:
        FileNotFoundError: there is no `config.json`.
        ConfigError: it is damaged, not this version's, or names code of a user without `trust`.
    """
    with told_of_files():
        task = read_json(workdir / "config.json", CONFIG)["config"].get("task", {})
    kind = task.get("kind", "images")
    if kind not in KINDS and not trust:
        raise ConfigError(
            f"{workdir / 'config.json'}: task.kind={kind!r} is not among {', '.join(KINDS)}; if it is an "
            "experiment of yours, and you trust this folder, give --trust"
        )
    return find(task)
