"""Tables and figures of parameter recovery."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

# Loaded by its first use.
import scipy

from sbjax.experiments.landscape.arm_results import ArmResult, load_arms
from sbjax.landscape.teacher_student import ACTIVATIONS
from sbjax.landscape.unit_symmetry import form_of
from sbjax.report import figures, tables
from sbjax.report.results import Results
from sbjax.report.sections import Section, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NOTE = (
    "Width right: as many units as the teacher. Recovered: width right and every weight vector within 1 %. "
    "Error: median over the teachers of the median over a teacher's units of the larger relative error of incoming and "
    "outgoing weights; 1 = not found. Intervals of 95 %: Clopper-Pearson for shares, order statistics for medians. "
    "Published (arXiv 2304.12794): width and weights in 80 % of 150 toy problems at four times the width (v2); other "
    "teachers, inputs and optimiser, so that only the order of magnitude compares. Control: students of different "
    "teachers clustered together; units that came out, and in brackets teachers of which all did."
)


CAPTIONS = {
    "recovery_vectors": "Incoming weights of all students of the first teacher; coloured by cluster, grey: none. "
    "Crosses: the teacher's, rings: recovered; both, and mirrored students, on the side of the teacher.",
    "recovery_trees": "Average linkage of the same units; dashed: the cut.",
    "recovery_errors": "Relative error of every unit of all teachers, sorted, before (hollow) and after the last fit; "
    "1: not found.",
}


def report(results: Results, workdir: Path) -> list[Section]:
    """Shares and errors by activation, and by the size of the teacher; vectors, trees and errors drawn."""
    found = load_arms(workdir, results.arms)
    if not found:
        return []
    drawn = {
        "recovery_vectors": vectors_figure(found),
        "recovery_trees": trees_figure(found),
        "recovery_errors": errors_figure(found),
    }
    pictures = [figures.picture(workdir, name, figure, CAPTIONS[name]) for name, figure in drawn.items()]
    return [Section("Recovered parameters", [*_tables(found), *pictures])]


def _tables(arms):
    rows, sizes = [], []
    for arm, found in arms.items():
        summary, metrics = found.summary, found.metrics
        rows.append(
            [
                arm,
                str(len(metrics["units/error"])),
                *(tables.measure(summary[name], 2) for name in ("width_right", "recovered", "error_before", "error")),
                f"{np.median(metrics['test/function']):.1e}",
                _control(summary["control"]),
            ]
        )
        teachers = summary["teachers"]
        for size in sorted({teacher["size"] for teacher in teachers}):
            here = [i for i, teacher in enumerate(teachers) if teacher["size"] == size]
            excess = [int(metrics["units/excess"][i]) for i in here]
            sizes.append(
                [
                    arm,
                    size,
                    f"{excess.count(0)} of {len(here)}",
                    f"{sum(excess):+d}",
                    *(
                        f"{np.median([metrics[name][i] for i in here]):.1e}"
                        for name in ("units/error_before", "units/error")
                    ),
                    f"{np.median([metrics['students/loss'][i] for i in here]):.1e}",
                ]
            )
    headers = [
        "arm",
        "teachers",
        "width right",
        "recovered",
        "error, collapsed",
        "error, fitted",
        "function",
        "control",
    ]
    by_size = ["arm", "units, inputs", "width right", "units too many", "error, collapsed", "fitted", "best student"]
    return Table(headers, rows, notes=[_NOTE]), Table(by_size, sizes)


def vectors_figure(found: dict[str, ArmResult]) -> "Figure":
    """Incoming weights of the first hidden layer in the plane of the first two inputs, a panel for each arm."""
    with figures.styled():
        figure, panels = _panels(len(found), (2.9, 2.9))
        for panel, (arm, result) in zip(panels, found.items()):
            teacher = _first(result)
            if teacher is None:
                panel.set_visible(False)
                continue
            # Teachers of one input have their bias in the second place.
            arrays = {name: result.arrays[f"{name}_{teacher}"][..., :2] for name in ("rows", "found", "teacher")}
            labels = result.arrays[f"labels_{teacher}"].ravel()
            rows, known = arrays["rows"].reshape(len(labels), -1), arrays["teacher"]
            if form_of(ACTIVATIONS[result.summary["activation"]]).flip:
                rows, arrays["found"] = _toward(rows, known), _toward(arrays["found"], known)
            places = rows, arrays["found"], known
            panel.scatter(*places[0][labels < 0].T, s=3, color="0.7", linewidths=0)
            for label in range(labels.max() + 1):
                colour = figures.COLOURS[label % len(figures.COLOURS)]
                panel.scatter(*places[0][labels == label].T, s=8, color=colour, linewidths=0, alpha=0.6)
            panel.scatter(*places[1].T, s=50, facecolors="none", edgecolors="black", linewidths=0.8)
            panel.scatter(*places[2].T, s=30, marker="+", color="black", linewidths=0.8)
            reach = 2 * np.abs(known).max()
            panel.set_xlim(-reach, reach)
            panel.set_ylim(-reach, reach)
            panel.set_title(arm, fontsize=8)
            panel.set_xlabel("weight of input 1")
            panel.set_ylabel("weight of input 2")
    return figure


def trees_figure(found: dict[str, ArmResult]) -> "Figure":
    """Dendrograms of the units of all students in the first hidden layer, a panel for each arm."""
    with figures.styled():
        figure, panels = _panels(len(found), (2.9, 2.4))
        for panel, (arm, result) in zip(panels, found.items()):
            teacher = _first(result)
            if teacher is None:
                panel.set_visible(False)
                continue
            tree, cut = result.arrays[f"tree_{teacher}"].copy(), result.summary["teachers"][teacher]["cut"][0]
            # Logarithms need a least height; they keep their order.
            tree[:, 2] = np.maximum(tree[:, 2], 1e-6)
            scipy.cluster.hierarchy.dendrogram(
                tree,
                ax=panel,
                no_labels=True,
                color_threshold=max(cut, 1e-6) * (1 + 1e-9),
                above_threshold_color="0.6",
            )
            panel.axhline(max(cut, 1e-6), color="black", linewidth=0.8, linestyle="--")
            panel.set_yscale("log")
            panel.set_ylim(bottom=5e-7)
            panel.set_title(arm, fontsize=8)
            panel.set_ylabel("distance of incoming vectors")
    return figure


def errors_figure(found: dict[str, ArmResult]) -> "Figure":
    """Sorted relative errors of all units of all teachers, before and after the last fit."""
    with figures.styled():
        figure = figures.new_figure((3.5, 2.7))
        panel = figure.subplots()
        for arm, colour in zip(found, figures.COLOURS):
            for name, face in (("before", "white"), ("after", colour)):
                teachers = range(len(found[arm].metrics["units/error"]))
                errors = np.sort(np.concatenate([found[arm].arrays[f"{name}_{i}"] for i in teachers]))
                panel.plot(
                    (np.arange(len(errors)) + 0.5) / len(errors),
                    np.clip(errors, 1e-17, 1.0),
                    linestyle="none",
                    marker="o",
                    color=colour,
                    markerfacecolor=face,
                    markeredgewidth=0.5,
                    label=arm if name == "after" else None,
                )
        panel.set_yscale("log")
        panel.set_xlabel("share of the teachers' units")
        panel.set_ylabel("relative error of weights")
        panel.legend()
    return figure


def _first(result: ArmResult) -> int | None:
    """The first teacher of which something was recovered."""
    return next((i for i in range(len(result.metrics["units/error"])) if f"tree_{i}" in result.arrays), None)


def _control(found) -> str:
    """Units, and in brackets teachers of which all were found."""
    return f"{sum(c['units'] for c in found)} ({sum(c['recovered'] for c in found)})" if found else "-"


def _panels(count: int, size: tuple[float, float]) -> tuple["Figure", "list[Axes]"]:
    figure = figures.new_figure((size[0] * count, size[1]))
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _toward(rows, known):
    """Mirrored where that is nearer to one of the teacher's."""
    distance = scipy.spatial.distance.cdist
    return np.where((distance(rows, known).min(1) > distance(-rows, known).min(1))[:, None], -rows, rows)
