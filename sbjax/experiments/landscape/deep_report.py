"""The table and figure of deep students by their width."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sbjax.experiments.landscape.arm_results import load_arms
from sbjax.experiments.landscape.figures import BARS, losses_figure
from sbjax.report import figures, tables
from sbjax.report.results import Results
from sbjax.report.sections import Section, Table

_NOTE = "Shares of seeds [Clopper-Pearson 95 % interval], quantiles of the loss over the seeds."
CAPTIONS = {
    "deep_losses": "Loss of the deep students at the end, one dot a seed, by width. Lines: 1e-14 and 1e-20.",
}


def report(results: Results, workdir: Path) -> list[Section]:
    """Shares at zero loss and quantiles of the losses, a row a width, and the losses drawn."""
    found = load_arms(workdir, results.arms)
    if not found:
        return []
    picture = figures.picture(workdir, "deep_losses", losses_figure(found), CAPTIONS["deep_losses"])
    table = students_table({arm: one.summary for arm, one in found.items()})
    return [Section("Deep students at zero loss", [table, picture])]


def students_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """Shares at zero loss and quantiles, a row a width."""
    rows = [
        [
            arm,
            str(one["width"]),
            *(tables.measure(one["shares"][f"{bar:g}"], 3) for bar in BARS),
            *(tables.measure(value, 2) for value in one["quantiles"].values()),
            tables.measure(one["critical"], 2),
        ]
        for arm, one in found.items()
    ]
    headers = ["arm", "width", *(f"loss < {bar:g}" for bar in BARS), "least", "first quartile", "median"]
    headers += ["third quartile", "largest", "share with a gradient < 1e-8"]
    return Table(headers, rows, notes=[_NOTE])
