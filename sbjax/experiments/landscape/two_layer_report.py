"""Tables and figures of students that learn from a teacher: shares at zero loss, kinds, neurons, trajectories."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbjax.experiments.landscape.arm_results import ArmResult, load_arms
from sbjax.experiments.landscape.figures import BARS, finite, losses_figure, name_widths
from sbjax.experiments.landscape.two_layer import REFERENCE
from sbjax.report import figures, tables
from sbjax.report.results import Results
from sbjax.report.sections import Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHARES_NOTE = (
    "Shares of seeds [Clopper-Pearson 95 % interval]. Reference: a replication with the same data, teacher and initial "
    "weights by Adam and a plain Levenberg-Marquardt; the published shares are in figures only (arXiv 2105.12221)."
)
_KINDS_NOTE = (
    "All students by what they ended at. Of those above 1e-14, symmetry-induced ones (plateaus and strict saddles) lie "
    "where neurons of a critical point of a narrower student are copied. Inertia: negative, zero, positive eigenvalues."
)
_NEURONS_NOTE = (
    "Neurons of the students at zero loss. 0 type, b: in a group of b with one incoming vector whose outgoing weights "
    "add up to zero. Opposite: minus a teacher's vector; constant: no incoming vector; both are possible for "
    "activations that are odd up to a constant, such as sigmoid, and add to the pieces that T(r, m) counts. Other: "
    "none of these within 1e-2 of a vector and 1e-5 of a sum."
)


CAPTIONS = {
    "student_losses": "Loss at the end, one dot a seed, by width. Lines: 1e-14 and 1e-20, the bars for zero.",
    "student_kinds": "What the students ended at, by width. Symmetry-induced: a critical point of a narrower student, "
    "of which neurons are copies.",
    "neuron_types": "Neurons of the students at zero loss, by width: copies of a teacher's neuron, neurons or groups "
    "that cancel (0 type), and, where the activation is odd up to a constant, opposite and constant neurons.",
    "trajectories": "Incoming vectors of a student during Adam, from the hollow to the full dots; colour: outgoing "
    "weight. Rays: directions of the teacher's neurons.",
}


def report(results: Results, workdir: Path) -> list[Section]:
    """Shares at zero loss, kinds of the others, and neurons, a row a width; losses, kinds, neurons and trajectories."""
    found = load_arms(workdir, results.arms)
    if not found:
        return []
    drawn = {
        "student_losses": losses_figure(found),
        "student_kinds": kinds_figure(found),
        "neuron_types": neurons_figure(found),
        "trajectories": trajectories_figure(found),
    }
    pictures = {name: figures.picture(workdir, name, figure, CAPTIONS[name]) for name, figure in drawn.items()}
    shares, kinds, neurons = students_tables({arm: one.summary for arm, one in found.items()}, REFERENCE)
    return [
        Section("Students at zero loss", [*shares, pictures["student_losses"], pictures["trajectories"]]),
        Section("What the students ended at", [*kinds, pictures["student_kinds"]]),
        Section("Neurons at zero loss", [*neurons, pictures["neuron_types"]]),
    ]


def students_tables(
    found: Mapping[str, Mapping[str, Any]], reference: Mapping[str, Mapping[int, float]]
) -> tuple[list[Table], list[Table], list[Table]]:
    """Shares at zero loss; kinds, and failures by kind and loss; neurons: each with a row a width.

    Args:
        found: what `sbjax.experiments.landscape.two_layer.summarise` returns, by arm.
        reference: shares below 1e-14 by activation and width.
    """
    shares, kinds, neurons, failures = [], [], [], []
    names = [kind for kind in next(iter(found.values()))["kinds"] if any(one["kinds"][kind] for one in found.values())]
    types = list(dict.fromkeys(name for one in found.values() for name in one["neurons"]))
    types.sort(key=lambda name: _order(name))
    for arm, one in found.items():
        known = reference.get(one["activation"], {}).get(one["width"])
        known = tables.NONE if known is None else f"{known:g}"
        shares.append([arm, str(one["width"]), *(tables.measure(one["shares"][f"{bar:g}"], 3) for bar in BARS), known])
        number = len(one["failures"])
        kinds.append([arm, *(str(one["kinds"][name]) for name in names), f"{one['induced']} of {number}"])
        neurons.append([arm, *(str(one["neurons"].get(name, 0)) for name in types)])
        failures += _failures(arm, one["failures"])
    headers = ["arm", "width", *(f"loss < {bar:g}" for bar in BARS), "reference, loss < 1e-14"]
    by_kind = [Table(["arm", *names, "failures that are symmetry-induced"], kinds, notes=[_KINDS_NOTE])]
    if failures:
        columns = ["arm", "failures", "kind", "effective width", "lowest loss", "highest loss", "inertia"]
        by_kind.append(Table(columns, failures))
    by_type = Table(["arm", *types], neurons, notes=[_NEURONS_NOTE])
    return [Table(headers, shares, notes=[_SHARES_NOTE])], by_kind, [by_type]


def kinds_figure(found: Mapping[str, ArmResult]) -> "Figure":
    """Shares of the students by kind, stacked, a bar a width."""
    counts = {arm: result.summary["kinds"] for arm, result in found.items()}
    return _stacked(found, counts, "share of students")


def neurons_figure(found: Mapping[str, ArmResult]) -> "Figure":
    """Shares of the neurons at zero loss by type, stacked, a bar a width."""
    counts = {}
    for arm, result in found.items():
        kept = {name: count for name, count in result.summary["neurons"].items() if name != "all"}
        many = [name for name in kept if name.startswith("0 type") and int(name.split()[-1]) > 3]
        kept |= {"0 type, more": sum(kept.pop(name) for name in many)}
        counts[arm] = kept
    names = sorted({name for kept in counts.values() for name in kept}, key=_order)
    counts = {arm: {name: kept.get(name, 0) for name in names} for arm, kept in counts.items()}
    return _stacked(found, counts, "share of neurons")


def trajectories_figure(found: Mapping[str, ArmResult]) -> "Figure":
    """Incoming vectors in the plane: a success and a failure of the narrowest width with both, and the widest width."""
    shown = _shown(found)
    with figures.styled():
        figure = figures.new_figure((0.6 + 2.6 * len(shown), 2.8))
        panels = figure.subplots(1, len(shown), squeeze=False)[0]
        for panel, (title, arrays, seed) in zip(panels, shown):
            colours = _draw_paths(panel, arrays, seed)
            panel.set_title(title, fontsize=8)
        figure.colorbar(colours, ax=panels[-1], label="outgoing weight", shrink=0.8)
    return figure


def _order(name):
    """Of the types of neurons."""
    names = ["all", "copies", "opposite", "constant", "other"]
    if name.startswith("0 type"):
        last = name.split()[-1]
        return (1.5, int(last) if last.isdigit() else np.inf)
    return (names.index(name), 0)


def _failures(arm, failures):
    rows = []
    for kind, width in sorted({(failure["kind"], failure["width"]) for failure in failures}):
        same = [failure for failure in failures if (failure["kind"], failure["width"]) == (kind, width)]
        losses = finite([failure["loss"] for failure in same])
        inertia = sorted({tuple(failure["inertia"]) for failure in same if failure["inertia"]})
        ends = [f"{end(losses):.3g}" if len(losses) else tables.NONE for end in (np.min, np.max)]
        text = "; ".join(", ".join(map(str, signs)) for signs in inertia[:3])
        text += f"; {len(inertia) - 3} more" if len(inertia) > 3 else ""
        rows.append([arm, str(len(same)), kind, str(width), *ends, text or tables.NONE])
    return rows


def _stacked(found, counts, label):
    names = list(dict.fromkeys(name for one in counts.values() for name in one))
    names = [name for name in names if any(one.get(name) for one in counts.values())]
    with figures.styled():
        figure = figures.new_figure((4.6, 2.7))
        panel = figure.subplots()
        totals = np.array([max(sum(one.values()), 1) for one in counts.values()])
        bottom = np.zeros(len(found))
        for i, name in enumerate(names):
            height = np.array([one.get(name, 0) for one in counts.values()]) / totals
            colour = figures.COLOURS[i % len(figures.COLOURS)]
            panel.bar(np.arange(len(found)), height, bottom=bottom, color=colour, label=name, width=0.7)
            bottom += height
        name_widths(panel, found)
        panel.set_ylabel(label)
        panel.set_ylim(0, 1)
        if names:
            figure.legend(loc="outside right upper")
    return figure


def _shown(found):
    """(title, arrays, seed) of the students to draw."""
    shown = []
    solved = {
        arm: np.array([x is not None and x < BARS[0] for x in one.metrics["train/loss"]]) for arm, one in found.items()
    }
    both = [arm for arm, good in solved.items() if good.any() and not good.all()]
    for arm in both[:1]:
        width = found[arm].summary["width"]
        shown += [
            (f"width {width}, zero loss", found[arm].arrays, int(np.argmax(solved[arm]))),
            (f"width {width}, not solved", found[arm].arrays, int(np.argmin(solved[arm]))),
        ]
    widest = max(found, key=lambda arm: found[arm].summary["width"])
    if widest not in both[:1]:
        width = found[widest].summary["width"]
        shown.append((f"width {width}", found[widest].arrays, int(np.argmax(solved[widest]))))
    return shown


def _draw_paths(panel, arrays, seed):
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    w, a = arrays["path_w"][:, seed], arrays["path_a"][:, seed, :, 0]  # [step, neuron, 2] and [step, neuron]
    reach = 1.05 * max(np.abs(w).max(), np.abs(arrays["teacher_w"]).max())
    for row in arrays["teacher_w"]:
        end = 2 * reach * row / np.linalg.norm(row)
        panel.plot([0, end[0]], [0, end[1]], color="0.7", linewidth=0.8, zorder=1)
    colours = ScalarMappable(Normalize(-1, 1), "coolwarm")
    for neuron in range(w.shape[1]):
        pieces = np.stack([w[:-1, neuron], w[1:, neuron]], 1)
        middle = (a[:-1, neuron] + a[1:, neuron]) / 2
        panel.add_collection(LineCollection(pieces, colors=colours.to_rgba(middle), linewidths=1, zorder=2))
    panel.scatter(*w[0].T, 10, facecolors="white", edgecolors="0.4", linewidths=0.6, zorder=3)
    panel.scatter(*w[-1].T, 14, c=colours.to_rgba(a[-1]), edgecolors="0.2", linewidths=0.5, zorder=4)
    panel.set_xlim(-reach, reach)
    panel.set_ylim(-reach, reach)
    panel.set_aspect("equal")
    return colours
