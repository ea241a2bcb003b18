"""Canonical forms of widened networks, and paths of constant function between any two widened versions of a network."""

import jax
import numpy as np
import scipy

from sbjax.landscape.layered import Layer, Network, to_layers
from sbjax.landscape.paths import Segment, Walk, permutation_path, same


def canonical_path(params: Network, *, tolerance: float = 1e-12) -> list[Segment]:
    """A path of constant function to the canonical form, in which units with outgoing weights have distinct incoming
    weights and all other units are 0.

    The outgoing weights of copies are moved to one of them, those of cancelling units are set to 0; then the incoming
    weights of units without outgoing weights are set to 0, from the last hidden layer to the first.

    Args:
        params: a network of either form, see `layered`.
        tolerance: as in `connect`.

    Returns:
        At most two segments per layer; none if the network is in canonical form.

    >>> net = {'w': np.array([[1.0], [1.0]]), 'a': np.array([[3.0], [-1.0]])}
    >>> canonical_path(net)[-1].end['a'].ravel().tolist()
    [2.0, 0.0]
    """
    return _canonical(params, tolerance).segments


def connect(start: Network, end: Network, *, tolerance: float = 1e-12) -> list[Segment]:
    """A path of constant function between two widened versions of the same irreducible network.

    The canonical forms of both networks differ by a permutation of units. The path goes from `start` to its canonical
    form, through the permutation, and backwards along the path from `end` to its canonical form.

    Args:
        start, end: networks of equal shapes, of either form, see `layered`.
        tolerance: incoming vectors are copies if their distance, relative to their norm, is below it; outgoing vectors
            cancel if their sum, relative to the sum of their absolute entries, is below it.

    Raises:
        ValueError: different shapes, no common irreducible network, or a layer to be permuted without an idle unit.

    >>> one = {'w': np.array([[1.0], [1.0]]), 'a': np.array([[3.0], [-1.0]])}
    >>> other = {'w': np.array([[5.0], [1.0]]), 'a': np.array([[0.0], [2.0]])}
    >>> [segment.move for segment in connect(one, other)]
    ['merge', 'idle', 'incoming', 'outgoing', 'incoming', 'idle']
    """
    shapes = [[layer.kernel.shape for layer in to_layers(params)] for params in (start, end)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"start has kernels {shapes[0]}, end {shapes[1]}: connect networks of the same shapes")
    there, back = _canonical(start, tolerance), _canonical(end, tolerance)
    path = list(there.segments)
    path += permutation_path(there.last, _orders_between(there.layers, back.layers, tolerance))
    last = path[-1].end if path else there.last
    if not _close(last, back.last, tolerance):
        raise ValueError(
            "start and end reduce to networks with different outgoing weights or biases, so that no path of constant "
            "function joins them: give two widened versions of one network"
        )
    if not same(last, back.last):
        path.append(Segment(last, back.last, -1, "round-off"))
    path += [Segment(s.end, s.start, s.layer, s.move) for s in reversed(back.segments)]
    # Drop trivial segments, such as setting an idle unit to 0 that is already 0.
    return [segment for segment in path if not same(segment.start, segment.end)]


def _canonical(params, tolerance) -> Walk:
    """Walk to the canonical form."""
    walk = Walk(params)
    hidden = range(len(walk.layers) - 1)
    for layer in hidden:
        outgoing = walk.layers[layer + 1].kernel
        for group in _groups(walk, layer, tolerance):
            total, summed = outgoing[group].sum(0), np.abs(outgoing[group]).sum()
            outgoing[group] = 0
            if np.abs(total).max() > tolerance * summed:
                outgoing[group[0]] = total
        walk.stop(layer, "merge", even_if_still=False)
    for layer in reversed(hidden):
        idle = ~np.any(walk.layers[layer + 1].kernel != 0, axis=1)
        for unit in np.flatnonzero(idle):
            walk.set_incoming(layer, unit, (0, 0))
        walk.stop(layer, "idle", even_if_still=False)
    return walk


def _groups(walk, layer, tolerance):
    """Groups of units with outgoing weights that have equal incoming vectors."""
    rows = _rows(walk.layers[layer])
    left = np.flatnonzero(np.any(walk.layers[layer + 1].kernel != 0, axis=1)).tolist()
    while left:
        first = left[0]
        near = np.linalg.norm(rows[left] - rows[first], axis=1) <= tolerance * max(np.linalg.norm(rows[first]), 1e-300)
        group = [unit for unit, close in zip(left, near) if close]
        left = [unit for unit in left if unit not in group]
        yield group


def _rows(layer):
    kernel, bias = layer
    return kernel.T if bias is None else np.column_stack([kernel.T, bias])


def _orders_between(first, second, tolerance):
    """Permutations that map units with outgoing weights of one canonical form to their positions in the other."""
    orders, below = [], np.arange(len(first[0].kernel))
    for layer in range(len(first) - 1):
        live = [np.flatnonzero(np.any(side[layer + 1].kernel != 0, axis=1)) for side in (first, second)]
        if len(live[0]) != len(live[1]):
            raise ValueError(
                f"start needs {len(live[0])} units of hidden layer {layer}, end {len(live[1])}: they are not widened "
                "versions of one network, or tolerance is too small to recognise copies"
            )
        rows = _rows(Layer(first[layer].kernel[below], first[layer].bias))[live[0]], _rows(second[layer])[live[1]]
        gaps = np.linalg.norm(rows[0][:, None] - rows[1][None], axis=-1)
        source, place = scipy.optimize.linear_sum_assignment(gaps)
        scale = max((np.abs(side).max(initial=0.0) for side in rows), default=0.0)
        if gaps[source, place].max(initial=0.0) > 1e3 * tolerance * scale:
            raise ValueError(
                f"the incoming weights of hidden layer {layer} differ by {gaps[source, place].max():.3g} between start "
                "and end after matching: give two widened versions of one network"
            )
        order = np.full(len(first[layer + 1].kernel), -1)
        order[live[1][place]] = live[0][source]
        # Idle units keep their position where possible.
        idle = [unit for unit in range(len(order)) if unit not in set(live[0])]
        for unit in [unit for unit in idle if order[unit] == -1]:
            order[unit] = unit
        rest = iter([unit for unit in idle if order[unit] != unit])
        for position in np.flatnonzero(order == -1):
            order[position] = next(rest)
        orders.append(order)
        below = order
    return orders


def _close(first, second, tolerance):
    pairs = list(zip(jax.tree.leaves(first), jax.tree.leaves(second)))
    return all(np.abs(a - b).max() <= 1e3 * tolerance * max(np.abs(b).max(), 1e-300) for a, b in pairs)
