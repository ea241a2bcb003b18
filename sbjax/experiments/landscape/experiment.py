"""Experiments on the geometry of the loss landscape: one frame for all, a module of this folder each.

`task.experiment` names the module. It has a dataclass `Fields` and an `EXPERIMENT`, which says how one arm is checked,
run and reported. An arm that is finished is kept in `landscape/` of the workdir, so that a run that was stopped goes on
with the next one.
"""

import functools
import importlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax

from sbjax.common import options
from sbjax.common.files import plain
from sbjax.common.names import near
from sbjax.data import images
from sbjax.data.images import ImageData
from sbjax.experiments.landscape.arm_results import FOLDER, ArmResult, load_arm, save_arm
from sbjax.frame.errors import ConfigError, named_arm
from sbjax.frame.estimate import check_memory
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.frame.protocol import Experiment
from sbjax.frame.workdir import Workdir
from sbjax.report.results import Results, save_arms
from sbjax.report.sections import Section

EXPERIMENTS = ("two_layer", "deep", "counts", "recovery", "mnist", "copy_average")

logger = logging.getLogger(__name__)

RunArm = Callable[[Plan, ArmPlan, jax.Array, Callable[[str], Any], Callable[[], bool]], ArmResult | None]


class LandscapeExperiment(Experiment):
    """One experiment, run arm by arm.

    Args:
        fields: dataclass of its section `task`, with `experiment` first.
        primary, goal: the metric that arms are compared in, and 'min' or 'max'.
        smoke: what the word `smoke` changes, by name of a field.
        needs: `(plan, arm) -> {what: bytes}`, lower bounds of what is in memory at once; what does not fit is refused.
        check_arm: `(plan, arm)` raises `ConfigError`; called for every arm before anything is written.
        run_arm: `(plan, arm, key, log, stop) -> ArmResult | None` in the precision of the config. `key` is the same for
            all arms, `log(text)` tells of progress, `stop()` is true once the run was asked to end: look every some
            seconds and return None.
        reports: whether the field `reports` is read.
    """

    name: ClassVar[str] = "landscape"
    fixed: ClassVar[tuple[str, ...]] = ("experiment",)
    sections: ClassVar[tuple[str, ...]] = ("precision",)
    part: ClassVar[str] = FOLDER  # of the workdir
    kept: ClassVar[str] = f"Arms that were finished are kept in {FOLDER}/"

    def __init__(
        self,
        fields: type,
        *,
        primary: str,
        goal: str = "min",
        smoke: Mapping[str, Any],
        check_arm: Callable[[Plan, ArmPlan], None],
        run_arm: RunArm,
        needs: Callable[[Plan, ArmPlan], Mapping[str, int]] = lambda plan, arm: {},
        reports: bool = False,
    ):
        self.fields, self.primary, self.goal = fields, primary, goal
        self.smoke = {f"task.{field}": value for field, value in smoke.items()}
        self.check_arm, self.run_arm, self.needs = check_arm, run_arm, needs
        self.general = ("seed", "replicas", "train_steps", "reference", "callbacks", *(("reports",) if reports else ()))

    def prepare(self, plan: Plan) -> Plan:
        """The plan, with every arm checked."""
        for arm in plan.arms:
            with named_arm(arm.name):
                self.check_arm(plan, arm)
                check_memory(self.needs(plan, arm), {"replicas": plan.replicas, "task": options.values_of(arm.task)})
        return plan

    def run(self, prepared: Plan, folder: Workdir, *, stop: Callable[[], bool]) -> bool:
        """Run all arms that are not finished yet."""
        plan, finished = prepared, {}
        key, steps = jax.random.key(plan.seed), plan.train_steps
        for arm in plan.arms:
            found = load_arm(folder.path, arm.name, self.part)
            if found is None:
                if stop():
                    return False
                began = time.perf_counter()

                def log(text, name=arm.name):
                    logger.info("%s: %s", name, text)

                found = self.run_arm(plan, arm, key, log, stop)
                if found is None:
                    return False
                save_arm(folder.path, arm.name, found, self.part)
                folder.add_timing(arm=arm.name, steps=[0, steps], train_seconds=round(time.perf_counter() - began, 3))
            folder.resume_metrics(arm.name, [])
            for step, metrics in [*sorted(found.history.items()), (steps, found.metrics)]:
                folder.report({"arm": arm.name, "step": step, "flops": 0.0, **plain(metrics)})
            finished[arm.name] = found
        save_arms(
            folder.path,
            arms=[arm.name for arm in plan.arms],
            reference=plan.reference,
            primary=self.primary,
            goal=self.goal,
            parameters={name: found.parameters for name, found in finished.items()},
            flops_per_step=dict.fromkeys(finished, 0.0),
            steps=dict.fromkeys(finished, steps),
            about=plan.about_arms(),
        )
        return True

    def report(self, results: Results, workdir: Path) -> Sequence[Section]:
        """The sections that the module `<experiment>_report` makes."""
        name = results.config["task"]["experiment"]
        return importlib.import_module(f"sbjax.experiments.landscape.{name}_report").report(results, workdir)


class Landscape(Experiment):
    """All of them: `select` finds the one that `task.experiment` names."""

    name: ClassVar[str] = "landscape"

    def select(self, task: Mapping[str, Any]) -> Experiment:
        """The experiment that `task.experiment` names, 'two_layer' if it names none."""
        return named(task, EXPERIMENTS, "sbjax.experiments.landscape")


@functools.lru_cache(1)
def load_images(dataset: str, data_dir: str, cache_dir: str) -> ImageData:
    """The images that fields of `task` name, kept for the next arm: a check that calls it refuses before anything is
    written.

    Raises:
        ConfigError: there are none.
    """
    try:
        return images.load(dataset, data_dir=data_dir or None, cache_dir=cache_dir or None)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        raise ConfigError(f"task.dataset={dataset!r}: {error}") from error


def named(task: Mapping[str, Any], known: Sequence[str], package: str) -> Experiment:
    """`EXPERIMENT` of the module of a package that `task.experiment` names, the first one known if it names none.

    Raises:
        ConfigError: an unknown name.
    """
    name = task.get("experiment", known[0])
    if name not in known:
        raise ConfigError(f"task.experiment={name!r} is unknown{near(str(name), known)}; known: {', '.join(known)}")
    return importlib.import_module(f"{package}.{name}").EXPERIMENT


EXPERIMENT = Landscape()
