"""Experiments whose trained networks are compared on straight lines: what they share."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sbjax.common.files import misfit, read_json
from sbjax.experiments.connectivity import neurons
from sbjax.experiments.connectivity import report as report_lib
from sbjax.experiments.connectivity.run import measure_arm
from sbjax.frame.plan import Plan
from sbjax.frame.sections import Interpolation
from sbjax.frame.training import TrainingExperiment
from sbjax.report.results import CONFIG
from sbjax.tasks.task import Task


class ConnectivityExperiment(TrainingExperiment):
    """A kind that gives tasks with `lines`, and gets barriers, matching, identifiability and their report.

    The section `interpolation` says what is measured.
    """

    sections: ClassVar[tuple[str, ...]] = (*TrainingExperiment.sections, "interpolation")

    def check(self, plan: Plan) -> list[str]:
        """Published numbers that a table could not show."""
        problem = misfit(plan.settings["interpolation"].get("published", {}), {str: ([float], float)})
        published = plan.interpolation.published.items()
        pairs = [
            f"{n}={x!r}" for n, x in published if "/" not in n and not (isinstance(x, list | tuple) and len(x) == 2)
        ]
        wanted = "give (mean, standard deviation), or by 'arm/networks' and 'arm/monotonic' one number"
        pairs += [f"{n}={x!r} is not finite" for n, x in published if not (problem or pairs or np.isfinite(x).all())]
        return [f"interpolation.published: {said}: {wanted}" for said in filter(None, [problem, *pairs])]

    def check_task(self, task: Task, interpolation: Interpolation) -> None:
        """Refuses a task in which what is to be measured cannot be."""
        if interpolation.identifiability:
            neurons.check(task)

    def after_arm(self, plan, arm, fitted, folder, progress):
        """Losses on straight lines between the networks."""
        if plan.interpolation.between:
            measure_arm(plan, arm, fitted, folder, progress)

    def table(self, workdir: Path) -> str:
        """Barriers and interpolation, if they were measured."""
        config = read_json(workdir / "config.json", CONFIG)["config"]
        found = report_lib.load_lines(workdir, list(config["arms"]))
        return report_lib.format_lines(found, report_lib.published(config))

    def report(self, results, workdir: Path) -> Any:
        """Barriers and interpolation, if they were measured."""
        measured = results.config.get("interpolation", {}).get("between")
        return report_lib.report(results, workdir) if measured else ()
