"""One self-contained HTML file of a run: what was found, in words, tables and figures.

What is said here is true of runs of any kind. What only one kind has comes as sections from its experiment.
"""

import json
import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sbjax.common.files import plain, write_atomically
from sbjax.common.power import smallest_shown
from sbjax.report import along, corrected, facts, fields, figures, markup, replicas, roles, statistics, tables, verdict
from sbjax.report import results as results_lib
from sbjax.report.against import differences
from sbjax.report.sections import Code, Folded, Lead, Note, Section, Table, Text, with_note
from sbjax.report.whole import said_of_changes, told_of_changes

Sections = Callable[[results_lib.Results, Path], Sequence[Section]]
"""What an experiment adds to the page: (results, folder of the run) -> sections; it writes its figures there."""

_DISTANCE_NOTE = (
    f"Mean over the pairs of replicas [95 % interval, which takes {replicas.FEWEST_REPLICAS} replicas], measured last. "
    "A smaller distance = symmetry more broken; "
    "compare at similar accuracy. Null: independent normal draws of the same shapes and scales; excess: distance minus "
    "null."
)
_SMALLEST_NOTE = (
    "'Could show': a true difference of this size would have been shown in 80 % of runs with as many seeds and the "
    "same spread of paired differences (half the interval, times 1.43)."
)
_READINGS = ("", "_null", "_excess")
_FLOPS_NOTE = (
    "Each arm is read at its last report within the budget, the smaller of the two totals. An arm cut short "
    "there on a decaying learning rate has not seen the end of its schedule and is at a disadvantage."
)
_UNCOUNTED_NOTE = (
    "No reading at equal FLOPs: a step of an optimiser here costs more than one loss and gradient (a line search, a "
    "Jacobian), or a network has a loop whose length is not known, and how much more is not counted. FLOPs are those "
    "of one loss and gradient."
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
    drawn = [*figures.draw_all(shown, workdir), *fields.draw_terms(shown, workdir), *along.draw(shown, workdir)]
    own = sections(results, workdir) if sections else ()
    others = [arm for arm in results.arms if arm != results.reference]
    named = ", ".join(others) if len(others) <= 5 else f"{len(others)} arms"
    title = f"{named} against {results.reference}" if others else results.reference
    warned = [Text(f"{said_of_changes(results.changed)}.")] if results.changed else []
    body = [
        Section("Not whole", warned),
        _result(results, summary),
        facts.section(results, workdir),
        Section("Figures", drawn),
        *own,
        _details(summary, shown.arms),
        _arms(summary, results),
        _distances(summary),
        along.section(results),
        _failures(results),
        _reproduction(results),
    ]
    body = [*with_note(body, _said(results)), _missing(results)]
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
        f"{comparison['improved']} of {_seeds(comparison['n'])} improved{tied}{tables.of_planned(comparison, ', ')}, "
        f"Wilcoxon p = {tables.p_value(comparison['p_value'])}: {comparison['verdict']}{among}.{stopped}"
    )


def _where(summary: Mapping[str, Any]) -> list[str]:
    """Kinds of comparison that mean something: equal FLOPs do not where none are counted."""
    return [at for at in tables.WHERE if at != "equal_flops" or _counted(summary)]


def _counted(summary: Mapping[str, Any]) -> bool:
    """Whether FLOPs were counted along training. Line searches and Jacobians are not, see `Optimizer.one_gradient`."""
    return any(arm["last"] and arm["last"]["flops"] for arm in summary["arms"].values())


def _result(results: results_lib.Results, summary: Mapping[str, Any]) -> Section:
    """The verdict, and the four things that it rests on."""
    first, *others = verdict.headline(results, summary)
    better = "higher" if summary["primary"]["goal"] == "max" else "lower"
    entries = summary["comparisons"][verdict.AT]
    note = (
        f"Medians of differences paired by seed at equal steps; {better} is better. 'Better' and 'worse' are said only "
        "where the bootstrap interval excludes zero; 'no difference shown' is no proof that there is none. "
        f"{corrected.note([entry['comparison'] for entry in entries])}"
    )
    return Section("", [Lead(first), *map(Text, others), *([_main_table(summary), Note(note)] if entries else [])])


def _main_table(summary: Mapping[str, Any]) -> Table:
    """Arm, metric, difference and verdict: what fits a telephone. The reference is its first row."""
    metric, reference = summary["primary"]["name"], summary["reference"]
    percent = tables.in_percent(metric)
    entries = {entry["arm"]: entry["comparison"] for entry in summary["comparisons"][verdict.AT]}
    medians = {
        arm: (about["last_metrics"].get(metric) or {"median": None})["median"] for arm, about in summary["arms"].items()
    }
    level = tables.alike(medians.values(), percent=percent)
    compared = {arm: found for arm, found in entries.items() if found and found["n"]}
    ends = [found[name] for found in compared.values() for name in ("difference", "low", "high")]
    step = tables.alike(ends, percent=percent)
    rows = [[reference, level(medians[reference]), tables.NONE, "reference"]]
    for arm, found in entries.items():
        if arm not in compared:
            rows.append([arm, level(medians[arm]), tables.NONE, "not compared"])
            continue
        signed = [_sign(found[name], step) for name in ("difference", "low", "high")]
        interval = "" if found["low"] is None else f"\n[{signed[1]}, {signed[2]}]"
        rows.append(
            [
                arm,
                level(medians[arm]),
                f"{signed[0]}{interval}",
                tables.judged(found["verdict"], found["verdict_corrected"]),
            ]
        )
    unit = " (%)" if percent else ""
    headers = ["arm", f"{metric}{unit}", f"minus {reference} [{100 * summary['confidence']:g} %]", "verdict"]
    return Table(headers, rows, title=f"{metric}, medians over the seeds")


def _sign(x: float | None, show: Callable[[float | None], str]) -> str:
    return f"+{show(x)}" if x is not None and x >= 0 else show(x)


def _details(summary: Mapping[str, Any], shown: Sequence[str]) -> Section:
    """Every number of every comparison, in sentences and tables that a reader opens."""
    parts = []
    for at in _where(summary):
        entries = summary["comparisons"][at]
        sentences = [Text(sentence(summary, entry, at=at)) for entry in entries if entry["arm"] in shown]
        if entries:
            parts.append(
                Folded(f"{summary['primary']['name']} {tables.WHERE[at]}", [*sentences, _compared(summary, at)])
            )
    return Section("Comparisons in full", parts)


def _compared(summary: Mapping[str, Any], at: str) -> Table:
    metric, confidence = summary["primary"]["name"], 100 * summary["confidence"]
    unit = " (points)" if tables.in_percent(metric) else ""
    headers = ["arm", "reference", "step", "FLOPs", "median", "reference median", f"paired difference{unit}"]
    headers += [f"{confidence:g} % interval", "could show", "Wilcoxon p", "improved", "left out", "verdict"]
    headers += ["corrected"]
    rows = []
    for entry in summary["comparisons"][at]:
        sides, comparison = (entry["arm"], entry["reference"]), entry["comparison"]
        if comparison is None:
            rows.append([*sides, *[tables.NONE] * 10, f"not compared: {entry['reason']}", tables.NONE])
            continue
        read = [entry["read"][side] for side in sides]
        where = (
            _both([tables.count(report["step"]) for report in read]),
            _both([tables.flops(report["flops"]) for report in read]),
        )
        cells = tables.comparison_cells(metric, comparison)
        least = smallest_shown(comparison["low"], comparison["high"], confidence=summary["confidence"])
        cells.insert(4, tables.difference(metric, least).strip("+") if math.isfinite(least) else tables.NONE)
        rows.append([*sides, *where, *cells])
    notes = [
        corrected.note([entry["comparison"] for entry in summary["comparisons"][at]]),
        _SMALLEST_NOTE,
        "Step and training FLOPs of one replica at which the two were read: arm / reference.",
    ]
    if at == "equal_flops":
        budgets = [
            f"{entry['arm']} {tables.flops(entry['budget'])}"
            for entry in summary["comparisons"][at]
            if entry["budget"] is not None
        ]
        notes.append(f"{_FLOPS_NOTE} Budgets: {'; '.join(budgets) or 'none'}.")
    return Table(headers, rows, notes=notes)


def _arms(summary: Mapping[str, Any], results: results_lib.Results) -> Section:
    arms = summary["arms"].values()
    uncounted = any(arm["flops_per_step"] and arm["last"] and not arm["last"]["flops"] for arm in arms)
    rows = [
        ["role", *(results.roles[arm] for arm in summary["arms"])],
        ["trained parameters", *(tables.count(arm["parameters"]) for arm in arms)],
        [
            "FLOPs of a gradient" if uncounted else "FLOPs per step",
            *(tables.flops(arm["flops_per_step"]) for arm in arms),
        ],
        ["steps", *(tables.count(arm["steps"]) for arm in arms)],
        ["seeds finished", *(f"{replicas.finished(summary, arm)} of {summary['replicas']}" for arm in arms)],
        ["last report at step", *(tables.count(arm["last"] and arm["last"]["step"]) for arm in arms)],
    ]
    for name in sorted({name for arm in arms for name in arm["last_metrics"]}):
        rows.append([name, *(tables.spread(name, arm["last_metrics"].get(name)) for arm in arms)])
    measures = sorted({name for arm in arms for name in arm["metrics"] if not name.startswith("replica_distance/")})
    for name in measures:
        rows.append([name, *(tables.measure(arm["metrics"].get(name)) for arm in arms)])
    notes = ["Metrics of the last report: median [quartiles] over the seeds that finished."]
    if uncounted:
        notes.append(_UNCOUNTED_NOTE)
    return Section("Arms in numbers", [Table(["number", *summary["arms"]], rows, notes=notes)])


def _said(results: results_lib.Results) -> str:
    """Below every table: the pairs that are there, where some are not."""
    said = results_lib.not_trained(results)
    return said and f"{said[0].upper()}{said[1:]}."


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
    few = replicas.distances_note(summary)
    return Section("Replica distances", [*parts, Note(f"{_DISTANCE_NOTE} {few}".rstrip())] if parts else [])


def _failures(results: results_lib.Results) -> Section:
    columns = ("arm", "replica", "step", "what")
    rows = [[str(failure.get(column, tables.NONE)) for column in columns] for failure in results.failures]
    return Section("Replicas that stopped", [Table(columns, rows)] if rows else [])


def _missing(results: results_lib.Results) -> Section:
    rows = [[arm, ", ".join(map(str, sorted(found))), f"{results.replicas - len(found)} of {results.replicas}"]
            for arm, found in results.missing.items()]  # fmt: skip
    rows += [[arm, "all", f"0 of {results.replicas}"] for arm in results.lacking]
    note = Note("Their cells of the sweep are not done: the tables compare the pairs that are there.")
    return Section("Not trained yet", [Table(["arm", "replicas", "there"], rows), note] if rows else [])


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
