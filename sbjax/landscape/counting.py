"""How many affine subspaces hold the critical points and the global minima of an overparameterised layer.

A layer of m units that computes what r < m units can compute does so on a union of affine subspaces (arXiv 2105.12221):

- `G(r, m)` counts the subspaces on which m units are copies of r units; every critical point of the narrow loss gives
  that many subspaces of critical points of the wide loss.
- `T(r, m)` also counts those with units that cancel each other, which are free only at zero loss: the pieces of the
  manifold of global minima.

All counts are exact Python integers; `log` takes the logarithm of one, of any size.
"""

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Counts(NamedTuple):
    """Natural logarithms of counts over widths.

    Attributes:
        widths: m.
        minima: log T(r, m).
        critical: log sum_{s<r} G(s, m), with one irreducible critical point at each width s; -inf for r = 1.
    """

    widths: tuple[int, ...]
    minima: Float[np.ndarray, "width"]
    critical: Float[np.ndarray, "width"]


def stirling(r: int, m: int) -> int:
    """Stirling number of the second kind: partitions of m things into r non-empty sets.

    S(m, r) = G(r, m) / r!.

    Args and errors as `G`.

    >>> [stirling(r, 4) for r in range(1, 5)]
    [1, 7, 6, 1]
    """
    return G(r, m) // math.factorial(r)


def bell(u: int) -> int:
    """Bell number: partitions of u things into non-empty sets, B_0 = 1.

    Raises:
        ValueError: u is negative or no integer.

    >>> [bell(u) for u in range(7)]
    [1, 1, 2, 5, 15, 52, 203]
    """
    u = whole("u", u, 0)
    return _bells(u)[u]


def G(r: int, m: int) -> int:
    """Subspaces on which m units are copies of r units: surjections of m things onto r.

    G(r, m) = sum_{k_1 + .. + k_r = m, k >= 1} m! / (k_1! .. k_r!) = sum_{i=1}^r (-1)^(r-i) C(r, i) i^m

    (arXiv 2105.12221). G(r, r) = r!, G(r, r+1) = r (r+1)! / 2.

    Args:
        r: units of the narrow layer.
        m: units of the wide layer.

    Raises:
        ValueError: not 1 <= r <= m, or no integers.

    >>> [G(2, m) for m in range(2, 7)]
    [2, 6, 14, 30, 62]
    """
    r, m = pair(r, m)
    return sum((-1) ** (r - i) * math.comb(r, i) * i**m for i in range(1, r + 1))


def T(r: int, m: int) -> int:
    """Subspaces of the manifold of global minima: m units, r of them needed.

    T(r, m) = sum_{u=0}^{m-r} C(m, u) G(r, m-u) B_u: u units cancel in groups, the others are copies (arXiv 2105.12221).
    Generating function sum_m T(r, m) x^m / m! = (e^x - 1)^r exp(e^x - 1), so that it is sum_{j=0}^{m-r} G(r+j, m) / j!
    as well. T(r, r) = r!, T(r, r+1) = (r+2) (r+1)! / 2.

    Complete for activations without symmetries of their own, sigma(0) != 0 and inputs that fill the space; with a
    sigmoid or tanh there are further minima (units of opposite sign, constant units).

    Args and errors as `G`.

    >>> [T(2, m) for m in range(2, 7)]
    [2, 12, 62, 320, 1712]
    """
    r, m = pair(r, m)
    # sum_u C(m, u) B_u i^(m-u), a polynomial in i by Horner's rule, instead of as many values of G.
    coefficients, binomial = [], 1
    for u, b in enumerate(_bells(m - r)):
        coefficients.append(binomial * b)
        binomial = binomial * (m - u) // (u + 1)
    total = 0
    for i in range(1, r + 1):
        value = 0
        for c in coefficients:
            value = value * i + c
        total += (-1) ** (r - i) * math.comb(r, i) * value * i**r
    return total


def layers(count, r: Sequence[int], m: Sequence[int]) -> int:
    """prod_l count(r_l, m_l): the layers of a deep network expand independently of each other.

    In deep networks a unit that reaches only cancelled units is free as well, so that for `T` this is a lower bound on
    the number of pieces.

    Args:
        count: `T` or `G`.
        r, m: narrow and wide widths of the hidden layers.

    Raises:
        ValueError: r and m differ in length or are empty, or as `count`.

    >>> layers(T, (1, 2), (2, 3))
    36
    """
    if len(r) != len(m) or not len(r):
        raise ValueError(f"r has {len(r)} hidden layers, m has {len(m)}: give as many of both, at least one")
    return math.prod(count(narrow, wide) for narrow, wide in zip(r, m))


def log(count: int | Fraction) -> float:
    """Natural logarithm of an exact count or ratio, whatever its size; -inf for 0.

    >>> round(log(T(1000, 1000)) - math.lgamma(1001), 9)
    0.0
    """
    if not count:
        return -math.inf
    return math.log(count.numerator) - math.log(count.denominator)


def ratio(r: int | Sequence[int], m: int | Sequence[int], k: int = 1) -> Fraction:
    """Subspaces of critical points from k units too few a layer, over those of global minima.

    prod_l G(r_l - k, m_l) / T(r_l, m_l), exactly; for plots take `log` or `float` of it.

    Args:
        r: units that zero loss needs, one number or one a hidden layer.
        m: units of the network, likewise.
        k: units fewer in the critical point, 0 <= k < r.

    Raises:
        ValueError: k out of its range, or as `layers`.

    >>> [round(float(ratio(10, m)), 2) for m in (10, 11, 12, 13)]
    [4.5, 1.75, 0.89, 0.5]
    """
    r, m = np.atleast_1d(r).tolist(), np.atleast_1d(m).tolist()
    k = whole("k", k, 0)
    if k >= min(r, default=k + 1):
        raise ValueError(f"k={k} leaves no unit of r={min(r)}: choose 0 <= k < r")
    return Fraction(layers(G, [narrow - k for narrow in r], m), layers(T, r, m))


def ratio_asymptotic(r: int, h: int, k: int = 1) -> float:
    """What `ratio(r, r + h, k)` tends to as r grows with h and k fixed: r^k / (2^k (h+1) (h+2) .. (h+k)).

    Args:
        r: units that zero loss needs.
        h: units more than that, at least 0.
        k: units fewer in the critical point, at least 0.

    Raises:
        ValueError: a number below its least value or no integer.

    >>> ratio_asymptotic(200, 0), round(float(ratio(200, 200)) / 100, 3)
    (100.0, 0.995)
    """
    r, h, k = whole("r", r, 1), whole("h", h, 0), whole("k", k, 0)
    return math.prod(r / (2 * (h + i)) for i in range(1, k + 1))


def fullest(m: int) -> int:
    """The r at which G(r, m) is largest, about m / (2 ln 2).

    So from m = 2 ln 2 r = 1.39 r up every G(s, m) with s < r is below G(r, m) <= T(r, m).

    >>> fullest(100)
    72
    """
    m = whole("m", m, 1)
    for width, row in _surjections():
        if width == m:
            return max(range(1, m + 1), key=row.__getitem__)


def permutation_points(n: int, k: int) -> Fraction:
    """Permutation points of order k over global minima of a layer of n units: C(n-k, k) / 2^k (arXiv 1907.02911).

    It is the part of G(n-k, n) / n! with k pairs of coinciding units.

    Raises:
        ValueError: 2k > n, or a number below 0 or no integer.

    >>> permutation_points(4, 1)
    Fraction(3, 2)
    """
    n, k = whole("n", n, 1), whole("k", k, 0)
    if 2 * k > n:
        raise ValueError(f"k={k} pairs do not fit n={n} units: choose 2 k <= n")
    return Fraction(math.comb(n - k, k), 2**k)


def crossing(r: int) -> int:
    """The first width m at which global minima have as many subspaces as all critical points of narrower networks.

    T(r, m) >= sum_{s<r} G(s, m), counting one irreducible critical point at each width s < r, of which theory does not
    know the number. It holds for all larger m as well: Stirling numbers are totally positive (Brenti 1995, JCTA 71), so
    that G(t, m) / G(s, m) does not fall with m for t > s, and T is a sum of G(t, m) with t >= r.

    Raises:
        ValueError: r < 1 or no integer.

    >>> [crossing(r) for r in (4, 5, 6, 8, 10)]
    [5, 6, 8, 11, 13]
    """
    r = whole("r", r, 1)
    m = _likely_crossing(r)
    # Exact integers have the last word.
    while T(r, m) < _narrower(r, m):
        m += 1
    while m > r and T(r, m - 1) >= _narrower(r, m - 1):
        m -= 1
    return m


def counts(r: int, widest: int) -> Counts:
    """Logarithms of both sides of `crossing` for all widths r .. `widest`.

    Raises:
        ValueError: not 1 <= r <= widest, or no integers.

    >>> found = counts(4, 6)
    >>> np.exp(found.critical - found.minima).round(3).tolist()
    [2.125, 0.503, 0.162]
    """
    r, widest = pair(r, widest)
    rows = []
    for m, minima, critical in _scan(r):
        rows.append((m, log(minima), log(critical)))
        if m == widest:
            break
    widths, minima, critical = zip(*rows)
    return Counts(widths, np.array(minima), np.array(critical))


def whole(name: str, value: int, least: int) -> int:
    """`value` as a Python integer, at least `least`.

    Raises:
        ValueError: it is no integer, or too small.

    >>> whole('m', np.int32(3), 1)
    3
    """
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise ValueError(f"{name}={value!r} is no integer: give a whole number of at least {least}")
    if number < least:
        raise ValueError(f"{name}={number} is too small: give at least {least}")
    return number


def pair(r: int, m: int) -> tuple[int, int]:
    """r and m as Python integers with 1 <= r <= m.

    Raises:
        ValueError: they are not.

    >>> pair(2, np.int64(3))
    (2, 3)
    """
    r, m = whole("r", r, 1), whole("m", m, 1)
    if r > m:
        raise ValueError(f"r={r} > m={m}: m units cannot be copies of more than m units; choose r <= m")
    return r, m


def _surjections() -> Iterator[tuple[int, list[int]]]:
    """(m, [G(0, m) .. G(m, m)]) for m = 1, 2, ..: G(r, m) = r (G(r-1, m-1) + G(r, m-1))."""
    row, m = [1], 0
    while True:
        row, m = [0, *(r * (row[r - 1] + row[r]) for r in range(1, m + 1)), (m + 1) * row[m]], m + 1
        yield m, row


def _scan(r: int) -> Iterator[tuple[int, int, int]]:
    """(m, T(r, m), sum_{s<r} G(s, m)) for m = r, r + 1, .."""
    for m, row in _surjections():
        if m >= r:
            # sum_j G(r+j, m) / j! over the common denominator (m - r)!.
            total = 0
            for j, copies in enumerate(row[r:]):
                total = total * j + copies
            yield m, total // math.factorial(m - r), sum(row[1:r])


def _narrower(r: int, m: int) -> int:
    """sum_{s<r} G(s, m) = sum_{i<r} c_i i^m with c_i = sum_{s=i}^{r-1} (-1)^(s-i) C(s, i)."""
    total, coefficient = 0, r % 2
    for i in range(1, r):
        # By Pascal's rule, from c_{i-1}.
        coefficient = (coefficient - (-1) ** (r + i) * math.comb(r, i)) // 2
        total += coefficient * i**m
    return total


def _likely_crossing(r: int) -> int:
    """`crossing` in floats: right, but for rounding where both sides nearly agree. At most 2 r."""
    sizes = np.log(np.arange(1, 2 * r + 1))
    factorials = np.concatenate([[0.0], np.cumsum(sizes)])
    copies = np.concatenate([[0.0], np.full(2 * r, -np.inf)])  # log G(s, m) at s = 0 .. 2 r, for m = 0
    for m in range(1, 2 * r):
        copies[1:] = sizes + np.logaddexp(copies[1:], copies[:-1])
        copies[0] = -np.inf
        minima = np.logaddexp.reduce(copies[r:] - factorials[: r + 1])
        if m >= r and minima >= np.logaddexp.reduce(copies[1:r]):
            return m
    return 2 * r


def _bell_numbers() -> Iterator[int]:
    """B_0, B_1, .. by the Bell triangle: a row starts with the last entry of the row before."""
    row = [1]
    while True:
        yield row[0]
        following = [row[-1]]
        for entry in row:
            following.append(following[-1] + entry)
        row = following


@lru_cache(maxsize=4)
def _bells(most: int) -> tuple[int, ...]:
    return tuple(itertools.islice(_bell_numbers(), most + 1))
