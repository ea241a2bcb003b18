"""Several experiments from one config, each in a folder of its own, and one report of all."""

import logging
import os
import pathlib
import time
from typing import Any

from ml_collections import ConfigDict

from sbjax import config as config_lib
from sbjax import experiment
from sbjax.workdir import Workdir

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
    from sbjax.report.suite import build_suite_report

    if not os.fspath(workdir):
        raise config_lib.ConfigError("--workdir='' is empty; name the folder of the run")
    entries = members(config)
    folder = pathlib.Path(workdir).absolute()
    # Those that are finished are not touched; any of the others that cannot be run stops the suite here.
    status = {name: Workdir(folder / name, settings).status for name, settings in entries.items()}
    finished = {name for name in entries if status[name] in ("done", "diverged")}
    for name, settings in entries.items():
        if name not in finished:
            experiment.prepare(settings)
    began, trained, outcomes = time.perf_counter(), 0, {}
    for number, (name, settings) in enumerate(entries.items(), start=1):
        if name not in finished:
            left = "" if not trained else _left(began, trained, len(entries) - len(finished))
            logger.info("%s: %d of %d%s", name, number, len(entries), left)
        outcomes[name] = experiment.run(settings, folder / name, overrides=overrides, config_file=config_file)
        trained += name not in finished
    table, report, summary = build_suite_report(folder, list(entries))
    worst = "diverged" if any(outcome.status == "diverged" for outcome in outcomes.values()) else "done"
    return experiment.Outcome(worst, table, report, summary)


def _left(began, trained, all_of_them):
    seconds = (time.perf_counter() - began) / trained * (all_of_them - trained)
    return f" (about {seconds / 60:.0f} min left)"
