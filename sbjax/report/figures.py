"""Figures of a report, drawn for one column of a two-column page."""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sbjax.common.files import write_atomically
from sbjax.report import sections, statistics, tables
from sbjax.report.results import Report, Results
from sbjax.report.svg import COLOURS, even_ticks, plain_text, split

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ("-", "--", "-.", ":")

DPI = 150

_PANEL = (3.5, 2.7)
_SPLITS = ("train", "validation", "test")
_STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "lines.linewidth": 1.3,
    "lines.markersize": 2.5,
}


def accuracy_curves(results: Results) -> "Figure":
    """The primary metric against the epoch (the step where a report has no epoch): median and quartiles by arm.

    The axis is logarithmic where the goal is 'min' and all values are positive and span a decade.

    Raises:
        ValueError: no arm has a finite value of the primary metric.
    """
    _require(results, [results.primary])
    return _curves(results, [results.primary], logarithmic=results.goal == "min")


def loss_curves(results: Results) -> "Figure":
    """Every loss ('train/loss', 'validation/loss', 'test/loss') against the epoch, one panel each.

    The axis is logarithmic where all losses are positive and span a decade.

    Raises:
        ValueError: no arm has a finite value of a metric called loss.
    """
    names = loss_names(results)
    _require(results, names)
    return _curves(results, names, logarithmic=True)


def distance_curves(results: Results) -> "Figure":
    """Scale-free replica distances against the epoch, one panel a kind, with their intervals.

    Raises:
        ValueError: no kind of replica distance was measured at two steps or more.
    """
    kinds = distance_kinds(results)
    if not kinds:
        raise ValueError(
            "no replica distance was measured at two steps or more; set monitor.at, such as 'start,10%,end'"
        )
    return _curves(results, [f"replica_distance/{kind}_scale_free" for kind in kinds], logarithmic=False)


def distance_kinds(results: Results) -> list[str]:
    """Kinds of replica distance that some arm has at two steps or more."""
    counts: dict[str, int] = {}
    for reports in results.reports.values():
        for kind in {kind for report in reports for kind in tables.kinds(report.measures)}:
            measured = sum(f"replica_distance/{kind}_scale_free" in report.measures for report in reports)
            counts[kind] = max(measured, counts.get(kind, 0))
    return sorted(kind for kind, count in counts.items() if count > 1)


def paired_dots(results: Results) -> "Figure":
    """Every arm against the reference at equal steps, one panel each: a thin line a seed, thick bars at the medians.

    Raises:
        ValueError: no seed can be compared in any arm.
    """
    pairs = {
        arm: pair for arm in results.arms if arm != results.reference and (pair := _pair(results, arm)) is not None
    }
    if not pairs:
        raise ValueError(f"no seed has a finite {results.primary} in the reference and another arm; nothing to draw")
    with styled():
        columns = min(len(pairs), 3)
        rows = -(-len(pairs) // columns)
        figure = new_figure((1.2 + 1.6 * columns, 2.7 * rows))
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for panel in panels.flat[len(pairs) :]:
            panel.set_visible(False)
        for panel, (arm, (reference, other)) in zip(panels.flat, pairs.items()):
            colours = (arm_colour(results, results.reference), arm_colour(results, arm))
            panel.plot([0, 1], [reference, other], color="0.65", linewidth=0.7, zorder=1)
            for x, values, colour in zip((0, 1), (reference, other), colours):
                panel.plot(np.full(len(values), x), values, "o", color=colour, markersize=4, zorder=2)
                panel.plot([x - 0.2, x + 0.2], [np.median(values)] * 2, color=colour, linewidth=3, zorder=3)
            # Names too long for the 0.8 inches that each has are slanted.
            slant = {"rotation": 20, "ha": "right"} if max(len(results.reference), len(arm)) > 12 else {}
            panel.set_xticks([0, 1], [results.reference, arm], **slant)
            panel.set_xlim(-0.45, 1.45)
            panel.set_title(f"{len(reference)} seeds", fontsize=8)
            panel.set_label(_paired_words(results, arm, reference, other))
        for panel in panels[:, 0]:
            panel.set_ylabel(_label(results.primary))
        if results.goal == "min" and spans_a_decade(np.concatenate([side for pair in pairs.values() for side in pair])):
            panels[0, 0].set_yscale("log")
    return figure


def _paired_words(results: Results, arm: str, reference: np.ndarray, other: np.ndarray) -> str:
    """What paired dots show."""
    lower, higher = int((other < reference).sum()), int((other > reference).sum())
    n, less, word = len(other), results.goal == "min", "seed" if len(other) == 1 else "seeds"
    count, side = (lower, "lower") if less else (higher, "higher")
    ends = [f"{np.median(values):.4g}" for values in (other, reference)]
    return (
        f"{arm} ends {side} than {results.reference} in {count} of {n} {word}; medians of {_label(results.primary)}: "
        f"{arm} {ends[0]}, {results.reference} {ends[1]}."
    )


def draw_all(results: Results, workdir: Path) -> list[sections.Figure]:
    """Every figure there are numbers for, in reading order, written into `workdir/figures`.

    The bytes depend on the results and on matplotlib's version only.
    """
    return [
        picture(workdir, draw.__name__, draw(results), caption.format(primary=results.primary))
        for draw, caption in _CAPTIONS.items()
        if _drawable(results, draw)
    ]


def picture(workdir: Path, name: str, figure: "Figure", caption: str, *, alt: str = "") -> sections.Figure:
    """Write `workdir/figures/<name>.png`; the figure as part of a report, with its panels apart. It is used up."""
    png = save_png(workdir, name, figure).read_bytes()
    with styled():
        panels, entries = split(figure, name)
    return sections.Figure(name, caption, png, alt, panels, entries)


def save_png(workdir: Path, name: str, figure: "Figure") -> Path:
    """Write `workdir/figures/<name>.png`, and return its path."""
    path = Path(workdir) / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_png(figure))
    return path


def to_png(figure: "Figure") -> bytes:
    """The figure as PNG without the metadata that would change from one installation to the next."""
    stream = io.BytesIO()
    with styled():
        plain_text(figure)
        even_ticks(figure)
        figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def loss_names(results: Results) -> list[str]:
    """Metrics called loss with a finite value somewhere, training first."""
    names = {name for reports in results.reports.values() for report in reports for name in report.values}
    losses = [name for name in names if name.rsplit("/", 1)[-1] == "loss" and _any_finite(results, [name])]

    def order(name: str) -> tuple[int, str]:
        split = name.split("/", 1)[0]
        return (_SPLITS.index(split) if split in _SPLITS else len(_SPLITS), name)

    return sorted(losses, key=order)


_CAPTIONS = {
    accuracy_curves: "{primary} during training. Line: median over the seeds; band: quartiles.",
    paired_dots: "{primary} at equal steps. One thin line a seed; thick bars: medians.",
    loss_curves: "Losses during training. Line: median over the seeds; band: quartiles.",
    distance_curves: "Scale-free replica distances during training; band: 95 % interval over replicas. "
    "A smaller distance = symmetry more broken.",
}
"""Captions by the function that draws, in reading order."""


def _drawable(results: Results, draw: Callable[[Results], "Figure"]) -> bool:
    if draw is paired_dots:
        return any(_pair(results, arm) is not None for arm in results.arms if arm != results.reference)
    if draw is distance_curves:
        return bool(distance_kinds(results))
    return _has_curve(results, [results.primary] if draw is accuracy_curves else loss_names(results))


def _has_curve(results: Results, names: list[str]) -> bool:
    """Whether a metric is finite at two steps or more of some arm: a single point is no curve."""
    return any(
        sum(bool(np.isfinite(report.values[name]).any()) for report in reports if name in report.values) > 1
        for reports in results.reports.values()
        for name in names
    )


def _any_finite(results: Results, names: list[str]) -> bool:
    reports = [report for by_arm in results.reports.values() for report in by_arm]
    return any(np.isfinite(report.values[name]).any() for report in reports for name in names if name in report.values)


def _require(results: Results, names: list[str]) -> None:
    if not _any_finite(results, names):
        raise ValueError(f"no report has a finite value of {names or 'any loss'}; nothing to draw")


def _pair(results: Results, arm: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Values of the seeds that both arms finished, in the unit of the figures."""
    pairing = statistics.pair_reports(results, arm, at="equal_steps")
    if pairing.reason is not None:
        return None
    a, b = pairing.reference.values[results.primary], pairing.arm.values[results.primary]
    both = np.isfinite(a) & np.isfinite(b)
    scale = _scale(results.primary)
    return (scale * a[both], scale * b[both]) if both.any() else None


def _curves(results: Results, names: list[str], *, logarithmic: bool) -> "Figure":
    with styled():
        figure = new_figure((_PANEL[0] * (0.25 + 0.75 * len(names)), _PANEL[1]))
        # Kinds of distance have different ranges; losses are compared between splits.
        share = not names[0].startswith("replica_distance/")
        panels = figure.subplots(1, len(names), sharey=share, squeeze=False)[0]
        in_epochs = all(report.epoch is not None for reports in results.reports.values() for report in reports)
        for panel, name in zip(panels, names):
            for arm in results.arms:
                curve(panel, results, arm, name, in_epochs=in_epochs)
            panel.set_xlabel("epoch" if in_epochs else "step")
            panel.set_ylabel(_label(name))
        heights = np.concatenate([np.asarray(line.get_ydata()) for panel in panels for line in panel.lines])
        if logarithmic and spans_a_decade(heights):
            panels[0].set_yscale("log")
        elif results.primary in names:
            _leave_out_the_start(panels[names.index(results.primary)])
        legend(figure, panels)
    return figure


def spans_a_decade(values: np.ndarray) -> bool:
    """Whether all values are positive and the largest is ten times the smallest."""
    return bool(values.min() > 0 and values.max() >= 10 * values.min())


def legend(figure: "Figure", panels: Iterable["Axes"]) -> None:
    """One legend above all panels, an entry a label, in as many rows as the width needs."""
    handles = {line.get_label(): line for panel in panels for line in panel.lines}
    # An entry takes 0.65 inches and 0.07 a letter; matplotlib would let a row run over the edge.
    widths = [0.65 + 0.07 * len(arm) for arm in handles]
    width = figure.get_figwidth()
    columns = len(handles) if sum(widths) <= width else max(1, int(width / max(widths)))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=columns)


def curve(panel: "Axes", results: Results, arm: str, name: str, *, in_epochs: bool) -> None:
    """A line of medians and a band of quartiles over the replicas of an arm; nothing where there is no number."""
    points = [(report, middle) for report in results.reports[arm] if (middle := _point(report, name)) is not None]
    if not points:
        return
    x = [report.epoch if in_epochs else report.step for report, _ in points]
    median, q1, q3 = (_scale(name) * np.array([middle[i] for _, middle in points]) for i in range(3))
    colour = arm_colour(results, arm)
    dash = DASHES[results.arms.index(arm) % len(DASHES)]
    # Marks where they still can be told apart; a single report would not be seen without.
    panel.plot(x, median, dash, color=colour, label=arm, marker="o" if len(x) <= 12 else None)
    panel.fill_between(x, q1, q3, color=colour, alpha=0.2, linewidth=0)


def _point(report: Report, name: str) -> tuple[float, float, float] | None:
    """Height of a curve and the ends of its band: median and quartiles over replicas, or a measure and its interval."""
    if name in report.values:
        described = statistics.describe(report.values[name])
        return (described.median, described.q1, described.q3) if described.n else None
    measure = report.measures.get(name)
    if measure is None or measure["value"] is None:
        return None
    return tuple(measure["value"] if measure[end] is None else measure[end] for end in ("value", "low", "high"))


def _leave_out_the_start(panel: "Axes") -> None:
    """The untrained networks at step 0 run out of the picture: arms differ by less than the first epoch gains. What
    comes later is whole, bands too."""
    shown = [np.transpose(line.get_data()) for line in panel.lines]
    shown += [path.vertices for band in panel.collections for path in band.get_paths()]
    later = [y for x, y in np.concatenate(shown) if x > 0] if shown else []
    if later and (margin := 0.08 * (max(later) - min(later))) > 0:
        panel.set_ylim(min(later) - margin, max(later) + margin)


def arm_colour(results: Results, arm: str) -> str:
    """The colour of an arm, the same in all figures of a run."""
    return COLOURS[results.arms.index(arm) % len(COLOURS)]


def _scale(metric: str) -> float:
    return 100.0 if tables.in_percent(metric) else 1.0


def _label(metric: str) -> str:
    name = metric.replace("/", " ").replace("_", " ")
    return f"{name} (%)" if tables.in_percent(metric) else name


def new_figure(size: tuple[float, float]) -> "Figure":
    """An empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's own defaults and ours, whatever the user's matplotlibrc says."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield
