"""Designs ranked by replica distance, and what such a ranking says about accuracy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

# `scipy.stats` takes most of a second to import and is loaded by its first use, not by this line.
import scipy
from jaxtyping import ArrayLike, Float

from sbjax.metrics.bootstrap import Estimate
from sbjax.report import figures, tables
from sbjax.report.replicas import FEWEST_REPLICAS
from sbjax.report.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST_DESIGNS = 5
"""With fewer designs no correlation is computed: three of them are in order by chance once in six times."""


INTERVALS_TAKE = f"{FEWEST_REPLICAS} replicas that finished and a distance of each pair"
"""What an interval of a distance between replicas takes, in words."""


class Ranked(NamedTuple):
    """One design. `accuracy` is the median of the primary metric at the last report."""

    arm: str
    distance: dict[str, float | None]
    null: dict[str, float | None] | None
    excess: dict[str, float | None] | None
    accuracy: float | None
    parameters: int | None


class Correlation(NamedTuple):
    """Spearman's rank correlation between a measure of the early run and the accuracy of the full one, over designs."""

    measure: str
    step: int
    n: int
    rho: Estimate
    p_value: float


def rank(results: Results, by: str) -> list[Ranked]:
    """The designs of a run by the last value of 'replica_distance/<by>', the smallest (most symmetry broken) first.

    Raises:
        ValueError: no design has that measure.
    """
    name = f"replica_distance/{by}"
    rows = []
    for arm in results.arms:
        measures = results.metrics[arm]
        if measures.get(name) is None or measures[name]["value"] is None:
            continue
        null, excess = (measures.get(f"{name}{suffix}") for suffix in ("_null", "_excess"))
        rows.append(Ranked(arm, measures[name], null, excess, final(results, arm), results.parameters.get(arm)))
    if not rows:
        known = sorted({n.removeprefix("replica_distance/") for m in results.metrics.values() for n in m})
        raise ValueError(f"by={by!r} was not measured in this run; measured: {', '.join(known) or 'nothing'}")
    return sorted(rows, key=lambda row: row.distance["value"])


def correlate(early: Results, full: Results) -> list[Correlation]:
    """Rank correlation over designs of every early measure with the final accuracy of the full runs.

    Besides the replica distances at every step at which they were measured, and as controls: early accuracy on the
    validation split, which costs as little, number of parameters, and FLOPs a step.

    Raises:
        ValueError: fewer than `FEWEST_DESIGNS` designs stand in both runs.
    """
    arms = common_arms(early.arms, full.arms)
    accuracy = {arm: final(full, arm) for arm in arms}
    columns: dict[tuple[str, int], dict[str, float]] = {}
    for arm in arms:
        for report in early.reports[arm]:
            for name, measure in report.measures.items():
                if measure["value"] is not None and not name.endswith("_null"):
                    columns.setdefault((name, report.step), {})[arm] = measure["value"]
        last = early.reports[arm][-1]
        for name in ("validation/accuracy", "validation/loss"):
            if name in last.values and np.isfinite(last.values[name]).any():
                columns.setdefault((name, last.step), {})[arm] = float(np.nanmedian(last.values[name]))
        columns.setdefault(("parameters", 0), {})[arm] = early.parameters[arm]
        columns.setdefault(("flops_per_step", 0), {})[arm] = early.flops_per_step[arm]
    rows = []
    for (name, step), values in columns.items():
        both = [arm for arm in arms if arm in values and accuracy[arm] is not None]
        if len(both) >= FEWEST_DESIGNS:
            rho, p = spearman([values[arm] for arm in both], [accuracy[arm] for arm in both])
            rows.append(Correlation(name, step, len(both), rho, p))
    return rows


def common_arms(early: Sequence[str], full: Sequence[str]) -> list[str]:
    """Designs of both runs, in the order of the first.

    Raises:
        ValueError: fewer than `FEWEST_DESIGNS`.
    """
    arms = [arm for arm in early if arm in full]
    if len(arms) < FEWEST_DESIGNS:
        raise ValueError(
            f"the two runs have {len(arms)} designs in common ({', '.join(arms) or 'none'}) and a rank correlation "
            f"needs at least {FEWEST_DESIGNS}; the other run has {', '.join(full)}"
        )
    return arms


def spearman(
    x: Float[ArrayLike, " n"], y: Float[ArrayLike, " n"], *, confidence: float = 0.95, resamples: int = 5000
) -> tuple[Estimate, float]:
    """Spearman's rho with a percentile bootstrap interval over pairs, and a two-sided permutation p value.

    Resamples in which one side is constant have no correlation and are left out. NaN throughout if a side is constant.

    >>> rho, p = spearman([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 6, 5])
    >>> round(rho.value, 3), p < 0.05
    (0.943, True)
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    rng = np.random.default_rng(0)
    value = float(_rho(x[None], y[None])[0])
    if not np.isfinite(value):
        return Estimate(*[float("nan")] * 3), float("nan")
    rows = rng.integers(len(x), size=(resamples, len(x)))
    draws = _rho(x[rows], y[rows])
    low, high = np.nanquantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    shuffled = rng.permuted(np.tile(y, (resamples, 1)), axis=1)
    as_far = np.sum(np.abs(_rho(np.tile(x, (resamples, 1)), shuffled)) >= abs(value) - 1e-12)
    return Estimate(value, float(low), float(high)), float((as_far + 1) / (resamples + 1))


def not_ranked(rows: Sequence[Ranked], arms: Sequence[str]) -> str:
    """The designs that have no place in a ranking, and why; '' where each has one."""
    lost = [arm for arm in arms if arm not in {row.arm for row in rows}]
    return f"not ranked, since a distance takes two replicas that finished: {', '.join(lost)}" if lost else ""


def final(results: Results, arm: str) -> float | None:
    """Median of the primary metric over the replicas at the last report."""
    values = results.reports[arm][-1].values[results.primary] if results.reports[arm] else np.array([])
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def ranking_rows(rows: Sequence[Ranked], *, by: str, primary: str) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of the ranking: place, design, distance, null, excess, parameters, accuracy."""
    header = ["", "design", by, "null", "excess", "parameters", primary]
    body = [
        [
            str(place),
            row.arm,
            *(tables.measure(x, 3) for x in (row.distance, row.null, row.excess)),
            tables.count(row.parameters),
            tables.value(primary, row.accuracy),
        ]
        for place, row in enumerate(rows, start=1)
    ]
    return header, body


def ranking_table(rows: Sequence[Ranked], *, by: str, primary: str, arms: Sequence[str] = ()) -> str:
    """The ranking for a terminal; `arms` are all designs of the run, of which those without a distance are named."""
    header, body = ranking_rows(rows, by=by, primary=primary)
    known = [row.distance["low"] is not None for row in rows]
    intervals = "95 % intervals over replicas" if any(known) else "no intervals"
    few = "" if all(known) else f", which take {INTERVALS_TAKE}"
    note = f"smallest distance = most symmetry broken; {intervals}{few}; read beside accuracy"
    note = "; ".join(filter(None, [note, not_ranked(rows, arms)]))
    return "\n".join([*tables.columns([header, *body]), *tables.wrap(note)])


def correlation_rows(rows: Sequence[Correlation]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of the correlations: replica distances by kind and step, then the controls."""
    header = ["early measure", "step", "rho", "p", "designs"]
    body = []
    for row in sorted(rows, key=lambda row: (not row.measure.startswith("replica"), row.measure, row.step)):
        place = tables.NONE if row.measure in ("parameters", "flops_per_step") else str(row.step)
        name = row.measure.removeprefix("replica_distance/")
        body.append([name, place, tables.measure(row.rho._asdict(), 2), tables.p_value(row.p_value), str(row.n)])
    return header, body


def correlation_table(rows: Sequence[Correlation], *, primary: str) -> str:
    """The correlations for a terminal."""
    header, body = correlation_rows(rows)
    note = (
        f"Spearman's rho over designs with {primary} of the full runs [95 % bootstrap interval]; p by permutation; "
        "neither is corrected for the number of rows. rho < 0: designs whose replicas lie closer together end up more "
        "accurate."
    )
    return "\n".join([*tables.columns([header, *body]), *tables.wrap(note)])


def ranking_figure(rows: Sequence[Ranked], *, by: str) -> "Figure":
    """Distances with intervals in the order of the ranking; a cross where the null stands."""
    with figures.styled():
        figure = figures.new_figure((3.5, 0.9 + 0.2 * len(rows)))
        panel = figure.subplots()
        heights = np.arange(len(rows))[::-1]
        _error_bars(panel, [row.distance for row in rows], heights, axis="x")
        nulls = [(row.null["value"], y) for row, y in zip(rows, heights) if row.null is not None]
        if nulls:
            panel.plot(*zip(*nulls), "x", color="0.5", markersize=4, label="null")
            panel.legend(loc="best")
        panel.set_yticks(heights, [row.arm for row in rows])
        panel.set_xlabel(f"{by.replace('_', ' ')} distance between replicas")
    return figure


def correlation_figure(early: Results, full: Results, kinds: Sequence[str]) -> "Figure":
    """Final accuracy of the full runs against the last early distance, one panel a kind, a numbered point a design."""
    arms = common_arms(early.arms, full.arms)
    with figures.styled():
        figure = figures.new_figure((3.2 * len(kinds), 3.0))
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for panel, kind in zip(panels, kinds):
            name = f"replica_distance/{kind}"
            shown = [arm for arm in arms if name in early.metrics[arm] and final(full, arm) is not None]
            scale = 100 if tables.in_percent(full.primary) else 1
            heights = [scale * final(full, arm) for arm in shown]
            _error_bars(panel, [early.metrics[arm][name] for arm in shown], heights, axis="x")
            for arm, y in zip(shown, heights):
                at = (early.metrics[arm][name]["value"], y)
                panel.annotate(str(arms.index(arm) + 1), at, xytext=(3, 2), textcoords="offset points", fontsize=6)
            panel.set_xlabel(f"early {kind.replace('_', ' ')} distance")
        key = [panels[0].plot([], [], " ", label=f"{number} {arm}")[0] for number, arm in enumerate(arms, start=1)]
        figure.legend(handles=key, loc="outside right center", handlelength=0, handletextpad=0)
        panels[0].set_ylabel(f"{full.primary} of the full run" + (" (%)" if scale == 100 else ""))
    return figure


def pair_maps(pairs: dict[str, np.ndarray]) -> "Figure":
    """Distances between all pairs of replicas as heat maps, one panel a layer, each with its own scale of colours."""
    with figures.styled():
        columns = min(len(pairs), 4)
        rows = -(-len(pairs) // columns)
        figure = figures.new_figure((2.2 * columns, 2.0 * rows))
        panels = figure.subplots(rows, columns, squeeze=False)
        for panel in panels.flat[len(pairs) :]:
            panel.set_visible(False)
        for panel, (name, matrix) in zip(panels.flat, pairs.items()):
            image = panel.imshow(matrix, cmap="viridis")
            figure.colorbar(image, ax=panel, shrink=0.8)
            panel.set_title(name, fontsize=7)
            panel.set_xlabel("replica")
    return figure


def _error_bars(panel, measures: Sequence[dict[str, Any]], heights, *, axis: str) -> None:
    middle = np.array([measure["value"] for measure in measures])
    ends = np.array([[m["value"] if m[end] is None else m[end] for m in measures] for end in ("low", "high")])
    spread = np.abs(ends - middle)
    panel.errorbar(middle, heights, **{f"{axis}err": spread}, fmt="o", color=figures.COLOURS[0], elinewidth=1)


def _rho(x, y):
    ranks = [scipy.stats.rankdata(side, axis=1) for side in (x, y)]
    x, y = (side - side.mean(1, keepdims=True) for side in ranks)
    norm = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.where(norm > 0, (x * y).sum(1) / np.where(norm > 0, norm, 1), np.nan)
