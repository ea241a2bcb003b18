"""Hidden symmetries of ReLU networks: how many directions in the space of parameters change the function.

The functional dimension at parameters theta is the largest rank of the Jacobian d f(x_1, .., x_m) / d theta over finite
sets of points. Permutations are discrete, and the positive scale of each hidden unit takes one direction away:

    dimension <= parameters - hidden units.

A network is without hidden continuous symmetries where this is an equality. Hidden discrete ones are not seen here.

Within a linear region the outputs and their gradients are affine in x, so a region gives (d + 1) outputs rows, and the
rows of all regions give the dimension exactly. On the line all regions are enumerated (`line_regions`), in a few
dimensions as well (`all_regions`, linear programs). Points or lines at random see some regions: a lower bound of the
dimension, and so too many networks with hidden symmetries.

Arrays are numpy's, in double precision. Parameters are those of an MLP, {'dense_0': {'kernel', 'bias'}, ..}; they are
ordered as kernel [in, out] and bias of the first layer, then of the next.

Source: arXiv 2306.06179; the enumerations are ours.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Bool, Float

from sbjax.landscape.layered import Network, to_layers

TOLERANCE = 1e-9  # of singular values, relative to the largest, rows having norm 1
_ROWS = 4096  # that are factorised at once


class Dimension(NamedTuple):
    """A functional dimension, or a lower bound of it where not all regions were seen.

    Attributes:
        rank: of the Jacobian.
        bound: parameters - hidden units.
        bound_alive: the same once units that are never active are taken out.
        regions: that were seen, told apart by which units are active.
        dead: hidden units that are active in none of them.
        always_on: hidden units that are active in all of them.
        kept, dropped: the least singular value that counts and the largest that does not, relative to the largest.
    """

    rank: int
    bound: int
    bound_alive: int
    regions: int
    dead: int
    always_on: int
    kept: float
    dropped: float

    @property
    def deficit(self) -> int:
        """Hidden directions: bound - rank."""
        return self.bound - self.rank

    @property
    def deficit_alive(self) -> int:
        """Those that dead units do not account for."""
        return self.bound_alive - self.rank


def parameters(sizes: Sequence[int]) -> int:
    """Weights and biases of a network with these layers.

    Raises:
        ValueError: fewer than two sizes, or negative ones.

    >>> parameters((1, 2, 1))
    7
    """
    _check_sizes(sizes, 0)
    return sum((n + 1) * m for n, m in itertools.pairwise(sizes))


def bound(sizes: Sequence[int]) -> int:
    """Parameters - hidden units; the outputs where a hidden layer is empty, since only a constant is left.

    >>> bound((1, 2, 1)), bound((1, 0, 1))
    (5, 1)
    """
    return sizes[-1] if 0 in sizes[1:-1] else parameters(sizes) - sum(sizes[1:-1])


def random_network(random: np.random.Generator, sizes: Sequence[int], *, bias: float = 1.0) -> dict[str, Any]:
    """Weights N(0, 2 / fan in) of He, and biases N(0, bias^2).

    Raises:
        ValueError: fewer than two sizes, or one below 1; a bias that is negative or not finite.

    >>> found = random_network(np.random.default_rng(0), (1, 3, 2))
    >>> [layer['kernel'].shape for layer in found.values()]
    [(1, 3), (3, 2)]
    """
    _check_sizes(sizes, 1)
    if not 0 <= bias < np.inf:
        raise ValueError(f"bias={bias} must be >= 0 and finite")
    return {
        f"dense_{i}": {"kernel": random.normal(size=(n, m)) * np.sqrt(2 / n), "bias": random.normal(size=m) * bias}
        for i, (n, m) in enumerate(itertools.pairwise(sizes))
    }


def region_rows(params: Network, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d+1 o p"]:
    """Rows that span the Jacobians of the linear regions of points, by a closed backward pass.

    The first one is the Jacobian at the point itself, d f(x) / d theta; the others are its derivatives by x.

    Raises:
        ValueError: no points, points of another shape or not finite, so large numbers that the rows are not; a layer
            without a bias.

    >>> rows = region_rows({'dense_0': {'kernel': np.ones((1, 1)), 'bias': np.zeros(1)},
    ...                     'dense_1': {'kernel': np.full((1, 1), 3.0), 'bias': np.zeros(1)}}, np.array([[2.0]]))
    >>> rows[0, :, 0].tolist()  # 3 relu(w x + b) and its slope, by w, b, a and c
    [[6.0, 3.0, 2.0, 1.0], [3.0, 0.0, 1.0, 0.0]]
    """
    layers = _layers(params)
    if any(layer.bias is None for layer in to_layers(params)):
        raise ValueError("params have layers without a bias, and biases are counted here: give them, zeros if need be")
    x = _checked(params, x)
    hidden, active = _forward(layers, x)
    n, out = len(x), layers[-1][0].shape[1]
    backward = np.broadcast_to(np.eye(out), (n, out, out))
    parts = []
    for number in reversed(range(len(layers))):
        before = hidden[number]  # [n, d + 1, in]
        constant = np.zeros(before.shape[:2])
        constant[:, 0] = 1
        kernels = np.einsum("nri,noj->nroij", before, backward).reshape(*before.shape[:2], out, -1)
        biases = np.einsum("nr,noj->nroj", constant, backward)
        parts.append(np.concatenate([kernels, biases], -1))
        if number:
            backward = (backward @ layers[number][0].T) * active[number - 1][:, None]
    rows = np.concatenate(parts[::-1], -1)
    with np.errstate(over="ignore"):
        fits = np.isfinite(np.linalg.norm(rows))
    if not fits:
        raise ValueError("derivatives by the parameters are not finite: params or points are too large")
    return rows


def patterns(params: Network, x: Float[np.ndarray, "n d"]) -> list[Bool[np.ndarray, "n m"]]:
    """Which units are active at points, a hidden layer each."""
    return _forward(_layers(params), _checked(params, x))[1]


def line_regions(
    params: Network, start: Float[np.ndarray, "d"], direction: Float[np.ndarray, "d"]
) -> Float[np.ndarray, "region"]:
    """One t within every linear region that the line start + t direction meets, in their order.

    Layer by layer: between two breakpoints the inputs of the next layer's units are linear in t, with a zero at most.

    Raises:
        ValueError: a start or direction of another shape or not finite, a direction of zero.

    >>> net = {'dense_0': {'kernel': np.array([[1.0, 1.0]]), 'bias': np.array([0.0, -2.0])},
    ...        'dense_1': {'kernel': np.ones((2, 1)), 'bias': np.zeros(1)}}
    >>> line_regions(net, np.zeros(1), np.ones(1)).tolist()
    [-1.0, 1.0, 3.0]
    """
    layers, breaks = _layers(params), np.zeros(0)
    start, direction = _checked(params, [start, direction], what="start and direction")
    if not direction.any():
        raise ValueError("direction is zero: give that of a line")
    for depth in range(1, len(layers)):
        t, low, high = _middles(breaks)
        values, slopes = _on_line(layers[:depth], start, direction, t)
        with np.errstate(divide="ignore", invalid="ignore"):
            zeros = t[:, None] - values / slopes
        inside = np.isfinite(zeros) & (zeros > low[:, None]) & (zeros < high[:, None])
        breaks = np.sort(np.concatenate([breaks, zeros[inside]]))
    return _middles(breaks)[0]


def all_regions(params: Network, *, least: float = 1e-6) -> Float[np.ndarray, "region d"]:
    """A point within every linear region, by linear programs: for a few inputs and some ten units.

    Regions are cut by one unit after the other. Whether the far side of a cut is empty is told by the largest ball in
    it; its centre is the point.

    Args:
        params: of the network.
        least: radius of a ball below which a side counts as empty; the solver is right to 1e-7.

    Raises:
        ValueError: least is not between 0 and 1, the radius that balls have at most.

    >>> net = {'dense_0': {'kernel': np.eye(2), 'bias': np.zeros(2)},
    ...        'dense_1': {'kernel': np.ones((2, 1)), 'bias': np.zeros(1)}}
    >>> sorted(np.sign(all_regions(net)).tolist())
    [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]
    """
    layers = _layers(params)
    if not 0 < least < 1:
        raise ValueError(f"least={least} must be > 0 and < 1")
    d = layers[0][0].shape[0]
    cells = [(np.zeros((0, d)), np.zeros(0), np.zeros(d))]  # normals and offsets of A x <= b, and a point
    for depth in range(1, len(layers)):
        found = []
        for normals, offsets, point in cells:
            hidden = _forward(layers[:depth], point[None], last=True)[0][-1][0]  # [d + 1, m]: value and slopes
            parts = [(normals, offsets, point)]
            for value, slope in zip(hidden[0], hidden[1:].T):
                if not np.any(slope):
                    continue
                cut = value - slope @ point  # slope . x + cut
                parts = [side for part in parts for side in _cut(part, slope, cut, least)]
            found += parts
        cells = found
    return np.stack([point for _, _, point in cells])


def functional_dimension(
    params: Network, x: Float[np.ndarray, "n d"], *, whole_regions: bool = True, tolerance: float = TOLERANCE
) -> Dimension:
    """The rank that points show: exact if there is one in every region, otherwise a lower bound.

    Args:
        params: of the network.
        x: the points, one or more.
        whole_regions: take all rows of the region of a point, once each; otherwise one row an output and point.
        tolerance: of singular values.

    Raises:
        ValueError: no points, points of another shape or not finite, a tolerance that is not between 0 and 1.

    >>> net = random_network(np.random.default_rng(0), (1, 3, 1))
    >>> t = line_regions(net, np.zeros(1), np.ones(1))
    >>> found = functional_dimension(net, t[:, None])
    >>> found.rank, found.bound, found.regions
    (7, 7, 4)
    """
    x = _checked(params, x)
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance={tolerance} must be >= 0 and < 1")
    active = patterns(params, x)
    seen = np.concatenate(active, 1)
    _, firsts = np.unique(np.packbits(seen, axis=1), axis=0, return_index=True)
    if whole_regions:
        x = x[firsts]
    sizes = _sizes(params)
    dead = [int((~one.any(0)).sum()) for one in active]
    alive = bound((sizes[0], *(size - gone for size, gone in zip(sizes[1:-1], dead)), sizes[-1]))
    triangle, rank, values = np.zeros((0, parameters(sizes))), 0, np.zeros(0)
    for first in range(0, len(x), step := max(1, _ROWS // (x.shape[1] + 1))):
        rows = region_rows(params, x[first : first + step])
        rows = (rows if whole_regions else rows[:, 0]).reshape(-1, rows.shape[-1])
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows[norms[:, 0] > 0] / norms[norms[:, 0] > 0]
        triangle = np.linalg.qr(np.concatenate([triangle, rows]), mode="r")
        values = np.linalg.svd(triangle, compute_uv=False)
        values = values / max(values[:1], default=1.0)
        rank = int(np.sum(values > tolerance))
        if rank >= alive:  # more points could not raise it
            break
    return Dimension(
        rank=rank,
        bound=bound(sizes),
        bound_alive=alive,
        regions=len(firsts),
        dead=sum(dead),
        always_on=sum(int(one.all(0).sum()) for one in active),
        kept=float(values[rank - 1]) if rank else 0.0,
        dropped=float(values[rank]) if rank < len(values) else 0.0,
    )


def random_points(
    random: np.random.Generator, number: int, d: int, *, scales: tuple[float, float] = (0.1, 100.0)
) -> Float[np.ndarray, "n d"]:
    """Gaussian points at scales from one to the other, uniform in their logarithm.

    Raises:
        ValueError: no points, or scales that are not positive, finite and in order.

    >>> random_points(np.random.default_rng(0), 5, 3).shape
    (5, 3)
    """
    if number < 1 or d < 1 or not 0 < scales[0] <= scales[1] < np.inf:
        raise ValueError(
            f"number={number}, d={d} and scales={scales}: give one or more points of one or more entries, at positive "
            "scales, the smaller one first"
        )
    sizes = np.exp(random.uniform(*np.log(scales), size=(number, 1)))
    return random.normal(size=(number, d)) * sizes


def points_on_lines(
    random: np.random.Generator, params: Network, number: int, *, scales: tuple[float, float] = (0.1, 100.0)
) -> Float[np.ndarray, "n d"]:
    """A point in every region that lines at random meet, however small it is.

    Args:
        random: generator.
        params: of the network.
        number: of lines; each runs through a random point, in a direction of its own.
        scales: of the points.

    >>> net = random_network(np.random.default_rng(0), (2, 3, 1))
    >>> len(points_on_lines(np.random.default_rng(1), net, 2)) >= 4
    True
    """
    d = _sizes(params)[0]
    starts, directions = random_points(random, number, d, scales=scales), random.normal(size=(number, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = [line_regions(params, a, b)[:, None] * b + a for a, b in zip(starts, directions)]
    return np.concatenate(found)


def _check_sizes(sizes, least):
    if len(sizes) < 2 or min(sizes) < least:
        raise ValueError(f"sizes={tuple(sizes)}: give inputs, hidden units and outputs, each at least {least}")


def _layers(params):
    layers = [(np.asarray(layer.kernel, float), layer.bias) for layer in to_layers(params)]
    layers = [(k, np.zeros(k.shape[1]) if b is None else np.asarray(b, float)) for k, b in layers]
    for number, (kernel, bias) in enumerate(layers):
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise ValueError(f"params have entries in layer {number} that are not finite")
    return layers


def _checked(params, x, what="x"):
    """Points of the network's inputs, as an array."""
    x, d = np.asarray(x, float), _sizes(params)[0]
    if x.ndim != 2 or not len(x) or x.shape[1] != d or not np.isfinite(x).all():
        raise ValueError(f"{what} has shape {x.shape}: give one or more finite points [n, {d}]")
    return x


def _sizes(params):
    layers = to_layers(params)
    return (layers[0].kernel.shape[0], *(layer.kernel.shape[1] for layer in layers))


def _forward(layers, x, *, last=False):
    """Values and derivatives by x [n, d + 1, m] before each layer, and the active units of hidden ones.

    With `last` also the values after the last layer given.
    """
    n, d = x.shape
    before = np.concatenate([x[:, None], np.broadcast_to(np.eye(d), (n, d, d))], 1)
    hidden, active = [before], []
    for kernel, bias in layers if last else layers[:-1]:
        after = hidden[-1] @ kernel
        after[:, 0] += bias
        active.append(after[:, 0] > 0)
        hidden.append(after * active[-1][:, None])
        if last and len(active) == len(layers):
            hidden[-1] = after
    return hidden, active


def _middles(breaks):
    """A t within every interval between breakpoints, and the ends of the intervals."""
    if not len(breaks):
        return np.zeros(1), np.array([-np.inf]), np.array([np.inf])
    low, high = np.r_[-np.inf, breaks], np.r_[breaks, np.inf]
    inner = (breaks[1:] + breaks[:-1]) / 2
    return np.r_[breaks[0] - 1, inner, breaks[-1] + 1], low, high


def _on_line(layers, start, direction, t):
    """Inputs of the last of these layers' units at t, and their slopes: [t, m] each."""
    values, slopes = start + t[:, None] * direction, np.broadcast_to(direction, (len(t), len(direction)))
    for number, (kernel, bias) in enumerate(layers):
        if number:
            values, slopes = np.maximum(values, 0), slopes * (values > 0)
        values, slopes = values @ kernel + bias, slopes @ kernel
    return values, slopes


def _cut(cell, slope, cut, least):
    """The sides of the hyperplane slope . x + cut = 0 that a cell has, each with a point in it."""
    normals, offsets, point = cell
    size, value = np.linalg.norm(slope), slope @ point + cut
    sides = []
    for sign in (1.0, -1.0):
        more = np.concatenate([normals, -sign * slope[None] / size]), np.r_[offsets, sign * cut / size]
        inside = point if sign * value / size > 1e3 * least else _centre(*more, least)
        if inside is not None:
            sides.append((*more, inside))
    return sides


def _centre(normals, offsets, least):
    """Centre of the largest ball in {A x <= b} with rows of norm 1, of radius 1 at most; None if it is too small."""
    d = normals.shape[1]
    found = scipy.optimize.linprog(
        np.r_[np.zeros(d), -1.0],
        A_ub=np.c_[normals, np.ones(len(normals))],
        b_ub=offsets,
        bounds=[(None, None)] * d + [(0.0, 1.0)],
        method="highs",
    )
    return found.x[:d] if found.status == 0 and found.x[-1] > least else None
