"""Linear regions of ReLU networks: a point in each that a line meets, or in each there is.

Arrays are numpy's, in double precision. Parameters are those of an MLP, {'dense_0': {'kernel', 'bias'}, ..}.
"""

from typing import Any

import numpy as np
import scipy.optimize
from jaxtyping import Bool, Float

from sbjax.landscape.layered import Network, to_layers


def patterns(params: Network, x: Float[np.ndarray, "n d"]) -> list[Bool[np.ndarray, "n m"]]:
    """Which units are active at points, a hidden layer each."""
    return forward_with_slopes(layers_of(params), checked_points(params, x))[1]


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
    layers, breaks = layers_of(params), np.zeros(0)
    start, direction = checked_points(params, [start, direction], what="start and direction")
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
    layers = layers_of(params)
    if not 0 < least < 1:
        raise ValueError(f"least={least} must be > 0 and < 1")
    d = layers[0][0].shape[0]
    cells = [(np.zeros((0, d)), np.zeros(0), np.zeros(d))]  # normals and offsets of A x <= b, and a point
    for depth in range(1, len(layers)):
        found = []
        for normals, offsets, point in cells:
            hidden = forward_with_slopes(layers[:depth], point[None], last=True)[0][-1][
                0
            ]  # [d + 1, m]: value and slopes
            parts = [(normals, offsets, point)]
            for value, slope in zip(hidden[0], hidden[1:].T):
                if not np.any(slope):
                    continue
                cut = value - slope @ point  # slope . x + cut
                parts = [side for part in parts for side in _cut(part, slope, cut, least)]
            found += parts
        cells = found
    return np.stack([point for _, _, point in cells])


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

    >>> from sbjax.landscape.functional_dimension import random_network
    >>> net = random_network(np.random.default_rng(0), (2, 3, 1))
    >>> len(points_on_lines(np.random.default_rng(1), net, 2)) >= 4
    True
    """
    d = sizes_of(params)[0]
    starts, directions = random_points(random, number, d, scales=scales), random.normal(size=(number, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = [line_regions(params, a, b)[:, None] * b + a for a, b in zip(starts, directions)]
    return np.concatenate(found)


def layers_of(params: Network) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of each layer, zeros where there is none.

    Raises:
        ValueError: a network of another form, or entries that are not finite.
    """
    layers = [(np.asarray(layer.kernel, float), layer.bias) for layer in to_layers(params)]
    layers = [(k, np.zeros(k.shape[1]) if b is None else np.asarray(b, float)) for k, b in layers]
    for number, (kernel, bias) in enumerate(layers):
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise ValueError(f"params have entries in layer {number} that are not finite")
    return layers


def checked_points(params: Network, x: Any, what: str = "x") -> Float[np.ndarray, "n d"]:
    """Points of the network's inputs, as an array.

    Raises:
        ValueError: none, of another shape, or not finite.
    """
    x, d = np.asarray(x, float), sizes_of(params)[0]
    if x.ndim != 2 or not len(x) or x.shape[1] != d or not np.isfinite(x).all():
        raise ValueError(f"{what} has shape {x.shape}: give one or more finite points [n, {d}]")
    return x


def sizes_of(params: Network) -> tuple[int, ...]:
    """Inputs, hidden units of each layer, outputs."""
    layers = to_layers(params)
    return (layers[0].kernel.shape[0], *(layer.kernel.shape[1] for layer in layers))


def forward_with_slopes(
    layers: list[tuple[np.ndarray, np.ndarray]], x: Float[np.ndarray, "n d"], *, last: bool = False
) -> tuple[list[np.ndarray], list[np.ndarray]]:
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
