"""Two runs side by side: the same arms in another version, on another machine, with another setting.

Arms of the same name are paired by seed, as arms of one run are: replica r of both started from the same key where the
two configs have the same seed.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sbjax.common.files import plain, write_atomically
from sbjax.report import corrected, markup, statistics, tables, verdict
from sbjax.report.results import Report, Results, load_results
from sbjax.report.sections import Folded, Lead, Note, Section, Table, Text
from sbjax.report.whole import said_of_changes

ABSENT = "absent"
VERDICTS = ("verdict", "corrected")
TREES = {"Settings that differ": "config", "Environments": "environment"}
MOST_FIELDS = 8
"""Fields that differ and are named on a terminal; the page has all."""
HEADERS = ("arm", "median in B", "median in A", "B minus A", "95 % interval", "Wilcoxon p", "improved", "left out")
_NOTE = (
    "Arms of the same name, paired by seed, each read at its last report; {better} is better. 'Better' and 'worse' are "
    "of B, and said only where the bootstrap interval excludes zero; 'no difference shown' is no proof that there is "
    "none."
)
_OTHER_SEED = (
    "The two runs have different seeds, {a} and {b}: their replicas are independent draws and pairs of them arbitrary, "
    "so that pairing takes no noise away."
)
_OTHER_STEPS = "Some arms were read at different steps: what was trained longer is not only another run."
_OTHER_COUNT = "{a} replicas in A and {b} in B: only the first {least} of both are compared."


class ArmAgainst(NamedTuple):
    """One arm in both runs.

    Attributes:
        arm: its name.
        comparison: of B with A, None where there is a reason.
        reason: why they cannot be compared.
        steps: of the reports that were read, in A and in B.
        corrected: the comparison as a dict, with what `corrected.with_corrected` adds for all arms together.
    """

    arm: str
    comparison: statistics.Comparison | None
    reason: str | None
    steps: tuple[int | None, int | None]
    corrected: dict[str, Any] | None = None


class Against(NamedTuple):
    """What `write_against` leaves: a table for the terminal, and the path of the page."""

    table: str
    path: Path


def compare_arms(a: Results, b: Results) -> list[ArmAgainst]:
    """Run B against run A in every arm that both have, in the order of A.

    Raises:
        ValueError: the runs have different primary metrics, or no arm in common.
    """
    if (a.primary, a.goal) != (b.primary, b.goal):
        raise ValueError(
            f"the runs have different primary metrics, {a.primary} ({a.goal}) and {b.primary} ({b.goal}), and cannot "
            "be compared; give two runs of the same kind"
        )
    common = [arm for arm in a.arms if arm in b.arms]
    if not common:
        raise ValueError(
            f"the runs have no arm in common: A has {', '.join(a.arms)}, B has {', '.join(b.arms)}; give two runs "
            "with an arm of the same name"
        )
    found = [_compare(arm, _last(a, arm), _last(b, arm), a) for arm in common]
    every = corrected.with_corrected([one.comparison and one.comparison._asdict() for one in found])
    return [one._replace(corrected=with_it) for one, with_it in zip(found, every)]


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(field, value in A, value in B) for every leaf in which two trees differ, in alphabetical order.

    >>> differences({'task': {'size': 3}, 'seed': 0}, {'task': {'size': 5, 'side': 1}, 'seed': 0})
    [('task.side', 'absent', '1'), ('task.size', '3', '5')]
    """
    ours, theirs = dict(_leaves(plain(a))), dict(_leaves(plain(b)))
    fields = sorted(ours.keys() | theirs.keys())
    return [
        (field, ours.get(field, ABSENT), theirs.get(field, ABSENT))
        for field in fields
        if ours.get(field, ABSENT) != theirs.get(field, ABSENT)
    ]


def compare_runs(a: str | os.PathLike, b: str | os.PathLike) -> list[Section]:
    """Two finished runs as sections: arms paired by seed, then what differs in their configs and environments.

    Args:
        a, b: workdirs.

    Raises:
        FileNotFoundError, ValueError: as `results.load_results` and `compare_arms`.
    """
    return _sections(load_results(a), load_results(b))


def write_against(a: str | os.PathLike, b: str | os.PathLike) -> Against:
    """Writes `against.html` into the folder of A: `compare_runs` as a page.

    Raises:
        FileNotFoundError, ValueError: as `compare_runs`.
    """
    ours, theirs = load_results(a), load_results(b)
    names = [Path(path).absolute().name for path in (a, b)]
    names = names if len(set(names)) == 2 else [str(path) for path in (a, b)]
    heading = f"B = {names[1]} against A = {names[0]}: {ours.primary}"
    path = Path(a) / "against.html"
    write_atomically(path, markup.page(f"{names[1]} against {names[0]}", heading, _sections(ours, theirs)))
    return Against(format_against(ours, theirs), path)


def format_against(a: Results, b: Results) -> str:
    """The comparison for a terminal: a line an arm, and the settings that differ."""
    arms = compare_arms(a, b)
    # Without what the page alone has room for.
    kept = [i for i, header in enumerate(HEADERS) if header != "left out"]
    rows = [[row[i] for i in kept] + [tables.starred(*row[-2:])] for row in _rows(a.primary, arms)]
    lines = tables.columns([[*(HEADERS[i] for i in kept), VERDICTS[0]], *rows])
    about = f"{a.primary} at the last report, B minus A"
    named = (_named(title, differences(getattr(a, tree), getattr(b, tree))) for title, tree in TREES.items())
    stars = [tables.STAR] if any(row[-1].endswith("*") for row in rows) else []
    said = [line for text in (about, *named, *stars, *_warnings(a, b, arms)) for line in tables.wrap(text)]
    return "\n".join([*lines, *said])


def _named(title: str, rows: list[tuple[str, str, str]]) -> str:
    """The fields that differ, with their values where these are short."""
    said = [
        f"{field} {ours} -> {theirs}" if max(len(ours), len(theirs)) <= 24 else field
        for field, ours, theirs in rows[:MOST_FIELDS]
    ]
    more = [f"{len(rows) - MOST_FIELDS} more, see the page"] if len(rows) > MOST_FIELDS else []
    return f"{title} (A -> B): {', '.join([*said, *more]) or 'none'}"


def _sections(a: Results, b: Results) -> list[Section]:
    arms = compare_arms(a, b)
    better = "higher" if a.goal == "max" else "lower"
    steps = [f"{arm.arm} {tables.count(arm.steps[0])} / {tables.count(arm.steps[1])}" for arm in arms]
    alone = [
        (name, [arm for arm in one.arms if arm not in other.arms]) for name, one, other in (("A", a, b), ("B", b, a))
    ]
    notes = [
        _NOTE.format(better=better),
        corrected.note([arm.corrected for arm in arms]),
        f"Steps, A / B: {'; '.join(steps)}.",
        *(f"Only {name} has {', '.join(rest)}." for name, rest in alone if rest),
    ]
    headers, rows = [*HEADERS, *VERDICTS], _rows(a.primary, arms)
    told = [[*row[:-2], tables.judged(*row[-2:])] for row in rows]
    brief = Table(*tables.brief(headers[:-1], told, ("arm", "B minus A", "95 % interval", "verdict")))
    full = Folded("All numbers of the comparison", [Table(headers, rows, notes=notes[1:])])
    warned = map(Text, _warnings(a, b, arms))
    found = [Section(a.primary, [Lead(_headline(a.primary, arms)), *warned, brief, Note(notes[0]), full])]
    for title, tree in TREES.items():
        rows = differences(getattr(a, tree), getattr(b, tree))
        found.append(Section(title, [Table(["field", "A", "B"], rows) if rows else Note("No difference.")]))
    return found


def _headline(metric: str, arms: list[ArmAgainst]) -> str:
    """In which arms B is better than A, in which worse."""
    judged = [(arm, arm.comparison) for arm in arms if arm.comparison is not None]
    groups = {
        word: [verdict.named(arm.arm, metric, arm.corrected) for arm, found in judged if test(found)]
        for word, test in (
            ("better", lambda found: found.verdict == "better"),
            ("worse", lambda found: found.verdict == "worse"),
            ("no difference shown", lambda found: found.verdict not in ("better", "worse", statistics.TOO_FEW)),
        )
    }
    few = [arm.arm for arm, found in judged if found.verdict == statistics.TOO_FEW]
    said = [f"{word}: {', '.join(names) or 'none'}" for word, names in groups.items()]
    said += [f"too few seeds: {', '.join(few)}"] if few else []
    lost = [arm.arm for arm in arms if arm.comparison is None]
    said += [f"not compared: {', '.join(lost)}"] if lost else []
    unit = ", differences in points" if tables.in_percent(metric) else ""
    return f"{metric} of B minus A{unit}. {'; '.join(said)}."


def _last(results: Results, arm: str) -> Report | None:
    """The last report with the primary metric after the first step."""
    reports = [r for r in results.reports[arm] if r.step > 0 and results.primary in r.values]
    return reports[-1] if reports else None


def _compare(arm: str, ours: Report | None, theirs: Report | None, a: Results) -> ArmAgainst:
    steps = tuple(report and report.step for report in (ours, theirs))
    for name, report in (("A", ours), ("B", theirs)):
        if report is None:
            return ArmAgainst(arm, None, f"{name} has no report of {a.primary}", steps)
    least = min(len(report.values[a.primary]) for report in (ours, theirs))
    sides = (report.values[a.primary][:least] for report in (ours, theirs))
    found = statistics.paired(*sides, goal=a.goal)
    reason = None if found.n else "no seed was finished in both"
    return ArmAgainst(arm, found if found.n else None, reason, steps)


def _rows(metric: str, arms: list[ArmAgainst]) -> list[list[str]]:
    rows = []
    for arm in arms:
        if arm.comparison is None:
            rows.append([arm.arm, *[tables.NONE] * 7, f"not compared: {arm.reason}", tables.NONE])
        else:
            rows.append([arm.arm, *tables.comparison_cells(metric, plain(arm.corrected))])
    return rows


def _warnings(a: Results, b: Results, arms: list[ArmAgainst]) -> list[str]:
    found = [f"{name}: {said_of_changes(one.changed)}." for name, one in (("A", a), ("B", b)) if one.changed]
    seeds = [results.config.get("seed") for results in (a, b)]
    if seeds[0] != seeds[1]:
        found.append(_OTHER_SEED.format(a=seeds[0], b=seeds[1]))
    if a.replicas != b.replicas:
        found.append(_OTHER_COUNT.format(a=a.replicas, b=b.replicas, least=min(a.replicas, b.replicas)))
    if any(arm.steps[0] != arm.steps[1] for arm in arms):
        found.append(_OTHER_STEPS)
    return found


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{prefix}{name}.")
    else:
        yield prefix[:-1], json.dumps(tree, ensure_ascii=False)
