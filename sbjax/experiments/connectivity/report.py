"""The part of a report about straight lines between networks: tables and figures of `interpolation/<arm>.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbjax.common.files import read_json
from sbjax.experiments.connectivity import figures as drawing
from sbjax.experiments.connectivity import neurons_report
from sbjax.metrics import shares
from sbjax.metrics.connectivity import Barrier
from sbjax.report import tables
from sbjax.report.figures import picture
from sbjax.report.results import Results
from sbjax.report.sections import Note, Part, Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BARRIER_NOTE = (
    "Barrier: the number in the middle of the line minus the mean of its ends, of held-out examples; for an accuracy, "
    "the drop. Beside it loss and accuracy at the ends: networks that learned nothing have no barrier. '_rebased': "
    "the second network's units in the order of the first's."
)
_MONOTONE_NOTE = (
    "Training loss (with its label smoothing) of fixed examples on the line from start to end. Delta: largest rise "
    "between two points; monotonic: delta <= 0, with a 95 % interval; local convexity: share of points with a positive "
    "second difference; global: share on or below the chord; authors' chord: the line with the slope of the first step "
    "instead, as in the program published with arXiv 2405.20231; which of the two its table has is not known."
)
CAPTIONS = {
    "line_curves": "Held-out numbers on the line between two replicas. Line: median over pairs; band: quartiles.",
    "start_curves": "Training loss on the line from a replica's start to its end. Line: median over replicas; band: "
    "quartiles.",
    "replica_maps": "Root mean square distance of weights between replicas, as they are (D0) and matched (D3).",
    "matching_objectives": "Cosine between the kernels of two replicas, as they are, matched, and in random orders.",
}

_SHAPES = {
    "delta": "delta",
    "local_convexity": "local convexity",
    "global_convexity": "global convexity",
    "authors_global_convexity": "authors' chord",
}


def report(results: Results, workdir: Path) -> list[Section]:
    """Barriers between replicas and lines from start to end with their figures; nothing where none was measured."""
    found, known = load_lines(workdir, results.arms), published(results.config)
    drawn = {name: picture(workdir, name, figure, CAPTIONS[name]) for name, figure in draw(found).items()}

    def pictures(*names):
        return [drawn[name] for name in names if name in drawn]

    sections = [
        Section("Barriers between replicas", [*_barriers(found, known), *pictures("line_curves")]),
        Section("From start to end", [*_monotonicity(found, known), *pictures("start_curves")]),
        Section("Replicas and their permutations", pictures("replica_maps", "matching_objectives")),
        *neurons_report.section(found, workdir),
    ]
    return [section for section in sections if section.parts]


def load_lines(workdir: Path, arms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `sbjax.experiments.connectivity.run.measure_lines` found, by arm; arms without it are left out."""
    paths = {arm: workdir / "interpolation" / f"{arm}.json" for arm in arms}
    form = {"pairs?": {"curves": dict, "summary": dict}, "start?": dict}
    return {arm: read_json(path, form) for arm, path in paths.items() if path.exists()}


def published(config: Mapping[str, Any]) -> dict[str, Any]:
    """Published numbers that a config brings along in `interpolation.published`.

    By row, (mean, standard deviation) of the barrier of 'test/loss'; by 'arm/networks' their number, by 'arm/monotonic'
    the share, by 'arm/delta' and the like (mean, standard deviation).
    """
    return config.get("interpolation", {}).get("published", {})


def _barriers(found: Mapping[str, Mapping[str, Any]], published: Mapping[str, Any]) -> list[Part]:
    rows = pairs_of(found)
    parts: list[Part] = []
    known = _of_barriers(published)
    for name in sorted({name for row in rows.values() for name in row["curves"] if name.startswith("test/")}):
        header, *body = drawing.barrier_rows(
            {arm: _numbers(row["summary"]) for arm, row in rows.items()},
            known if name == "test/loss" else {},
            name=name,
        )
        parts.append(Table(header, body, title=name))
    return [*parts, Note(" ".join(filter(None, [_BARRIER_NOTE, without_pairs(found)])))] if rows else []


def _monotonicity(found: Mapping[str, Mapping[str, Any]], published: Mapping[str, Any]) -> list[Part]:
    starts = {arm: lines["start"] for arm, lines in found.items() if "start" in lines}
    if not starts:
        return []
    header, *body = monotonicity_rows(starts, published)
    return [Table(header, body, notes=[_MONOTONE_NOTE])]


def format_lines(found: Mapping[str, Mapping[str, Any]], published: Mapping[str, Any]) -> str:
    """The same tables as text for a terminal; '' where nothing was measured."""
    blocks = []
    if rows := pairs_of(found):
        known = _of_barriers(published)
        summaries = {arm: _numbers(row["summary"]) for arm, row in rows.items()}
        blocks.append([*tables.columns(drawing.barrier_rows(summaries, known)), *tables.wrap(without_pairs(found))])
    if starts := {arm: lines["start"] for arm, lines in found.items() if "start" in lines}:
        blocks.append(tables.columns(monotonicity_rows(starts, published)))
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
        figures["replica_maps"] = drawing.replica_maps(
            {arm: {kind.upper(): lines[kind] for kind in ("d0", "d3")} for arm, lines in aligned.items()}
        )
        figures["matching_objectives"] = drawing.matching_objectives(
            {
                arm: {name: _objective(orders) for name, orders in lines["cosines"].items()}
                for arm, lines in aligned.items()
            },
            what="cosine",
        )
    return figures


def pairs_of(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Barriers by row: each arm, and after it the same re-based."""
    rows = {}
    for arm, lines in found.items():
        for kind, suffix in (("pairs", ""), ("rebased", drawing.REBASED)):
            if kind in lines:
                rows[arm + suffix] = lines[kind]
    return rows


def without_pairs(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The arms that have no barrier beside others that have, in a sentence; '' where there is none.

    >>> without_pairs({'raw': {'pairs': {}}, 'wide': {}})
    'No barrier in wide: it takes two replicas that finished.'
    """
    lost = [arm for arm, lines in found.items() if "pairs" not in lines]
    return f"No barrier in {', '.join(lost)}: it takes two replicas that finished." if lost else ""


def monotonicity_rows(starts: Mapping[str, Mapping[str, Any]], published: Mapping[str, Any]) -> list[list[str]]:
    """[arm, networks, share monotonic with its 95 % interval, mean and deviation of the other numbers], and after an
    arm the same as published where it is; the first row is the header.

    Args:
        starts: what `sbjax.experiments.connectivity.run.measure_lines` found from start to end, by arm.
        published: as `published` returns.

    >>> shapes = {'delta': [-0.1, 0.2], 'monotonic': [True, False]} | dict.fromkeys(list(_SHAPES)[1:], [1.0, 0.5])
    >>> known = {'raw/networks': 300, 'raw/monotonic': 0.263, 'raw/delta': (0.079, 0.109)}
    >>> for row in monotonicity_rows({'raw': {'monotonicity': shapes}}, known):
    ...     print(' | '.join(row[:4]))
    arm | networks | monotonic | delta
    raw | 2 | 50 % [9, 91] | 0.050 +- 0.212
    raw, published | 300 | 26.3 % | 0.079 +- 0.109
    """
    rows = [["arm", "networks", "monotonic", *_SHAPES.values()]]
    for arm, line in starts.items():
        shape = {name: np.array(values, float) for name, values in line["monotonicity"].items()}
        kept = np.isfinite(shape["delta"])
        n = int(kept.sum())
        if n:
            share, low, high = (100 * x for x in shares.share(shape["monotonic"][kept]))
            numbers = ((shape[c][kept].mean(), shape[c][kept].std(ddof=min(n - 1, 1))) for c in _SHAPES)
            monotonic = f"{share:.0f} % [{low:.0f}, {high:.0f}]"
            rows.append([arm, str(n), monotonic, *map(_mean, numbers)])
        else:
            rows.append([arm, "0", *[tables.NONE] * 5])
        prefix = f"{arm}/"
        if known := {name.removeprefix(prefix): x for name, x in published.items() if name.startswith(prefix)}:
            monotonic = f"{100 * known['monotonic']:.1f} %" if "monotonic" in known else tables.NONE
            networks = str(known.get("networks", tables.NONE))
            rows.append([f"{arm}, published", networks, monotonic, *(_mean(known.get(c)) for c in _SHAPES)])
    return rows


def _mean(numbers: Sequence[float] | None) -> str:
    return tables.NONE if numbers is None else "{:.3f} +- {:.3f}".format(*numbers)


def _of_barriers(published: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    return {row: tuple(numbers) for row, numbers in published.items() if "/" not in row}


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
