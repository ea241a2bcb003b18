"""Number of affine subspaces of critical points and of global minima of an overparameterised layer.

A layer of m units represents a function of r < m units on a union of affine subspaces (arXiv 2105.12221):

- `G(r, m)` subspaces on which the m units are copies of r units. Every critical point of the narrow network induces
  this many subspaces of critical points of the wide network.
- `T(r, m)` subspaces if units may also cancel each other, which is possible at zero loss only: the pieces of the
  manifold of global minima.

All counts are exact Python integers of any size; `log` takes their logarithm.
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
    """Natural logarithms of counts as functions of the width.

    Attributes:
        widths: m.
        minima: log T(r, m).
        critical: log sum_{s<r} G(s, m), assuming one irreducible critical point at each width s; -inf for r = 1.
    """

    widths: tuple[int, ...]
    minima: Float[np.ndarray, "width"]
    critical: Float[np.ndarray, "width"]


def stirling(r: int, m: int) -> int:
    """Stirling number of the second kind S(m, r) = G(r, m) / r!: partitions of m elements into r non-empty sets.

    Arguments and errors as `G`.

    >>> [stirling(r, 4) for r in range(1, 5)]
    [1, 7, 6, 1]
    """
    return G(r, m) // math.factorial(r)


def bell(u: int) -> int:
    """Bell number B_u: partitions of u elements into non-empty sets, B_0 = 1.

    Raises:
        ValueError: u is negative or not an integer.

    >>> [bell(u) for u in range(7)]
    [1, 1, 2, 5, 15, 52, 203]
    """
    u = whole("u", u, 0)
    return _bells(u)[u]


def G(r: int, m: int) -> int:
    """Number of subspaces on which m units are copies of r units: surjections from m to r elements.

    G(r, m) = sum_{k_1 + .. + k_r = m, k >= 1} m! / (k_1! .. k_r!) = sum_{i=1}^r (-1)^(r-i) C(r, i) i^m

    (arXiv 2105.12221). G(r, r) = r!, G(r, r+1) = r (r+1)! / 2.

    Args:
        r: units of the narrow layer.
        m: units of the wide layer.

    Raises:
        ValueError: not 1 <= r <= m, or not integers.

    >>> [G(2, m) for m in range(2, 7)]
    [2, 6, 14, 30, 62]
    """
    r, m = pair(r, m)
    return sum((-1) ** (r - i) * math.comb(r, i) * i**m for i in range(1, r + 1))


def T(r: int, m: int) -> int:
    """Number of subspaces of the manifold of global minima of m units, r of which are needed.

    T(r, m) = sum_{u=0}^{m-r} C(m, u) G(r, m-u) B_u: u units cancel in groups, the others are copies (arXiv 2105.12221).
    The generating function sum_m T(r, m) x^m / m! = (e^x - 1)^r exp(e^x - 1) gives T(r, m) = sum_{j=0}^{m-r} G(r+j, m)
    / j! as well. T(r, r) = r!, T(r, r+1) = (r+2) (r+1)! / 2.

    These are all global minima if the activation has no symmetry, sigma(0) != 0 and inputs span the space; sigmoid and
    tanh have more (units of opposite sign, constant units).

    Arguments and errors as `G`.

    >>> [T(2, m) for m in range(2, 7)]
    [2, 12, 62, 320, 1712]
    """
    r, m = pair(r, m)
    # Inserting the formula of G: the sum over u is a polynomial in i, evaluated by Horner's rule.
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
    """prod_l count(r_l, m_l), for deep networks, whose layers are widened independently.

    For `T` it is a lower bound of the number of pieces: a unit that feeds into cancelled units only is free as well.

    Args:
        count: `T` or `G`.
        r, m: narrow and wide widths of the hidden layers.

    Raises:
        ValueError: r and m differ in length or are empty; as `count`.

    >>> layers(T, (1, 2), (2, 3))
    36
    """
    if len(r) != len(m) or not len(r):
        raise ValueError(f"r has {len(r)} hidden layers, m has {len(m)}: give as many of both, at least one")
    return math.prod(count(narrow, wide) for narrow, wide in zip(r, m))


def log(count: int | Fraction) -> float:
    """Natural logarithm of an exact count or ratio of any size; -inf for 0.

    >>> round(log(T(1000, 1000)) - math.lgamma(1001), 9)
    0.0
    """
    if not count:
        return -math.inf
    return math.log(count.numerator) - math.log(count.denominator)


def ratio(r: int | Sequence[int], m: int | Sequence[int], k: int = 1) -> Fraction:
    """Subspaces of critical points induced by networks with k units too few per layer, relative to global minima.

    prod_l G(r_l - k, m_l) / T(r_l, m_l), exact; use `log` or `float` of it for plots.

    Args:
        r: units needed for zero loss, one number or one per hidden layer.
        m: units of the network, one number or one per hidden layer.
        k: number of missing units, 0 <= k < r.

    Raises:
        ValueError: k out of range; as `layers`.

    >>> [round(float(ratio(10, m)), 2) for m in (10, 11, 12, 13)]
    [4.5, 1.75, 0.89, 0.5]
    """
    r, m = np.atleast_1d(r).tolist(), np.atleast_1d(m).tolist()
    k = whole("k", k, 0)
    if k >= min(r, default=k + 1):
        raise ValueError(f"k={k} leaves no unit of r={min(r)}: choose 0 <= k < r")
    return Fraction(layers(G, [narrow - k for narrow in r], m), layers(T, r, m))


def ratio_asymptotic(r: int, h: int, k: int = 1) -> float:
    """Asymptotic form of `ratio(r, r + h, k)` for large r with h and k fixed: r^k / (2^k (h+1) (h+2) .. (h+k)).

    Args:
        r: units needed for zero loss.
        h: number of excess units, at least 0.
        k: number of units missing in the critical point, at least 0.

    Raises:
        ValueError: an argument below its minimum or not an integer.

    >>> ratio_asymptotic(200, 0), round(float(ratio(200, 200)) / 100, 3)
    (100.0, 0.995)
    """
    r, h, k = whole("r", r, 1), whole("h", h, 0), whole("k", k, 0)
    return math.prod(r / (2 * (h + i)) for i in range(1, k + 1))


def fullest(m: int) -> int:
    """The r that maximises G(r, m), about m / (2 ln 2).

    Hence for m >= 2 ln 2 r = 1.39 r every G(s, m) with s < r is below G(r, m) <= T(r, m).

    >>> fullest(100)
    72
    """
    m = whole("m", m, 1)
    for width, row in _surjections():
        if width == m:
            return max(range(1, m + 1), key=row.__getitem__)


def permutation_points(n: int, k: int) -> Fraction:
    """Number of permutation points of order k per global minimum of a layer of n units: C(n-k, k) / 2^k (arXiv
    1907.02911).

    It is the part of G(n-k, n) / n! with k pairs of coinciding units.

    Raises:
        ValueError: 2k > n, a negative number, or not integers.

    >>> permutation_points(4, 1)
    Fraction(3, 2)
    """
    n, k = whole("n", n, 1), whole("k", k, 0)
    if 2 * k > n:
        raise ValueError(f"k={k} pairs do not fit n={n} units: choose 2 k <= n")
    return Fraction(math.comb(n - k, k), 2**k)


def crossing(r: int) -> int:
    """Smallest width m at which global minima have at least as many subspaces as critical points of narrower networks.

    T(r, m) >= sum_{s<r} G(s, m), assuming one irreducible critical point at each width s < r (theory does not give
    their number). It then holds for all larger m: Stirling numbers are totally positive (Brenti 1995, JCTA 71), so
    G(t, m) / G(s, m) is non-decreasing in m for t > s, and T is a sum of G(t, m) with t >= r.

    Raises:
        ValueError: r < 1 or not an integer.

    >>> [crossing(r) for r in (4, 5, 6, 8, 10)]
    [5, 6, 8, 11, 13]
    """
    r = whole("r", r, 1)
    m = _likely_crossing(r)
    # Correct the floating-point estimate with exact integers.
    while T(r, m) < _narrower(r, m):
        m += 1
    while m > r and T(r, m - 1) >= _narrower(r, m - 1):
        m -= 1
    return m


def counts(r: int, widest: int) -> Counts:
    """Logarithms of both sides of `crossing` for all widths r .. `widest`.

    Raises:
        ValueError: not 1 <= r <= widest, or not integers.

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
        ValueError: it is not an integer, or too small.

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
    """`crossing` in floating point; may be off by rounding if both sides nearly agree. At most 2 r."""
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
    """B_0, B_1, .. from the Bell triangle: a row starts with the last entry of the previous row."""
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
