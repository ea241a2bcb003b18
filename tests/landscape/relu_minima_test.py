"""The tables of the three families to their last digit, and the closed forms by sampling and finite differences."""

import numpy as np
import pytest
import scipy.optimize

from sbjax.landscape import relu_minima as rm

# k: (loss, least eigenvalue, number of negative ones, largest / k) of A, I, II
TABLE = {
    6: ((0.05566858, 0.00150, 0, 0.332), (0.04739578, -0.00583, 6, 0.335), (0.02508058, 0.00470, 0, 0.337)),
    7: ((0.06221098, 0.00685, 0, 0.322), (0.05532161, 0.00166, 0, 0.324), (0.02320271, 0.01406, 0, 0.328)),
    8: ((0.06773169, 0.01106, 0, 0.315), (0.06183462, 0.00710, 0, 0.316), (0.02150804, 0.02135, 0, 0.321)),
    10: ((0.07663666, 0.01749, 0, 0.304), (0.07205671, 0.01488, 0, 0.305), (0.01870219, 0.03196, 0, 0.310)),
    12: ((0.08359924, 0.02233, 0, 0.296), (0.07984700, 0.02044, 0, 0.297), (0.01652379, 0.03935, 0, 0.302)),
    15: ((0.09171816, 0.02786, 0, 0.289), (0.08875219, 0.02657, 0, 0.289), (0.01406388, 0.04703, 0, 0.293)),
    20: ((0.10150546, 0.03447, 0, 0.281), (0.09928651, 0.03367, 0, 0.281), (0.01127558, 0.05509, 0, 0.284)),
}
LARGE = {  # losses of A, I and II
    30: (None, None, 0.24268 / 30),
    50: (0.12745076, 0.12651194, 0.25918 / 50),
    80: (None, None, 0.27012 / 80),
    120: (0.14528636, 0.14486059, 0.27702 / 120),
    200: (0.15305939, 0.15279177, 0.28321 / 200),
    400: (0.16114503, 0.16100385, 0.28859 / 400),
}


@pytest.fixture(scope="module")
def points():
    return {(family, k): rm.critical_point(family, k) for k in TABLE for family in rm.FAMILIES}


@pytest.mark.parametrize("k", TABLE)
def test_families_of_the_table(points, k):
    """Type I is a saddle at k = 6 and a minimum from k = 7 on."""
    for family, (loss, least, negative, top) in zip(rm.FAMILIES, TABLE[k], strict=True):
        point = points[family, k]
        values = rm.spectrum(point.weights)
        assert point.gradient < 1e-14
        assert point.loss == pytest.approx(loss, abs=6e-9)
        assert values[0] == pytest.approx(least, abs=6e-6)
        assert int(np.sum(values < -1e-9)) == negative
        assert values[-1] / k == pytest.approx(top, abs=6e-4)


@pytest.mark.parametrize("k", [30, 50, 80, 120, 200, pytest.param(400, marks=pytest.mark.extended)])
def test_families_of_many_units(k):
    for family, loss in zip(rm.FAMILIES, LARGE[k], strict=True):
        if loss is None:
            continue
        found = rm.critical_point(family, k)
        assert found.gradient < 1e-13
        assert found.loss == pytest.approx(loss, abs=6e-9 if family != "II" else 6e-6 / k)


def test_losses_of_infinitely_many_units():
    """k times the loss of II by 1 / k and by k^(-1/2), near 1/2 - 2 / pi^2; A and I by k^(-1/2), near 1/2 - 1 / pi.

    From k = 200 and 400, whose losses are checked above.
    """
    losses = dict(zip(rm.FAMILIES, zip(LARGE[200], LARGE[400], strict=True), strict=True))

    def limit(low, high, power):
        return (2**power * high - low) / (2**power - 1)

    scaled = 200 * losses["II"][0], 400 * losses["II"][1]
    assert limit(*scaled, 1) == pytest.approx(0.294, abs=5e-4)
    assert limit(*scaled, 0.5) == pytest.approx(0.302, abs=5e-4)
    assert limit(*scaled, 1) < 0.5 - 2 / np.pi**2 < limit(*scaled, 0.5)
    for family in ("A", "I"):
        assert limit(*losses[family], 0.5) == pytest.approx(0.181, abs=5e-4)
        assert limit(*losses[family], 0.5) == pytest.approx(0.5 - 1 / np.pi, abs=1.1e-3)


# Least eigenvalues after one of the first units, and the last one, is split: over k = 7 to 20.
SPLIT = {
    "A": ((-0.23, -0.20), (-0.23, -0.20)),
    "I": ((-0.24, -0.21), (-0.08, -0.07)),
    "II": ((-0.22, -0.11), (-0.17, -0.12)),
}


@pytest.mark.parametrize("k", [k for k in TABLE if k > 6])
def test_a_unit_in_two_halves_gives_k_minus_1_negative_eigenvalues(points, k):
    for family in rm.FAMILIES:
        w = points[family, k].weights
        for unit, (low, high) in zip((0, k - 1), SPLIT[family], strict=True):
            wider = rm.split(w, unit)
            values = rm.spectrum(wider)
            assert rm.loss(wider) == pytest.approx(points[family, k].loss, abs=1e-12)
            assert int(np.sum(values < -1e-9)) == k - 1
            assert low - 0.005 <= values[0] <= high + 0.005


@pytest.mark.sampled(1)
@pytest.mark.parametrize("k", [8, 6, 7, 10, 12])
def test_a_new_unit_of_zero_norm_goes_down(points, k):
    """Against a general minimiser over the unit; A and I round to -0.019 but for A from k = 10 on, -0.018."""
    for family in rm.FAMILIES:
        w = points[family, k].weights
        slope = rm.first_descent(w)
        least, most = (-0.03605, -0.0275) if family == "II" else (-0.0195, -0.0185 if family == "I" else -0.0179)
        assert least < slope < most
        if k == 8:
            starts = np.random.default_rng(4).normal(size=(10, k))
            found = min(scipy.optimize.minimize(_slope, v, args=(w,)).fun for v in starts)
            assert slope == pytest.approx(found, abs=1e-8)


def _slope(v, w):
    u = v[None] / np.linalg.norm(v)
    return float(rm.kernel(u, w).sum() - rm.kernel(u, np.eye(w.shape[1])).sum())


def test_multiplicities_are_dimensions_of_representations(points):
    """Under S_k, acting on both sides at once, k^2 = 2 (trivial) + 3 (k - 1) + k (k - 3) / 2 + (k - 1) (k - 2) / 2."""
    k = 8
    values = rm.spectrum(points["A", k].weights)
    sizes = np.diff(np.flatnonzero(np.r_[True, np.diff(values) > 1e-9, True]))
    assert sorted(sizes) == sorted([1, 1, k - 1, k - 1, k - 1, k * (k - 3) // 2, (k - 1) * (k - 2) // 2])


def test_loss_by_sampling_gradient_and_hessian_by_differences():
    random = np.random.default_rng(0)
    w, x = random.normal(size=(5, 4)), random.normal(size=(200_000, 4))
    errors = np.maximum(x @ w.T, 0).sum(1) - np.maximum(x, 0).sum(1)
    sampled = 0.5 * errors**2
    assert abs(sampled.mean() - rm.loss(w)) < 4 * sampled.std() / np.sqrt(len(x))
    step, flat = 1e-5, np.eye(w.size)

    def moved(direction, sign):
        return w + sign * step * direction.reshape(w.shape)

    slopes = [(rm.loss(moved(e, 1)) - rm.loss(moved(e, -1))) / (2 * step) for e in flat]
    np.testing.assert_allclose(np.reshape(slopes, w.shape), rm.gradient(w), atol=1e-9)
    rows = [(rm.gradient(moved(e, 1)) - rm.gradient(moved(e, -1))).ravel() / (2 * step) for e in flat]
    np.testing.assert_allclose(np.stack(rows), rm.hessian(w), atol=1e-9)


def test_invariances_and_batches():
    random = np.random.default_rng(1)
    w = random.normal(size=(3, 5, 4))
    rows, columns = random.permutation(5), random.permutation(4)
    moved = w[:, rows][:, :, columns]
    np.testing.assert_allclose(rm.loss(moved), rm.loss(w), rtol=1e-13)
    np.testing.assert_allclose(rm.gradient(moved), rm.gradient(w)[:, rows][:, :, columns], atol=1e-13)
    np.testing.assert_allclose(rm.spectrum(moved[0]), rm.spectrum(w[0]), atol=1e-12)
    np.testing.assert_allclose(rm.loss(w), [rm.loss(one) for one in w], rtol=1e-14)
    assert rm.loss(np.eye(4)[random.permutation(4)]) < 1e-15


def test_descent_ends_at_type_ii_and_orbits_say_so(points):
    """From near it, k = 8 comes back to its loss and isotropy; a random matrix has none."""
    near = points["II", 8].weights + 1e-3 * np.random.default_rng(2).normal(size=(1, 8, 8))
    ends, slopes = rm.descend(near, steps=3000, rate=1.5 / 8)
    assert slopes[0] < 1e-9
    assert rm.loss(ends)[0] == pytest.approx(points["II", 8].loss, abs=1e-9)
    assert rm.orbits(ends[0]) == ((7, 1), (7, 1))
    assert rm.orbits(points["A", 8].weights) == ((8,), (8,))
    assert rm.orbits(np.random.default_rng(3).normal(size=(3, 2))) == ((1, 1, 1), (1, 1))


@pytest.mark.extended
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_where_descent_ends_from_random_starts(points, extra):
    """Of 40 starts with k = 8 units some end at type II, never at A or I; with a unit more or two, none."""
    w = np.random.default_rng(5).normal(size=(40, 8 + extra, 8)) * np.sqrt(2 / (16 + extra))
    ends, slopes = rm.descend(w, steps=6000, rate=1.5 / 8)
    losses = rm.loss(ends)
    caught = losses > 1e-3
    assert (1 <= caught.sum() <= 14) == (extra == 0)
    assert slopes[caught].max(initial=0) < 1e-8
    np.testing.assert_allclose(losses[caught], points["II", 8].loss, atol=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rm.critical_point("B", 8), "must be one of A, I, II"),
        (lambda: rm.critical_point("A", 3), "k=3 a whole number >= 4"),
        pytest.param(lambda: rm.critical_point("I", 6.5), "k=6.5 a whole number", marks=pytest.mark.wrong_types),
        (lambda: rm.split(np.eye(3), 3), "unit=3 must lie between 0 and 2"),
        (lambda: rm.orbits(np.full((3, 3), np.nan)), "w has entries that are not finite"),
        (lambda: rm.hessian(np.zeros((2, 2))), "zero norm"),
        (lambda: rm.hessian(np.full((2, 2), np.nan)), "give the finite weights"),
        (lambda: rm.expand(np.ones(3), 4), "3 coordinates and k=4: give 2 or 5"),
        (lambda: rm.descend(np.eye(2), steps=1, rate=np.nan), "rate=nan"),
        (lambda: rm.polish(np.eye(2), steps=0), "steps=0 must be >= 1"),
        (lambda: rm.first_descent(np.full((2, 2), np.nan)), "not finite"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
