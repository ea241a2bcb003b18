"""What the report of a single equation has beside its primary metric: other errors, compared, and time to an error."""

from pathlib import Path

from sbjax.common.files import plain
from sbjax.experiments.pinn.suite_members import load_classical, times_to
from sbjax.experiments.pinn.suite_page import COMPARED, RATIO_NOTE, comparison_cells, reached
from sbjax.experiments.pinn.suite_statistics import LOSS, OTHER_ERRORS, compare_all
from sbjax.report import roles
from sbjax.report.fields import draw_solutions
from sbjax.report.results import Results
from sbjax.report.sections import Section, Table
from sbjax.report.suite import Member, load_seconds


def report(results: Results, workdir: Path) -> list[Section]:
    """Every error and the loss, paired by seed, a row a pair of arms; seconds to each error, with those of a classical
    solver where `workdir/classical.json` has them; maps of the solutions.

    Raises:
        ValueError: a `classical.json` or a grid that cannot be used.
    """
    equation = results.config["task"]["equation"]
    member = Member(equation, results, None, load_seconds(workdir))
    classical = (load_classical(workdir) or {}).get(equation)
    entry = plain({"times": times_to(member, results.primary, classical), "classical": classical})
    return [
        _compared(member),
        reached(results.primary, results.arms, {equation: entry}),
        Section("Solutions", draw_solutions(results, workdir)),
    ]


def _compared(member: Member) -> Section:
    results = member.results
    last = {name for reports in results.reports.values() for report in reports[-1:] for name in report.values}
    rows = []
    for metric in (results.primary, *OTHER_ERRORS, LOSS):
        for row in plain(compare_all(member, roles.pairs(results), metric, "min")) if metric in last else ():
            rows.append([metric, row["arm"], row["reference"], *comparison_cells(row)])
    note = f"{RATIO_NOTE} {len(rows)} comparisons."
    table = Table(["final", "arm", "against", *COMPARED], rows, notes=[note])
    return Section("Errors and loss at the end", [table] if rows else [])
