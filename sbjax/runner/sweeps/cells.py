"""Cells: the smallest pieces of a run or a suite that can be trained by themselves, and what names them.

A cell is an arm of a run, or a block of its replicas; of an experiment that the training loop does not train, a whole
run. Its id is a digest of everything that its numbers depend on, and of nothing else: arms that agree in all of it,
such as the reference arm of several runs, are one cell, and a renamed arm keeps its own.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sbjax.common import options
from sbjax.frame.own_parts import code_digests, code_in
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.training.checkpoint_files import FORMAT

ID_DIGITS = 16


class Cell(NamedTuple):
    """One piece of work.

    Attributes:
        id: see `cell_id`.
        uses: where its numbers go: [(run, arm)]; the run is '' without a suite, the arm '' of a whole run.
        start, stop: its replicas.
    """

    id: str
    uses: tuple[tuple[str, str], ...]
    start: int
    stop: int

    @property
    def label(self) -> str:
        """For people: 'heat/raw 0:5'."""
        run, arm = self.uses[0]
        name = "/".join(filter(None, (run, arm))) or "all arms"
        return f"{name} {self.start}:{self.stop}"

    def as_json(self) -> dict[str, Any]:
        """As in `sweep.json`."""
        return {"id": self.id, "uses": [list(use) for use in self.uses], "replicas": [self.start, self.stop]}


def make_cells(plans: Mapping[str, Plan], *, block: int = 0, data: Mapping[tuple, str] | None = None) -> list[Cell]:
    """The cells of a run (under the name '') or of the runs of a suite, references first within each.

    Args:
        block: replicas of a cell at most; 0 = all of an arm.
        data: digests of the data by (experiment, source), see `sources_of`.

    >>> from sbjax import config as config_lib
    >>> config = config_lib.base_config('pinn')
    >>> config.update(train_steps=10, replicas=3, arms={'raw': {}, 'wide': {'model': {'widths': (64, 64)}}})
    >>> [cell.label for cell in make_cells({'': config_lib.read(config)}, block=2)]
    ['raw 0:2', 'raw 2:3', 'wide 0:2', 'wide 2:3']
    """
    found: dict[str, Cell] = {}
    for run, plan in plans.items():
        for arm in plan.arms if plan.experiment.by_arm else (None,):
            step = (block or plan.replicas) if arm else plan.replicas
            source = "" if arm is None else (data or {}).get((plan.experiment.name, source_of(plan, arm)), "")
            for start in range(0, plan.replicas, step):
                stop = min(start + step, plan.replicas)
                own = cell_id(plan, arm, start, stop, data=source)
                before = found.get(own, Cell(own, (), start, stop))
                found[own] = before._replace(uses=(*before.uses, (run, arm.name if arm else "")))
    return list(found.values())


def cell_id(plan: Plan, arm: ArmPlan | None, start: int, stop: int, *, data: str = "") -> str:
    """The first digits of the SHA-256 of all that decides a cell's numbers, as canonical JSON.

    These are the resolved settings of the arm (or of the whole run), the range of replicas, the digests of the data and
    of code of the user's own, and the format of checkpoints. Not among them: names, paths, the placement on devices,
    and how many checkpoints are kept.
    """
    settings = {k: v for k, v in plan.settings.items() if k not in ("arms", "placement", "checkpoint", "callbacks")}
    free = {name for name, spec in options.describe(plan.experiment.fields).items() if spec.free}
    if arm is None:
        own = plan.settings["arms"]
    else:
        # What is measured after the training, and what the arm has of its own.
        left_out = ("reference", "replicas", "interpolation", "calibration", "task")
        left_out += ("model", "expansion", "optimizer", "second_phase")
        settings = {k: v for k, v in settings.items() if k not in left_out}
        second = arm.second_phase
        own = {
            "task": {name: value for name, value in options.values_of(arm.task).items() if name not in free},
            "model": arm.model,
            "expansion": arm.expansion,
            "optimizer": arm.optimizer and arm.optimizer.fields(),
            "second_phase": second and {"steps": second.steps, **second.optimizer.fields()},
        }
    content = {
        "format": FORMAT,
        "kind": plan.settings["task"]["kind"],
        "settings": settings,
        "own": own,
        "replicas": [start, stop],
        # Numbers of all replicas together are in the history of a whole arm alone.
        "measured": bool(plan.monitor.kinds) and (start, stop) == (0, plan.replicas),
        "data": data,
        "code": code_digests(code_in({"settings": plan.settings if arm is None else settings, "own": own})),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=_listed)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def source_of(plan: Plan, arm: ArmPlan) -> tuple:
    """Which data an arm reads; () where the experiment does not say."""
    return getattr(plan.experiment, "source", lambda task: ())(arm.task)


def cell_plan(plan: Plan, cell: Cell, arm: str) -> Plan:
    """The plan of one arm and block of replicas; its settings stay those of the whole run."""
    own = tuple(one for one in plan.arms if one.name == arm)
    return dataclasses.replace(plan, arms=own, first_replica=cell.start, replicas=cell.stop - cell.start)


def _listed(value: Any) -> Any:
    """What JSON does not know: tuples in a mapping proxy, sets."""
    return dict(value) if isinstance(value, Mapping) else sorted(value)
