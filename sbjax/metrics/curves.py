"""Shape of a loss curve along a line in parameter space: barrier height, monotonicity, convexity."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Real

KINDS = (
    "midpoint_over_mean_of_ends",
    "maximum_over_chord",
    "maximum_over_mean_of_ends",
    "maximum_over_worse_end",
)
"""Definitions of the barrier height, see `heights`."""


class Monotonicity(NamedTuple):
    """Shape of a loss along the line from initialisation to the trained network, see `monotonicity`."""

    delta: Float[np.ndarray, "*batch"]
    monotonic: np.ndarray
    local_convexity: Float[np.ndarray, "*batch"]
    global_convexity: Float[np.ndarray, "*batch"]
    authors_global_convexity: Float[np.ndarray, "*batch"]


def heights(
    curve: Real[ArrayLike, "*pair points"] | Sequence,
    alphas: Real[ArrayLike, " points"] | Sequence[float] | None = None,
    *,
    higher_is_better: bool = False,
) -> dict[str, Float[np.ndarray, "*pair"]]:
    """Barrier heights of a curve L(alpha), for every definition in `KINDS`.

    - midpoint_over_mean_of_ends: L(1/2) - (L(0) + L(1)) / 2 (arXiv 2405.20231). Negative where the path is better.
    - maximum_over_chord: max L(alpha) - ((1 - alpha) L(0) + alpha L(1)) (arXiv 2110.06296).
    - maximum_over_mean_of_ends: max L(alpha) - (L(0) + L(1)) / 2 (arXiv 1912.05671).
    - maximum_over_worse_end: max L(alpha) - max(L(0), L(1)).

    Maxima are over all points including the ends, hence never negative. With `higher_is_better`, L is replaced by -L
    and heights are drops. All heights are NaN if an end is not finite, the maxima also if any point is NaN.

    Raises:
        ValueError: alphas that do not increase from 0 to 1 through 0.5, or do not fit the curve.

    >>> {kind: float(height) for kind, height in heights([1.0, 4.0, 2.0]).items()}  # doctest: +NORMALIZE_WHITESPACE
    {'midpoint_over_mean_of_ends': 2.5, 'maximum_over_chord': 2.5, 'maximum_over_mean_of_ends': 2.5,
     'maximum_over_worse_end': 2.0}
    """
    curve = np.asarray(curve, np.float64)
    alphas = np.linspace(0.0, 1.0, curve.shape[-1]) if alphas is None else np.asarray(alphas, np.float64)
    check_grid(alphas)
    if curve.shape[-1:] != alphas.shape:
        raise ValueError(f"curve of shape {curve.shape} has not one value for each of the {len(alphas)} alphas")
    losses = -curve if higher_is_better else curve
    first, last = losses[..., :1], losses[..., -1:]
    ends = np.isfinite(first) & np.isfinite(last)
    losses = np.where(ends, losses, np.nan)
    first, last = np.where(ends, first, 0.0), np.where(ends, last, 0.0)
    over_mean = losses - (first + last) / 2
    chord = (1 - alphas) * first + alphas * last
    found = (
        over_mean[..., np.argmin(abs(alphas - 0.5))],
        (losses - chord).max(-1),
        over_mean.max(-1),
        (losses - np.maximum(first, last)).max(-1),
    )
    return dict(zip(KINDS, found, strict=True))


def monotonicity(losses: Real[ArrayLike, "*batch points"] | Sequence, *, tolerance: float = 0.0) -> Monotonicity:
    """Monotonicity and convexity of the loss at equidistant alphas from initialisation (0) to trained network (1).

    - delta: max_i L_{i+1} - L_i, the largest rise; monotonic: delta <= tolerance.
    - local_convexity: share of interior points with L_{i-1} - 2 L_i + L_{i+1} >= -tolerance.
    - global_convexity: share of interior points with L_i <= (1 - alpha_i) L(0) + alpha_i L(1) + tolerance.
    - authors_global_convexity: the same with the line L(0) + alpha_i (L_2 - L_1), with the first increment instead of
      L(1) - L(0), as in the code of arXiv 2405.20231. On a decreasing curve this line lies far above the chord: a
      concave curve scores 1 instead of 0. Only for comparison with the published table.

    Args:
        losses: L_1 .. L_n, at least 3 points.
        tolerance: round-off of a loss; with 0, plateaus are judged by their last bits.

    Returns:
        Values over the last axis; NaN (and not monotonic) where a loss is not finite.

    Raises:
        ValueError: fewer than 3 points, a negative tolerance.

    Source: arXiv 2405.20231, monotonic linear interpolation.

    >>> found = monotonicity([1.0, 0.9, 0.0])
    >>> float(found.global_convexity), float(found.authors_global_convexity), bool(found.monotonic)
    (0.0, 1.0, True)
    """
    losses = np.asarray(losses, np.float64)
    if not losses.ndim or losses.shape[-1] < 3:
        raise ValueError(f"losses of shape {losses.shape} need at least 3 points on the last axis")
    if not tolerance >= 0:
        raise ValueError(f"tolerance={tolerance} must be >= 0")
    finite = np.isfinite(losses).all(-1)
    losses = np.where(finite[..., None], losses, 0.0)
    alphas = np.linspace(0.0, 1.0, losses.shape[-1])[1:-1]
    inner, first, second, last = losses[..., 1:-1], losses[..., :1], losses[..., 1:2], losses[..., -1:]
    steps = np.diff(losses, axis=-1)

    def share(holds):
        return np.where(finite, holds.mean(-1), np.nan)

    delta = np.where(finite, steps.max(-1), np.nan)
    return Monotonicity(
        delta,
        finite & (delta <= tolerance),
        share(np.diff(steps, axis=-1) >= -tolerance),
        share(inner <= (1 - alphas) * first + alphas * last + tolerance),
        share(inner <= first + alphas * (second - first) + tolerance),
    )


def check_grid(alphas: Float[np.ndarray, " points"]) -> None:
    """Check that alphas increase from 0 to 1 and include 0.5.

    Raises:
        ValueError: naming what is violated.
    """
    if alphas.ndim != 1 or len(alphas) < 3 or not (np.diff(alphas) > 0).all() or (alphas[0], alphas[-1]) != (0, 1):
        raise ValueError(
            f"alphas={np.array2string(alphas, threshold=6)} must increase from 0 to 1 and include both: a barrier is "
            "measured relative to its ends"
        )
    if abs(alphas - 0.5).min() > 1e-12:
        raise ValueError("alphas has no 0.5, where the midpoint is; give an odd number of equidistant points")
