"""Tables and the figure of where gradient flow leaves narrow erf students."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sbjax.experiments.landscape.arm_results import ArmResult, load_arms
from sbjax.experiments.landscape.copy_average import BEST, KINDS
from sbjax.report import figures, tables
from sbjax.report.results import Results
from sbjax.report.sections import Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


CAPTIONS = {
    "copy_average": "Loss above that of the best copy-average point along the gradient flow: a line a seed, "
    "coloured by where it ends. Those that end at that point fall to round-off.",
}


def report(results: Results, workdir: Path) -> list[Section]:
    """Shares of the kinds of ends, the losses at which they are, and losses along the flow."""
    found = load_arms(workdir, results.arms)
    if not found:
        return []
    picture = figures.picture(workdir, "copy_average", flow_losses(found), CAPTIONS["copy_average"])
    return [Section("Copy or average", [*_tables(found), picture])]


def _tables(arms):
    shares, rows = [], []
    for arm, found in arms.items():
        facts, losses = found.summary, found.arrays["loss"]
        kinds = [facts["kinds"][kind] for kind in KINDS]
        least = f"{losses.min():.9f}" if np.isfinite(losses).any() else "-"
        shares.append([arm, str(len(losses)), *(tables.measure(kind, 2) for kind in kinds)])
        for i, level in enumerate(facts["levels"]):
            sizes = " + ".join(map(str, level["sizes"])) or "-"
            theory = f"{facts['best']:.9f}" if level["kind"] == BEST else "-"
            name = arm if i == 0 else ""
            numbers = (f"{level['loss']:.9f}", theory, str(level["count"]), str(level["negative"]))
            rows.append([name, level["kind"], sizes, *numbers])
        if not facts["levels"]:
            rows.append([arm, "none converged", "-", least, f"{facts['best']:.9f}", "0", "-"])
    columns = ["arm", "kind", "partition", "loss", "closed form", "seeds", "negative eigenvalues"]
    return (
        Table(
            ["arm", "seeds", *KINDS],
            shares,
            notes=["Shares of the seeds by where the gradient flow ended [Clopper and Pearson's 95 % interval]."],
        ),
        Table(
            columns,
            rows,
            notes=[
                "Losses of all ends. Partition: how many teacher neurons each student neuron stands for. Closed form: "
                "the best copy-average loss L*(k - n + 1). A minimum has no negative eigenvalue."
            ],
        ),
    )


def flow_losses(arms: dict[str, ArmResult]) -> "Figure":
    """Loss over the best copy-average loss along the flow: a panel an arm, a line a seed, a colour a kind of end."""
    with figures.styled():
        figure = figures.new_figure((0.6 + 2.1 * len(arms), 2.7))
        panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
        for panel, found in zip(panels, arms.values()):
            facts, arrays = found.summary, found.arrays
            excess = np.maximum(arrays["losses"] - facts["best"], 1e-12)
            for i, kind in enumerate(KINDS):
                lines = excess[arrays["kind"] == i]
                if len(lines):
                    panel.plot(
                        arrays["times"][1:],
                        lines[:, 1:].T,
                        color=figures.COLOURS[i],
                        linewidth=0.6,
                        alpha=0.6,
                        label=kind,
                    )
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.set_xlabel("time")
            panel.set_title(f"n = {facts['students']}, k = {facts['teachers']}", fontsize=8)
        panels[0].set_ylabel("loss above the best")
        figures.legend(figure, panels)
    return figure
