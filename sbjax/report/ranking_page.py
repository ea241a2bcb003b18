"""The page of a ranking of designs, in the style of a report."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from sbjax.common.files import write_atomically
from sbjax.report import facts, figures, markup, ranking, tables
from sbjax.report.ranking import Correlation, Ranked
from sbjax.report.results import Results
from sbjax.report.sections import Folded, Lead, Links, Note, Section, Table, Text
from sbjax.report.whole import said_of_changes

_NOTE = (
    "A smaller distance = symmetry more broken; read it beside accuracy. Intervals of 95 % over replicas. Null: "
    "independent normal draws of the same shapes and scales; excess: distance minus null."
)
_CORRELATION_NOTE = (
    "Spearman's rank correlation over designs with {primary} of the full runs [95 % bootstrap interval]; p by "
    "permutation; neither is corrected for the number of rows. Below zero: designs whose replicas lie closer together "
    "end up more accurate."
)
_CAPTION = "{by} distance between replicas, by design; bars: 95 % intervals over replicas; a cross: the null."
_CORRELATION_CAPTION = (
    "{primary} of the full runs against the distance measured early, a numbered point a design; bars: 95 % intervals."
)
MOST_P = 0.05
"""The largest p with which a correlation is said to be shown."""


def save_ranking(
    folder: Path,
    results: Results,
    rows: Sequence[Ranked],
    *,
    by: str,
    found: Sequence[Correlation] | None = None,
    full: Results | None = None,
    kinds: Sequence[str] = (),
) -> tuple[Path, list[Path]]:
    """Writes `ranking.html` and its figures; returns the path of the page and those of the figures.

    Args:
        folder: of the run.
        results: of the run whose arms are the designs.
        rows: the ranking, see `ranking.rank`.
        by: the measure ranked by.
        found, full, kinds: the rank correlations, the full runs they are with, and the kinds of distance drawn;
            without them there is no such section.
    """
    name = by.replace("_", " ")
    drawn = [figures.picture(folder, "ranking", ranking.ranking_figure(rows, by=by), _CAPTION.format(by=name))]
    said = [Lead(ranking_sentence(rows, by=by))]
    if lost := ranking.not_ranked(rows, results.arms):
        said.append(Text(f"{lost[0].upper()}{lost[1:]}."))
    if found is not None and full is not None:
        said.append(Text(correlation_sentence(found, by=by, primary=full.primary)))
        caption = _CORRELATION_CAPTION.format(primary=full.primary)
        figure = ranking.correlation_figure(results, full, kinds)
        drawn.append(figures.picture(folder, "rank_correlation", figure, caption))
    warned = [Text(f"{said_of_changes(results.changed)}.")] if results.changed else []
    headers, cells = ranking.ranking_rows(rows, by=by, primary=results.primary)
    brief = [[row[1], row[2].replace(" [", "\n["), row[-1]] for row in cells]
    shown = Table(["design", f"{name} distance", results.primary], brief, title="Smallest distance first")
    every = Folded("All numbers of the ranking", [Table(["place", *headers[1:]], cells)])
    sections = [
        Section("Not whole", warned),
        Section("", [*said, shown, Note(_NOTE), every]),
        Section("Figures", drawn),
        *([] if found is None or full is None else [_correlations(found, full.primary)]),
        facts.section(results, folder),
        Section("Report of the run", [Links({"arms against the reference, training, settings": "report.html"})]),
    ]
    title = f"{len(rows)} design{'s' * (len(rows) != 1)} by {name} distance"
    page = markup.page(title, title, [section for section in sections if section.parts])
    write_atomically(folder / "ranking.html", page)
    return folder / "ranking.html", [folder / "figures" / f"{figure.name}.png" for figure in drawn]


def ranking_sentence(rows: Sequence[Ranked], *, by: str) -> str:
    """Which design comes first and which last, and how many neighbours are not told apart."""
    name, first, last = by.replace("_", " "), rows[0], rows[-1]
    distances = [tables.measure(row.distance, 3) for row in (first, last)]
    if len(rows) == 1:
        return f"One design alone, {first.arm}: nothing to rank. Its {name} distance is {distances[0]}."
    start = (
        f"Of {len(rows)} designs, {first.arm} has the smallest {name} distance between replicas, {distances[0]}, and "
        f"{last.arm} the largest, {distances[1]}."
    )
    ends = [(row.distance["low"], row.distance["high"]) for row in rows]
    if any(end is None for pair in ends for end in pair):
        return f"{start} Without intervals, which take {ranking.INTERVALS_TAKE}, the order may be chance."
    met = sum(b[0] <= a[1] for a, b in itertools.pairwise(ends))
    return f"{start} Intervals of neighbours overlap in {met} of {len(rows) - 1} places: there the order is not shown."


def correlation_sentence(found: Sequence[Correlation], *, by: str, primary: str) -> str:
    """Whether the distance, where it was measured last, goes with accuracy."""
    name = by.replace("_", " ")
    own = [row for row in found if row.measure == f"replica_distance/{by}"]
    if not own:
        return f"No rank correlation of the {name} distance with {primary}: it was not measured in enough designs."
    row = max(own, key=lambda row: row.step)
    numbers = f"rho {tables.measure(row.rho._asdict(), 2)}, p = {tables.p_value(row.p_value)}, {row.n} designs"
    if not row.p_value <= MOST_P:
        return f"No rank correlation shown between the {name} distance and {primary} of the full runs ({numbers})."
    side = "more" if row.rho.value < 0 else "less"
    return (
        f"Designs whose replicas lie closer together end up {side} accurate in {primary} of the full runs ({numbers})."
    )


def _correlations(found: Sequence[Correlation], primary: str) -> Section:
    headers, rows = ranking.correlation_rows(found)
    return Section(
        "Correlation with the full runs", [Table(headers, rows, notes=[_CORRELATION_NOTE.format(primary=primary)])]
    )
