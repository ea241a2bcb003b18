"""The figure of the README: paired dots, a line a seed, drawn from a record as SVG with the same bytes every time."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 44
COLOURS = ("#3b6ea5", "#c8553d", "#7a7a7a", "#5a8f4e")


def paired_dots(record: Mapping[str, Any], *, title: str, axis: str) -> str:
    """An SVG of every row of a record that has `seeds`: a column of dots a row, seeds joined by lines, medians as bars.

    Args:
        record: rows have a label in the first column's cell, and `seeds`, the number of every seed.
        title: above the figure.
        axis: what the numbers are.

    Raises:
        ValueError: fewer than two rows with seeds, or rows that differ in their number.

    >>> rows = [{'cells': {'arm': 'raw'}, 'seeds': [1.0, 2.0]}, {'cells': {'arm': 'other'}, 'seeds': [2.0, 2.5]}]
    >>> svg = paired_dots({'columns': [{'key': 'arm', 'name': 'arm'}], 'rows': rows}, title='t', axis='a')
    >>> svg.count('<circle'), svg.count('class="seed"')
    (4, 2)
    """
    key = record["columns"][0]["key"]
    arms = [(row["cells"][key], row["seeds"]) for row in record["rows"] if row.get("seeds")]
    if len(arms) < 2 or len({len(seeds) for _, seeds in arms}) > 1:
        raise ValueError("rows need seeds, as many in each and in two rows at least; record the run again")
    numbers = [number for _, seeds in arms for number in seeds]
    ticks = _ticks(min(numbers), max(numbers))
    low, high = ticks[0], ticks[-1]

    def x(column: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (column + 0.5) / len(arms), 1)

    def y(number: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - number) / (high - low), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{WIDTH / 2:g}" y="22" text-anchor="middle" font-size="14">{escape(title)}</text>',
        f'<text x="16" y="{HEIGHT / 2:g}" text-anchor="middle" transform="rotate(-90 16 {HEIGHT / 2:g})">'
        f"{escape(axis)}</text>",
    ]
    for tick in ticks:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:g}" text-anchor="end">{tick:g}</text>')
    for values in zip(*(seeds for _, seeds in arms)):
        points = " ".join(f"{x(i)},{y(value)}" for i, value in enumerate(values))
        parts.append(f'<polyline class="seed" points="{points}" fill="none" stroke="#bbbbbb"/>')
    for i, (name, seeds) in enumerate(arms):
        colour, middle = COLOURS[i % len(COLOURS)], y(statistics.median(seeds))
        parts += [f'<circle cx="{x(i)}" cy="{y(value)}" r="4" fill="{colour}"/>' for value in seeds]
        parts.append(
            f'<line x1="{x(i) - 26:g}" x2="{x(i) + 26:g}" y1="{middle}" y2="{middle}" stroke="{colour}" '
            'stroke-width="3"/>'
        )
        parts.append(f'<text x="{x(i)}" y="{HEIGHT - 16}" text-anchor="middle">{escape(str(name))}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ticks(low: float, high: float) -> Sequence[float]:
    """Round numbers around a range, four to ten of them."""
    span = (high - low) or 1.0
    step = next(s for s in (10.0**k * m for k in range(-9, 10) for m in (1, 2, 5)) if span / s <= 6)
    first, last = int(low // step), int(-(-high // step))
    return [round(n * step, 10) for n in range(first, max(last, first + 1) + 1)]
