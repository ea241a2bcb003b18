"""Kinds of experiment that are run by a program of their own and not arm by arm in the training loop."""

from types import ModuleType
from typing import Any


def own_program(settings: dict[str, Any]) -> ModuleType | None:
    """The module that runs (checked) settings; None = the training loop.

    It has `check(settings)`, which raises `ConfigError`, and `run(folder, settings, stop=..)`, which leaves in the
    folder what `sbjax.report.results` reads and returns False if it was stopped.

    >>> own_program({'task': {'kind': 'pinn'}}) is None
    True
    """
    # Imported where needed: most runs need neither.
    if settings["task"]["kind"] == "landscape":
        from sbjax.experiments.landscape import run

        return run
    if settings["task"]["kind"] == "ising":
        from sbjax.experiments.ising import run as ising_quench

        return ising_quench
    if settings["task"]["kind"] == "regression" and settings["task"]["program"] == "grid":
        from sbjax.experiments.functions import run as regression_run

        return regression_run
    return None
