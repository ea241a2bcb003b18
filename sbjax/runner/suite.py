"""Several runs from one config, each in a folder of its own, and one report of all."""

import json
import logging
import os
import pathlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from sbjax import config as config_lib
from sbjax.common import hosts
from sbjax.common.files import read_json, write_atomically
from sbjax.common.names import expanded
from sbjax.experiments import registry
from sbjax.frame.errors import ConfigError, told_of_files
from sbjax.frame.plan import Plan
from sbjax.report.against import Against, write_against
from sbjax.report.facts import duration
from sbjax.report.page import build_report
from sbjax.report.results import CONFIG, load_results
from sbjax.report.statistics import summarise
from sbjax.report.suite import load_members, not_trained
from sbjax.report.tables import format_table, noted
from sbjax.runner import run as run_lib
from sbjax.runner.sweeps.folder import PLANNED

LISTED = "suite.json"
FORM = {"members": [str]}

logger = logging.getLogger(__name__)


def members(config: ConfigDict | dict[str, Any]) -> dict[str, Plan]:
    """The runs of a config with a `suite`, by name, in its order.

    An entry holds sections or fields that differ from the shared ones; `arms` is replaced as a whole.

    Raises:
        ConfigError: an entry that cannot be run, with its name.

    >>> config = config_lib.base_config('pinn')
    >>> config.update(train_steps=10, arms={'raw': {}}, suite={'heat': {'task': {'equation': 'heat'}}})
    >>> members(config)['heat'].task.equation
    'heat'
    """
    shared = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    found = {}
    for name, own in shared.pop("suite").items():
        if not name.replace("_", "").replace("-", "").isalnum() or not isinstance(own, Mapping):
            raise ConfigError(f"suite.{name}={own!r}: give sections under a name that can name a folder")
        merged = dict(shared)
        for section, fields in own.items():
            whole = section == "arms" or not isinstance(fields, Mapping)
            merged[section] = fields if whole else {**shared.get(section, {}), **fields}
        try:
            found[name] = config_lib.read(merged)
        except ConfigError as error:
            raise ConfigError(f"suite.{name}: {error}") from error
    return found


def listed(names: Iterable[str]) -> str:
    """The content of `suite.json`."""
    return json.dumps({"members": list(names)}, indent=1)


def first_plan(config: ConfigDict | dict[str, Any]) -> Plan:
    """The plan of a config, or of the first member of a suite."""
    return next(iter(members(config).values())) if config.get("suite") else config_lib.read(config)


def run(
    config: ConfigDict | dict[str, Any],
    workdir: str | os.PathLike,
    *,
    overrides: list[str] | None = None,
    config_file: str | None = None,
    extend: int = 0,
) -> run_lib.Outcome:
    """`runner.run.run`, or one run after another where the config has a `suite`, in `workdir/<name>`.

    Started again, it goes on with the first one that is not finished. All are checked, and built, before the first one
    is trained; what was built is what is trained.

    Args, raises: as `runner.run.run`.
    """
    options = {"overrides": overrides, "config_file": config_file, "extend": extend}
    hosts.from_first(lambda: _refuse_a_sweep(workdir))
    if not config.get("suite"):
        return run_lib.run(config, workdir, **options)
    if not os.fspath(workdir):
        raise ConfigError("--workdir='' is empty; name the folder of the run")
    plans = members(config)
    logger.info("%d runs: %s", len(plans), ", ".join(plans))
    with told_of_files("--workdir: "):
        folder = expanded(workdir)
    # Those that are finished are not touched; any of the others that cannot be run stops the suite here.
    folders = {name: run_lib.open_workdir(plan, folder / name) for name, plan in plans.items()}
    finished = {
        name
        for name, own in folders.items()
        if own.status in run_lib.FINISHED and (not extend or own.extended == extend)
    }
    for name in plans.keys() - finished:
        folders[name].check_writable()
    prepared = {}
    for number, (name, plan) in enumerate(plans.items(), start=1):
        if name not in finished and not extend:
            logger.info("building %s: %d of %d", name, number, len(plans))
            prepared[name] = run_lib.prepare(plan)
            hosts.by_first(plan.experiment.check_time)(prepared[name].built)
    hosts.from_first(lambda: _list(folder, listed(plans)))
    began, trained, outcomes = time.perf_counter(), 0, {}
    for number, (name, plan) in enumerate(plans.items(), start=1):
        if name not in finished:
            left = "" if not trained else _left(began, trained, len(plans) - len(finished))
            logger.info("%s: %d of %d%s", name, number, len(plans), left)
        outcomes[name] = run_lib.run_plan(plan, folder / name, prepared=prepared.pop(name, None), **options)
        trained += name not in finished
    table, page, summary = hosts.from_first(lambda: report(folder))
    worst = "diverged" if any(outcome.status == "diverged" for outcome in outcomes.values()) else "done"
    return run_lib.Outcome(worst, table, pathlib.Path(page), summary)


def _refuse_a_sweep(workdir: str | os.PathLike) -> None:
    with told_of_files("--workdir: "):
        if os.fspath(workdir) and (expanded(workdir) / PLANNED).exists():
            raise ConfigError(
                f"--workdir={os.fspath(workdir)} holds a sweep, which `sbjax sweep run` trains; use another --workdir"
            )


def _list(folder: pathlib.Path, listed: str) -> None:
    if not (folder / LISTED).exists() or (folder / LISTED).read_bytes() != listed.encode():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / LISTED, listed)


def report(
    workdir: str | os.PathLike, *, classical: bool = False, trust: bool = False
) -> tuple[str, pathlib.Path, dict[str, Any]]:
    """The report of a run or of a suite: table, path of `report.html`, and what `summary.json` holds.

    Args:
        workdir: the folder of a run, or of a suite with `suite.json` in it.
        classical: first measure a classical solver of each equation, see `experiments.pinn.classical`.
        trust: whether a kind of experiment that `config.json` gives by import path may be imported.

    Raises:
        FileNotFoundError: no `config.json`, or no run in a suite.
        ConfigError: a file of it cannot be used.

    Where the folder cannot be written, there is the table alone: that of each run.
    """
    with told_of_files():
        folder = expanded(workdir)
        if not folder.is_dir():
            raise FileNotFoundError(f"--workdir={os.fspath(workdir)}: there is no folder {folder}; give that of a run")
        listed = (folder / LISTED).exists()
        names = read_json(folder / LISTED, FORM)["members"] if listed else []
        if outside := [name for name in names if pathlib.Path(name).name != name or name in ("", ".", "..")]:
            raise ConfigError(
                f"{folder / LISTED}: {outside[0]!r} is no name of a folder in it; mend or remove the file"
            )
        runs = {name: folder / name for name in names} or {None: folder}
        # Of the first run that is there: the others say what is wrong with them in the report.
        first = next((path for path in runs.values() if (path / "config.json").exists()), next(iter(runs.values())))
        experiment = registry.of_workdir(first, trust=trust)
        if classical:
            _measure_classical(experiment, folder, runs)
        if not os.access(folder, os.W_OK):
            return _in_memory(folder, runs)
        if listed:
            table, page, summary = experiment.suite_report(folder, names)
            return noted(table, not_trained(load_members(folder, names))), page, summary
        page = build_report(folder, sections=experiment.report)
        return "", page, read_json(folder / "summary.json")


def _in_memory(folder: pathlib.Path, runs: Mapping[str | None, pathlib.Path]) -> tuple[str, pathlib.Path, dict]:
    """What is known of a folder that cannot be written, such as one on a read-only disk."""
    logger.warning("%s cannot be written: no page is made; copy the folder for one", folder)
    summaries = {name: summarise(load_results(path)) for name, path in runs.items()}
    tables = [f"{name}\n{format_table(one)}" if name else format_table(one) for name, one in summaries.items()]
    summary = summaries.get(None, {"members": summaries})
    return "\n\n".join(tables), folder / "report.html", summary


def compare(workdir: str | os.PathLike, against: str | os.PathLike) -> Against:
    """Two runs, arm by arm and seed by seed: a table, and the path of `against.html` in the first one's folder.

    Raises:
        ConfigError: they have nothing in common that could be paired.
    """
    with told_of_files(f"--against={os.fspath(against)}: "):
        return write_against(expanded(workdir), expanded(against))


def _measure_classical(experiment: Any, folder: pathlib.Path, runs: Mapping[str | None, pathlib.Path]) -> None:
    """Writes `classical.json` in the folder, if the experiment has a classical solver for any of the runs."""
    measure = getattr(experiment, "measure_classical", None)
    found = (
        None
        if measure is None
        else measure({name: read_json(p / "config.json", CONFIG)["config"].get("task", {}) for name, p in runs.items()})
    )
    if not found:
        raise ConfigError(
            f"--classical: the run in {folder} is about no equation in one or two coordinates; leave it out"
        )
    write_atomically(folder / "classical.json", json.dumps(found, indent=1))


def _left(began, trained, all_of_them):
    seconds = (time.perf_counter() - began) / trained * (all_of_them - trained)
    return f" (about {duration(seconds)} left)"
