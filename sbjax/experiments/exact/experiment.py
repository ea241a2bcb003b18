"""Experiments with closed forms: works on symmetry whose numbers can be checked without training, a module each.

`task.experiment` names the module, which has a dataclass `Fields` and an `EXPERIMENT`. An arm leaves the cells of one
row of a table, under `summary['cells']`, in the form of a record (`sbjax.claims.records`): a number, `{"value", "low",
"high"}`, or `{"count", "of"}` with `low` and `high` in percent: `runs/claims.py --record=WORKDIR --table=cells`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sbjax.common.files import REMEDY, FileError, misfit
from sbjax.experiments.landscape.arm_results import ArmResult, load_arm
from sbjax.experiments.landscape.experiment import LandscapeExperiment, named
from sbjax.frame.protocol import Experiment
from sbjax.metrics.shares import share
from sbjax.report import tables
from sbjax.report.ratios import ratio
from sbjax.report.results import Results
from sbjax.report.sections import Section, Table

EXPERIMENTS = (
    "linear_nets",
    "relu_minima",
    "involution",
    "hidden_symmetries",
    "duality",
    "attention",
    "lattice_collision",
)

PART = "exact"

_INTERVAL = {"value": (float, None), "low": (float, None), "high": (float, None)}
CELL = (float, str, None, _INTERVAL, {"count": int, "of": int}, {"low": float, "high": float})
"""The forms of a cell."""


class ExactExperiment(LandscapeExperiment):
    """One of them: run arm by arm as an experiment on the loss landscape, with one table.

    Args:
        title: of the table.
        columns: {name of a cell: heading}, in the order of the table.
        note: below the table.
        digits: of numbers that are not whole.
        compare: `({arm: what it left}) -> {arm: further cells}`, of the arms that are finished.
        options: as `LandscapeExperiment` takes them.
    """

    name: ClassVar[str] = "exact"
    part: ClassVar[str] = PART
    kept: ClassVar[str] = f"Arms that were finished are kept in {PART}/"

    def __init__(self, fields: type, *, title: str, columns: Mapping[str, str], note: str = "", digits: int = 4,
                 compare: Callable[[dict[str, ArmResult]], Mapping[str, Mapping[str, Any]]] | None = None,
                 **options: Any):  # fmt: skip
        super().__init__(fields, **options)
        self.title, self.columns, self.note, self.compare = title, dict(columns), note, compare
        self.digits = digits

    def cells(self, workdir: Path, arms: Sequence[str]) -> dict[str, Any]:
        """Columns and rows as a record has them, of the arms that are finished."""
        found = {arm: one for arm in arms if (one := load_arm(workdir, arm, PART)) is not None}
        for arm, one in found.items():
            if problem := misfit(one.summary, {"cells": {str: CELL}}):
                raise FileError(f"{Path(workdir) / PART / arm}.json: summary.{problem}; {REMEDY}")
        more = self.compare(found) if self.compare else {}
        rows = [{"cells": {"arm": arm, **one.summary["cells"], **more.get(arm, {})}} for arm, one in found.items()]
        shown = [name for name in self.columns if any(name in row["cells"] for row in rows)]
        whole = [name for name in shown if all(isinstance(row["cells"].get(name), int) for row in rows)]
        columns = [
            {"key": name, "name": self.columns[name], "digits": 7 if name in whole else self.digits} for name in shown
        ]
        return {"columns": [{"key": "arm", "name": "arm"}, *columns], "rows": rows}

    def report(self, results: Results, workdir: Path) -> list[Section]:
        """The table."""
        found = self.cells(workdir, results.arms)
        if not found["rows"]:
            return []
        heads = [column["name"] for column in found["columns"]]
        keys = [column["key"] for column in found["columns"]]
        digits = [column.get("digits", 7) for column in found["columns"]]
        rows = [[_text(row["cells"].get(key), n) for key, n in zip(keys, digits)] for row in found["rows"]]
        return [Section(self.title, [Table(heads, rows, notes=[self.note] if self.note else [])])]


def _text(cell: Any, digits: int) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Mapping) and "count" in cell:
        return f"{cell['count']} of {cell['of']}"
    if isinstance(cell, Mapping) and "value" not in cell:
        return f"{cell['low']:.{digits}g} to {cell['high']:.{digits}g}"
    return tables.measure(cell, digits)


def over(
    found: Mapping[str, ArmResult], same: Sequence[str], columns: Mapping[str, tuple[Mapping[str, Any], str]]
) -> dict[str, dict[str, Any]]:
    """Each arm against others, for `compare`: medians of ratios of a metric, seed by seed, with 95 % intervals.

    Args:
        found: what arms left.
        same: cells in which the other arm agrees with an arm.
        columns: {new cell: (cells of the other arm, metric)}; the first such arm counts, and none is against itself.

    >>> arms = {name: result({"loss": [x, x]}, {"method": name}) for name, x in (("plain", 2.0), ("tied", 1.0))}
    >>> over(arms, [], {"gain": ({"method": "plain"}, "loss")})["tied"]["gain"]["value"]
    0.5
    """
    cells = {name: arm.summary["cells"] for name, arm in found.items()}
    more: dict[str, dict[str, Any]] = {}
    for name, arm in found.items():
        for column, (wanted, metric) in columns.items():
            wanted = {**wanted, **{one: cells[name].get(one) for one in same}}
            base = next((other for other in found if all(cells[other].get(k) == v for k, v in wanted.items())), name)
            if base != name:
                more.setdefault(name, {})[column] = ratio(found[base].metrics[metric], arm.metrics[metric])
    return more


def counted(flags: Any) -> dict[str, Any]:
    """The cell of a share: how many of how many, and the 95 % Wilson interval in percent.

    >>> counted([True, True, False, True])
    {'count': 3, 'of': 4, 'low': 30.1, 'high': 95.4}
    """
    flags = np.asarray(flags, bool)
    found = share(flags)
    ends = {"low": round(100 * found.low, 1), "high": round(100 * found.high, 1)}
    return {"count": int(flags.sum()), "of": int(flags.size), **ends}


def measured(values: Any) -> dict[str, float]:
    """The cell of a median over seeds with its quartiles.

    >>> measured([1.0, 2.0, 3.0])
    {'value': 2.0, 'low': 1.5, 'high': 2.5}
    """
    low, middle, high = np.quantile(np.asarray(values, float), (0.25, 0.5, 0.75)).tolist()
    return {"value": middle, "low": low, "high": high}


def result(metrics: Mapping[str, Sequence[float]], cells: Mapping[str, Any], parameters: int = 0) -> ArmResult:
    """What an arm leaves: metrics a seed each, and the cells of its row."""
    plain = {name: [float(value) for value in values] for name, values in metrics.items()}
    return ArmResult(plain, {"cells": dict(cells)}, {}, parameters)


class Exact(Experiment):
    """All of them: `select` finds the one that `task.experiment` names."""

    name: ClassVar[str] = "exact"

    def select(self, task: Mapping[str, Any]) -> Experiment:
        """The experiment that `task.experiment` names, the first one if it names none."""
        return named(task, EXPERIMENTS, "sbjax.experiments.exact")


EXPERIMENT = Exact()
