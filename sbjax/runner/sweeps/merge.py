"""From finished cells to the runs that one process would have left, and their report.

A merge reads `DONE.json`, checks every file that it lists, and writes a workdir for each run. It is a function of the
cells alone: made again it is the same. What is measured over all replicas together (replica distances, lines between
networks) is measured here where the cells were blocks.
"""

import contextlib
import dataclasses
import errno
import functools
import logging
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from sbjax.common.files import read_json, read_lines, write_atomically, write_json
from sbjax.common.names import expanded
from sbjax.frame.arm_training import identity
from sbjax.frame.arms import Arm, precision
from sbjax.frame.errors import ConfigError, told_of_files
from sbjax.frame.plan import Plan
from sbjax.report import against
from sbjax.report.results import CONFIG, LACKING
from sbjax.runner import run as run_lib
from sbjax.runner import suite
from sbjax.runner.sweeps import status
from sbjax.runner.sweeps.cells import Cell, cell_plan
from sbjax.runner.sweeps.folder import Sweep
from sbjax.training.checkpoint import Checkpoints
from sbjax.training.placement import Placement, Program
from sbjax.training.stitch import read_block, stitch
from sbjax.training.timeline import make_timeline

logger = logging.getLogger(__name__)

MERGED = "merged"


class Merged(NamedTuple):
    """What `merge` returns.

    Attributes:
        table: the result as text.
        page: `report.html`.
        folder: of the merged run, or of the suite of them.
        missing: cells that are not in it.
    """

    table: str
    page: pathlib.Path
    folder: pathlib.Path
    missing: tuple[Cell, ...]


def merge(sweep: Sweep, out: str | os.PathLike | None = None) -> Merged:
    """Make the runs of a sweep from its finished cells; what an earlier merge left is replaced.

    Args:
        out: the folder; None = `merged` in that of the sweep.

    Raises:
        ConfigError: nothing to merge, or the folder holds something else than a merge.
    """
    with told_of_files("--out: "):
        target = sweep.path / MERGED if out is None else expanded(out)
    found = {cell.id: _usable(sweep, cell) for cell in sweep.cells}
    missing = tuple(cell for cell in sweep.cells if found[cell.id].status not in status.FINISHED)
    if len(missing) == len(sweep.cells):
        raise ConfigError(f"--workdir={sweep.path}: none of the {len(sweep.cells)} cells is done; `run` them first")
    if missing:
        logger.warning("%d of %d cells are missing: %s", len(missing), len(sweep.cells), status.ids(missing))
    marker = target / ".merged"
    if target.exists() and any(target.iterdir()) and not marker.exists():
        raise ConfigError(f"--out={target} holds something else than a merge; name another folder")
    fresh = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"--out={target} cannot be written ({error.strerror}); name another folder with --out") from (
            error
        )
    try:
        write_atomically(fresh / ".merged", "")
        done = [run for run in sweep.runs if _merge_run(sweep, run, fresh / run, found)]
        if not done:
            raise ConfigError(f"--workdir={sweep.path}: of no run is the reference arm done; `status` shows the cells")
        if sweep.suite:
            write_atomically(fresh / suite.LISTED, suite.listed(sweep.runs))
        table, page, _ = suite.report(fresh, trust=True)
        if not sweep.suite:
            table = run_lib.in_text(sweep.plan(next(iter(sweep.runs))).experiment, fresh)
        _put_in_place(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Merged(table, target / page.name, target, missing)


def _put_in_place(fresh: pathlib.Path, target: pathlib.Path) -> None:
    """Put a whole merge where an earlier one was, or where another process has just put its own."""
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    while True:
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, old)
        shutil.rmtree(old, ignore_errors=True)
        try:
            os.rename(fresh, target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _usable(sweep: Sweep, cell: Cell) -> status.State:
    """The state of a cell; 'damaged' where a file of it is not as it was left."""
    folder = sweep.folder(cell)
    state = status.state_of(folder)
    if state.status in status.FINISHED and (names := status.damaged_files(folder)):
        state = state._replace(status="damaged", why=f"changed or lost: {', '.join(names[:3])}")
        logger.warning("cell %s (%s) is left out, %s; `run --again=%s` makes it anew", cell.id, cell.label, state.why,
                       cell.id)  # fmt: skip
    return state


def _merge_run(sweep: Sweep, run: str, target: pathlib.Path, states: dict[str, status.State]) -> bool:
    """One run; False if there is nothing that it could be made of."""
    plan = sweep.plan(run)
    cells = [cell for cell in sweep.cells if run in {use[0] for use in cell.uses}]
    done = [cell for cell in cells if states[cell.id].status in status.FINISHED]
    if not plan.experiment.by_arm:
        if done:
            _copy(sweep.folder(done[0]), target)
        return bool(done)
    arms = {use[1] for cell in done for use in cell.uses if use[0] == run}
    if plan.experiment.join is not None:  # only whole arms can be joined
        arms -= {use[1] for cell in cells if cell not in done for use in cell.uses if use[0] == run}
    if plan.reference not in arms:
        logger.warning("%s: left out, of its reference arm %r no cell is done", run or "the run", plan.reference)
        return False
    lacking = [arm.name for arm in plan.arms if arm.name not in arms]
    if lacking:
        which = "no cell is" if plan.experiment.join is None else "not all cells are"
        logger.warning("%s: without %s, of which %s done", run or "the run", ", ".join(lacking), which)
    kept = tuple(arm for arm in plan.arms if arm.name in arms)
    settings = {**plan.settings, "arms": {name: own for name, own in plan.settings["arms"].items() if name in arms}}
    plan = dataclasses.replace(plan, arms=kept, settings=settings)
    with precision(plan.precision):
        prepared = plan.experiment.prepare(plan)
        target.mkdir(parents=True, exist_ok=True)
        for arm in prepared.arms:
            blocks = [cell for cell in cells if (run, arm.name) in cell.uses]
            if plan.experiment.join is not None:
                plan.experiment.join(target, arm.name, [(sweep.folder(cell), cell.uses[0][1]) for cell in blocks])
            else:
                _merge_arm(sweep, plan, arm, prepared.placement, target, blocks, states)
    if lacking:
        write_json(target / LACKING, {"arms": lacking})
    folders = [sweep.folder(cell) for cell in done]
    _join_lines([folder / "timings.jsonl" for folder in folders], target / "timings.jsonl")
    for folder in folders:
        if (folder / "evidence").is_dir():
            shutil.copytree(folder / "evidence", target / "evidence", dirs_exist_ok=True)
    run_lib.run_plan(
        plan, target, prepared=run_lib.Prepared(plan, prepared), overrides=list(sweep.overrides),
        config_file=sweep.config_file, environments=_environments(folders),
    )  # fmt: skip
    return True


def _merge_arm(
    sweep: Sweep,
    plan: Plan,
    arm: Arm,
    placement: Placement,
    target: pathlib.Path,
    cells: Sequence[Cell],
    states: dict[str, status.State],
) -> None:
    """Write the last checkpoint of an arm."""
    phases = [phase for phase in arm.phases if phase is not None]
    timeline = make_timeline(
        [phase.steps for phase in phases],
        reports=plan.reports,
        saves=plan.checkpoint.saves,
        monitor_steps=arm.monitor_steps,
    )
    key, blocks, why, opened = jax.random.key(plan.seed), [], {}, []
    for cell in sorted(cells, key=lambda cell: cell.start):
        state, whole = states[cell.id], (cell.start, cell.stop) == (0, plan.replicas)
        block = None
        if state.status in status.FINISHED:
            own_run, own_arm = cell.uses[0]
            own = cell_plan(sweep.plan(own_run), cell, own_arm)
            checkpoints = Checkpoints(
                sweep.folder(cell) / "checkpoints" / own_arm, keep=10**6, identity=identity(own, own_arm)
            )
            opened.append(checkpoints)
            block = read_block(
                checkpoints, arm.task, phases, timeline, key=key, start=cell.start, stop=cell.stop,
                monitor=arm.monitor if whole else None,
            )  # fmt: skip
        if block is None:
            said = f"not trained yet: its cell {cell.id} is {state.status}"
            why |= dict.fromkeys(range(cell.start, cell.stop), said)
        else:
            blocks.append(block)

    @functools.cache
    def initial():
        program = Program(arm.task, phases[0].optimizer, placement=placement, replicas=plan.replicas, key=key)
        return program.collect(program.init())

    items, meta = stitch(
        blocks, replicas=plan.replicas, timeline=timeline, why_missing=why, monitor=arm.monitor,
        monitor_steps=arm.monitor_steps, initial=initial,
    )  # fmt: skip
    made = Checkpoints(
        target / "checkpoints" / arm.name,
        keep=plan.checkpoint.keep,
        keep_best=plan.checkpoint.keep_best,
        goal=arm.task.goal,
        identity=identity(plan, arm.name),
    )
    made.save(timeline.steps, items, meta=meta)
    for checkpoints in (*opened, made):
        checkpoints.close()


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """A whole run that was a cell, without what made it one."""
    apart = shutil.ignore_patterns("lease.*", "cell.json", "log.txt", ".lock", status.ATTEMPTS, status.DONE, "*.tmp")
    shutil.copytree(source, target, ignore=apart, dirs_exist_ok=True)


def _environments(folders: Sequence[pathlib.Path]) -> list[dict[str, Any]]:
    """Those in which the cells were trained, each once."""
    found: list[dict[str, Any]] = []
    for folder in folders:
        content = read_json(folder / "config.json", CONFIG)
        for one in (content.get("environment", {}), *content.get("continued", ())):
            if not any(not against.differences(one, before) for before in found):
                found.append(one)
    return found


def _join_lines(paths: Sequence[pathlib.Path], target: pathlib.Path) -> None:
    """Put the whole lines of files behind each other."""
    import json

    lines = [json.dumps(record) + "\n" for path in paths if path.exists() for _, record in read_lines(path)]
    if lines:
        write_atomically(target, "".join(lines))
