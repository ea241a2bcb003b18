"""Numbers as people read them, and the table for the terminal."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from sbjax.report.replicas import distances_note
from sbjax.report.terminal import WIDTH as WIDTH
from sbjax.report.terminal import cells, room

MANY = 12
"""Arms above which a table for the terminal leaves an empty column out."""

NONE = "-"

WHERE = {"equal_steps": "at equal steps", "equal_flops": "at equal FLOPs"}
"""The kinds of comparison in a summary, in words."""


def in_percent(metric: str) -> bool:
    """Whether a metric is a share that is shown in percent: 'accuracy' in any split."""
    return metric.rsplit("/", 1)[-1] == "accuracy"


def value(metric: str, x: float | None) -> str:
    """One value of a metric with its unit.

    >>> value('test/accuracy', 0.9123), value('test/loss', 0.0123412), value('test/loss', None)
    ('91.23 %', '0.01234', '-')
    """
    if x is None:
        return NONE
    return f"{100 * x:.2f} %" if in_percent(metric) else f"{x:.4g}"


def spread(metric: str, described: Mapping[str, Any] | None) -> str:
    """Median and quartiles of a metric.

    >>> spread('test/accuracy', {'median': 0.9, 'q1': 0.88, 'q3': 0.91, 'n': 5})
    '90.00 % [88.00, 91.00]'
    """
    if not described or described["median"] is None:
        return NONE
    q1, q3 = (value(metric, described[name]).removesuffix(" %") for name in ("q1", "q3"))
    return f"{value(metric, described['median'])} [{q1}, {q3}]"


def difference(metric: str, x: float | None) -> str:
    """A difference of two values, with its sign; in percent points where the metric is in percent.

    >>> difference('test/accuracy', 0.0081), difference('test/loss', -0.25)
    ('+0.81', '-0.25')
    """
    if x is None:
        return NONE
    return f"{100 * x:+.2f}" if in_percent(metric) else f"{x:+.3g}"


def interval(metric: str, comparison: Mapping[str, Any]) -> str:
    """The interval of the paired difference.

    >>> interval('test/accuracy', {'low': 0.001, 'high': 0.02})
    '[+0.10, +2.00]'
    """
    low, high = (difference(metric, comparison[end]) for end in ("low", "high"))
    return NONE if NONE in (low, high) else f"[{low}, {high}]"


def measure(x: Any, digits: int = 4) -> str:
    """A number of a whole arm, with its interval if it has one.

    >>> measure(0.01234), measure({'value': 0.5, 'low': 0.4, 'high': 0.6}), measure(None)
    ('0.01234', '0.5 [0.4, 0.6]', '-')
    """
    if isinstance(x, Mapping):
        low, high = x.get("low"), x.get("high")
        middle = measure(x["value"], digits)
        return middle if low is None or high is None else f"{middle} [{low:.{digits}g}, {high:.{digits}g}]"
    return NONE if x is None else f"{x:.{digits}g}"


def kinds(measures: Mapping[str, Any]) -> list[str]:
    """Kinds of replica distance among the names of measures, as the monitor names them.

    >>> kinds({'replica_distance/marginal': 0.1, 'replica_distance/marginal_null': 0.2, 'other': 1.0})
    ['marginal']
    """
    names = [name.removeprefix("replica_distance/") for name in measures if name.startswith("replica_distance/")]
    return sorted(name for name in names if not name.endswith(("_null", "_excess", "_scale_free")))


def p_value(p: float | None) -> str:
    """A p value to four decimals.

    >>> p_value(0.001953125), p_value(3e-7), p_value(1.0)
    ('0.0020', '<0.0001', '1.0000')
    """
    if p is None:
        return NONE
    return "<0.0001" if p < 1e-4 else f"{p:.4f}"


def alike(numbers: Iterable[float | None], *, percent: bool = False) -> Callable[[float | None], str]:
    """One format for all numbers of a column: fixed decimals where that shows three digits of each, else exponents.

    >>> show = alike([0.123456, 0.5, None])
    >>> show(0.5), show(0.123456), show(None)
    ('0.500', '0.123', '-')
    >>> alike([1e-8, 0.5])(0.5), alike([0.9612], percent=True)(0.9612)
    ('5.00e-01', '96.12')
    """
    sizes = [abs(x) for x in numbers if x is not None and x and math.isfinite(x)]
    if percent:
        style, scale = ".2f", 100
    elif not sizes or (min(sizes) >= 1e-3 and max(sizes) < 1e5):
        decimals = max(0, 2 - math.floor(math.log10(min(sizes)))) if sizes else 0
        style, scale = f".{decimals}f", 1
    else:
        style, scale = ".2e", 1
    zero = "0" if style == ".2e" else f"{0:{style}}"
    return lambda x: NONE if x is None else f"{scale * x:{style}}" if x else zero


def count(x: int | None) -> str:
    """A count in full, thousands apart.

    >>> count(1234567), count(None)
    ('1,234,567', '-')
    """
    return NONE if x is None else f"{x:,}"


def flops(x: float | None) -> str:
    """Floating-point operations to three digits; 0 is said where none were counted.

    >>> flops(1.2345e9), flops(0.0) == NONE
    ('1.23e+09', True)
    """
    return f"{x:.3g}" if x else NONE


def improved(comparison: Mapping[str, Any] | None) -> str:
    """Seeds improved of seeds compared, ties apart.

    >>> improved({'improved': 8, 'tied': 1, 'n': 10})
    '8/10, 1 tied'
    """
    if not comparison:
        return NONE
    tied = f", {comparison['tied']} tied" if comparison["tied"] else ""
    return f"{comparison['improved']}/{comparison['n']}{tied}{of_planned(comparison, ', ')}"


def of_planned(comparison: Mapping[str, Any], before: str = "") -> str:
    """How many pairs there are of those that were planned, where some are not trained yet.

    >>> of_planned({'n': 7, 'planned': 10}), of_planned({'n': 10})
    ('7 of 10 pairs', '')
    """
    planned = comparison.get("planned", comparison["n"])
    return f"{before}{comparison['n']} of {planned} pairs" if planned > comparison["n"] else ""


def comparison_cells(metric: str, comparison: Mapping[str, Any]) -> list[str]:
    """Median of the arm and of the other side, paired difference, its interval, p, improved, left out, verdict.

    The last cell is the verdict corrected for the number of comparisons, see `sbjax.report.corrected`.
    """
    return [
        value(metric, comparison["median_b"]),
        value(metric, comparison["median_a"]),
        difference(metric, comparison["difference"]),
        interval(metric, comparison),
        p_value(comparison["p_value"]),
        improved(comparison),
        str(comparison["left_out"]),
        comparison["verdict"],
        comparison.get("verdict_corrected", NONE),
    ]


def brief(
    headers: Sequence[str], rows: Iterable[Sequence[str]], kept: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """The columns of a table that fit a telephone; an interval stands below the number before it.

    Args:
        headers, rows: of the whole table.
        kept: headers of the columns; one that ends with 'interval' goes into the cell before it.

    >>> brief(['arm', 'p', 'minus raw', '95 % interval'], [['a', '0.5', '+1', '[0, 2]']],
    ...       ['arm', 'minus raw', '95 % interval'])
    (['arm', 'minus raw [95 % interval]'], [['a', '+1\\n[0, 2]']])
    """
    names: list[str] = []
    places: list[list[int]] = []
    for header in kept:
        place = list(headers).index(header)
        if header.endswith("interval"):
            names[-1], places[-1] = f"{names[-1]} [{header}]", [*places[-1], place]
        else:
            names.append(header)
            places.append([place])

    def cell(row, those):
        return "\n".join(row[i] for i in those if i == those[0] or row[i] != NONE)

    return names, [[cell(row, those) for those in places] for row in rows]


STAR = "*: not shown once corrected for the number of comparisons"


def starred(verdict: str, corrected: str) -> str:
    """A verdict for a narrow table, with a star where the corrected one differs, see `STAR`.

    >>> starred('better', 'better'), starred('better', 'no difference shown')
    ('better', 'better*')
    """
    return verdict if corrected in (verdict, NONE) else f"{verdict}*"


def judged(verdict: str, corrected: str) -> str:
    """A verdict for a table without a column for the corrected one, in words where it is lost.

    >>> judged('better', 'better'), judged('better', 'no difference shown')
    ('better', 'better (not once corrected)')
    """
    lost = verdict in ("better", "worse") and corrected not in (verdict, NONE)
    return f"{verdict} (not once corrected)" if lost else verdict


def format_table(summary: Mapping[str, Any], *, at: Literal["equal_steps", "equal_flops"] = "equal_steps") -> str:
    """One line an arm for a terminal: parameters, primary metric, paired difference, replica distance.

    The metric and the distance are of each arm's last report; difference, p and improved seeds are read where `at`
    says. Of several replica distances the marginal one is shown, else the first by name. What is too wide for the
    terminal goes on in a second block, see `columns`.

    Args:
        summary: what `statistics.summarise` returns or `summary.json` holds.
        at: compare at equal steps or at equal FLOPs.

    >>> described = {'median': 0.9, 'q1': 0.88, 'q3': 0.91, 'n': 5}
    >>> arm = {'parameters': 50, 'last_metrics': {'test/accuracy': described}, 'metrics': {}}
    >>> summary = {'primary': {'name': 'test/accuracy', 'goal': 'max'}, 'reference': 'raw',
    ...            'confidence': 0.95, 'arms': {'raw': arm}, 'comparisons': {'equal_steps': []}}
    >>> format_table(summary).splitlines()[1].split()
    ['raw', '50', '90.00', '%', '[88.00,', '91.00]', '-', '-', '-', '-']
    """
    metric, reference = summary["primary"]["name"], summary["reference"]
    compared = {entry["arm"]: entry["comparison"] for entry in summary["comparisons"][at]}
    distance = _distance(summary)
    header = ["arm", "parameters", "median [IQR]", f"minus {reference}", "p", "improved", "distance"]
    rows = []
    for name, arm in summary["arms"].items():
        comparison = compared.get(name)
        change = (
            f"{difference(metric, comparison['difference'])} {interval(metric, comparison)}" if comparison else NONE
        )
        rows.append(
            [
                name,
                count(arm["parameters"]),
                spread(metric, arm["last_metrics"].get(metric)),
                change,
                p_value(comparison and comparison["p_value"]),
                improved(comparison),
                measure(arm["metrics"].get(distance)).split(" ")[0],
            ]
        )
    every = [header, *rows]
    if distance is None and (len(rows) > MANY or len(columns(every)) > len(every)):
        every = [row[:-1] for row in every]  # the width is for what has numbers
    unit = " in percent points" if in_percent(metric) else ""
    made = [entry["comparison"] for entry in summary["comparisons"][at]]
    compared_arms = sum(one is not None and one["n"] > 0 for one in made)
    few = {one["verdict"] for one in made if one is not None and one.get("verdict", "").startswith("too few")}
    notes = [
        f"{metric} at the last report; minus {reference}: median paired difference{unit} "
        f"[{100 * summary['confidence']:g} % interval]",
        f"{WHERE[at]}; p: Wilcoxon signed-rank" + (f"; distance: {distance}" if distance else ""),
        *(
            [f"{compared_arms} comparisons, each by itself; the report has verdicts corrected for their number"]
            * (compared_arms > 1)
        ),
        *[
            f"{name}: {arm['missing']} replicas are not trained yet"
            for name, arm in summary["arms"].items()
            if arm.get("missing")
        ],
        *[f"{name}: not trained yet, 0 of {summary['replicas']} pairs" for name in summary.get("lacking", ())],
        *sorted(few),
        *filter(None, [distances_note(summary).rstrip(".") if header[-1] in every[0] else ""]),
    ]
    return "\n".join([*columns(every), *wrap("; ".join(notes))])


def noted(text: str, note: str) -> str:
    """Tables for a terminal, blank lines apart, with a note below each; '' = as they are.

    >>> noted('a  b', '7 of 10 pairs')
    'a  b\\n7 of 10 pairs'
    """
    if not note or not text:
        return text
    return "\n\n".join("\n".join([block, *wrap(note)]) for block in text.split("\n\n"))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of left-aligned columns two blanks apart.

    What is wider than `room` goes on below: further blocks, each of which begins with the first column again. No cell
    is ever cut.

    >>> columns([['a', 'b'], ['long', 'c']])
    ['a     b', 'long  c']
    """
    widths = [max(map(cells, column)) for column in zip(*rows)]
    blocks, used, most = [[0]], widths[0], room()
    for place, width in list(enumerate(widths))[1:]:
        if used + 2 + width > most and len(blocks[-1]) > 1:
            blocks.append([0])
            used = widths[0]
        blocks[-1].append(place)
        used += 2 + width
    padded = lambda text, i: text + " " * (widths[i] - cells(text))  # noqa: E731
    lines = [["  ".join(padded(row[i], i) for i in block).rstrip() for row in rows] for block in blocks]
    return [line for block in lines for line in block]


def wrap(text: str) -> list[str]:
    """Lines of at most `room` columns; a word that is wider, such as the name of an arm, has a line of its own.

    >>> wrap('an arm ' + 'x' * 200)[1] == 'x' * 200
    True
    """
    lines, most = [], room()
    for word in text.split():
        if lines and cells(lines[-1]) + 1 + cells(word) <= most:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _distance(summary: Mapping[str, Any]) -> str | None:
    names = sorted({name for arm in summary["arms"].values() for name in arm["metrics"]})
    distances = [name for name in names if name.startswith("replica_distance")]
    return next((name for name in distances if name.endswith("/marginal")), distances[0] if distances else None)
