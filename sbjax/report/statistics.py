"""Statistics of paired arms: what may be said about a difference, and what may not."""

from typing import Any, Literal, NamedTuple

import numpy as np

# `scipy.stats` takes most of a second to import and is loaded by its first use, not by this line.
import scipy
from jaxtyping import ArrayLike, Float

from sbjax.common.files import plain
from sbjax.metrics.bootstrap import expanded_tail
from sbjax.report import results as results_lib
from sbjax.report.corrected import FEWEST_SEEDS, NOT_SHOWN, TOO_FEW, with_corrected


class Description(NamedTuple):
    """Median and quartiles of the finite ones among some values, and how many these are. NaN where there are none."""

    median: float
    q1: float
    q3: float
    n: int


class Comparison(NamedTuple):
    """Arm b against arm a, seed by seed. `difference`, `low` and `high` are of b - a, whatever the goal."""

    n: int
    """Seeds that both arms finished."""
    left_out: int
    """Seeds that stopped in at least one of the two."""
    median_a: float
    median_b: float
    difference: float
    """Median of the paired differences; not the difference of the medians."""
    low: float
    high: float
    p_value: float
    improved: int
    """Seeds on which b is strictly better."""
    tied: int
    share_improved: float
    """(improved + tied / 2) / n."""
    verdict: str


class Pairing(NamedTuple):
    """The reports at which two arms are read, or the reason why they cannot be."""

    reference: results_lib.Report | None
    arm: results_lib.Report | None
    budget: float | None
    """FLOPs of one replica that both may spend; None at equal steps."""
    reason: str | None


def describe(values: Float[ArrayLike, "replica"]) -> Description:
    """Median and quartiles (linear interpolation) of the finite values.

    >>> tuple(map(float, describe([1.0, 2.0, 3.0, 4.0, float('nan')])))
    (2.5, 1.75, 3.25, 4.0)
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return Description(np.nan, np.nan, np.nan, 0)
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
    return Description(float(median), float(q1), float(q3), len(values))


def paired(
    a: Float[ArrayLike, "replica"],
    b: Float[ArrayLike, "replica"],
    *,
    goal: results_lib.Goal = "max",
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compares b with the reference a, where entry i of both comes from the same seed.

    With d_i = b_i - a_i over the seeds finite in both:

    - the effect is median(d), with an expanded percentile bootstrap interval: percentiles
      Phi(-+ sqrt(n / (n - 1)) t_{n-1}) with the quantile t of Student's t. Plain percentiles are too narrow for
      few seeds (a nominal 95 % covers 87.5 % at n = 7), and BCa is no cure: a median is not smooth. For n >= 5 a
      nominal 95 % covers 93 to 98 % of continuous d, at n = 5 with [min(d), max(d)] and 94 %. One pair gives no
      interval (NaN).
    - p is of the two-sided Wilcoxon signed-rank test of d, zeros left out (Wilcoxon's own rule); 1 if all are zero.
    - the verdict is 'better' or 'worse' where the interval excludes zero, else 'no difference shown', which is no proof
      of equality. Fewer than five pairs get no verdict.

    The result does not depend on the order of the seeds. Interval: Hesterberg, arXiv 1411.5279.

    Args:
        a: `[replica]`, the reference arm. Replicas that stopped are NaN or infinite.
        b: `[replica]`, the other arm.
        goal: 'max' if larger values are better, 'min' if smaller ones are.
        confidence: coverage of the interval, between 0 and 1.
        resamples: bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes that are not one and the same `[replica]`, an unknown goal, a confidence outside (0, 1).

    >>> c = paired([0.90, 0.91, 0.89, 0.90, 0.92], [0.93, 0.92, 0.91, 0.93, 0.94])
    >>> c.n, round(c.difference, 4), round(c.low, 4), round(c.high, 4), c.improved, c.verdict
    (5, 0.02, 0.01, 0.03, 5, 'better')
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"a has shape {a.shape} and b {b.shape}; give one number a seed in both, [replica]")
    if goal not in ("max", "min"):
        raise ValueError(f"goal={goal!r} is unknown; use 'max' or 'min'")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must lie between 0 and 1, such as 0.95")
    finite = np.isfinite(a) & np.isfinite(b)
    left_out = int(np.sum(~finite))
    a, b = a[finite], b[finite]
    n = len(a)
    if n == 0:
        return Comparison(0, left_out, *[np.nan] * 6, 0, 0, np.nan, TOO_FEW)
    # Sorted, so that the resampled indices mean the same whatever the order of the seeds.
    d = np.sort(b - a)
    low, high = _interval(d, confidence=confidence, resamples=resamples, seed=seed)
    gain = d if goal == "max" else -d
    improved, tied = int(np.sum(gain > 0)), int(np.sum(gain == 0))
    return Comparison(
        n=n,
        left_out=left_out,
        median_a=float(np.median(a)),
        median_b=float(np.median(b)),
        difference=float(np.median(d)),
        low=low,
        high=high,
        p_value=_signed_rank(d),
        improved=improved,
        tied=tied,
        share_improved=(improved + tied / 2) / n,
        verdict=_verdict(n, *((low, high) if goal == "max" else (-high, -low))),
    )


def pair_reports(results: results_lib.Results, arm: str, *, at: Literal["equal_steps", "equal_flops"]) -> Pairing:
    """The reports of the reference and of `arm` that are compared; only reports with the primary metric count.

    Reports before the first step do not count either: an arm that has not learned anything has no result.

    At equal steps: the last step that both arms report. At equal FLOPs: the budget is the smaller of the two totals,
    and each arm is read at its last report within it. An arm cut short there on a decaying learning rate has not seen
    the end of its schedule and is at a disadvantage: an arm trained for that budget from the start is the fair control.
    """
    if at not in ("equal_steps", "equal_flops"):
        raise ValueError(f"at={at!r} is unknown; use 'equal_steps' or 'equal_flops'")
    names = (results.reference, arm)
    reports = [
        [report for report in results.reports[name] if report.step > 0 and results.primary in report.values]
        for name in names
    ]
    for name, found in zip(names, reports):
        if not found:
            return Pairing(None, None, None, f"{name} has no report of {results.primary}")
    if at == "equal_steps":
        common = set.intersection(*({report.step for report in found} for found in reports))
        if not common:
            return Pairing(None, None, None, f"{names[0]} and {names[1]} have no step at which both report")
        chosen = [next(report for report in found if report.step == max(common)) for found in reports]
        return Pairing(*chosen, None, None)
    if unknown := [name for name, found in zip(names, reports) if not found[-1].flops]:
        return Pairing(None, None, None, f"the FLOPs of {' and '.join(unknown)} are not counted")
    budget = min(found[-1].flops for found in reports)
    # Two arms of the same cost may differ in the last bits of the sum.
    within = [[report for report in found if report.flops <= budget * (1 + 1e-9)] for found in reports]
    for name, found in zip(names, within):
        if not found:
            return Pairing(None, None, budget, f"{name} has no report within the budget of {budget:.3g} FLOPs")
    return Pairing(*(found[-1] for found in within), budget, None)


def summarise(
    results: results_lib.Results, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """What `summary.json` holds: every arm described, and every arm compared with the reference.

    Returns a dict of plain numbers, strings and None (for what is undefined):

    - `primary`, `reference`, `confidence`, `replicas`;
    - `arms[arm]`: `parameters`, `flops_per_step`, `steps`, the number of `stopped` replicas, step, epoch and FLOPs of
      the `last` report, median and quartiles of each of its metrics over the finite replicas (`last_metrics`), and the
      arm's own `metrics`, such as replica distances;
    - `comparisons['equal_steps']` and `comparisons['equal_flops']`: for every arm but the reference, the `budget` in
      FLOPs, the step, epoch and FLOPs at which each side was `read`, and the `Comparison` (see `paired`, and
      `pair_reports` for a warning about arms cut short) with `comparisons`, `p_corrected` and `verdict_corrected` (see
      `corrected.with_corrected`), or a `reason` in its place;
    - `failures`.

    Where replicas were not trained yet, an arm has their number as `missing`, and comparisons the pairs `planned`; arms
    of which none was are listed as `lacking`.

    Intervals, `p_value` and `verdict` are of single comparisons.
    """
    arms = {arm: _describe_arm(results, arm) for arm in results.arms}
    others = [arm for arm in results.arms if arm != results.reference]
    options = {"goal": results.goal, "confidence": confidence, "resamples": resamples, "seed": seed}
    summary = {
        "primary": {"name": results.primary, "goal": results.goal},
        "reference": results.reference,
        "replicas": results.replicas,
        "confidence": confidence,
        "arms": arms,
        "comparisons": {at: _compare_all(results, others, at=at, **options) for at in ("equal_steps", "equal_flops")},
        "failures": results.failures,
        **({"lacking": list(results.lacking)} if results.lacking else {}),
    }
    return plain(summary)


def _describe_arm(results: results_lib.Results, arm: str) -> dict[str, Any]:
    last = results.reports[arm][-1] if results.reports[arm] else None
    metrics = sorted(last.values) if last else ()
    return {
        "parameters": results.parameters.get(arm),
        "flops_per_step": results.flops_per_step.get(arm),
        "steps": results.steps.get(arm),
        "stopped": len(results_lib.stopped_replicas(results, arm)),
        **({"missing": len(results.missing[arm])} if arm in results.missing else {}),
        "last": last and _position(last),
        "last_metrics": {name: describe(last.values[name])._asdict() for name in metrics},
        "metrics": dict(sorted(results.metrics[arm].items())),
    }


def _compare_all(results: results_lib.Results, arms: list[str], **options: Any) -> list[dict[str, Any]]:
    entries = [compare(results, arm, **options) for arm in arms]
    found = with_corrected([entry["comparison"] for entry in entries], confidence=options["confidence"])
    planned = {"planned": results.replicas} if results.missing else {}
    return [{**entry, "comparison": one and {**one, **planned}} for entry, one in zip(entries, found)]


def compare(results: results_lib.Results, arm: str, *, at: str, **options: Any) -> dict[str, Any]:
    """One entry of `summarise`'s comparisons, by itself: an arm against the reference.

    Args:
        results: of the run.
        arm: that is compared.
        at: 'equal_steps' or 'equal_flops'.
        options: of `paired`.
    """
    pairing = pair_reports(results, arm, at=at)
    entry = {"arm": arm, "reference": results.reference, "budget": pairing.budget, "reason": pairing.reason}
    if pairing.reason is not None:
        return entry | {"read": None, "comparison": None}
    sides = {results.reference: pairing.reference, arm: pairing.arm}
    comparison = paired(*(report.values[results.primary] for report in sides.values()), **options)
    read = {name: _position(report) for name, report in sides.items()}
    return entry | {"read": read, "comparison": comparison._asdict()}


def _position(report: results_lib.Report) -> dict[str, Any]:
    return {"step": report.step, "epoch": report.epoch, "flops": report.flops}


def _interval(d: np.ndarray, *, confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    n = len(d)
    if n == 1:
        return np.nan, np.nan
    tail = expanded_tail(n, confidence)
    interval = scipy.stats.bootstrap(
        (d,),
        np.median,
        n_resamples=resamples,
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _signed_rank(d: np.ndarray) -> float:
    d = d[d != 0]
    return float(scipy.stats.wilcoxon(d).pvalue) if len(d) else 1.0


def _verdict(n: int, low: float, high: float) -> str:
    """From the interval of the gain: positive is good."""
    if n < FEWEST_SEEDS:
        return TOO_FEW
    return "better" if low > 0 else "worse" if high < 0 else NOT_SHOWN
