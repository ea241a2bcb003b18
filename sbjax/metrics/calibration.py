"""Whether probabilities of classes mean what they say: scores, calibration error with its floor, detection.

All functions take numbers on the host and compute in double precision. Probabilities are given as logarithms, `[n,
classes]`, normalised; of a Bayesian average they are the logarithm of the averaged probabilities, see `averaged`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from scipy.stats import rankdata

BINS = 15
MOST_BINS = 10**6
FLOOR_DRAWS = 200

LogProbabilities = Float[ArrayLike, "n classes"]
Labels = Int[ArrayLike, " n"]


class Reliability(NamedTuple):
    """Examples by confidence, the largest probability, in M equal bins.

    A confidence on an edge belongs to the bin below: bin b holds (b / M, (b + 1) / M].

    Attributes:
        counts: examples in each bin.
        confidence: mean confidence in each bin, NaN where it is empty.
        accuracy: share of right examples in each bin, likewise.
    """

    counts: Int[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " bins"]
    accuracy: Float[np.ndarray, " bins"]

    @property
    def error(self) -> float:
        """sum_b n_b / N |accuracy_b - confidence_b|."""
        gaps = np.abs(np.nan_to_num(self.accuracy - self.confidence))
        return float(gaps @ self.counts / self.counts.sum())


class Floor(NamedTuple):
    """Calibration error of a predictor whose probabilities are true, at the same examples.

    Attributes:
        mean: over draws.
        high: its 95 % quantile: a larger error is one that chance alone gives once in twenty times.
    """

    mean: float
    high: float


class Tempered(NamedTuple):
    """The temperature that is best on one split, and the loss that it gives on another one."""

    temperature: float
    loss: float


def averaged(log_probabilities: Float[ArrayLike, "samples n classes"]) -> Float[np.ndarray, "n classes"]:
    """log of the mean of probabilities over samples: logsumexp - log S.

    >>> averaged(np.log([[[0.2, 0.8]], [[0.6, 0.4]]])).round(4).tolist() == np.log([[0.4, 0.6]]).round(4).tolist()
    True
    """
    values = np.asarray(log_probabilities, np.float64)
    return logsumexp(values, axis=0) - np.log(len(values))


def log_loss(log_probabilities: LogProbabilities, labels: Labels) -> float:
    """Negative log-likelihood, -mean log p_y.

    >>> round(log_loss(np.log([[0.5, 0.5], [0.25, 0.75]]), [0, 1]), 4)
    0.4904
    """
    values, labels = _checked(log_probabilities, labels)
    return float(-values[np.arange(len(labels)), labels].mean())


def brier(log_probabilities: LogProbabilities, labels: Labels) -> float:
    """Brier score, mean sum_c (p_c - 1[c = y])^2, between 0 and 2.

    >>> brier(np.log([[0.5, 0.5]]), [0])
    0.5
    """
    values, labels = _checked(log_probabilities, labels)
    misses = np.exp(values)
    misses[np.arange(len(labels)), labels] -= 1
    return float((misses**2).sum(-1).mean())


def reliability(log_probabilities: LogProbabilities, labels: Labels, *, bins: int = BINS) -> Reliability:
    """Examples by confidence; of several classes with the largest probability the first one is the prediction.

    Args:
        bins: M.

    Raises:
        ValueError: shapes that do not fit, labels outside of the classes, probabilities that do not sum to 1, or bins.

    >>> reliability(np.log([[0.6, 0.4], [0.9, 0.1], [0.1, 0.9]]), [1, 0, 0], bins=5).counts.tolist()
    [0, 0, 1, 0, 2]
    """
    values, labels = _checked(log_probabilities, labels)
    confidence, right = np.exp(values.max(-1)), values.argmax(-1) == labels
    return _binned(confidence, right, bins)


def calibration_error(log_probabilities: LogProbabilities, labels: Labels, *, bins: int = BINS) -> float:
    """Expected calibration error (ECE, L1): sum_b n_b / N |accuracy_b - confidence_b| over bins of confidence.

    It is not zero for a predictor whose probabilities are true: state `floor` beside it. Source: Guo et al.,
    arXiv 1706.04599, equation 3.

    >>> round(calibration_error(np.log([[0.6, 0.4], [0.6, 0.4]]), [0, 1]), 4)
    0.1
    """
    return reliability(log_probabilities, labels, bins=bins).error


def floor(log_probabilities: LogProbabilities, *, bins: int = BINS, draws: int = FLOOR_DRAWS, seed: int = 0) -> Floor:
    """Calibration error of a predictor that is right as often as it says, at these examples.

    Labels are drawn again from the probabilities themselves: an example is right with the probability of its
    confidence. For a predictor of 10 classes (Dirichlet with concentration 0.3) the mean is 0.108 with 100 examples,
    0.037 with 1,000 and 0.012 with 10,000.

    Args:
        draws: of all labels.
        seed: of the draws.

    >>> certain = np.log(np.full((50, 2), [1.0, 1e-300]))
    >>> floor(certain)
    Floor(mean=0.0, high=0.0)
    """
    values, _ = _checked(log_probabilities, None)
    confidence = np.exp(values.max(-1))
    if draws < 1:
        raise ValueError(f"draws={draws} must be >= 1")
    rng = np.random.default_rng(seed)
    errors = [_binned(confidence, rng.random(len(confidence)) < confidence, bins).error for _ in range(draws)]
    return Floor(float(np.mean(errors)), float(np.quantile(errors, 0.95)))


def tempered(
    log_probabilities: LogProbabilities,
    labels: Labels,
    *,
    fit: tuple[LogProbabilities, Labels],
) -> Tempered:
    """Log loss of softmax(log p / T) with the T that is best on other examples, as in validation data.

    Losses of two methods compare how well they rank and scale classes; without T the one that happens to be cooler
    wins (Ashukha et al., arXiv 2002.06470).

    Args:
        fit: probabilities and labels that T is chosen on; not those that the loss is told of.

    Raises:
        ValueError: as `reliability`.

    >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    >>> found = tempered(log_softmax(logits, -1), [0, 0, 1, 1], fit=(log_softmax(logits, -1), [0, 0, 1, 1]))
    >>> round(found.temperature, 3), round(found.loss, 4)  # three of four right: the odds are 3
    (3.641, 0.5623)
    """
    fitted, known = _checked(*fit)

    def loss(log_temperature):
        return log_loss(log_softmax(fitted / np.exp(log_temperature), -1), known)

    # Convex in 1 / T; the bounds are those of a network that knows nothing and of one that is never wrong.
    best = float(np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-6}).x))
    values, labels = _checked(log_probabilities, labels)
    return Tempered(best, log_loss(log_softmax(values / best, -1), labels))


def detection(inside: Float[ArrayLike, " n"], outside: Float[ArrayLike, " m"]) -> float:
    """AUROC of telling examples of the known kind from others by a score that is larger inside: P(inside > outside),
    ties counted half. By ranks; it is the statistic of Mann and Whitney over n m.

    Raises:
        ValueError: an empty side, or a score that is NaN.

    >>> detection([3.0, 2.0], [1.0, 2.0])
    0.875
    """
    sides = [np.asarray(side, np.float64).ravel() for side in (inside, outside)]
    if not all(len(side) for side in sides) or any(np.isnan(side).any() for side in sides):
        raise ValueError("detection needs scores on both sides, none of them NaN")
    n, m = map(len, sides)
    ranks = rankdata(np.concatenate(sides))[:n].sum()
    return float((ranks - n * (n + 1) / 2) / (n * m))


def confidence(log_probabilities: LogProbabilities) -> Float[np.ndarray, " n"]:
    """The largest probability of each example."""
    values, _ = _checked(log_probabilities, None)
    return np.exp(values.max(-1))


def _binned(confidence, right, bins) -> Reliability:
    if not isinstance(bins, int | np.integer) or not 1 <= bins <= MOST_BINS:
        raise ValueError(f"bins={bins} must be >= 1, a whole number up to {MOST_BINS}")
    # A sum of probabilities may end a round-off above 1.
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        sums = (np.bincount(index, weights=value, minlength=bins) / counts for value in (confidence, right))
        return Reliability(counts, *sums)


def _checked(log_probabilities, labels):
    values = np.asarray(log_probabilities, np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"log_probabilities have the shape {values.shape}; give [n, classes] with n >= 1")
    totals = logsumexp(values, axis=-1)
    if not (np.abs(totals) < 1e-3).all():
        raise ValueError(
            "log_probabilities: the probabilities of an example sum to "
            f"{np.exp(totals[np.argmax(np.abs(np.nan_to_num(totals, nan=np.inf)))]):.4g} and not to 1; give "
            "log_softmax of logits"
        )
    if labels is None:
        return values, None
    labels = np.asarray(labels)
    if labels.size and not np.issubdtype(labels.dtype, np.integer) and not (labels == np.round(labels)).all():
        raise ValueError("labels have entries that are no whole numbers; give the number of the class")
    if labels.shape != values.shape[:1] or labels.min() < 0 or labels.max() >= values.shape[1]:
        raise ValueError(
            f"labels have the shape {labels.shape} and lie in {labels.min()} to {labels.max()}; give one of "
            f"0 to {values.shape[1] - 1} for each of the {len(values)} examples"
        )
    return values, labels.astype(int)
