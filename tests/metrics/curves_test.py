"""Heights of barriers and shapes of curves, by closed forms and by loops over their definitions."""

import numpy as np
import pytest

from sbjax.metrics.curves import KINDS, heights, monotonicity


def by_definition(curve, alphas):
    first, last, middle = curve[0], curve[-1], curve[list(alphas).index(0.5)]
    return {
        "midpoint_over_mean_of_ends": middle - (first + last) / 2,
        "maximum_over_chord": max(y - ((1 - t) * first + t * last) for t, y in zip(alphas, curve)),
        "maximum_over_mean_of_ends": max(y - (first + last) / 2 for y in curve),
        "maximum_over_worse_end": max(y - max(first, last) for y in curve),
    }


def test_heights_by_their_definitions():
    rng = np.random.default_rng(0)
    alphas = np.sort(np.concatenate([[0.0, 0.5, 1.0], rng.uniform(size=6)]))
    curves = rng.normal(size=(4, 9))
    found, drops = heights(curves, alphas), heights(curves, alphas, higher_is_better=True)
    assert found.keys() == drops.keys() == set(KINDS)
    for row in range(4):
        for kind in KINDS:
            np.testing.assert_allclose(found[kind][row], by_definition(curves[row], alphas)[kind], atol=1e-14)
            np.testing.assert_allclose(drops[kind][row], by_definition(-curves[row], alphas)[kind], atol=1e-14)


def test_double_well():
    """(x^2 - 1)^2 from one minimum to the other has a barrier of 1; from -1 to 2, height 9, the definitions part."""
    alphas = np.linspace(0, 1, 25)
    assert heights(((2 * alphas - 1) ** 2 - 1) ** 2) == dict.fromkeys(KINDS, 1.0)
    uneven = heights(((3 * alphas - 1) ** 2 - 1) ** 2)
    expected = (0.75**2 - 9 / 2, 0.0, 9 / 2, 0.0)
    np.testing.assert_allclose([uneven[kind] for kind in KINDS], expected, atol=1e-14)


def test_numbers_that_are_not_finite():
    curves = np.array([[1, 2, 1], [np.nan, 2, 1], [1, 2, np.inf], [1, np.nan, 1], [1, np.inf, 1]])
    found = heights(curves)
    for kind in KINDS:
        np.testing.assert_array_equal(found[kind], [1, np.nan, np.nan, np.nan, np.inf])


@pytest.mark.parametrize(
    ("alphas", "match"),
    [
        ([0.1, 0.5, 1.0], "from 0 to 1"),
        ([0.0, 0.5, 0.9], "from 0 to 1"),
        ([0.0, 0.5, 0.5], "increase"),
        ([0.0, 0.7, 0.5, 1.0], "increase"),
        ([0.0, np.nan, 1.0], "increase"),
        ([0.0, 0.4, 1.0], r"no 0\.5"),
        ([0.0, 0.25, 0.5, 1.0], "each of the 4 alphas"),
        pytest.param([[0.0, 0.5, 1.0]], "increase", marks=pytest.mark.wrong_types),
    ],
)
def test_alphas_that_define_no_barrier(alphas, match):
    with pytest.raises(ValueError, match=match):
        heights([1.0, 2.0, 3.0], alphas)


def loops(losses):
    n = len(losses)
    inner = range(1, n - 1)
    chord = [losses[0] + i / (n - 1) * (losses[-1] - losses[0]) for i in range(n)]
    wrong = [losses[0] + i / (n - 1) * (losses[1] - losses[0]) for i in range(n)]
    delta = max(losses[i + 1] - losses[i] for i in range(n - 1))
    return (
        delta,
        delta <= 0,
        sum(losses[i - 1] - 2 * losses[i] + losses[i + 1] >= 0 for i in inner) / (n - 2),
        sum(losses[i] <= chord[i] for i in inner) / (n - 2),
        sum(losses[i] <= wrong[i] for i in inner) / (n - 2),
    )


def test_monotonicity_by_loops():
    losses = np.random.default_rng(0).normal(size=(5, 12)) - np.linspace(0, 3, 12)
    found = monotonicity(losses)
    for row in range(5):
        np.testing.assert_allclose([field[row] for field in found], loops(losses[row]), rtol=1e-12)
    assert 0 < found.global_convexity.min() < 1


def test_the_authors_chord_calls_a_concave_curve_convex():
    alphas = np.linspace(0, 1, 25)
    concave, convex = monotonicity(1 - alphas**2), monotonicity((1 - alphas) ** 2)
    assert concave[1:] == (True, 0.0, 0.0, 1.0)
    # The authors' line falls 24 times too slowly: it cannot tell the two apart.
    assert convex[1:] == (True, 1.0, 1.0, 1.0)
    risen_first = monotonicity([1.0, 1.1, 0.9, 0.5, 0.0])
    assert (risen_first.global_convexity, risen_first.authors_global_convexity) == (0.0, 2 / 3)
    np.testing.assert_allclose([concave.delta, convex.delta], -1 / 24**2, rtol=1e-12)


def test_rounding_of_a_plateau_and_losses_that_are_not_finite():
    plateau = 1 + 1e-8 * np.array([0, 1, -1, 1, 0, 1.0])
    assert not monotonicity(plateau).monotonic
    assert monotonicity(plateau, tolerance=1e-7)[1:] == (True, 1.0, 1.0, 1.0)
    found = monotonicity([[3, np.nan, 1.0], [3, 2, np.inf], [3, 2, 1.0]])
    np.testing.assert_array_equal(found.monotonic, [False, False, True])
    for field in (found.delta, found.local_convexity, found.global_convexity, found.authors_global_convexity):
        np.testing.assert_array_equal(np.isnan(field), [True, True, False])


def test_refusals():
    with pytest.raises(ValueError, match="at least 3 points"):
        monotonicity([1.0, 2.0])
    with pytest.raises(ValueError, match="tolerance=-1"):
        monotonicity([1.0, 2.0, 3.0], tolerance=-1)
