"""From a config to a planned sweep."""

import logging
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from sbjax import config as config_lib
from sbjax.common.devices import in_words
from sbjax.common.names import expanded
from sbjax.frame.arms import precision
from sbjax.frame.errors import ConfigError, told_of_files
from sbjax.frame.own_parts import tree_digest
from sbjax.frame.plan import Plan
from sbjax.runner import run as run_lib
from sbjax.runner import suite
from sbjax.runner.sweeps import folder as folder_lib
from sbjax.runner.sweeps.cells import Cell, cell_plan, make_cells, source_of
from sbjax.runner.sweeps.folder import Sweep

logger = logging.getLogger(__name__)

BUILD_SECONDS = 2.0
"""How long cells are built to find errors and sizes; at least the first of every kind is."""


class Planned(NamedTuple):
    """What `plan` returns: the sweep, whether it was there already, and a sentence about its size."""

    sweep: Sweep
    new: bool
    said: str


def plan(
    config: ConfigDict | Mapping[str, Any],
    workdir: str | os.PathLike,
    *,
    block: int = 0,
    overrides: list[str] | None = None,
    config_file: str | None = None,
    build_seconds: float = BUILD_SECONDS,
) -> Planned:
    """Cut a run or a suite into cells and write `sweep.json`.

    The config is checked whole, the data are read and their digests kept. Cells are built, which finds what no field
    shows, as far as the time goes; the others are built when they run.

    Args:
        config: as of `runner.run.run`.
        block: replicas of a cell at most; 0 = all of an arm, which keeps them in one program.
        overrides, config_file: where it is from, for the record.

    Raises:
        ConfigError: the configuration or the folder cannot be used.
    """
    if block < 0:
        raise ConfigError(f"--block={block} must be >= 0 replicas (0 = all of an arm in one cell)")
    if not os.fspath(workdir):
        raise ConfigError("--workdir='' is empty; name the folder of the sweep")
    with told_of_files("--workdir: "):
        path = expanded(workdir)
    is_suite = bool(config.get("suite"))
    plans = suite.members(config) if is_suite else {"": config_lib.read(config)}
    loaded, data = _read_data(plans)
    cells = make_cells(plans, block=block, data={(one["experiment"], one["source"]): one["digest"] for one in data})
    sweep = Sweep(
        path, {run: one.settings for run, one in plans.items()}, is_suite, tuple(cells), tuple(data), config_file,
        tuple(overrides or ()),
    )  # fmt: skip
    said = _build(plans, cells, loaded, build_seconds)
    return Planned(sweep, folder_lib.write(sweep), said)


def _read_data(plans: Mapping[str, Plan]) -> tuple[dict[tuple, Any], list[dict[str, Any]]]:
    """Data by (experiment, source), and their digests as `sweep.json` has them."""
    loaded: dict[tuple, Any] = {}
    for plan_ in plans.values():
        if not plan_.experiment.by_arm:
            continue
        for arm in plan_.arms:
            key = (plan_.experiment.name, source_of(plan_, arm))
            if key not in loaded:
                loaded[key] = plan_.experiment.load_data(arm.task)
    digests = [{"experiment": name, "source": source, "digest": tree_digest(found)}
               for (name, source), found in loaded.items()]  # fmt: skip
    return loaded, digests


def _build(plans: Mapping[str, Plan], cells: list[Cell], loaded: Mapping[tuple, Any], seconds: float) -> str:
    """Build what time allows; a sentence with the size of the sweep."""
    began, sizes, kinds, built = time.monotonic(), [], set(), 0
    for cell in cells:
        run, arm = cell.uses[0]
        plan_ = plans[run]
        if time.monotonic() - began > seconds and plan_.experiment.name in kinds:
            continue
        kinds.add(plan_.experiment.name)
        if not plan_.experiment.by_arm:
            run_lib.prepare(plan_)
        else:
            own = cell_plan(plan_, cell, arm)
            source = source_of(plan_, own.arms[0])
            with precision(plan_.precision):
                prepared = plan_.experiment.prepare(own, loaded={source: loaded[(plan_.experiment.name, source)]})
                sizes.append(plan_.experiment.disk(prepared))
        built += 1
    said = f"{len(cells)} cells"
    if sizes:
        trained = sum(plans[cell.uses[0][0]].experiment.by_arm for cell in cells)
        total = int(trained * sum(sizes) / len(sizes))
        about = "" if len(sizes) == trained else "about "
        said += f"; their checkpoints take {about}{in_words(total)} at most"
    if built < len(cells):
        said += f"; {built} were built to find errors, the others are when they run"
    return said
