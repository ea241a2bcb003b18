"""Tables and figures of students that learn from a teacher: shares at zero loss, kinds, neurons, trajectories."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbjax.experiments.landscape.experiment import ArmResult
from sbjax.files import write_atomically
from sbjax.report import figures, tables
from sbjax.report.markup import note, table, tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BARS = (1e-14, 1e-20)
LEAST = 1e-34
"""Where losses of 0 are drawn."""

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
_DEEP_NOTE = "Shares of seeds [Clopper-Pearson 95 % interval], quantiles of the loss over the seeds."


def two_layer_section(
    found: Mapping[str, Mapping[str, Any]], reference: Mapping[str, Mapping[int, float]]
) -> list[str]:
    """Three tables with a row a width, and one of the failures by kind and loss.

    Args:
        found: what `sbjax.experiments.landscape.two_layer.summarise` returns, by arm.
        reference: shares below 1e-14 by activation and width.
    """
    if not found:
        return []
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
    parts = [tag("h2", "Students at zero loss"), table(headers, shares), note(_SHARES_NOTE)]
    parts += [
        tag("h2", "What the students ended at"),
        table(["arm", *names, "failures that are symmetry-induced"], kinds),
        note(_KINDS_NOTE),
    ]
    if failures:
        headers = ["arm", "failures", "kind", "effective width", "lowest loss", "highest loss", "inertia"]
        parts.append(table(headers, failures))
    return [*parts, tag("h2", "Neurons at zero loss"), table(["arm", *types], neurons), note(_NEURONS_NOTE)]


def deep_section(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
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
    return [tag("h2", "Deep students at zero loss"), table(headers, rows), note(_DEEP_NOTE)] if rows else []


def losses_figure(found: Mapping[str, ArmResult]) -> "Figure":
    """One dot a seed by width, on a logarithmic axis."""
    with figures.styled():
        figure = figures.new_figure((3.5, 2.7))
        panel = figure.subplots()
        for place, (_, result) in enumerate(found.items()):
            losses = _finite(result.metrics["loss"])
            spread = 0.3 * np.linspace(-1, 1, len(losses)) if len(losses) > 1 else 0
            panel.plot(place + spread, np.sort(np.maximum(losses, LEAST)), "o", color=figures.COLOURS[0], alpha=0.6)
        for bar, dash in zip(BARS, ("--", ":")):
            panel.axhline(bar, color="grey", linewidth=0.7, linestyle=dash)
        panel.set_yscale("log")
        _name_widths(panel, found)
        panel.set_ylabel("loss at the end")
    return figure


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


def save(drawn: Mapping[str, "Figure"], workdir: Path) -> dict[str, Path]:
    """Writes figures as PNGs into `workdir/figures`; the paths by name."""
    paths = {}
    for name, figure in drawn.items():
        paths[name] = Path(workdir) / "figures" / f"{name}.png"
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        write_atomically(paths[name], figures.to_png(figure))
    return paths


def _finite(values):
    return np.array([value for value in values if value is not None and np.isfinite(value)])


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
        losses = _finite([failure["loss"] for failure in same])
        inertia = sorted({tuple(failure["inertia"]) for failure in same if failure["inertia"]})
        ends = [f"{end(losses):.3g}" if len(losses) else tables.NONE for end in (np.min, np.max)]
        text = "; ".join(", ".join(map(str, signs)) for signs in inertia[:3])
        text += f"; {len(inertia) - 3} more" if len(inertia) > 3 else ""
        rows.append([arm, str(len(same)), kind, str(width), *ends, text or tables.NONE])
    return rows


def _name_widths(panel, found):
    panel.set_xticks(range(len(found)), [str(result.summary["width"]) for result in found.values()])
    panel.set_xlabel("width of the students")


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
        _name_widths(panel, found)
        panel.set_ylabel(label)
        panel.set_ylim(0, 1)
        if names:
            figure.legend(loc="outside right upper")
    return figure


def _shown(found):
    """(title, arrays, seed) of the students to draw."""
    shown = []
    solved = {arm: np.array([x is not None and x < BARS[0] for x in one.metrics["loss"]]) for arm, one in found.items()}
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
