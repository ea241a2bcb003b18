"""Several runs from one config, each in a folder of its own, and one report of all."""

import json
import logging
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sbjax import config as config_lib
from sbjax.experiments import registry
from sbjax.files import expanded, read_json, write_atomically
from sbjax.frame.errors import ConfigError
from sbjax.frame.plan import Plan
from sbjax.report.against import Against, write_against
from sbjax.report.page import build_report
from sbjax.runner import run as run_lib

LISTED = "suite.json"

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
    if not config.get("suite"):
        return run_lib.run(config, workdir, **options)
    if not os.fspath(workdir):
        raise ConfigError("--workdir='' is empty; name the folder of the run")
    plans = members(config)
    logger.info("%d runs: %s", len(plans), ", ".join(plans))
    folder = expanded(workdir)
    # Those that are finished are not touched; any of the others that cannot be run stops the suite here.
    folders = {name: run_lib.open_workdir(plan, folder / name) for name, plan in plans.items()}
    finished = {
        name
        for name, own in folders.items()
        if own.status in run_lib.FINISHED and (not extend or own.extended == extend)
    }
    prepared = {}
    for number, (name, plan) in enumerate(plans.items(), start=1):
        if name not in finished and not extend:
            logger.info("building %s: %d of %d", name, number, len(plans))
            prepared[name] = run_lib.prepare(plan)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / LISTED, json.dumps({"members": list(plans)}, indent=1))
    began, trained, outcomes = time.perf_counter(), 0, {}
    for number, (name, plan) in enumerate(plans.items(), start=1):
        if name not in finished:
            left = "" if not trained else _left(began, trained, len(plans) - len(finished))
            logger.info("%s: %d of %d%s", name, number, len(plans), left)
        outcomes[name] = run_lib.run_plan(plan, folder / name, prepared=prepared.pop(name, None), **options)
        trained += name not in finished
    table, page, summary = report(folder)
    worst = "diverged" if any(outcome.status == "diverged" for outcome in outcomes.values()) else "done"
    return run_lib.Outcome(worst, table, page, summary)


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
    """
    folder = expanded(workdir)
    listed = (folder / LISTED).exists()
    names = _read(folder / LISTED)["members"] if listed else []
    runs = {name: folder / name for name in names} or {None: folder}
    experiment = experiment_of(next(iter(runs.values())), trust=trust)
    if classical:
        _measure_classical(experiment, folder, runs)
    if not listed:
        page = build_report(folder, sections=experiment.report)
        return "", page, read_json(folder / "summary.json")
    return experiment.suite_report(folder, names)


def compare(workdir: str | os.PathLike, against: str | os.PathLike) -> Against:
    """Two runs, arm by arm and seed by seed: a table, and the path of `against.html` in the first one's folder.

    Raises:
        ConfigError: they have nothing in common that could be paired.
    """
    try:
        return write_against(expanded(workdir), expanded(against))
    except ValueError as error:
        raise ConfigError(f"--against={os.fspath(against)}: {error}") from error


def experiment_of(workdir: pathlib.Path, *, trust: bool = False) -> Any:
    """The experiment of a workdir, by its `config.json`.

    Raises:
        FileNotFoundError: there is no `config.json`.
        ConfigError: it is not this version's, or names code of a user without `trust`.
    """
    task = _read(workdir / "config.json").get("config", {}).get("task", {})
    kind = task.get("kind", "images") if isinstance(task, Mapping) else task
    if kind not in registry.KINDS and not trust:
        raise ConfigError(
            f"{workdir / 'config.json'}: task.kind={kind!r} is not among {', '.join(registry.KINDS)}; if it is an "
            "experiment of yours, and you trust this folder, give --trust"
        )
    return registry.find(task)


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _measure_classical(experiment: Any, folder: pathlib.Path, runs: Mapping[str | None, pathlib.Path]) -> None:
    """Writes `classical.json` in the folder, if the experiment has a classical solver for any of the runs."""
    measure = getattr(experiment, "measure_classical", None)
    found = (
        None
        if measure is None
        else measure({name: _read(p / "config.json")["config"]["task"] for name, p in runs.items()})
    )
    if not found:
        raise ConfigError(
            f"--classical: the run in {folder} is about no equation in one or two coordinates; leave it out"
        )
    write_atomically(folder / "classical.json", json.dumps(found, indent=1))


def _left(began, trained, all_of_them):
    seconds = (time.perf_counter() - began) / trained * (all_of_them - trained)
    return f" (about {seconds / 60:.0f} min left)"
