"""One report of several runs with the same arms: does what holds in one equation hold in most of them?"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sbjax.experiments.pinn import suite_figures
from sbjax.experiments.pinn.suite_members import load_classical, panels
from sbjax.experiments.pinn.suite_page import headline, ratio, ratio_interval, share_rows, suite_sections, title_of
from sbjax.experiments.pinn.suite_statistics import LOSS, summarise_suite
from sbjax.report import figures, tables
from sbjax.report import results as results_lib
from sbjax.report.sections import Figure
from sbjax.report.suite import Member, SuiteReport, load_members, save_members_table, save_page

_VERDICTS = {"better": "better", "worse": "worse", "no difference shown": "none"}


def suite_report(folder: str | os.PathLike, names: Sequence[str]) -> SuiteReport:
    """Makes `results.csv`, `summary.json`, `figures/*.png` and `report.html` of a suite from its runs `folder/<name>`.

    `report.html` needs no other file, no network and no script, and links to the runs' own reports. The same input
    gives the same bytes. A run that cannot be read, lacks an arm or has diverged is shown as such. Seconds of a
    classical solver are read from `folder/classical.json` if there is one, see `load_classical`.

    Args:
        folder: the folder of the suite.
        names: of its runs, in the order in which they are shown.

    Raises:
        ValueError: no name, or a `classical.json` that cannot be used.
    """
    folder = Path(folder)
    members = load_members(folder, names)
    summary = summarise_suite(members, classical=load_classical(folder))
    save_members_table(folder, members, what="equation")
    results_lib.save_summary(folder, summary)
    path = save_page(
        folder,
        title=title_of(summary),
        heading=f"{title_of(summary)}: {len(members)} equations",
        sections=suite_sections(summary, _draw(folder, members, summary)),
        members=members,
    )
    return SuiteReport(format_suite_table(summary), path, summary)


def _draw(folder: Path, members: list[Member], summary: Mapping[str, Any]) -> list[Figure]:
    """Split violins: the reference and the first other arm."""
    drawn = []
    if not summary["pairs"]:
        return drawn
    arm, reference = summary["pairs"][0]
    for metric in summary["readings"]:
        values = suite_figures.final_values(members, metric, normalise=metric == LOSS).values()
        if not any((by_arm[side] > 0).any() for by_arm in values for side in (arm, reference) if side in by_arm):
            continue
        figure = suite_figures.violins(
            members, panels(members), metric, sides=(reference, arm), normalise=metric == LOSS
        )
        what = f"Final {metric}" + (
            ", divided by the largest over the arms and seeds of each equation" if metric == LOSS else ""
        )
        caption = f"{what}: {reference} to the left, {arm} to the right. A point a seed; bars: medians."
        drawn.append(figures.picture(folder, f"violins_{metric.replace('/', '_')}", figure, caption))
    return drawn


def format_suite_table(summary: Mapping[str, Any]) -> str:
    """A line an equation for a terminal, then the shares that improve; at most `tables.WIDTH` columns.

    Medians of the primary metric by arm; the log10 ratio of the first other arm to the reference with its interval,
    seeds improved, and the verdict. Arms, the last ones first, give way to the
    width.
    """
    if summary["primary"] is None:
        lines = [f"{name}: {member['problem']}" for name, member in summary["members"].items()]
        return "\n".join(line for text in lines for line in tables.wrap(text))
    metric, arms = summary["primary"]["name"], list(summary["arms"])
    rows = _rows(summary, metric, arms)
    while len(arms) > 2 and len(tables.columns(rows)) > len(rows):
        arms.pop()
        rows = _rows(summary, metric, arms)
    lines = tables.columns(rows)
    lines += tables.wrap(
        f"final {metric}: medians over seeds; ratio: median of log10 [{100 * summary['confidence']:g} % interval]; "
        "verdict none: no difference shown"
    )
    if summary["pairs"]:
        shares = [[*row[:-1], _VERDICTS.get(row[-1], row[-1].split(" for")[0])] for row in share_rows(summary)]
        lines += ["", *tables.columns(shares), "", *tables.wrap(headline(summary))]
        published = summary["published"]
        lines += tables.wrap(f"published ({published['source']}): '{published['statement']}' of the equations improve")
    return "\n".join(lines)


def _rows(summary: Mapping[str, Any], metric: str, arms: list[str]) -> list[list[str]]:
    compared = f"{summary['pairs'][0][0]} / {summary['reference']}" if summary["pairs"] else tables.NONE
    rows = [["equation", *arms, compared, "improved", "verdict"]]
    for name, member in summary["members"].items():
        cells = []
        for arm in arms:
            found = member["arms"].get(arm, {})
            median = (found.get(metric) or {}).get("median")
            gone = "stopped" if found.get("stopped") else tables.NONE
            cells.append(gone if median is None else f"{median:.2g}")
        row = member["comparisons"][metric][0] if summary["pairs"] else None
        if row is None or row["reason"] is not None:
            why = tables.NONE if row is None else "stopped" if row["n"] == 0 else "missing"
            rows.append([name, *cells, tables.NONE, tables.NONE, why])
            continue
        change = f"{ratio(row['log_ratio'])} {ratio_interval(row)}"
        improved = f"{row['improved']}/{row['n']}"
        rows.append([name, *cells, change, improved, _VERDICTS.get(row["verdict"], "too few")])
    return rows
