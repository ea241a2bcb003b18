"""The folder of a sweep: `sweep.json`, written once, and a workdir for each cell in `cells/<id>`."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from sbjax import config as config_lib
from sbjax.common.files import FileError, read_json, write_atomically
from sbjax.common.names import expanded, near
from sbjax.frame.errors import ConfigError, told_of_files
from sbjax.frame.own_parts import code_in
from sbjax.frame.plan import Plan
from sbjax.runner.sweeps.cells import Cell

PLANNED = "sweep.json"
FORMAT = 1
AGAIN = "plan the sweep again in another folder"
FORM = {
    "format": int,
    "runs": {str: dict},
    "suite": bool,
    "cells": [{"id": str, "uses": [[str]], "replicas": [int]}],
    "data": [{"experiment": str, "source": list, "digest": str}],
    "config_file?": (str, None),
    "overrides": [str],
}


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A planned sweep.

    Attributes:
        path: its folder.
        runs: resolved settings by run; one run '' where the config has no suite.
        suite: whether there are several runs, with one report.
        cells: in the order in which they are started.
        data: digests of the data, `[{"experiment", "source", "digest"}]`.
        config_file, overrides: where the config is from.
    """

    path: pathlib.Path
    runs: Mapping[str, dict[str, Any]]
    suite: bool
    cells: tuple[Cell, ...]
    data: tuple[dict[str, Any], ...]
    config_file: str | None
    overrides: tuple[str, ...]

    def folder(self, cell: Cell) -> pathlib.Path:
        """The workdir of a cell."""
        return self.path / "cells" / cell.id

    def cell(self, name: str, *, flag: str = "cell") -> Cell:
        """A cell by its id or the beginning of it, as given by a flag.

        Raises:
            ConfigError: none, or several.
        """
        found = [cell for cell in self.cells if name and cell.id.startswith(name)]
        if len(found) == 1:
            return found[0]
        ids = [cell.id for cell in self.cells]
        said = "names several" if found else f"is not in {self.path / PLANNED}{near(name, ids)}"
        raise ConfigError(f"--{flag}={name}: {said}; `status` lists the {len(ids)} cells")

    def plan(self, run: str) -> Plan:
        """The checked plan of a run.

        Raises:
            ConfigError: the settings cannot be used by this version.
        """
        try:
            plan = config_lib.read(json.loads(json.dumps(self.runs[run])))
        except ConfigError as error:
            raise ConfigError(f"{self.path / PLANNED}: {error}; plan the sweep again in another folder") from error
        return dataclasses.replace(plan, settings=self.runs[run])

    def check_trusted(self, trust: bool) -> None:
        """Refuse code that the folder names by import path, unless it is trusted.

        Raises:
            ConfigError: naming the code.
        """
        names = list(dict.fromkeys(name for settings in self.runs.values() for name in code_in(settings)))
        if names and not trust:
            raise ConfigError(
                f"{self.path / PLANNED} names code by import path ({', '.join(names[:5])}); if you trust this folder, "
                "give --trust"
            )


def load(workdir: str) -> Sweep:
    """The sweep of a folder.

    Raises:
        FileNotFoundError: nothing was planned there.
        ConfigError: its file is damaged or of another version.
    """
    with told_of_files("--workdir: "):
        path = expanded(workdir)
        if not (path / PLANNED).exists():
            raise FileNotFoundError(f"--workdir={workdir}: no sweep was planned there; `sbjax sweep plan` makes one")
        found = read_json(path / PLANNED, FORM, remedy=AGAIN)
        if found["format"] != FORMAT:
            raise FileError(f"{path / PLANNED} is of format {found['format']}, this version reads {FORMAT}; use the "
                            "version that planned it")  # fmt: skip
        cells = tuple(
            Cell(one["id"], tuple(map(tuple, one["uses"])), *one["replicas"])
            for one in found["cells"]
            if _fits(one, found["runs"], path / PLANNED)
        )  # fmt: skip
        if bad := [run for run in found["runs"] if not _names_a_folder(run) and (run or found["suite"])]:
            raise FileError(f"{path / PLANNED}: {bad[0]!r} is no name of a run; {AGAIN}")
        if len({cell.id for cell in cells}) < len(cells) or not cells:
            raise FileError(f"{path / PLANNED}: its cells are none, or not each of its own; {AGAIN}")
    return Sweep(
        path, found["runs"], found["suite"], cells, _listed_data(found["data"]), found.get("config_file"),
        tuple(found["overrides"]),
    )  # fmt: skip


def _fits(cell: Mapping[str, Any], runs: Mapping[str, Any], path: pathlib.Path) -> bool:
    """True of an entry of `cells` that this program has written.

    Raises:
        FileError: of another one.
    """
    uses, replicas = cell["uses"], cell["replicas"]
    arms = [use[1] for use in uses if len(use) == 2 and use[0] in runs]  # "" of a whole run
    named = 0 < len(uses) == len(arms) and all(not arm or _names_a_folder(arm) for arm in arms)
    if not named or not cell["id"].isalnum() or len(replicas) != 2 or not 0 <= replicas[0] < replicas[1]:
        raise FileError(f"{path}: cell {cell['id']!r} does not fit its runs; {AGAIN}")
    return True


def _names_a_folder(name: str) -> bool:
    return name.replace("_", "").replace("-", "").isalnum()


def write(sweep: Sweep) -> bool:
    """Write `sweep.json`; False if the same sweep is there already.

    Raises:
        ConfigError: another one is there, or the folder holds something else.
    """
    content = {
        "format": FORMAT,
        "suite": sweep.suite,
        "config_file": sweep.config_file,
        "overrides": list(sweep.overrides),
        "cells": [cell.as_json() for cell in sweep.cells],
        "data": list(sweep.data),
        "runs": dict(sweep.runs),
    }
    with told_of_files("--workdir: "):
        if (sweep.path / PLANNED).exists():
            before = load(str(sweep.path))
            if before.cells == sweep.cells and dict(before.runs) == dict(sweep.runs):
                return False
            raise ConfigError(
                f"--workdir={sweep.path} holds another sweep ({_differences(before, sweep)}); use another --workdir"
            )
        if (sweep.path / "config.json").exists() or (sweep.path / "suite.json").exists():
            raise ConfigError(f"--workdir={sweep.path} holds a run; use another --workdir for a sweep")
        sweep.path.mkdir(parents=True, exist_ok=True)
        write_atomically(sweep.path / PLANNED, json.dumps(content, indent=1) + "\n")
    return True


def _differences(before: Sweep, now: Sweep) -> str:
    ours, theirs = ({cell.id for cell in one.cells} for one in (now, before))
    return f"{len(theirs - ours)} of its {len(theirs)} cells are not in this one, {len(ours - theirs)} are new"


def digests(sweep: Sweep) -> dict[tuple, str]:
    """Digests of the data by (experiment, source), as `cells.make_cells` wants them."""
    return {(one["experiment"], one["source"]): one["digest"] for one in sweep.data}


def _listed_data(found: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """With tuples where JSON has lists."""

    def whole(source):
        return tuple(whole(part) if isinstance(part, list) else part for part in source)

    return tuple({**one, "source": whole(one["source"])} for one in found)
