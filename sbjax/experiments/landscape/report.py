"""The report of a run on the loss landscape: that of its experiment."""

import importlib
from pathlib import Path

from sbjax.report.results import Results
from sbjax.report.sections import Section

REPORTS = {
    name: f"sbjax.experiments.landscape.{name}_report"
    for name in ("two_layer", "deep", "counts", "recovery", "mnist", "copy_average")
}
"""Modules with a function `report(results, workdir)`, by experiment."""


def report(results: Results, workdir: Path) -> list[Section]:
    """Tables and figures of the experiment that `task.experiment` names."""
    module = importlib.import_module(REPORTS[results.config["task"]["experiment"]])
    return module.report(results, workdir)
