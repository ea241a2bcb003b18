"""One run: an experiment from its configuration to its report."""

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import signal
from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from sbjax.common import hosts
from sbjax.experiments import registry
from sbjax.frame import config as config_lib
from sbjax.frame.arms import precision
from sbjax.frame.callbacks import Callbacks
from sbjax.frame.differences import differences
from sbjax.frame.errors import ConfigError, told_of_files
from sbjax.frame.estimate import check_disk
from sbjax.frame.plan import Plan
from sbjax.frame.protocol import Experiment
from sbjax.frame.workdir import Workdir
from sbjax.report.page import build_report
from sbjax.report.results import load_results, not_trained, stopped_replicas
from sbjax.report.statistics import summarise
from sbjax.report.tables import format_table, noted
from sbjax.report.whole import digests_of_inputs, digests_of_made, told_of_changes
from sbjax.runner.signals import Interrupted, listening

logger = logging.getLogger(__name__)

FINISHED = ("done", "diverged")


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


class Prepared(NamedTuple):
    """A plan, and what its experiment built from it: what is checked is what runs."""

    plan: Plan
    built: Any


def prepare(plan: Plan) -> Prepared:
    """Build all that a run needs.

    Raises:
        ConfigError: it cannot be built.
    """
    Callbacks(plan.callbacks)
    with precision(plan.precision):
        return Prepared(plan, plan.experiment.prepare(plan))


def run(
    config: ConfigDict | dict[str, Any],
    workdir: str | os.PathLike,
    *,
    overrides: list[str] | None = None,
    config_file: str | None = None,
    extend: int = 0,
) -> Outcome:
    """Train every arm of `config`, go on where an earlier process stopped, and write the report.

    Everything that can be refused is refused before the first file is written. A run that is finished is not touched.
    Ctrl-C, SIGTERM and SIGHUP save and raise `Interrupted`; a second one stops at once.

    Args:
        config: as `sbjax.config.base_config`, with at least one arm.
        workdir: the folder of this run, see `sbjax.frame.workdir`.
        overrides: what the user changed on the command line, for the record.
        config_file: where the config is from, for the record.
        extend: train a finished run of the training loop this many steps longer than its config says.

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
    return run_plan(
        config_lib.read(config, registry.find), workdir, overrides=overrides, config_file=config_file, extend=extend
    )


def open_workdir(plan: Plan, workdir: str | os.PathLike) -> Workdir:
    """The folder of a run, not yet written to.

    Raises:
        ConfigError: it cannot be used for this plan.
    """
    if not os.fspath(workdir):
        raise ConfigError("--workdir='' is empty; name the folder of the run")
    compare = functools.partial(differences, experiment=plan.experiment)
    return Workdir(workdir, plan.settings, differences=compare, callbacks=Callbacks(plan.callbacks))


def run_plan(
    plan: Plan,
    workdir: str | os.PathLike,
    *,
    prepared: Prepared | None = None,
    overrides: list[str] | None = None,
    config_file: str | None = None,
    extend: int = 0,
    environments: Sequence[dict[str, Any]] = (),
) -> Outcome:
    """`run`, of a plan.

    Args:
        prepared: what `prepare` gave for it, if that was done before.
        environments: in which the arms were trained, where that was in other processes.
    """
    if hosts.count() > 1 and not plan.experiment.extendable:
        raise ConfigError(
            f"--distributed: task.kind={plan.experiment.name!r} is not trained by the training loop; run it in one "
            "process"
        )
    folder = open_workdir(plan, workdir)
    extended, lost = _extended(plan, folder, extend), []
    if folder.status in FINISHED and extended == folder.extended:
        lost = folder.changed()
        if not lost or not folder.writable:
            logger.info("%s is finished (%s): nothing to do", folder.path, folder.status)
            return _outcome(folder, plan)
        logger.warning(
            "%s: changed or lost since the run finished: %s. They are made again %s; what is left of them goes to "
            "damaged/", folder.path, ", ".join(lost), "from its checkpoints" if plan.experiment.extendable else "",
        )  # fmt: skip
    folder.check_writable()
    plan = dataclasses.replace(plan, extend_steps=extended)
    prepared = prepare(plan) if prepared is None or extended else prepared
    if not (lost or environments):  # else it was trained before, maybe on another machine
        hosts.by_first(plan.experiment.check_time)(prepared.built)
    hosts.by_first(check_disk)(plan.experiment.disk(prepared.built), folder.path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(precision(plan.precision))
        stack.callback(folder.close)
        folder.set_aside(lost)
        folder.open(
            overrides=overrides or [],
            config_file=config_file,
            extended=extended,
            environments=environments,
            own_code=plan.own_code,
            own_data=getattr(prepared.built, "own_data", None),
        )
        asked = stack.enter_context(listening())
        folder.set_status("running")

        def stop():
            number = hosts.largest(asked[0] if asked else 0)  # a signal may reach one process alone
            if number and not asked:
                asked.append(number)
            return bool(number)

        if not plan.experiment.run(prepared.built, folder, stop=stop):
            raise _interrupted(folder, plan, asked[0])
        hosts.from_first(lambda: _finish(folder, plan))
        if stop():  # while the report was made; the runs that follow in a suite are not started
            raise Interrupted(asked[0], f"stopped by {signal.Signals(asked[0]).name}; {folder.path} is finished")
        return _outcome(folder, plan)


def _finish(folder: Workdir, plan: Plan) -> None:
    """The report, and the digests of what it is made from."""
    inputs = digests_of_inputs(folder.path)
    build_report(folder.path, sections=plan.experiment.report)
    results = load_results(folder.path)
    gone = [arm for arm in results.arms if len(stopped_replicas(results, arm)) == results.replicas]
    about = {**({"arms": gone} if gone else {}), "inputs": inputs, "made": digests_of_made(folder.path)}
    folder.set_status("diverged" if gone else "done", **about)


def _extended(plan: Plan, folder: Workdir, extend: int) -> int:
    """Steps beyond the plan: those asked for now, or those of an extension that was asked for earlier."""
    if extend < 0:
        raise ConfigError(f"--extend={extend} must be >= 0 steps")
    if not extend:
        return folder.extended
    if folder.status not in FINISHED and extend != folder.extended:
        raise ConfigError(
            f"--extend={extend}: the run in {folder.path} is not finished ({folder.status}); start it without --extend"
        )
    if extend < folder.extended:
        raise ConfigError(f"--extend={extend}: the run was extended by {folder.extended} steps already; give more")
    if not plan.experiment.extendable:
        raise ConfigError(f"--extend={extend}: task.kind={plan.experiment.name!r} is not trained by the training loop")
    for arm in plan.arms:
        last = arm.second_phase.optimizer if arm.second_phase else arm.optimizer
        if last.ends_at_zero:
            raise ConfigError(
                f"--extend={extend}: the learning rate of arm {arm.name!r} ended at 0 by its schedule, so that further "
                "steps would move nothing; use a run with schedule='constant' or 'step'"
            )
    return extend


def _interrupted(folder: Workdir, plan: Plan, number: int) -> Interrupted:
    """What the user is told of a run that was stopped."""
    name, at = signal.Signals(number).name, folder.details()
    if at.get("status") != "interrupted":
        folder.set_status("interrupted")
        return Interrupted(number, f"stopped by {name}. {plan.experiment.kept}: the same command starts it again")
    return Interrupted(
        number,
        f"stopped by {name} in arm {at['arm']!r} after step {at['step']} of {at['of']}; all is saved in {folder.path}. "
        "To go on, start the same command again",
    )


def _outcome(folder: Workdir, plan: Plan) -> Outcome:
    """Of a finished run, in all processes."""
    status, table, report, summary = hosts.from_first(lambda: tuple(_outcome_here(folder, plan)))
    return Outcome(status, table, pathlib.Path(report), summary)


def _outcome_here(folder: Workdir, plan: Plan) -> Outcome:
    """Of a finished run; what was made from its numbers is made again where it was lost or changed."""
    with told_of_files():
        results = load_results(folder.path)
        if not folder.made_is_whole() and folder.writable:
            build_report(folder.path, sections=plan.experiment.report)
            folder.set_status(**{**folder.details(), "made": digests_of_made(folder.path)})
        with told_of_changes(folder.path, results.changed):
            table = in_text(plan.experiment, folder.path)
    return Outcome(folder.status, table, folder.path / "report.html", summarise(results))


def in_text(experiment: Experiment, path: pathlib.Path) -> str:
    """The tables of a finished run, for a terminal; below each, the pairs that are there where some are not."""
    results = load_results(path)
    own = noted(experiment.table(path), not_trained(results))
    return "\n\n".join(filter(None, (format_table(summarise(results)), own)))
