"""Where deep linear networks have a given invertible product, and paths between them.

Weights W_1, .., W_l, all [n, n], with W_l .. W_1 = C and det C != 0. The group GL(n)^(l-1) acts by
W_j -> g_j W_j g_(j-1)^-1 with g_0 = g_l = 1, moves any such weights to any others, and keeps the product. GL(n) has two
components, by the sign of the determinant: so the set has 2^(l-1), told apart by the signs of det(W_j .. W_1), whatever
n is. Within one a path runs along the group, with the product constant.

Source: arXiv 2505.23681.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

Weights = Sequence[Float[np.ndarray, "n n"]]
"""W_1, .., W_l, the first layer first."""


class Step(NamedTuple):
    """An element g of GL(n) with det g > 0, as exp(rotation) exp(stretch).

    Attributes:
        rotation: [n, n], antisymmetric.
        stretch: [n, n], symmetric.
    """

    rotation: Float[np.ndarray, "n n"]
    stretch: Float[np.ndarray, "n n"]


def components(layers: int, *, skip: bool = False) -> int:
    """Components of the set of weights with a given invertible product: 2^(layers - 1).

    Args:
        layers: number of weight matrices.
        skip: three scalar weights with w_3 (w_2 w_1 + e) constant, e != 0: the plane without a hyperbola.

    Raises:
        ValueError: layers < 1, or a skip with other than three layers.

    >>> components(3), components(3, skip=True)
    (4, 3)
    """
    if layers < 1 or layers != int(layers) or (skip and layers != 3):
        raise ValueError(f"layers={layers} must be {'3 with a skip connection' if skip else '>= 1'}")
    return 3 if skip else 2 ** (layers - 1)


def product(weights: Weights) -> Float[np.ndarray, "n n"]:
    """W_l .. W_1."""
    return partial_products(weights)[-1]


def partial_products(weights: Weights) -> list[Float[np.ndarray, "n n"]]:
    """W_j .. W_1 for j = 1 .. l.

    Raises:
        ValueError: no weights, or not all square of one size.
    """
    shapes = {np.shape(weight) for weight in weights}
    if len(shapes) != 1 or len(set(*shapes)) != 1 or len(*shapes) != 2:
        raise ValueError(f"weights have shapes {sorted(shapes)}: give one or more [n, n] of one n")
    found = [np.asarray(weights[0], float)]
    for weight in weights[1:]:
        found.append(weight @ found[-1])
    return found


def component_of(weights: Weights) -> tuple[int, ...]:
    """The component that weights lie in: signs of det(W_j .. W_1) for j = 1 .. l - 1.

    Raises:
        ValueError: a singular product, entries that are not finite.

    >>> component_of([np.eye(2), np.diag([1.0, -1.0]), np.eye(2)])
    (1, -1)
    """
    if not all(np.isfinite(weight).all() for weight in weights):
        raise ValueError("weights have entries that are not finite")
    signs = [int(np.linalg.slogdet(found)[0]) for found in partial_products(weights)]
    if not all(signs):
        raise ValueError("the product of the weights is singular: components are known for invertible ones")
    return tuple(signs[:-1])


def random_weights(
    random: np.random.Generator, layers: int, target: Float[np.ndarray, "n n"]
) -> list[Float[np.ndarray, "n n"]]:
    """Gaussian W_1 .. W_(l-1), and the W_l that makes the product `target`.

    Raises:
        ValueError: layers < 1, a target that is not finite or not square.

    >>> found = random_weights(np.random.default_rng(0), 3, np.eye(2))
    >>> bool(np.allclose(product(found), np.eye(2)))
    True
    """
    if layers < 1 or not np.isfinite(partial_products([target])[0]).all():
        raise ValueError(f"layers={layers} must be >= 1, and target of finite numbers")
    free = [random.normal(size=np.shape(target)) for _ in range(layers - 1)]
    return [*free, np.linalg.solve(product(free).T, np.asarray(target, float).T).T] if free else [np.array(target)]


def steps_between(start: Weights, end: Weights) -> list[Step]:
    """The g_1, .., g_(l-1) that move `start` to `end`: g_j = (W'_j .. W'_1) (W_j .. W_1)^-1, each by its polar factors.

    The exponential of one real matrix does not reach all of GL(n) with det > 0; the product of that of an antisymmetric
    and that of a symmetric matrix does.

    Raises:
        ValueError: different products, or different components.
    """
    before, after = partial_products(start), partial_products(end)
    if len(start) != len(end) or not np.allclose(before[-1], after[-1], rtol=1e-6, atol=1e-9):
        raise ValueError("start and end must have as many layers and the same product")
    if component_of(start) != component_of(end):
        raise ValueError(
            f"start lies in component {component_of(start)}, end in {component_of(end)}: no path joins them"
        )
    return [_polar(np.linalg.solve(one.T, other.T).T) for one, other in zip(before[:-1], after[:-1])]


def path(start: Weights, steps: Sequence[Step]) -> Callable[[float], list[Float[np.ndarray, "n n"]]]:
    """The weights g(t) . start with g_j(t) = exp(t rotation_j) exp(t stretch_j), for t from 0 to 1.

    >>> random = np.random.default_rng(0)
    >>> start, end = ([np.array([[a]]), np.array([[1 / a]])] for a in (1.0, 4.0))
    >>> [round(float(w[0, 0]), 12) for w in path(start, steps_between(start, end))(0.5)]
    [2.0, 0.5]
    """
    if len(steps) != len(start) - 1:
        raise ValueError(f"{len(steps)} steps for {len(start)} weights: give one between each two")
    one = np.eye(len(start[0]))

    def at(t: float) -> list[np.ndarray]:
        moves = [one, *(scipy.linalg.expm(t * s.rotation) @ scipy.linalg.expm(t * s.stretch) for s in steps), one]
        return [np.linalg.solve(moves[j].T, (moves[j + 1] @ weight).T).T for j, weight in enumerate(start)]

    return at


def skip_component(w1: float, w2: float, skip: float = 1.0) -> int:
    """The component of three scalar layers with w_3 (w_2 w_1 + e) constant: 0 around the origin, 1 and -1 beyond it.

    The plane of (w_1, w_2) without the hyperbola w_1 w_2 = -e; beyond it the sign of w_1 tells.

    Raises:
        ValueError: on the hyperbola, where w_3 would be infinite, or e = 0.

    >>> skip_component(1.0, 1.0), skip_component(2.0, -3.0), skip_component(-2.0, 3.0)
    (0, 1, -1)
    """
    value = w1 * w2 / skip + 1 if skip else 0.0
    if not np.isfinite(value) or not value:
        raise ValueError(
            f"w_2 w_1 + skip is 0 or skip={skip} is, or not finite: the product cannot be constant and other than 0"
        )
    return 0 if value > 0 else int(np.sign(w1))


def skip_path(
    start: tuple[float, float], end: tuple[float, float], skip: float = 1.0
) -> Callable[[float], tuple[float, float]]:
    """(w_1, w_2) between two points of one component: through the origin, or along exponentials beyond the hyperbola.

    Raises:
        ValueError: different components.

    >>> at = skip_path((2.0, -3.0), (8.0, -0.75))
    >>> [round(x, 12) for x in at(0.5)]
    [4.0, -1.5]
    """
    kind = skip_component(*start, skip)
    if kind != skip_component(*end, skip):
        raise ValueError(f"start={start} and end={end} lie in different components: no path joins them")
    one, other = np.asarray(start, float), np.asarray(end, float)

    def at(t: float) -> tuple[float, float]:
        if kind:
            first, second = one * np.exp(t * np.log(other / one))
        else:
            first, second = one * max(0.0, 1 - 2 * t) + other * max(0.0, 2 * t - 1)
        return float(first), float(second)

    return at


def curvature(weights: Weights, generators: Sequence[Float[np.ndarray, "n n"]]) -> float:
    """Curvature at t = 0 of the curve exp(t X) . W with generators X_1, .., X_(l-1).

    sqrt(|c'|^2 |c''|^2 - (c' . c'')^2) / |c'|^3, where c' has the entries X_j W_j - W_j X_(j-1) and c'' those of c'.

    Raises:
        ValueError: not one generator between each two weights, or generators that move nothing.

    >>> round(curvature([np.eye(1), np.eye(1)], [np.eye(1)]), 9)  # the hyperbola a b = 1
    0.707106781
    """
    if len(generators) != len(weights) - 1:
        raise ValueError(f"{len(generators)} generators for {len(weights)} weights: give one between each two")
    first = _infinitesimal(weights, generators)
    second = _infinitesimal(first, generators)
    c, d = (np.concatenate([np.ravel(part) for part in parts]) for parts in (first, second))
    if not c @ c > 0:
        raise ValueError("generators move nothing: a point has no curvature")
    return float(np.sqrt(max((c @ c) * (d @ d) - (c @ d) ** 2, 0.0)) / (c @ c) ** 1.5)


def chord_distance(points: Sequence[Weights]) -> float:
    """Largest distance of points on a curve from the line through the first and the last one.

    For short curves it is curvature |last - first|^2 / 8.

    Raises:
        ValueError: fewer than two points, or a curve that is closed.
    """
    if len(points) < 2:
        raise ValueError(f"{len(points)} points: give two or more")
    flat = np.stack([np.concatenate([np.ravel(weight) for weight in weights]) for weights in points])
    chord = flat[-1] - flat[0]
    if not chord @ chord > 0:
        raise ValueError("the first and the last point are the same: there is no line through them")
    away = flat - flat[0]
    away -= np.outer(away @ chord / (chord @ chord), chord)
    return float(np.linalg.norm(away, axis=1).max())


def _infinitesimal(weights, generators):
    zero = np.zeros_like(weights[0])
    padded = [zero, *generators, zero]
    return [padded[j + 1] @ weight - weight @ padded[j] for j, weight in enumerate(weights)]


def _polar(g: np.ndarray) -> Step:
    turn, positive = scipy.linalg.polar(g)
    values, vectors = np.linalg.eigh(positive)
    return Step(_log_rotation(turn), (vectors * np.log(values)) @ vectors.T)


def _log_rotation(turn: np.ndarray) -> np.ndarray:
    """A real antisymmetric logarithm of a rotation; two eigenvalues -1 are half a turn in the plane of both."""
    blocks, basis = scipy.linalg.schur(turn)
    found, row, half = np.zeros_like(blocks), 0, []
    while row < len(blocks):
        if row + 1 < len(blocks) and abs(blocks[row + 1, row]) > 1e-12:
            angle = np.arctan2(blocks[row + 1, row], (blocks[row, row] + blocks[row + 1, row + 1]) / 2)
            found[row + 1, row], found[row, row + 1] = angle, -angle
            row += 2
            continue
        if blocks[row, row] < 0:
            half.append(row)
        row += 1
    for first, second in zip(half[::2], half[1::2]):
        found[second, first], found[first, second] = np.pi, -np.pi
    return basis @ found @ basis.T
