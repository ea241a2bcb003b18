"""What a report says of calibration: a table with the floor beside every error, and the reliability diagram."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbjax.common.files import read_json
from sbjax.experiments.calibration.measure import FOLDER
from sbjax.report import statistics, tables
from sbjax.report.figures import COLOURS, DASHES, legend, new_figure, picture, styled
from sbjax.report.results import Results
from sbjax.report.sections import Note, Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = {
    "accuracy": "test/accuracy",
    "loss": "log loss",
    "tempered_loss": "log loss, tempered",
    "temperature": "T",
    "brier": "Brier",
    "error": "calibration error",
    "floor": "its floor",
    "detection": "detection",
}
_NOTE = (
    "On {examples} test examples, median and quartiles over replicas; 'averaged': the mean of the replicas' "
    "probabilities, a deep ensemble of {members}. Calibration error: expected, over {bins} equal bins of confidence; a "
    "confidence on an edge belongs to the bin below. Its floor: the error of a predictor whose probabilities are "
    "true, at these examples; below or near it, an error says nothing. Tempered: probabilities with the temperature T "
    "that is best on the validation split. Brier: between 0 and 2.{detection}"
)
_DETECTION = " Detection: AUROC of telling test images from those of another set by confidence; 0.5 is chance."
_CAPTION = (
    "Share of right answers against confidence on the test split, all replicas together; bins with at least ten "
    "examples a replica. On the grey diagonal, probabilities mean what they say. Below it, too sure. Lower panel: "
    "share of examples by confidence."
)
_FORM = {
    "bins": int,
    "examples": int,
    "running": [int],
    "replicas": [{str: (float, None)}],
    "ensemble": ({str: (float, None)}, None),
    "reliability": ({key: [(float, int, None)] for key in ("counts", "confidence", "accuracy")}, None),
}
_FEWEST = 10  # examples a replica in a bin that is drawn


def load(workdir: Path, arms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `sbjax.experiments.calibration.measure` found, by arm; arms without it are left out.

    Raises:
        FileError: a file is damaged.
    """
    paths = {arm: workdir / FOLDER / f"{arm}.json" for arm in arms}
    return {arm: read_json(path, _FORM) for arm, path in paths.items() if path.exists()}


def report(results: Results, workdir: Path) -> list[Section]:
    """The section of calibration; nothing where it was not measured."""
    found, lost = _measured(workdir, results.arms)
    if not found:
        return []
    header, *rows = _rows(found)
    drawn = picture(workdir, "reliability", reliability_diagram(found), _CAPTION)
    return [Section("Calibration", [Table(header, rows), Note(f"{_said(found)}{lost}"), drawn])]


def table(workdir: Path, arms: Sequence[str]) -> str:
    """The table for a terminal; '' where nothing was measured."""
    found, lost = _measured(workdir, arms)
    return "\n".join([*tables.columns(_rows(found)), *tables.wrap(f"{_said(found)}{lost}")]) if found else ""


def _measured(workdir: Path, arms: Sequence[str]) -> tuple[dict[str, dict[str, Any]], str]:
    """What was measured of arms with replicas that finished, and a sentence about the others."""
    every = load(workdir, arms)
    lost = [arm for arm, one in every.items() if not one["replicas"]]
    said = f" Without numbers, since no replica finished: {', '.join(lost)}." if lost else ""
    return {arm: one for arm, one in every.items() if one["replicas"]}, said


def _said(found: Mapping[str, Mapping[str, Any]]) -> str:
    one = next(iter(found.values()))
    members = {len(arm["replicas"]) for arm in found.values()}
    detected = any(arm["replicas"][0]["detection"] is not None for arm in found.values())
    return _NOTE.format(
        examples=one["examples"],
        bins=one["bins"],
        members=" or ".join(map(str, sorted(members))),
        detection=_DETECTION if detected else "",
    )


def reliability_diagram(found: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """Accuracy against confidence, a line an arm, above the shares of examples by confidence."""
    with styled():
        figure = new_figure((3.5, 3.9))
        top, low = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        top.plot([0, 1], [0, 1], color="0.75", linewidth=0.8)
        for number, (arm, one) in enumerate(found.items()):
            colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
            bins = {name: np.array(values, float) for name, values in one["reliability"].items()}
            enough = bins["counts"] >= _FEWEST * len(one["replicas"])
            top.plot(bins["confidence"][enough], bins["accuracy"][enough], dash, color=colour, marker="o", label=arm)
            edges = np.linspace(0, 1, one["bins"] + 1)
            low.stairs(bins["counts"] / bins["counts"].sum(), edges, color=colour, linestyle=dash)
        top.set_ylabel("accuracy")
        top.set_xlim(0, 1)
        top.set_ylim(0, 1)
        low.set_xlabel("confidence")
        low.set_ylabel("share")
        low.set_ylim(bottom=0)
        legend(figure, [top])
    return figure


def _rows(found: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    shown = [name for name in _COLUMNS if any(one["replicas"][0].get(name) is not None for one in found.values())]
    rows = [["arm", *(_COLUMNS[name] for name in shown)]]
    for arm, one in found.items():
        spreads = {
            name: statistics.describe(np.array([float(each[name]) for each in one["replicas"]]))._asdict()
            for name in shown
            if one["replicas"][0].get(name) is not None
        }
        rows.append([arm, *(_spread(name, spreads.get(name)) for name in shown)])
        if one["ensemble"]:
            rows.append([f"{arm}, averaged", *(_number(name, one["ensemble"].get(name)) for name in shown)])
    return rows


def _spread(name: str, described: Mapping[str, Any] | None) -> str:
    if described is None or described["median"] is None:
        return tables.NONE
    if name in ("floor", "temperature"):  # hardly differ between replicas
        return _number(name, described["median"])
    middle, low, high = (_number(name, described[end]) for end in ("median", "q1", "q3"))
    return f"{middle} [{low.removesuffix(' %')}, {high.removesuffix(' %')}]"


def _number(name: str, x: float | None) -> str:
    if x is None:
        return tables.NONE
    return f"{100 * x:.2f} %" if name == "accuracy" else f"{x:.2f}" if name == "temperature" else f"{x:.4f}"
