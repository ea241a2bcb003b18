"""Statistics over the runs of a suite: each by itself, and what share of them improves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sbjax.common.files import plain
from sbjax.experiments.pinn import suite_members
from sbjax.metrics import shares
from sbjax.report import results as results_lib
from sbjax.report import roles, statistics
from sbjax.report.corrected import with_corrected
from sbjax.report.suite import Member

LOSS = "train/loss"
OTHER_ERRORS = ("test/l1", "test/max")
"""Errors that are described and compared where runs report them, beside the primary one; no share is read off them."""

PUBLISHED = {"statement": "most, about 75 %", "source": "arXiv 2409.06402"}
"""What was published about the share of equations that expanded coordinates improve. Not measured here."""

TOO_FEW = f"too few runs for a verdict (fewer than {statistics.FEWEST_SEEDS})"


def summarise_suite(
    members: Sequence[Member],
    *,
    classical: Mapping[str, Mapping[float, float | None]] | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """What `summary.json` of a suite holds, plain numbers, strings and None.

    - `primary`, `reference`, `arms` (of all members), `metrics` ({name: goal}: the training loss, the primary metric,
      `OTHER_ERRORS`), `pairs` ([arm, reference]: every arm against the reference, then each treatment against its
      controls), `confidence`, `published`;
    - `members[name]`: `panel`, `problem` (None, or why it could not be read), `replicas`; by arm `arms[arm]`:
      `stopped` replicas, `seconds`, and the description of each metric at the last report; `comparisons[metric]`: a
      dict a pair, see `compare`; `times` ({error: {arm: seconds}}, see `times_to`) and `classical` ({error: seconds});
    - `readings[metric]`: a dict a pair, see `read`; of the training loss and the primary metric.

    Intervals, `p_value` and `verdict` are of single comparisons, `verdict_corrected` is for all pairs of a run.
    """
    present = [member for member in members if member.results is not None]
    arms = list(dict.fromkeys(arm for member in present for arm in member.results.arms))
    first = present[0].results if present else None
    reference = first.reference if first else None
    pairs = _pairs(arms, [member.results for member in present])
    panels = suite_members.panels(members)
    read_off = {LOSS: "min", first.primary: first.goal} if first else {}
    metrics = read_off | {name: "min" for name in OTHER_ERRORS if any(_has(member, name) for member in present)}
    options = {"confidence": confidence, "resamples": resamples, "seed": seed}
    rows = {
        member.name: {metric: compare_all(member, pairs, metric, goal, **options)
                      for metric, goal in metrics.items()}
        for member in members
    }  # fmt: skip
    readings = {
        metric: [
            {"arm": arm, "reference": control, **read([rows[name][metric][i] for name in rows], goal, **options)}
            for i, (arm, control) in enumerate(pairs)
        ]
        for metric, goal in read_off.items()
    }
    entries = {}
    for member in members:
        solver = (classical or {}).get(member.name)
        own = member.results.arms if member.results else ()
        timed = member.results is not None and first.goal == "min"
        entries[member.name] = {
            "panel": panels[member.name],
            "problem": member.problem,
            "replicas": member.results and member.results.replicas,
            "arms": {arm: _describe(member, arm, metrics) for arm in own},
            "comparisons": rows[member.name],
            "times": suite_members.times_to(member, first.primary, solver) if timed else {},
            "classical": solver and dict(sorted(solver.items(), reverse=True)),
        }  # fmt: skip
    return plain(
        {
            "primary": {"name": first.primary, "goal": first.goal} if first else None,
            "reference": reference,
            "arms": arms,
            "metrics": metrics,
            "pairs": pairs,
            "confidence": confidence,
            "published": PUBLISHED,
            "members": entries,
            "readings": readings,
        }
    )


def compare_all(
    member: Member, pairs: Sequence[tuple[str, str]], metric: str, goal: str, **options: Any
) -> list[dict[str, Any]]:
    """`compare` of all pairs of arms, with verdicts corrected for their number, see `report.corrected`."""
    rows = [compare(member, *pair, metric, goal, **options) for pair in pairs]
    return with_corrected(rows, confidence=options.get("confidence", 0.95))


def compare(member: Member, arm: str, reference: str, metric: str, goal: str, **options: Any) -> dict[str, Any]:
    """One arm against another in one run, seed by seed, at the last step that both report.

    Returns:
        `median` and `reference_median` over the seeds finite in both; `n` of these, `improved` and `tied`; `left_out`
        seeds; with d = log10(arm / reference) `log_ratio` (the median of d), `low`, `high`, `p_value` and `verdict` as
        `statistics.paired` on the logarithms (values that are not positive have none and are left out there); or a
        `reason` and None for all these.
    """
    names = ("median", "reference_median", "n", "improved", "tied", "left_out", "log_ratio", "low", "high", "p_value")
    found = {"arm": arm, "reference": reference, "reason": None} | dict.fromkeys((*names, "verdict"))
    results = member.results
    if results is None:
        return found | {"reason": "the run cannot be read"}
    for name in (arm, reference):
        if name not in results.arms:
            return found | {"reason": f"the run has no arm {name}"}
    pairing = statistics.pair_reports(results._replace(primary=metric, reference=reference), arm, at="equal_steps")
    if pairing.reason is not None:
        return found | {"reason": pairing.reason}
    a, b = pairing.reference.values[metric], pairing.arm.values[metric]
    both = np.isfinite(a) & np.isfinite(b)
    left_out = int(np.sum(~both))
    if not both.any():
        return found | {"reason": "no seed was finished by both arms", "n": 0, "left_out": left_out}
    a, b = a[both], b[both]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [np.log10(side) for side in (a, b)]
    comparison = statistics.paired(*logs, goal=goal, **options)
    return found | {
        "median": float(np.median(b)),
        "reference_median": float(np.median(a)),
        "n": len(a),
        "improved": int(np.sum(b < a if goal == "min" else b > a)),
        "tied": int(np.sum(a == b)),
        "left_out": left_out,
        "log_ratio": comparison.difference,
        "low": comparison.low,
        "high": comparison.high,
        "p_value": comparison.p_value,
        "verdict": comparison.verdict,
    }


def read(rows: Sequence[Mapping[str, Any]], goal: str, **options: Any) -> dict[str, Any]:
    """Both readings of 'a share of the equations improves', from one pair of arms in all runs.

    Reading one: the runs whose median over seeds improves. Reading two: the pairs of run and seed that improve. A share
    is (improved + tied / 2) / n; intervals as `shares.grouped_share`. The verdict is on the share of pairs: 'better' or
    'worse' where its interval excludes one half.

    Returns:
        `runs`, `runs_improved`, `runs_tied`, `share_runs`; `pairs`, `pairs_improved`, `pairs_tied`, `share_pairs`;
        `left_out` seeds of the runs that were compared, `not_compared` runs; `verdict`.
    """
    compared = [row for row in rows if row["reason"] is None]
    medians = np.array([[row["median"], row["reference_median"]] for row in compared]).reshape(-1, 2)
    gain = medians[:, 1] - medians[:, 0] if goal == "min" else medians[:, 0] - medians[:, 1]
    n, improved, tied = (np.array([row[name] for row in compared], int) for name in ("n", "improved", "tied"))
    runs = shares.grouped_share((gain > 0) + (gain == 0) / 2, np.ones(len(compared), int), **options)
    pairs = shares.grouped_share(improved + tied / 2, n, **options)
    verdict = "better" if pairs.low > 0.5 else "worse" if pairs.high < 0.5 else "no difference shown"
    return {
        "runs": len(compared),
        "runs_improved": int(np.sum(gain > 0)),
        "runs_tied": int(np.sum(gain == 0)),
        "share_runs": runs._asdict(),
        "pairs": int(n.sum()),
        "pairs_improved": int(improved.sum()),
        "pairs_tied": int(tied.sum()),
        "share_pairs": pairs._asdict(),
        "left_out": sum(row["left_out"] for row in compared),
        "not_compared": len(rows) - len(compared),
        "verdict": TOO_FEW if len(compared) < statistics.FEWEST_SEEDS else verdict,
    }


def _pairs(arms: Sequence[str], present: Sequence[results_lib.Results]) -> list[tuple[str, str]]:
    """`roles.pairs` of the arms of all runs, with the roles that the first run with an arm gives it."""
    if not present:
        return []
    own = {arm: next(results for results in present if arm in results.arms) for arm in arms}
    every = present[0]._replace(
        arms=tuple(arms),
        roles={arm: results.roles[arm] for arm, results in own.items()},
        labels={arm: results.labels[arm] for arm, results in own.items()},
    )
    return roles.pairs(every)


def _has(member: Member, metric: str) -> bool:
    return any(metric in report.values for reports in member.results.reports.values() for report in reports[-1:])


def _describe(member: Member, arm: str, metrics: Mapping[str, str]) -> dict[str, Any]:
    results, seconds = member.results, member.seconds.get(arm)
    last = results.reports[arm][-1].values if results.reports[arm] else {}
    return {
        "stopped": len(results_lib.stopped_replicas(results, arm)),
        "seconds": seconds and seconds._asdict(),
        **{metric: statistics.describe(last[metric])._asdict() for metric in metrics if metric in last},
    }
