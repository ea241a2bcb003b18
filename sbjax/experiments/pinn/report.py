"""What the report of a single equation has beside its primary metric: other errors, compared, and time to an error."""

from pathlib import Path

from sbjax.experiments.pinn.suite_html import COMPARED, RATIO_NOTE, comparison_cells, reached
from sbjax.experiments.pinn.suite_members import Member, load_classical, load_seconds, times_to
from sbjax.experiments.pinn.suite_statistics import LOSS, OTHER_ERRORS, compare, pairs_of
from sbjax.report import results as results_lib
from sbjax.report.markup import note, table, tag
from sbjax.report.results import Results


def equation_of(results: Results) -> str | None:
    """The equation that a run is about, as its config names it; None if it is about something else."""
    task = results.config.get("task")
    return task.get("equation") if isinstance(task, dict) and task.get("kind") == "pinn" else None


def section(results: Results, workdir: Path) -> list[str]:
    """Markup: every error and the loss, paired by seed, a row a pair of arms; then seconds to each error, with those of
    a classical solver where `workdir/classical.json` has them. Nothing if the run is about no equation.

    Raises:
        ValueError: a `classical.json` that cannot be used.
    """
    equation = equation_of(results)
    if equation is None:
        return []
    member = Member(equation, "", results, None, load_seconds(workdir))
    classical = (load_classical(workdir) or {}).get(equation)
    times = times_to(member, results.primary, classical)
    entry = results_lib.plain({"times": times, "classical": classical})
    return [*_compared(member), *reached(results.primary, results.arms, {equation: entry})]


def _compared(member: Member) -> list[str]:
    results = member.results
    last = {name for reports in results.reports.values() for report in reports[-1:] for name in report.values}
    rows = []
    for metric in (results.primary, *OTHER_ERRORS, LOSS):
        for arm, reference in pairs_of(results.arms, results.reference) if metric in last else ():
            row = results_lib.plain(compare(member, arm, reference, metric, "min"))
            rows.append([metric, arm, reference, *comparison_cells(row)])
    title = tag("h2", "Errors and loss at the end")
    return [title, table(["final", "arm", "against", *COMPARED], rows), note(RATIO_NOTE)] if rows else []
