"""The part of a report that is about straight lines between networks: `lines/<arm>.json` as tables and figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbjax.files import write_atomically
from sbjax.metrics.connectivity import Barrier
from sbjax.report import connectivity_figures as drawing
from sbjax.report import markup, tables
from sbjax.report.figures import to_png
from sbjax.report.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REBASED = "_rebased"
_BARRIER_NOTE = (
    "Barrier: the number in the middle of the line minus the mean of its ends, of held-out examples; for an accuracy, "
    "the drop. Beside it the number at the ends: networks that learned nothing have no barrier. '_rebased': the second "
    "network's units in the order of the first's."
)
_MONOTONE_NOTE = (
    "Training loss (with its label smoothing) of fixed examples on the line from start to end. Delta: largest rise "
    "between two points; monotonic: delta <= 0, with a 95 % interval; local convexity: share of points with a positive "
    "second difference; global: share on or below the chord; authors' chord: the line with the slope of the first step "
    "instead, as in the program published with arXiv 2405.20231."
)
CAPTIONS = {
    "line_curves": "Held-out numbers on the line between two replicas. Line: median over pairs; band: quartiles.",
    "start_curves": "Training loss on the line from a replica's start to its end. Line: median over replicas; band: "
    "quartiles.",
    "replica_maps": "Root mean square distance of weights between replicas, as they are (D0) and matched (D3).",
    "matching_objectives": "Cosine between the kernels of two replicas, as they are, matched, and in random orders.",
}


def save_figures(results: Results, workdir: Path) -> dict[str, Path]:
    """Draw and write `figures/<name>.png`; paths by name."""
    paths = {}
    for name, figure in draw(load_lines(workdir, results.arms)).items():
        (workdir / "figures").mkdir(exist_ok=True)
        paths[name] = workdir / "figures" / f"{name}.png"
        write_atomically(paths[name], to_png(figure))
    return paths


def load_lines(workdir: Path, arms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `sbjax.lines.measure_lines` found, by arm; arms without it are left out."""
    paths = {arm: workdir / "lines" / f"{arm}.json" for arm in arms}
    return {arm: json.loads(path.read_text()) for arm, path in paths.items() if path.exists()}


def published(config: Mapping[str, Any]) -> dict[str, Sequence[float]]:
    """Published barriers that a config brings along in `lines.published`."""
    return config.get("lines", {}).get("published", {})


def section(found: Mapping[str, Mapping[str, Any]], published: Mapping[str, Sequence[float]]) -> list[str]:
    """Pieces of HTML: barriers, monotonicity; [] where nothing was measured.

    Args:
        found: by arm.
        published: (mean, standard deviation) of the barrier of 'test/loss' by row.
    """
    parts = []
    rows = pairs_of(found)
    if rows:
        parts.append(markup.tag("h2", "Barriers between replicas"))
        known = {arm: tuple(numbers) for arm, numbers in published.items()}
        for name in sorted({name for row in rows.values() for name in row["curves"] if name.startswith("test/")}):
            header, *body = drawing.barrier_rows(
                {arm: _numbers(row["summary"]) for arm, row in rows.items()},
                known if name == "test/loss" else {},
                name=name,
            )
            parts += [markup.tag("h3", name), markup.table(header, body)]
        parts.append(markup.note(_BARRIER_NOTE))
    starts = {arm: lines["start"] for arm, lines in found.items() if "start" in lines}
    if starts:
        header, *body = monotonicity_rows(starts)
        parts += [markup.tag("h2", "From start to end"), markup.table(header, body), markup.note(_MONOTONE_NOTE)]
    return parts


def format_lines(found: Mapping[str, Mapping[str, Any]], published: Mapping[str, Sequence[float]]) -> str:
    """The same tables as text for a terminal; '' where nothing was measured."""
    blocks = []
    if rows := pairs_of(found):
        known = {arm: tuple(numbers) for arm, numbers in published.items()}
        summaries = {arm: _numbers(row["summary"]) for arm, row in rows.items()}
        blocks.append(tables.columns(drawing.barrier_rows(summaries, known)))
    if starts := {arm: lines["start"] for arm, lines in found.items() if "start" in lines}:
        blocks.append(tables.columns(monotonicity_rows(starts)))
    return "\n\n".join("\n".join(block) for block in blocks)


def draw(found: Mapping[str, Mapping[str, Any]]) -> dict[str, "Figure"]:
    """Figures by name, as in `CAPTIONS`."""
    figures = {}
    if rows := pairs_of(found):
        held_out = {arm: _barrier(row) for arm, row in rows.items()}
        if drawable := {arm: row for arm, row in held_out.items() if _finite(row.curves["test/loss"])}:
            figures["line_curves"] = drawing.interpolation_curves(drawable, ("test/loss", "test/accuracy"))
    starts = {arm: _barrier(lines["start"]) for arm, lines in found.items() if "start" in lines}
    if starts := {arm: row for arm, row in starts.items() if _finite(row.curves["train/loss"])}:
        figures["start_curves"] = drawing.interpolation_curves(starts, ("train/loss",))
    aligned = {arm: lines["alignment"] for arm, lines in found.items() if lines.get("alignment", {}).get("cosines")}
    if aligned:
        # Arms differ in the scale of their weights: a map for each of the first ones.
        matrices = {f"{arm}: {kind.upper()}": lines[kind] for arm, lines in aligned.items() for kind in ("d0", "d3")}
        shape = np.shape(next(iter(matrices.values())))
        alike = {name: matrix for name, matrix in matrices.items() if np.shape(matrix) == shape}
        figures["replica_maps"] = drawing.replica_maps(dict(list(alike.items())[:6]))
        figures["matching_objectives"] = drawing.matching_objectives(
            {
                arm: {name: _objective(orders) for name, orders in lines["cosines"].items()}
                for arm, lines in aligned.items()
            }
        )
    return figures


def pairs_of(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Barriers by row: each arm, and after it the same re-based."""
    rows = {}
    for arm, lines in found.items():
        for kind, suffix in (("pairs", ""), ("rebased", REBASED)):
            if kind in lines:
                rows[arm + suffix] = lines[kind]
    return rows


def monotonicity_rows(starts: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """[arm, networks, share monotonic with its 95 % interval, mean and deviation of the other numbers]."""
    from scipy.stats import binomtest

    columns = {
        "delta": "delta",
        "local_convexity": "local convexity",
        "global_convexity": "global convexity",
        "authors_global_convexity": "authors' chord",
    }
    rows = [["arm", "networks", "monotonic", *columns.values()]]
    for arm, line in starts.items():
        shape = {name: np.array(values, float) for name, values in line["monotonicity"].items()}
        kept = np.isfinite(shape["delta"])
        n, share = int(kept.sum()), int(shape["monotonic"][kept].sum())
        if not n:
            rows.append([arm, "0", *[tables.NONE] * 5])
            continue
        low, high = binomtest(share, n).proportion_ci(method="wilson")
        spread = 1 if n > 1 else 0
        rows.append(
            [
                arm,
                str(n),
                f"{100 * share / n:.0f} % [{100 * low:.0f}, {100 * high:.0f}]",
                *(f"{shape[c][kept].mean():.3f} +- {shape[c][kept].std(ddof=spread):.3f}" for c in columns),
            ]
        )
    return rows


def _numbers(summary):
    return {name: {k: np.nan if x is None else x for k, x in fields.items()} for name, fields in summary.items()}


def _barrier(row) -> Barrier:
    curves = {name: np.array(curve, float) for name, curve in row["curves"].items()}
    return Barrier(np.array(row["alphas"]), curves, {}, np.ones(len(row["pairs"]), bool))


def _finite(curves) -> bool:
    return bool(np.isfinite(curves).all(1).any())


def _objective(orders) -> drawing.Objective:
    return drawing.Objective(
        orders["identity"], orders["optimal"], [x for name, x in orders.items() if name.startswith("random")]
    )
