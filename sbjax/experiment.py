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
import jax.numpy as jnp
from ml_collections import ConfigDict

from sbjax import build, trees
from sbjax import config as config_lib
from sbjax.metrics.monitor import Monitor
from sbjax.suggest import near
from sbjax.tasks.task import Task
from sbjax.training import checkpoint as checkpoint_lib
from sbjax.training import fit as fit_lib
from sbjax.training.fit import Phase
from sbjax.training.progress import Progress
from sbjax.workdir import Workdir

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


class Arm(NamedTuple):
    """One side of the comparison, ready to train."""

    name: str
    task: Task
    phases: tuple[Phase, Phase | None]
    steps: int
    parameters: int
    flops_per_step: float
    monitor: Monitor | None
    monitor_steps: tuple[int, ...]


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
        config: as `sbjax.config.base_config`, with at least one arm.
        workdir: the folder of this run, see `sbjax.workdir`.
        overrides: what the user changed on the command line, for the record.
        config_file: where the config is from, for the record.

    Raises:
        ConfigError: the configuration or the folder cannot be used.
        CheckpointError: a checkpoint could not be written.
        Interrupted: stopped by a signal.

    Example:
        >>> from sbjax.config import base_config, shrink
        >>> config = shrink(base_config())
        >>> config.arms = {'raw': {}, 'expanded': {'expansion': {'kind': 'image', 'factor': 2, 'fill': '0.5'}}}
        >>> outcome = run(config, '/tmp/sbjax-example')  # doctest: +SKIP
    """
    settings = config_lib.check(config)
    if not os.fspath(workdir):
        raise config_lib.ConfigError("--workdir='' is empty; name the folder of the run")
    mapping = _check_cheaply(settings)
    folder = Workdir(workdir, settings)
    if folder.status in ("done", "diverged"):
        logger.info("%s is finished (%s): nothing to do", folder.path, folder.status)
        return _outcome(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_precision(settings["precision"]))
        arms = build_arms(settings)
        stack.callback(folder.close)
        folder.open(overrides=overrides or [], config_file=config_file)
        asked = stack.enter_context(_signals())
        return _train(folder, settings, arms, mapping, asked)


def prepare(settings: dict[str, Any]) -> None:
    """Build all that a run with these (checked) settings needs, to see whether it can be built.

    Raises:
        ConfigError: as `run`.
    """
    _check_cheaply(settings)
    with _precision(settings["precision"]):
        build_arms(settings)


def _check_cheaply(settings):
    """What needs no data: devices and expansions."""
    mapping = build.build_mapping(settings["mapping"])
    if mapping.devices > jax.device_count():
        raise config_lib.ConfigError(
            f"mapping.devices={mapping.devices}: this process has {jax.device_count()}; lower it, or on CPU start with "
            f"--cpu_devices={mapping.devices}"
        )
    for name in settings["arms"]:
        with _named_arm(name):
            build.build_expansion(config_lib.arm_settings(settings, name)["expansion"])
    return mapping


def build_arms(settings: dict[str, Any]) -> list[Arm]:
    """All arms of checked settings, with their data loaded; arms with the same data share it."""
    arms, loaded = [], {}
    for name in settings["arms"]:
        own = config_lib.arm_settings(settings, name)
        source = json.dumps(own["task"], sort_keys=True)
        if source not in loaded:
            loaded[source] = build.build_data(own["task"])
        with _named_arm(name):
            task = build.build_task(own, loaded[source])
            steps = build.train_steps(own, task)
            optimizer = build.build_optimizer(own["optimizer"], train_steps=steps)
            finish = build.build_finish(own["finish"])
            total = steps + (finish.steps if finish else 0)
            monitor, monitor_steps = build.build_monitor(own, task, steps=total)
        variables = jax.eval_shape(task.init, jax.random.key(0))
        parameters = trees.size(variables["params"])
        phases = (Phase(optimizer, steps), finish)
        arms.append(Arm(name, task, phases, total, parameters, step_flops(task), monitor, monitor_steps))
    return arms


@contextlib.contextmanager
def _named_arm(name: str):
    """Say in errors which arm they are about."""
    try:
        yield
    except config_lib.ConfigError as error:
        raise config_lib.ConfigError(f"arm {name!r}: {error}") from error


def step_flops(task: Task) -> float:
    """FLOPs of loss and gradient of one replica and step, as XLA counts them in the program before optimisation."""
    key = jax.random.key(0)
    variables = jax.eval_shape(task.init, key)
    batch = jax.eval_shape(task.sample, task.data, key, jnp.int32(0))

    def gradient(params, variables, batch, key):
        return jax.grad(lambda p: task.loss({**variables, "params": p}, batch, key)[0])(params)

    cost = jax.jit(gradient).lower(variables["params"], variables, batch, key).cost_analysis()
    return float(cost["flops"])


def _train(folder: Workdir, settings: dict[str, Any], arms: list[Arm], mapping, asked) -> Outcome:
    progress = Progress(sum(arm.steps * arm.flops_per_step for arm in arms))
    metrics, failures = {}, []
    for arm in arms:
        folder.set_status("running", arm=arm.name, pid=os.getpid())
        fitted = _fit(folder, settings, arm, mapping, asked, progress)
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


def _fit(folder, settings, arm: Arm, mapping, asked, progress: Progress) -> fit_lib.Fitted:
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
            finish=arm.phases[1],
            replicas=settings["replicas"],
            key=jax.random.key(settings["seed"]),
            reports=settings["reports"],
            saves=settings["checkpoint"]["saves"],
            mapping=mapping,
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


def _arm_metrics(history: list[fit_lib.Record]) -> dict[str, dict[str, float]]:
    """What the monitor reported last."""
    measures = ({name: x for name, x in record.items() if isinstance(x, dict)} for record in reversed(history))
    return next(filter(None, measures), {})


def _outcome(folder: Workdir) -> Outcome:
    from sbjax.report import build_report
    from sbjax.report.tables import format_table

    if not all((folder.path / name).exists() for name in ("summary.json", "report.html")):
        build_report(folder.path)  # from what the run left; the same bytes as before they were lost
    summary = json.loads((folder.path / "summary.json").read_text())
    return Outcome(folder.status, format_table(summary), folder.path / "report.html", summary)


@contextlib.contextmanager
def _precision(section: dict[str, Any]):
    """Matmul precision and double precision of a run."""
    known = ("default", "high", "highest")
    if section["matmul"] not in known:
        raise config_lib.ConfigError(
            f"precision.matmul={section['matmul']!r} is unknown{near(section['matmul'], known)}; "
            f"known: {', '.join(known)}"
        )
    with jax.default_matmul_precision(section["matmul"]), jax.enable_x64(section["x64"]):
        yield


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
