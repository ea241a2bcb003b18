"""What an arm of an experiment on the loss landscape leaves, and where it is kept."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sbjax.common.files import REMEDY, FileError, read_arrays, read_json, to_json, write_atomically

FOLDER = "landscape"

_METRICS = {str: [(float, None)]}
FORM = {"metrics": _METRICS, "summary": dict, "parameters": int, "history": {str: _METRICS}}


class ArmResult(NamedTuple):
    """What an arm leaves.

    Attributes:
        metrics: a list with a number for each seed, by name; the same names in all arms, the primary one among them.
        summary: what JSON can hold: tallies, shares with their intervals, counts by kind.
        arrays: by name, for figures and further use.
        parameters: trained parameters of one network; 0 where nothing is trained.
        history: earlier metrics, {step: {name: [seed]}}, for curves; {} for none.
    """

    metrics: dict[str, list[float]]
    summary: dict[str, Any]
    arrays: dict[str, np.ndarray]
    parameters: int = 0
    history: Mapping[int, dict[str, list[float]]] = {}


def save_arm(workdir: Path, arm: str, result: ArmResult, part: str = FOLDER) -> None:
    """Write `<part>/<arm>.npz`, then `<part>/<arm>.json`, which says that the arm is finished."""
    folder = Path(workdir) / part
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.savez_compressed(content, **result.arrays)
    write_atomically(folder / f"{arm}.npz", content.getvalue())
    history = {str(step): numbers for step, numbers in sorted(result.history.items())}
    rest = {"metrics": result.metrics, "summary": result.summary, "parameters": result.parameters, "history": history}
    write_atomically(folder / f"{arm}.json", to_json(rest))


def load_arm(workdir: Path, arm: str, part: str = FOLDER) -> ArmResult | None:
    """What `save_arm` wrote; None for an arm that is not finished. Numbers that are not finite come back as None."""
    path = Path(workdir) / part / f"{arm}.json"
    if not path.exists():
        return None
    found = read_json(path, FORM)
    arrays = read_arrays(path.with_suffix(".npz"))
    try:
        history = {int(step): numbers for step, numbers in found["history"].items()}
    except ValueError as error:
        raise FileError(f"{path}: history: {error}; {REMEDY}") from error
    return ArmResult(found["metrics"], found["summary"], arrays, found["parameters"], history)


def load_arms(workdir: Path, arms: Iterable[str]) -> dict[str, ArmResult]:
    """Those of `arms` that are finished, the narrowest first where they differ in their width."""
    found = {arm: one for arm in arms if (one := load_arm(workdir, arm)) is not None}
    return dict(sorted(found.items(), key=lambda item: item[1].summary.get("width", 0)))
