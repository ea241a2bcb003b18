"""Kinds of experiment that are run by a program of their own and not arm by arm in the training loop."""

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

_REPORTS = {
    "images": "images", "pinn": "pinn", "equation_of_state": "qcd", "regression": "functions",
    "landscape": "landscape", "ising": "ising",
}  # fmt: skip
_SUITES = {"pinn": "pinn", "regression": "functions"}


def report_of(settings: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The function `report(results, workdir)` of the experiment of these settings; None = it has none.

    >>> report_of({'task': {'kind': 'ising'}}).__module__
    'sbjax.experiments.ising.report'
    """
    name = _REPORTS.get(_kind(settings))
    return importlib.import_module(f"sbjax.experiments.{name}.report").report if name else None


def suite_report_of(settings: Mapping[str, Any]) -> Callable[..., Any]:
    """The function `suite_report(folder, names)` for several runs of such settings.

    >>> suite_report_of({}).__module__
    'sbjax.report.suite'
    """
    name = _SUITES.get(_kind(settings))
    module = f"sbjax.experiments.{name}.suite_report" if name else "sbjax.report.suite"
    return importlib.import_module(module).suite_report


def _kind(settings):
    task = settings.get("task")
    return task.get("kind") if isinstance(task, Mapping) else None


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
