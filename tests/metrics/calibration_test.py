"""Scores of probabilities against sums by hand, brute force and scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.stats import mannwhitneyu

from sbjax.metrics import calibration as lib


def predictions(n=400, classes=5, seed=0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(n, classes))
    labels = np.where(rng.random(n) < 0.7, logits.argmax(-1), rng.integers(classes, size=n))
    return log_softmax(logits, -1), labels


def test_scores_are_the_sums_of_their_formulas():
    values, labels = predictions()
    p = np.exp(values)
    assert lib.log_loss(values, labels) == pytest.approx(-sum(values[i, y] for i, y in enumerate(labels)) / 400)
    by_hand = sum((p[i, c] - (c == y)) ** 2 for i, y in enumerate(labels) for c in range(5)) / 400
    assert lib.brier(values, labels) == pytest.approx(by_hand)
    assert 0 <= by_hand <= 2


def test_brier_has_its_two_ends():
    right = log_softmax(np.array([[800.0, 0.0, 0.0]]), -1)
    assert lib.brier(right, np.array([0])) == pytest.approx(0)
    assert lib.brier(right, np.array([1])) == pytest.approx(2)


def test_calibration_error_is_a_count_by_hand():
    values, labels = predictions()
    p = np.exp(values)
    top, right = p.max(-1), p.argmax(-1) == labels
    total = 0.0
    for b in range(15):
        inside = [i for i in range(400) if b / 15 < top[i] <= (b + 1) / 15]
        if inside:
            total += len(inside) / 400 * abs(np.mean(right[inside]) - np.mean(top[inside]))
    assert lib.calibration_error(values, labels) == pytest.approx(total, rel=1e-12)


def test_a_confidence_on_an_edge_belongs_below():
    found = lib.reliability(np.log([[0.5, 0.5], [0.75, 0.25], [1.0, 1e-30]]), np.zeros(3, int), bins=4)
    assert found.counts.tolist() == [0, 1, 1, 1]
    assert np.isnan(found.accuracy[0])
    assert found.accuracy[1] == 1


@pytest.mark.parametrize(("n", "published"), [(100, 0.108), (1000, 0.037), (10_000, 0.012)])
def test_floor_of_a_calibrated_predictor(n, published):
    rng = np.random.default_rng(1)
    values = np.log(rng.dirichlet(np.full(10, 0.3), size=n).clip(1e-300))
    found = lib.floor(values, draws=60)
    assert found.mean == pytest.approx(published, abs=0.15 * published)
    assert found.high > found.mean


def test_floor_is_the_error_of_labels_drawn_from_the_probabilities():
    values, _ = predictions(300)
    rng = np.random.default_rng(5)
    drawn = [
        lib.calibration_error(values, np.array([rng.choice(5, p=np.exp(row) / np.exp(row).sum()) for row in values]))
        for _ in range(60)
    ]
    found = lib.floor(values, draws=400)
    assert found.mean == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(60))


def test_temperature_is_the_minimum_and_leaves_ranks():
    values, labels = predictions(sharpness=6.0)
    found = lib.tempered(values, labels, fit=(values, labels))
    losses = [lib.log_loss(log_softmax(values / t, -1), labels) for t in np.geomspace(0.1, 30, 400)]
    assert found.loss <= min(losses) + 1e-9
    assert found.loss < lib.log_loss(values, labels)
    same = lib.tempered(log_softmax(3 * values, -1), labels, fit=(log_softmax(3 * values, -1), labels))
    assert same.temperature == pytest.approx(3 * found.temperature, rel=1e-3)
    assert same.loss == pytest.approx(found.loss, rel=1e-6)


def test_tempering_is_chosen_on_other_examples():
    (values, labels), held = predictions(seed=1), predictions(seed=2)
    assert lib.tempered(values, labels, fit=held).loss >= lib.tempered(values, labels, fit=(values, labels)).loss


scores = st.lists(st.integers(0, 6), min_size=1, max_size=25)


@given(scores, scores)
def test_detection_is_mann_whitney_by_brute_force(inside, outside):
    wins = sum((a > b) + 0.5 * (a == b) for a in inside for b in outside) / (len(inside) * len(outside))
    inside, outside = np.array(inside, float), np.array(outside, float)
    assert lib.detection(inside, outside) == pytest.approx(wins, abs=1e-12)
    assert wins == pytest.approx(mannwhitneyu(inside, outside).statistic / (len(inside) * len(outside)))


def test_averaged_is_the_log_of_the_mean():
    values = np.stack([predictions(seed=s)[0] for s in range(3)])
    np.testing.assert_allclose(lib.averaged(values), np.log(np.exp(values).mean(0)), rtol=1e-12)
    labels = predictions()[1]
    each = [lib.log_loss(one, labels) for one in values]
    assert lib.log_loss(lib.averaged(values), labels) <= np.mean(each)  # Jensen


@pytest.mark.wrong_types
def test_what_is_no_probability_is_refused():
    values, labels = predictions(4)
    with pytest.raises(ValueError, match="sum to 5 and not to 1; give log_softmax"):
        lib.log_loss(np.zeros((4, 5)), labels)
    with pytest.raises(ValueError, match=r"give one of 0 to 4 for each of the 4 examples"):
        lib.brier(values, labels + 5)
    with pytest.raises(ValueError, match=r"shape \(4,\); give \[n, classes\]"):
        lib.calibration_error(values[:, 0], labels)
    for bins in (0, 10**9, 2.5):
        with pytest.raises(ValueError, match=rf"bins={bins} must be >= 1, a whole number up to 1000000"):
            lib.calibration_error(values, labels, bins=bins)
    with pytest.raises(ValueError, match="labels have entries that are no whole numbers"):
        lib.brier(values, np.asarray(labels) + 0.5)
    with pytest.raises(ValueError, match="draws=0 must be >= 1"):
        lib.floor(values, draws=0)
    with pytest.raises(ValueError, match="scores on both sides"):
        lib.detection([], [1.0])
