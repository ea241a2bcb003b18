"""The training of one arm, told to the terminal and to the workdir."""

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import jax

from sbjax.common import options
from sbjax.frame.arms import Arm
from sbjax.frame.plan import Plan
from sbjax.frame.workdir import Workdir
from sbjax.training import checkpoint as checkpoint_lib
from sbjax.training import fit as fit_lib
from sbjax.training.placement import Placement
from sbjax.training.progress import Progress

logger = logging.getLogger(__name__)


class ArmTraining:
    """The training of one arm, told to the terminal and to the workdir."""

    def __init__(
        self, plan: Plan, arm: Arm, placement: Placement, folder: Workdir, progress: Progress, stop: Callable[[], bool]
    ):
        self.plan, self.arm, self.placement, self.folder = plan, arm, placement, folder
        self.progress, self.stop = progress, stop
        self.spent = dict.fromkeys(("evaluate", "measure", "save", "train", "compile"), 0.0)
        self.start = self.at = 0

    def fit(self) -> fit_lib.Fitted:
        """Train from the newest checkpoint, if there is one, to the end or until asked to stop."""
        plan, arm, section = self.plan, self.arm, self.plan.checkpoint
        began = time.perf_counter()
        # What is measured over all replicas together is measured once all blocks are there, from their checkpoints.
        measured_later = arm.monitor_steps if plan.is_block else ()
        checkpoints = checkpoint_lib.Checkpoints(
            self.folder.path / "checkpoints" / arm.name,
            keep=section.keep + (section.saves + len(measured_later) if measured_later else 0),
            keep_best=section.keep_best,
            goal=arm.task.goal,
            identity=identity(plan, arm.name),
        )
        with contextlib.closing(checkpoints):
            fitted = fit_lib.fit(
                arm.task,
                arm.phases[0].optimizer,
                steps=arm.phases[0].steps,
                second_phase=arm.phases[1],
                extend_steps=plan.extend_steps,
                replicas=plan.replicas,
                first=plan.first_replica,
                key=jax.random.key(plan.seed),
                reports=plan.reports,
                saves=section.saves,
                save_seconds=60 * section.minutes,
                placement=self.placement,
                save_steps=measured_later,
                monitor=None if plan.is_block else arm.monitor,
                monitor_steps=arm.monitor_steps,
                checkpoints=checkpoints,
                hooks=fit_lib.Hooks(
                    stop=self.stop,
                    on_resume=self._on_resume,
                    on_report=self._on_report,
                    on_pulse=self._on_pulse,
                    on_failure=self._on_failure,
                    on_spent=self._on_spent,
                ),
            )
        self._skip_to(fitted.step)
        self._add_timing(fitted, time.perf_counter() - began)
        return fitted

    def _skip_to(self, step):
        """Tell the progress line of steps that no replica was left to make."""
        starts = (0, *self.arm.phase_ends(self.plan.extend_steps)[:-1])
        if self.at < step:
            programs = sum(start >= self.at for start in starts)
            self.progress.skip((step - self.at) * self.arm.flops_per_step, programs=programs)

    def _complete(self, record):
        epoch_steps, step = self.arm.task.epoch_steps, record["step"]
        epoch = {} if epoch_steps is None else {"epoch": step / epoch_steps}
        flops = step * self.arm.flops_per_step if self.plan.one_gradient and self.arm.counted else 0.0
        return {"arm": self.arm.name, "step": step, **epoch, "flops": flops, **record}

    def _on_resume(self, step, history):
        self.start = self.at = step
        done = sum(end <= step for end in self.arm.phase_ends(self.plan.extend_steps))
        self.progress.skip(step * self.arm.flops_per_step, programs=done)
        self.folder.resume_metrics(self.arm.name, [self._complete(record) for record in history])
        last = self.arm.steps + self.plan.extend_steps
        if step < last:
            logger.info("arm %s goes on from the checkpoint of step %d of %d", self.arm.name, step, last)

    def _on_report(self, record):
        if record["step"] == 0:
            self.folder.resume_metrics(self.arm.name, [])
        self.folder.report(self._complete(record))

    def _on_pulse(self, step, seconds, compiled):
        self.spent["compile" if compiled else "train"] += seconds
        work, last = (step - self.at) * self.arm.flops_per_step, self.arm.steps + self.plan.extend_steps
        self.progress.add(work, seconds, compiled=compiled, label=f"{self.arm.name}  step {step}/{last}")
        self.at = step

    def _on_failure(self, failure, evidence):
        path = self.folder.save_evidence(self.arm.name, failure, evidence)
        logger.error(
            "NonFiniteError: arm %s, replica %d stopped at step %d: %s. Evidence: %s. The other replicas go on",
            self.arm.name, failure.replica, failure.step, failure.what, path,
        )  # fmt: skip

    def _on_spent(self, what, seconds):
        self.spent[what] += seconds
        if what == "compile":
            self.progress.compiling(seconds)

    def _add_timing(self, fitted, seconds):
        if self.start == fitted.step:  # all of it was there already
            return
        self.spent["log"] = seconds - sum(self.spent.values())
        numbers = {f"{name}_seconds": round(value, 3) for name, value in self.spent.items()}
        if self.spent["measure"] >= 1:  # seconds, compilation among them: a share of a short training says nothing
            logger.info(
                "arm %s: what the monitor measures took %.1f s, its training %.1f s", self.arm.name,
                self.spent["measure"], self.spent["train"],
            )  # fmt: skip
        self.folder.add_timing(arm=self.arm.name, steps=[self.start, fitted.step], programs=fitted.programs, **numbers)


def identity(plan: Plan, arm: str) -> dict[str, Any]:
    """What ties a checkpoint to its run: arm, seed, replicas and a digest of everything that decides numbers.

    Free fields of the experiment, such as where data lie, decide none.
    """
    experiment, resolved = plan.experiment, plan.settings
    outside = ("arms", "checkpoint", "callbacks", "calibration")
    settings = {name: value for name, value in resolved.items() if name not in outside}
    own = {name: value for name, value in resolved["arms"][arm].items() if name not in ("order", "role", "labels")}
    free = {name for name, spec in options.describe(experiment.fields).items() if spec.free}
    settings["task"] = {name: value for name, value in settings["task"].items() if name not in free}
    text = json.dumps([settings, own], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    block = {"first_replica": plan.first_replica, "block": plan.replicas} if plan.is_block else {}
    return {"arm": arm, "seed": resolved["seed"], "replicas": resolved["replicas"], "settings": digest, **block}
