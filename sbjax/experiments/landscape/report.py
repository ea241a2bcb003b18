"""The part of a report that belongs to an experiment of `sbjax.experiments.landscape.experiment`."""

from collections.abc import Mapping
from pathlib import Path

from sbjax.report.results import Results


def _experiment(results: Results):
    task = results.config.get("task") or {}
    if not isinstance(task, Mapping) or task.get("kind") != "landscape":
        return None
    from sbjax.experiments.landscape.experiment import load_experiment

    return load_experiment(task["experiment"])


def save_figures(results: Results, workdir: Path) -> dict[str, Path]:
    """Draws what the experiment of a run draws; the paths by name, {} for a run of another kind."""
    module = _experiment(results)
    return {} if module is None else module.save_figures(Path(workdir), results)


def section(results: Results, workdir: Path) -> list[str]:
    """Its tables, [] for a run of another kind."""
    module = _experiment(results)
    return [] if module is None else module.section(Path(workdir), results)


def captions(results: Results) -> dict[str, str]:
    """Of its figures by name."""
    module = _experiment(results)
    return {} if module is None else module.CAPTIONS
