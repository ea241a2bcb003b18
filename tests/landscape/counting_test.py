"""Counts against brute force, generating functions, recurrences and published tables."""

import decimal
import itertools
import math
import time
from fractions import Fraction

import numpy as np
import pytest
import sympy

from sbjax.landscape import counting as lib

COPIES = [[1] * 6, [2, 6, 14, 30, 62], [6, 36, 150, 540], [24, 240, 1560], [120, 1800], [720]]
MINIMA = [
    [1, 3, 10, 37, 151, 674],
    [2, 12, 62, 320, 1712],
    [6, 60, 450, 3120],
    [24, 360, 3720],
    [120, 2520],
    [720],
]


def compositions(total, parts):
    for cuts in itertools.combinations(range(1, total), parts - 1):
        yield np.diff([0, *cuts, total])


def partitions(total, least=1):
    if total == 0:
        yield ()
    for first in range(least, total + 1):
        for rest in partitions(total - first, first):
            yield (first, *rest)


def brute_force(r, m, *, cancelled):
    """Distinct arrangements that permutations of all units make of all signatures."""
    found = set()
    for u in range(m - r + 1 if cancelled else 1):
        for copies in compositions(m - u, r):
            for zeros in partitions(u):
                labels = np.repeat(np.arange(r + len(zeros)), [*copies, *zeros])
                for order in itertools.permutations(range(m)):
                    groups = [frozenset(np.flatnonzero(labels[list(order)] == g)) for g in range(r + len(zeros))]
                    found.add((tuple(groups[:r]), frozenset(groups[r:])))
    return len(found)


def small(most):
    return [(r, m) for m in range(1, most + 1) for r in range(1, m + 1)]


@pytest.mark.parametrize(
    ("r", "m"), [*small(5), *(pytest.param(r, 6, marks=pytest.mark.extended) for r in range(1, 7))]
)
def test_brute_force(r, m):
    assert lib.G(r, m) == brute_force(r, m, cancelled=False)
    assert lib.T(r, m) == brute_force(r, m, cancelled=True)


def test_tables():
    assert [[lib.G(r, m) for m in range(r, 7)] for r in range(1, 7)] == COPIES
    assert [[lib.T(r, m) for m in range(r, 7)] for r in range(1, 7)] == MINIMA
    assert f"{lib.T(4, 45):.3e} {lib.G(3, 45):.3e}" == "5.469e+45 2.954e+21"


def series_product(a, b):
    return [sum(a[i] * b[n - i] for i in range(n + 1)) for n in range(len(a))]


def test_generating_functions():
    """(e^x - 1)^r and (e^x - 1)^r exp(e^x - 1), as exact power series to x^8."""
    one = [Fraction(int(n == 0)) for n in range(9)]
    inner = [Fraction(int(n > 0), math.factorial(n)) for n in range(9)]
    powers = list(itertools.accumulate(range(8), lambda power, _: series_product(power, inner), initial=one))
    bells = [sum(power[n] / math.factorial(j) for j, power in enumerate(powers)) for n in range(9)]
    for r, m in small(8):
        assert lib.G(r, m) == powers[r][m] * math.factorial(m)
        assert lib.T(r, m) == series_product(powers[r], bells)[m] * math.factorial(m)


def test_recurrence_of_the_derivative_of_the_generating_function():
    """F_r = (e^x - 1)^r exp(e^x - 1) has F_r' = (r + 1) F_r + r F_(r-1) + F_(r+1), with F_0 that of Bell."""
    for r, m in [(1, 1), (1, 30), (7, 29), (30, 31), (4, 90)]:
        below = r * lib.T(r - 1, m) if r > 1 else lib.bell(m)
        above = lib.T(r + 1, m) if m > r else 0
        assert lib.T(r, m + 1) == (r + 1) * lib.T(r, m) + below + above
    assert lib.T(1, 40) == lib.bell(41) - lib.bell(40)


def test_edges_stirling_and_bell():
    for r in (1, 4, 17):
        assert lib.G(r, r) == lib.T(r, r) == math.factorial(r)
        assert 2 * lib.G(r, r + 1) == r * math.factorial(r + 1)
        assert 2 * lib.T(r, r + 1) == (r + 2) * math.factorial(r + 1)
    for m in (1, 6, 23):
        assert lib.bell(m) == sum(lib.stirling(r, m) for r in range(1, m + 1)) == sympy.bell(m)
    assert lib.stirling(9, 31) == sympy.functions.combinatorial.numbers.stirling(31, 9)


def test_large_counts_are_quick():
    start = time.process_time()
    copies, minima = lib.G(500, 1000), lib.T(500, 1000)
    cross = lib.crossing(1000)
    assert time.process_time() - start < 5
    # 500 units in their places, the others copies of any.
    assert minima > copies > math.factorial(500) * 500**500
    assert lib.T(1000, 1000) == math.factorial(1000)
    assert lib.log(minima) == pytest.approx(float(decimal.Decimal(minima).ln()), rel=1e-14)
    assert cross == 1464  # found by counting in full at every width from 1000 on


def test_ratios():
    exact = [float(lib.ratio(200, 200 + h, k)) / lib.ratio_asymptotic(200, h, k) for k in (1, 2) for h in (0, 1, 2)]
    np.testing.assert_allclose(exact, [0.995, 0.982, 0.969, 0.982, 0.966, 0.950], atol=5e-4)
    assert float(lib.ratio(10, 13) / Fraction(lib.ratio_asymptotic(10, 3))) == pytest.approx(0.40, abs=5e-3)
    assert lib.ratio_asymptotic(200, 1, 2) == 200**2 / (4 * 2 * 3)
    one = [float(lib.ratio(10, m)) for m in (10, 11, 12, 13)]
    np.testing.assert_allclose(one, [4.5, 1.75, 0.89, 0.50], atol=5e-3)
    three = [float(lib.ratio((10, 10, 10), (m, m, m))) for m in (10, 11, 12, 13)]
    np.testing.assert_allclose(three, np.power(one, 3), rtol=1e-12)
    np.testing.assert_allclose(three, [91, 5.4, 0.71, 0.127], rtol=1e-2)


def test_ratio_of_all_narrower_critical_points():
    four, ten = lib.counts(4, 45), lib.counts(10, 30)
    for found, expected in [
        (four, {4: 2.12, 5: 0.503, 6: 0.162, 8: 0.0210, 10: 2.8e-3, 20: 2.8e-8, 45: 5.4e-25}),
        (ten, {10: 27.2, 11: 5.78, 12: 2.07, 13: 0.939, 14: 0.479, 15: 0.262, 20: 0.0175, 30: 5.6e-5}),
    ]:
        ratio = dict(zip(found.widths, np.exp(found.critical - found.minima)))
        np.testing.assert_allclose([ratio[m] for m in expected], list(expected.values()), rtol=2e-2)
    assert four.minima[-1] == lib.log(lib.T(4, 45))
    assert four.critical[-1] == pytest.approx(lib.log(sum(lib.G(s, 45) for s in (1, 2, 3))), rel=1e-15)
    assert lib.counts(1, 2).critical.tolist() == [-math.inf, -math.inf]


def test_crossing_widths():
    expected = {4: 5, 5: 6, 6: 8, 8: 11, 10: 13, 15: 21, 20: 28, 30: 42, 40: 57, 60: 86, 80: 115}
    assert {r: lib.crossing(r) for r in expected} == expected
    assert lib.crossing(1) == 1


def test_crossing_against_sums_of_all_counts():
    for r in range(1, 21):
        narrower = {m: sum(lib.G(s, m) for s in range(1, r)) for m in range(r, 2 * r + 1)}
        more = [lib.T(r, m) >= total for m, total in narrower.items()]
        # Once true it stays so, on which the search relies.
        assert more == sorted(more)
        assert lib.crossing(r) == r + more.index(True)


@pytest.mark.parametrize("off", [-3, 2])
def test_exact_counts_settle_the_crossing(monkeypatch, off):
    monkeypatch.setattr(lib, "_likely_crossing", lambda r: 13 + off)
    assert lib.crossing(10) == 13


def test_minima_as_a_sum_over_wider_copies():
    for r, m in [(1, 9), (6, 6), (7, 31)]:
        assert lib.T(r, m) == sum(Fraction(lib.G(r + j, m), math.factorial(j)) for j in range(m - r + 1))


def test_fullest_width():
    assert (lib.fullest(100), lib.fullest(200)) == (72, 145)
    assert abs(lib.fullest(200) - 200 / (2 * math.log(2))) < 1
    # From 2 ln 2 r units up, no narrower width has as many copies.
    r, m = 30, math.ceil(2 * math.log(2) * 30)
    assert all(lib.G(s, m) < lib.G(r, m) for s in range(1, r))


def test_points_of_pairs():
    for n in range(1, 8):
        for k in range(n // 2 + 1):
            pairs = sum(
                Fraction(1, math.prod(map(math.factorial, parts.tolist())))
                for parts in compositions(n, n - k)
                if max(parts) <= 2
            )
            assert lib.permutation_points(n, k) == pairs


def test_layers():
    assert lib.layers(lib.T, (2, 3), (4, 5)) == 62 * 450
    assert lib.layers(lib.G, (2,), (4,)) == 14


INVALID = [
    (lambda: lib.T(3, 2), "r=3 > m=2: .*choose r <= m"),
    (lambda: lib.G(0, 2), "r=0 is too small: give at least 1"),
    (lambda: lib.T(1.5, 2), "r=1.5 is no integer"),
    (lambda: lib.G(True, 2), "r=True is no integer"),
    (lambda: lib.T("1", 2), "r='1' is no integer"),
    (lambda: lib.bell(-1), "u=-1 is too small"),
    (lambda: lib.layers(lib.T, (1, 2), (3,)), "r has 2 hidden layers, m has 1"),
    (lambda: lib.layers(lib.T, (), ()), "r has 0 hidden layers"),
    (lambda: lib.ratio(2, 3, k=2), "k=2 leaves no unit of r=2"),
    (lambda: lib.ratio_asymptotic(2, -1), "h=-1 is too small"),
    (lambda: lib.permutation_points(3, 2), "k=2 pairs do not fit n=3"),
    (lambda: lib.crossing(0), "r=0"),
    (lambda: lib.counts(3, 2), "r=3 > m=2"),
    (lambda: lib.fullest(0), "m=0"),
]


@pytest.mark.wrong_types
@pytest.mark.parametrize(("call", "message"), INVALID)
def test_errors_name_field_value_and_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()
