"""An experiment: the same training in several arms, paired by seed, from a config to a report."""

import contextlib
import json
import logging
import os
import pathlib
import signal
import threading
import time
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from sbjax.experiments.registry import own_program
from sbjax.frame import config as config_lib
from sbjax.frame.arms import Arm, build_arms, check_cheaply, precision
from sbjax.frame.workdir import Workdir
from sbjax.training import checkpoint as checkpoint_lib
from sbjax.training import fit as fit_lib
from sbjax.training.progress import Progress

logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What `run` returns.

    Attributes:
        status: 'done', or 'diverged' if an arm has no replica left.
        table: the result as text.
        report: path of `report.html`.
        summary: the paired statistics, as in `summary.json`.
    """

    status: str
    table: str
    report: pathlib.Path
    summary: dict[str, Any]


class Interrupted(Exception):
    """The run was asked to stop and has saved; starting it again goes on from there."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signal_number


def run(
    config: ConfigDict | dict[str, Any],
    workdir: str | os.PathLike,
    *,
    overrides: list[str] | None = None,
    config_file: str | None = None,
) -> Outcome:
    """Train every arm of `config`, go on where an earlier process stopped, and write the report.

    Everything that can be refused is refused before the first file is written. A run that is finished is not touched.
    Ctrl-C and SIGTERM save and raise `Interrupted`; a second one stops at once.

    Args:
        config: as `sbjax.frame.config.base_config`, with at least one arm.
        workdir: the folder of this run, see `sbjax.frame.workdir`.
        overrides: what the user changed on the command line, for the record.
        config_file: where the config is from, for the record.

    Raises:
        ConfigError: the configuration or the folder cannot be used.
        CheckpointError: a checkpoint could not be written.
        Interrupted: stopped by a signal.

    Example:
        >>> from sbjax.frame.config import base_config, shrink
        >>> config = shrink(base_config())
        >>> config.arms = {'raw': {}, 'expanded': {'expansion': {'kind': 'image', 'factor': 2, 'fill': '0.5'}}}
        >>> outcome = run(config, '/tmp/sbjax-example')  # doctest: +SKIP
    """
    settings = config_lib.check(config)
    if not os.fspath(workdir):
        raise config_lib.ConfigError("--workdir='' is empty; name the folder of the run")
    placement = check_cheaply(settings)
    folder = Workdir(workdir, settings)
    if folder.status in ("done", "diverged"):
        logger.info("%s is finished (%s): nothing to do", folder.path, folder.status)
        return _outcome(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(precision(settings["precision"]))
        own = own_program(settings)
        arms = build_arms(settings) if own is None else own.check(settings)
        stack.callback(folder.close)
        folder.open(overrides=overrides or [], config_file=config_file)
        asked = stack.enter_context(_signals())
        if own is not None:
            return _run_own(own, folder, settings, asked)
        return _train(folder, settings, arms, placement, asked)


def _run_own(own, folder: Workdir, settings: dict[str, Any], asked) -> Outcome:
    """A kind of experiment with a program of its own, which says itself what is kept of it."""
    folder.set_status("running", pid=os.getpid())
    if not own.run(folder, settings, stop=lambda: bool(asked)):
        folder.set_status("interrupted")
        name = signal.Signals(asked[0]).name
        kept = getattr(own, "KEPT", "Nothing of it is kept")
        raise Interrupted(asked[0], f"stopped by {name}. {kept}: the same command starts it again")
    from sbjax.report import build_report
    from sbjax.report.results import load_results, stopped_replicas

    build_report(folder.path)
    results = load_results(folder.path)
    gone = [arm for arm in results.arms if len(stopped_replicas(results, arm)) == results.replicas]
    folder.set_status("diverged" if gone else "done", **({"arms": gone} if gone else {}))
    if asked:  # while the report was made; the runs that follow in a suite are not started
        raise Interrupted(asked[0], f"stopped by {signal.Signals(asked[0]).name}; {folder.path} is finished")
    return _outcome(folder)


def _train(folder: Workdir, settings: dict[str, Any], arms: list[Arm], placement, asked) -> Outcome:
    progress = Progress(sum(arm.steps * arm.flops_per_step for arm in arms))
    metrics, failures = {}, []
    for arm in arms:
        folder.set_status("running", arm=arm.name, pid=os.getpid())
        fitted = _fit(folder, settings, arm, placement, asked, progress)
        if fitted.step < arm.steps:
            progress.end()
            folder.set_status("interrupted", arm=arm.name, step=fitted.step)
            raise Interrupted(
                asked[0],
                f"stopped by {signal.Signals(asked[0]).name} in arm {arm.name!r} after step {fitted.step} of "
                f"{arm.steps}; all is saved in {folder.path}. To go on, start the same command again",
            )
        metrics[arm.name] = _arm_metrics(fitted.history)
        if arm.task.grid is not None:
            folder.save_grid(arm.name, arm.task.grid, fitted.variables)
        if settings["lines"]["between"].strip():
            _measure_lines(folder, settings, arm, fitted, progress)
        failures += [{"arm": arm.name, **failure._asdict()} for failure in fitted.failures]
        progress.show(f"{arm.name} done")
    progress.end()

    from sbjax.report import build_report
    from sbjax.report.results import save_arms

    save_arms(
        folder.path,
        arms=[arm.name for arm in arms],
        reference=settings["reference"],
        primary=arms[0].task.primary,
        goal=arms[0].task.goal,
        parameters={arm.name: arm.parameters for arm in arms},
        flops_per_step={arm.name: arm.flops_per_step for arm in arms},
        steps={arm.name: arm.steps for arm in arms},
        failures=failures,
        metrics=metrics,
    )
    build_report(folder.path)
    gone = [arm.name for arm in arms if sum(f["arm"] == arm.name for f in failures) == settings["replicas"]]
    folder.set_status("diverged" if gone else "done", **({"arms": gone} if gone else {}))
    return _outcome(folder)


def _fit(folder, settings, arm: Arm, placement, asked, progress: Progress) -> fit_lib.Fitted:
    work = arm.flops_per_step
    spent = {"evaluate": 0.0, "measure": 0.0, "save": 0.0, "train": 0.0, "compile": 0.0}
    start = at = 0
    began = time.perf_counter()

    def complete(record):
        epoch = {} if arm.task.epoch_steps is None else {"epoch": record["step"] / arm.task.epoch_steps}
        return {"arm": arm.name, "step": record["step"], **epoch, "flops": record["step"] * work, **record}

    def on_resume(step, history):
        nonlocal start, at
        start = at = step
        progress.skip(step * work)
        folder.resume_metrics(arm.name, [complete(record) for record in history])
        if step < arm.steps:
            logger.info("arm %s goes on from the checkpoint of step %d of %d", arm.name, step, arm.steps)

    def on_report(record):
        if record["step"] == 0:
            folder.resume_metrics(arm.name, [])
        folder.report(complete(record))

    def on_pulse(step, seconds, compiled):
        nonlocal at
        spent["compile" if compiled else "train"] += seconds
        progress.add((step - at) * work, seconds, compiled=compiled, label=f"{arm.name}  step {step}/{arm.steps}")
        at = step

    def on_failure(failure, evidence):
        path = folder.save_evidence(arm.name, failure, evidence)
        logger.error(
            "NonFiniteError: arm %s, replica %d stopped at step %d: %s. Evidence: %s. The other replicas go on",
            arm.name, failure.replica, failure.step, failure.what, path,
        )  # fmt: skip

    def on_spent(what, seconds):
        spent[what] += seconds

    checkpoints = checkpoint_lib.Checkpoints(
        folder.path / "checkpoints" / arm.name,
        keep=settings["checkpoint"]["keep"],
        keep_best=settings["checkpoint"]["keep_best"],
        goal=arm.task.goal,
    )
    with contextlib.closing(checkpoints):
        fitted = fit_lib.fit(
            arm.task,
            arm.phases[0].optimizer,
            steps=arm.phases[0].steps,
            second_phase=arm.phases[1],
            replicas=settings["replicas"],
            key=jax.random.key(settings["seed"]),
            reports=settings["reports"],
            saves=settings["checkpoint"]["saves"],
            placement=placement,
            monitor=arm.monitor,
            monitor_steps=arm.monitor_steps,
            checkpoints=checkpoints,
            hooks=fit_lib.Hooks(
                stop=lambda: bool(asked),
                on_resume=on_resume,
                on_report=on_report,
                on_pulse=on_pulse,
                on_failure=on_failure,
                on_spent=on_spent,
            ),
        )
    spent["log"] = time.perf_counter() - began - sum(spent.values())
    seconds = {f"{name}_seconds": round(value, 3) for name, value in spent.items()}
    share = {}
    if spent["measure"] and spent["train"]:
        share = {"measure_share": round(spent["measure"] / spent["train"], 4)}
        logger.info(
            "arm %s: measuring replica distances took %.1f %% of its training time (compilation included)",
            arm.name,
            100 * share["measure_share"],
        )
    folder.add_timing(arm=arm.name, steps=[start, fitted.step], programs=fitted.programs, **seconds, **share)
    return fitted


def _measure_lines(folder, settings, arm: Arm, fitted: fit_lib.Fitted, progress: Progress) -> None:
    from sbjax.experiments.connectivity.run import measure_lines, save_lines

    progress.show(f"{arm.name}: lines between networks")
    began = time.perf_counter()
    stopped = {failure.replica for failure in fitted.failures}
    running = [replica for replica in range(settings["replicas"]) if replica not in stopped]
    key = jax.random.key(settings["seed"])
    save_lines(
        folder.path, arm.name, measure_lines(arm.task, fitted.variables, settings["lines"], key=key, running=running)
    )
    folder.add_timing(arm=arm.name, lines_seconds=round(time.perf_counter() - began, 3))


def _arm_metrics(history: list[fit_lib.Record]) -> dict[str, dict[str, float]]:
    """What the monitor reported last."""
    measures = ({name: x for name, x in record.items() if isinstance(x, dict)} for record in reversed(history))
    return next(filter(None, measures), {})


def _outcome(folder: Workdir) -> Outcome:
    from sbjax.experiments.connectivity import report as lines
    from sbjax.report import build_report
    from sbjax.report.tables import format_table

    if not all((folder.path / name).exists() for name in ("summary.json", "report.html")):
        build_report(folder.path)  # from what the run left; the same bytes as before they were lost
    summary = json.loads((folder.path / "summary.json").read_text())
    config = json.loads((folder.path / "config.json").read_text())["config"]
    between = lines.format_lines(lines.load_lines(folder.path, list(summary["arms"])), lines.published(config))
    table = "\n\n".join(filter(None, (format_table(summary), between)))
    return Outcome(folder.status, table, folder.path / "report.html", summary)


@contextlib.contextmanager
def _signals():
    """A list that gets the number of the first Ctrl-C or SIGTERM; the second one acts at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked  # Python hands signals to the main thread only
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number, frame):
        asked.append(number)
        logger.warning("%s: saving at the next opportunity; once more to stop at once", signal.Signals(number).name)
        for caught, handler in before.items():
            signal.signal(caught, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
