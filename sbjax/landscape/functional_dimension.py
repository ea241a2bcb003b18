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
from jaxtyping import Float

from sbjax.landscape.layered import Network, to_layers
from sbjax.landscape.linear_regions import (  # noqa: F401  those that find regions are used with this module
    all_regions,
    checked_points,
    forward_with_slopes,
    layers_of,
    line_regions,
    patterns,
    points_on_lines,
    random_points,
    sizes_of,
)

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
    layers = layers_of(params)
    if any(layer.bias is None for layer in to_layers(params)):
        raise ValueError("params have layers without a bias, and biases are counted here: give them, zeros if need be")
    x = checked_points(params, x)
    hidden, active = forward_with_slopes(layers, x)
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
    x = checked_points(params, x)
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance={tolerance} must be >= 0 and < 1")
    active = patterns(params, x)
    seen = np.concatenate(active, 1)
    _, firsts = np.unique(np.packbits(seen, axis=1), axis=0, return_index=True)
    if whole_regions:
        x = x[firsts]
    sizes = sizes_of(params)
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


def _check_sizes(sizes, least):
    if len(sizes) < 2 or min(sizes) < least:
        raise ValueError(f"sizes={tuple(sizes)}: give inputs, hidden units and outputs, each at least {least}")
