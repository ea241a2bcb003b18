"""Several experiments from one config, each in a folder of its own, and one report of all."""

import json
import logging
import os
import pathlib
import time
from typing import Any

from ml_collections import ConfigDict

from sbjax import build
from sbjax.experiments.registry import report_of, suite_report_of
from sbjax.files import write_atomically
from sbjax.frame import arms
from sbjax.frame import config as config_lib
from sbjax.frame.workdir import Workdir
from sbjax.runner import run as experiment

LISTED = "suite.json"
ERRORS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
CLASSICAL_LIMIT = 12.0

logger = logging.getLogger(__name__)


def members(config: ConfigDict | dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The experiments of a config with a `suite`, by name, in its order.

    An entry holds sections or fields that differ from the shared ones; `arms` is replaced as a whole.

    Raises:
        ConfigError: an entry that cannot be run, with its name.

    >>> config = config_lib.base_config('pinn')
    >>> config.update(train_steps=10, arms={'raw': {}}, suite={'heat': {'task': {'equation': 'heat'}}})
    >>> members(config)['heat']['task']['equation']
    'heat'
    """
    shared = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    found = {}
    for name, own in shared.pop("suite").items():
        if not name.replace("_", "").replace("-", "").isalnum() or not isinstance(own, dict):
            raise config_lib.ConfigError(f"suite.{name}={own!r}: give sections under a name that can name a folder")
        merged = dict(shared)
        for section, fields in own.items():
            whole = section == "arms" or not isinstance(fields, dict)
            merged[section] = fields if whole else {**shared.get(section, {}), **fields}
        try:
            found[name] = config_lib.check(merged)
        except config_lib.ConfigError as error:
            raise config_lib.ConfigError(f"suite.{name}: {error}") from error
    return found


def run(
    config: ConfigDict | dict[str, Any],
    workdir: str | os.PathLike,
    *,
    overrides: list[str] | None = None,
    config_file: str | None = None,
) -> experiment.Outcome:
    """`experiment.run`, or one run after another where the config has a `suite`, in `workdir/<name>`.

    Started again, it goes on with the first one that is not finished. All are checked, and built, before the first one
    is trained.

    Args, raises: as `experiment.run`.
    """
    if not config.get("suite"):
        return experiment.run(config, workdir, overrides=overrides, config_file=config_file)
    if not os.fspath(workdir):
        raise config_lib.ConfigError("--workdir='' is empty; name the folder of the run")
    entries = members(config)
    folder = pathlib.Path(workdir).absolute()
    # Those that are finished are not touched; any of the others that cannot be run stops the suite here.
    status = {name: Workdir(folder / name, settings).status for name, settings in entries.items()}
    finished = {name for name in entries if status[name] in ("done", "diverged")}
    for name, settings in entries.items():
        if name not in finished:
            arms.prepare(settings)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / LISTED, json.dumps({"members": list(entries)}, indent=1))
    began, trained, outcomes = time.perf_counter(), 0, {}
    for number, (name, settings) in enumerate(entries.items(), start=1):
        if name not in finished:
            left = "" if not trained else _left(began, trained, len(entries) - len(finished))
            logger.info("%s: %d of %d%s", name, number, len(entries), left)
        outcomes[name] = experiment.run(settings, folder / name, overrides=overrides, config_file=config_file)
        trained += name not in finished
    table, page, summary = report(folder)
    worst = "diverged" if any(outcome.status == "diverged" for outcome in outcomes.values()) else "done"
    return experiment.Outcome(worst, table, page, summary)


def report(workdir: str | os.PathLike, *, classical: bool = False) -> tuple[str, pathlib.Path, dict[str, Any]]:
    """The report of a suite: table, path of `report.html`, and what `summary.json` holds.

    Args:
        workdir: the folder of a suite, with `suite.json` in it.
        classical: first measure how long a classical solver (`sbjax.physics.collocation`) takes to reach errors of
            0.1 to 1e-7 in each equation, at most `CLASSICAL_LIMIT` seconds a size, and write `classical.json`.

    Raises:
        FileNotFoundError: no `suite.json`.
        ValueError: `classical.json` cannot be used.
    """
    folder = pathlib.Path(workdir).absolute()
    names = json.loads((folder / LISTED).read_text())["members"]
    if classical:
        _time_classical(folder, {name: folder / name for name in names})
    configs = (_config(folder / name) for name in names)
    return suite_report_of(next(filter(None, configs), {}))(folder, names)


def report_of_one(workdir: str | os.PathLike, *, classical: bool = False) -> pathlib.Path:
    """The report of a single run, and its path.

    Args:
        workdir: the folder of the run.
        classical: first measure a classical solver, as in `report`.

    Raises:
        FileNotFoundError, ValueError: as `build_report`.
        ConfigError: `classical` for a run that is about no equation in one or two coordinates.
    """
    from sbjax.report import build_report

    folder = pathlib.Path(workdir)
    if classical and not _time_classical(folder, {None: folder}):
        raise config_lib.ConfigError(
            f"--classical: the run in {folder} is about no equation in one or two coordinates; leave it out"
        )
    return build_report(folder, sections=report_of(_config(folder)))


def _config(folder):
    """The config of a run; {} where there is none that can be read."""
    try:
        return json.loads((folder / "config.json").read_text()).get("config", {})
    except (OSError, ValueError, AttributeError):
        return {}


def _time_classical(folder, runs):
    """Writes `classical.json` in the folder: seconds by name of a run (None: of its equation) and error."""
    from sbjax.physics.collocation import time_to_errors

    found = {}
    for name, path in runs.items():
        try:
            task = json.loads((path / "config.json").read_text())["config"]["task"]
        except FileNotFoundError:
            raise FileNotFoundError(f"workdir={str(path)!r} has no config.json; give the workdir of a run") from None
        if task["kind"] != "pinn":
            continue
        equation = build.build_data(task)
        if len(equation.coordinates) <= 2:
            logger.info("%s: classical solver", task["equation"])
            seconds = time_to_errors(equation, ERRORS, limit=CLASSICAL_LIMIT)
            found[name or task["equation"]] = {f"{error:g}": seconds[error] for error in ERRORS}
    if found:
        write_atomically(folder / "classical.json", json.dumps(found, indent=1))
    return found


def _left(began, trained, all_of_them):
    seconds = (time.perf_counter() - began) / trained * (all_of_them - trained)
    return f" (about {seconds / 60:.0f} min left)"
