"""One self-contained HTML file of a run: what was found, in words, tables and figures.

What is said here is true of runs of any kind. What only one kind has comes as sections from its experiment.
"""

import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sbjax.files import plain, write_atomically
from sbjax.report import corrected, fields, figures, markup, roles, statistics, tables
from sbjax.report import results as results_lib
from sbjax.report.against import differences
from sbjax.report.sections import Code, Folded, Note, Section, Table, Text
from sbjax.report.whole import said_of_changes, told_of_changes

Sections = Callable[[results_lib.Results, Path], Sequence[Section]]
"""What an experiment adds to the page: (results, folder of the run) -> sections; it writes its figures there."""

_DISTANCE_NOTE = (
    "Mean over the pairs of replicas [95 % interval], as measured last. A smaller distance = symmetry more broken; "
    "compare at similar accuracy. Null: independent normal draws of the same shapes and scales; excess: distance minus "
    "null."
)
_READINGS = ("", "_null", "_excess")
_FLOPS_NOTE = (
    "Each arm is read at its last report within the budget, the smaller of the two totals. An arm cut short "
    "there on a decaying learning rate has not seen the end of its schedule and is at a disadvantage."
)
_UNCOUNTED_NOTE = (
    "No reading at equal FLOPs: a step of an optimiser here costs more than one loss and gradient (a line search, a "
    "Jacobian), and how much more is not counted. FLOPs are those of one loss and gradient."
)


def build_report(workdir: str | os.PathLike, *, sections: Sections | None = None) -> Path:
    """Makes `results.csv`, `summary.json`, `figures/*.png` and `report.html` from what a run left in `workdir`.

    `report.html` needs no other file, no network and no script. The same input gives the same bytes.

    Args:
        workdir: the folder of the run.
        sections: of the experiment; None = those of any run alone.

    Returns:
        The path of `report.html`.

    Raises:
        FileNotFoundError, ValueError: as `results.load_results`, and what `sections` raises.
    """
    workdir = Path(workdir)
    results = results_lib.load_results(workdir)
    with told_of_changes(workdir, results.changed):
        return _build(workdir, results, sections)


def _build(workdir: Path, results: results_lib.Results, sections: Sections | None) -> Path:
    summary = statistics.summarise(results)
    results_lib.save_table(workdir, results)
    results_lib.save_summary(workdir, summary)
    shown = results._replace(arms=roles.shown(results))
    drawn = [*figures.draw_all(shown, workdir), *fields.draw_terms(shown, workdir)]
    own = sections(results, workdir) if sections else ()
    others = [arm for arm in results.arms if arm != results.reference]
    named = ", ".join(others) if len(others) <= 5 else f"{len(others)} arms"
    title = f"{named} against {results.reference}" if others else results.reference
    warned = [Text(f"{said_of_changes(results.changed)}.")] if results.changed else []
    body = [
        Section("Not whole", warned),
        _findings(summary, shown.arms),
        *(_comparisons(summary, at) for at in _where(summary)),
        _arms(summary, results),
        _distances(summary),
        *own,
        _failures(results),
        Section("Figures", drawn),
        _reproduction(results),
    ]
    page = markup.page(title, f"{title}: {results.primary}", [section for section in body if section.parts])
    write_atomically(workdir / "report.html", page)
    return workdir / "report.html"


def sentence(summary: Mapping[str, Any], entry: Mapping[str, Any], *, at: str) -> str:
    """One comparison in plain words, the same for good and bad news.

    Args:
        summary: what `statistics.summarise` returns.
        entry: one of `summary['comparisons'][at]`.
        at: 'equal_steps' or 'equal_flops'.
    """
    metric = summary["primary"]["name"]
    start = f"{entry['arm']} minus {entry['reference']}, {metric} {tables.WHERE[at]}: "
    comparison = entry["comparison"]
    if comparison is None:
        return f"{start}not compared, since {entry['reason']}."
    left_out = comparison["left_out"]
    stopped = f" {_seeds(left_out)} left out, stopped in one of the two arms or both." if left_out else ""
    if not comparison["n"]:
        return f"{start}no seed was finished by both arms.{stopped}"
    points = " points" if tables.in_percent(metric) else ""
    tied = f" ({comparison['tied']} tied)" if comparison["tied"] else ""
    among = (
        f" (among {comparison['comparisons']} comparisons: {comparison['verdict_corrected']})"
        if comparison.get("comparisons", 1) > 1 and comparison["verdict_corrected"] != comparison["verdict"]
        else ""
    )
    return (
        f"{start}median {tables.difference(metric, comparison['difference'])}{points}, "
        f"{100 * summary['confidence']:g} % interval {tables.interval(metric, comparison)}, "
        f"{comparison['improved']} of {_seeds(comparison['n'])} improved{tied}, "
        f"Wilcoxon p = {tables.p_value(comparison['p_value'])}: {comparison['verdict']}{among}.{stopped}"
    )


def _where(summary: Mapping[str, Any]) -> list[str]:
    """Kinds of comparison that mean something: equal FLOPs do not where none are counted."""
    return [at for at in tables.WHERE if at != "equal_flops" or _counted(summary)]


def _counted(summary: Mapping[str, Any]) -> bool:
    """Whether FLOPs were counted along training. Line searches and Jacobians are not, see `Optimizer.one_gradient`."""
    return any(arm["last"] and arm["last"]["flops"] for arm in summary["arms"].values())


def _findings(summary: Mapping[str, Any], shown: Sequence[str]) -> Section:
    """A sentence for each comparison of the arms in `shown`."""
    every = [(at, entry) for at in _where(summary) for entry in summary["comparisons"][at]]
    entries = [(at, entry) for at, entry in every if entry["arm"] in shown]
    better = "higher" if summary["primary"]["goal"] == "max" else "lower"
    explanation = (
        f"Medians of differences paired by seed; {better} is better. 'Better' and 'worse' are said only where "
        "the bootstrap interval excludes zero; 'no difference shown' is no proof that there is none."
    )
    sentences = [Text(sentence(summary, entry, at=at)) for at, entry in entries]
    if len(entries) < len(every):
        explanation += f" {len(every) - len(entries)} further comparisons are in the tables below."
    return Section("Result", [*(sentences or [Text("One arm alone: nothing to compare.")]), Note(explanation)])


def _comparisons(summary: Mapping[str, Any], at: str) -> Section:
    metric, confidence = summary["primary"]["name"], 100 * summary["confidence"]
    unit = " (points)" if tables.in_percent(metric) else ""
    headers = ["arm", "reference", "median", "reference median", f"paired difference{unit}"]
    headers += [f"{confidence:g} % interval", "Wilcoxon p", "improved", "left out", "verdict", "corrected", "step"]
    headers += ["FLOPs"]
    rows = []
    for entry in summary["comparisons"][at]:
        sides, comparison = (entry["arm"], entry["reference"]), entry["comparison"]
        if comparison is None:
            rows.append([*sides, *[tables.NONE] * 7, f"not compared: {entry['reason']}", *[tables.NONE] * 3])
            continue
        read = [entry["read"][side] for side in sides]
        rows.append(
            [
                *sides,
                *tables.comparison_cells(metric, comparison),
                _both([tables.count(report["step"]) for report in read]),
                _both([tables.flops(report["flops"]) for report in read]),
            ]
        )
    notes = [
        corrected.note([entry["comparison"] for entry in summary["comparisons"][at]]),
        "Step and training FLOPs of one replica at which the two were read: arm / reference.",
    ]
    if at == "equal_flops":
        budgets = [
            f"{entry['arm']} {tables.flops(entry['budget'])}"
            for entry in summary["comparisons"][at]
            if entry["budget"] is not None
        ]
        notes.append(f"{_FLOPS_NOTE} Budgets: {'; '.join(budgets) or 'none'}.")
    return Section(f"{metric} {tables.WHERE[at]}", [Table(headers, rows, notes=notes)] if rows else [])


def _arms(summary: Mapping[str, Any], results: results_lib.Results) -> Section:
    arms = summary["arms"].values()
    uncounted = any(arm["flops_per_step"] for arm in arms) and not _counted(summary)
    rows = [
        ["trained parameters", *(tables.count(arm["parameters"]) for arm in arms)],
        [
            "FLOPs of a gradient" if uncounted else "FLOPs per step",
            *(tables.flops(arm["flops_per_step"]) for arm in arms),
        ],
        ["steps", *(tables.count(arm["steps"]) for arm in arms)],
        ["seeds finished", *(f"{summary['replicas'] - arm['stopped']} of {summary['replicas']}" for arm in arms)],
        ["last report at step", *(tables.count(arm["last"] and arm["last"]["step"]) for arm in arms)],
    ]
    if any(roles.is_control(results, arm) for arm in results.arms):
        rows.insert(0, ["role", *(results.roles[arm] for arm in summary["arms"])])
    for name in sorted({name for arm in arms for name in arm["last_metrics"]}):
        rows.append([name, *(tables.spread(name, arm["last_metrics"].get(name)) for arm in arms)])
    measures = sorted({name for arm in arms for name in arm["metrics"] if not name.startswith("replica_distance/")})
    for name in measures:
        rows.append([name, *(tables.measure(arm["metrics"].get(name)) for arm in arms)])
    notes = ["Metrics of the last report: median [quartiles] over the seeds that finished."]
    if uncounted:
        notes.append(_UNCOUNTED_NOTE)
    return Section("Arms", [Table(["", *summary["arms"]], rows, notes=notes)])


def _distances(summary: Mapping[str, Any]) -> Section:
    """The replica distances measured last, a row an arm, one table a kind."""
    arms, primary = summary["arms"], summary["primary"]["name"]
    parts = []
    for kind in sorted({kind for arm in arms.values() for kind in tables.kinds(arm["metrics"])}):
        names = [f"replica_distance/{kind}{form}{suffix}" for form in ("", "_scale_free") for suffix in _READINGS]
        shown = [name for name in names if any(name in arm["metrics"] for arm in arms.values())]
        headers = [
            name.removeprefix(f"replica_distance/{kind}").strip("_").replace("_", " ") or "distance" for name in shown
        ]
        rows = [
            [name, tables.spread(primary, arm["last_metrics"].get(primary))]
            + [tables.measure(arm["metrics"].get(number)) for number in shown]
            for name, arm in arms.items()
        ]
        parts.append(Table(["arm", primary, *headers], rows, title=kind.replace("_", " ")))
    few = tables.distances_note(summary["replicas"])
    return Section("Replica distances", [*parts, Note(f"{_DISTANCE_NOTE} {few}".rstrip())] if parts else [])


def _failures(results: results_lib.Results) -> Section:
    columns = ("arm", "replica", "step", "what")
    rows = [[str(failure.get(column, tables.NONE)) for column in columns] for failure in results.failures]
    return Section("Replicas that stopped", [Table(columns, rows)] if rows else [])


def _reproduction(results: results_lib.Results) -> Section:
    if results.config_file:
        overrides = [text if text.startswith("-") else f"--config.{text}" for text in results.overrides]
        words = ["python", "runs/train.py", f"--config={results.config_file}", *overrides]
        parts = [Code(shlex.join(words) + " --workdir=WORKDIR")]
    else:
        parts = [Text("Train with the resolved config below on the environment below.")]
    if results.extended:
        parts.append(
            Text(
                f"After it had finished, the run was extended by {results.extended} steps: the same command once more "
                f"with --extend={results.extended}."
            )
        )
    for number, other in enumerate(results.continued, start=2):
        said = "; ".join(f"{name}: {old} -> {new}" for name, old, new in differences(results.environment, other))
        parts.append(
            Text(f"Not all of it was computed in one environment. Part {number} differs from the first: {said}.")
        )
    trees = {"Environment": results.environment, "Resolved config": results.config}
    trees |= {f"Environment of part {number}": other for number, other in enumerate(results.continued, start=2)}
    for title, tree in trees.items():
        text = json.dumps(plain(tree), indent=2, sort_keys=True, ensure_ascii=False)
        parts.append(Folded(title, [Code(text)]))
    return Section("How to reproduce", parts)


def _both(cells: Sequence[str]) -> str:
    """One cell for two sides, the reference second, said once where they agree."""
    return cells[0] if cells[0] == cells[1] else f"{cells[0]} / {cells[1]}"


def _seeds(n: int) -> str:
    return f"{n} seed" if n == 1 else f"{n} seeds"
