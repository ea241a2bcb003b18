"""Piecewise linear paths of constant function between permuted copies of a network.

A hidden unit with outgoing weights 0 is a spare; its incoming weights are free. A unit is relocated to the spare in two
segments (arXiv 2105.12221, figure 4): the spare takes the unit's incoming weights, which does not change the function;
then the outgoing weights move from the unit to the spare, which compute the same feature. The unit is now the spare. A
cycle of n units takes n + 1 relocations, so one spare per layer connects all permuted minima. `canonical.connect` joins
any two points of a manifold.

Vertices of a path are made by copying entries without arithmetic, so it ends bitwise at the permuted network.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sbjax.landscape.layered import (
    Activation,
    Layer,
    Loss,
    Network,
    check_data,
    forward,
    from_layers,
    mean_squared_error,
    to_layers,
)


class Segment(NamedTuple):
    """A straight line between two parameter trees.

    Attributes:
        start, end: networks in the same form.
        layer: the hidden layer whose units move; -1 for several layers.
        move: what moves: 'incoming' or 'outgoing' weights of a unit; 'clear' or 'restore': weights between spares;
            'merge': copies and cancelling groups; 'idle': units to 0; 'round-off': between two roundings of one point.
    """

    start: dict[str, Any]
    end: dict[str, Any]
    layer: int
    move: str


class Walk:
    """Records a path while layers on the host are changed in place.

    Attributes:
        layers: current position.
        segments: segments so far, added by `stop`.
        last: end of the last segment.
    """

    def __init__(self, params: Network):
        self.like = params
        self.layers = [
            Layer(np.array(layer.kernel), None if layer.bias is None else np.array(layer.bias))
            for layer in to_layers(params)
        ]
        self.segments: list[Segment] = []
        self.last = self.params()

    def params(self) -> dict[str, Any]:
        """A copy of the current position."""
        copies = [Layer(k.copy(), None if b is None else b.copy()) for k, b in self.layers]
        return from_layers(copies, self.like)

    def stop(self, layer: int, move: str, *, even_if_still: bool = True) -> None:
        """End a segment at the current position."""
        here = self.params()
        if even_if_still or not same(self.last, here):
            self.segments.append(Segment(self.last, here, layer, move))
            self.last = here

    def incoming(self, layer: int, unit: int | np.integer) -> tuple:
        """A copy of the incoming weights and the bias of a unit."""
        kernel, bias = self.layers[layer]
        return kernel[:, unit].copy(), None if bias is None else bias[unit].copy()

    def set_incoming(self, layer: int, unit: int | np.integer, row: tuple) -> None:
        """Set the incoming weights and the bias of a unit."""
        kernel, bias = self.layers[layer]
        kernel[:, unit] = row[0]
        if bias is not None:
            bias[unit] = row[1]

    def relocate(self, layer: int, source: int | np.integer, spare: int | np.integer) -> None:
        """Relocate unit `source` to `spare` in two segments; `source` is then the spare."""
        self.set_incoming(layer, spare, self.incoming(layer, source))
        self.stop(layer, "incoming")
        outgoing = self.layers[layer + 1].kernel
        outgoing[spare] = outgoing[source]
        outgoing[source] = 0
        self.stop(layer, "outgoing")


def permuted(params: Network, permutations: Sequence[Int[Array, "_"] | Sequence[int]]) -> dict[str, Any]:
    """Permute hidden units: position i of hidden layer l gets unit `permutations[l][i]`.

    Raises:
        ValueError: the number of permutations is not that of hidden layers, or one is invalid.

    >>> permuted({'w': np.array([[1.0], [2.0]]), 'a': np.array([[3.0], [4.0]])}, [[1, 0]])['a'].ravel().tolist()
    [4.0, 3.0]
    """
    layers = to_layers(params)
    orders = [None, *_check_permutations(layers, permutations), None]
    moved = []
    for layer, before, after in zip(layers, orders, orders[1:]):
        kernel, bias = np.asarray(layer.kernel), None if layer.bias is None else np.asarray(layer.bias)
        kernel = kernel if before is None else kernel[before]
        if after is not None:
            kernel, bias = kernel[:, after], None if bias is None else bias[after]
        moved.append(Layer(kernel, bias))
    return from_layers(moved, params)


def permutation_path(
    params: Network, permutations: Sequence[Int[Array, "_"] | Sequence[int]], *, spares: Sequence[int] | None = None
) -> list[Segment]:
    """A path of constant function from a network to `permuted(params, permutations)`.

    Layers are permuted one after another, first to last; see `segment_count` for the number of segments. Weights
    between spares of consecutive layers, which do not affect the function, are set to 0 in a first segment and restored
    in a last one.

    Args:
        params: a network of either form, see `layered`.
        permutations: for each hidden layer, the unit that goes to each position.
        spares: for each hidden layer, a unit whose outgoing weights are 0 except to the spare of the next layer; None
            finds them.

    Returns:
        The segments in order, ending bitwise at the permuted network; empty for identity permutations.

    Raises:
        ValueError: invalid permutations, or a layer to be permuted without a spare.

    >>> net = {'w': np.array([[1.0], [2.0], [9.0]]), 'a': np.array([[3.0], [4.0], [0.0]])}
    >>> path = permutation_path(net, [[1, 0, 2]])
    >>> len(path), path[-1].end['w'].ravel().tolist()
    (7, [2.0, 1.0, 9.0])
    """
    walk = Walk(params)
    orders = _check_permutations(walk.layers, permutations)
    wanted = [np.any(order != np.arange(len(order))) for order in orders]
    if not any(wanted):
        return []
    spares = _find_spares(walk.layers, orders, wanted, spares)
    goal = permuted(params, orders)
    for layer, (spare, following) in enumerate(itertools.pairwise(spares)):
        if spare is not None and following is not None:
            walk.layers[layer + 1].kernel[spare, following] = 0
    walk.stop(-1, "clear", even_if_still=False)
    for layer, (order, spare) in enumerate(zip(orders, spares)):
        if wanted[layer]:
            _permute_layer(walk, layer, order, spare)
    if not same(walk.last, goal):
        walk.segments.append(Segment(walk.last, goal, -1, "restore"))
    return walk.segments


def segment_count(permutation: Int[Array, "_"] | Sequence[int], spare: int) -> int:
    """Number of segments to permute one layer: 1 + 2 (n + 1) per cycle of n > 1 units, 2 (n - 1) for that of the spare.

    0 for the identity. Non-zero weights between spares of two layers cost two more segments in total.

    Raises:
        ValueError: an invalid permutation or spare.

    >>> segment_count([1, 0, 2], 2), segment_count([1, 2, 3, 0, 4], 4), segment_count([1, 0, 3, 2, 4], 4)
    (7, 11, 13)
    """
    (order,) = _check_orders([permutation], [len(permutation)])
    if not 0 <= spare < len(order):
        raise ValueError(f"spare={spare} does not exist: give one of 0 .. {len(order) - 1}")
    found = _cycles(order)
    moves = sum(2 * (len(cycle) - 1) if spare in cycle else 2 * (len(cycle) + 1) for cycle in found)
    return 1 + moves if found else 0


def path_losses(
    path: Sequence[Segment],
    x: Float[Array, "n din"],
    y: Float[Array, "n dout"],
    activation: Activation,
    *,
    points: int = 21,
    loss: Loss = mean_squared_error,
) -> Float[np.ndarray, "segment point"]:
    """Losses at equidistant points of every segment, both ends included.

    To resolve losses at the round-off of double precision, call it under `jax.enable_x64(True)`.

    Raises:
        ValueError: an empty path, fewer than two points, or data that do not fit the network.

    >>> net = {'w': np.array([[1.0], [2.0], [9.0]]), 'a': np.array([[3.0], [4.0], [0.0]])}
    >>> x = jnp.ones((1, 1))
    >>> path_losses(permutation_path(net, [[1, 0, 2]]), x, forward(net, x, jnp.tanh), jnp.tanh).max().item() < 1e-12
    True
    """
    if not path or points < 2:
        raise ValueError(f"path has {len(path)} segments and points={points}: give one or more, and at least 2 points")
    check_data(path[0].start, x, y)
    ends = [jax.tree.map(lambda *leaves: np.stack(leaves), *side) for side in zip(*((s.start, s.end) for s in path))]
    return np.asarray(_losses(*ends, x, y, jnp.linspace(0, 1, points), activation, loss))


def straight_losses(
    start: Network,
    end: Network,
    x: Float[Array, "n din"],
    y: Float[Array, "n dout"],
    activation: Activation,
    *,
    points: int = 21,
    loss: Loss = mean_squared_error,
) -> Float[np.ndarray, "point"]:
    """Losses along the straight line between two networks, for comparison with a path. Errors as `path_losses`.

    >>> net = {'w': np.array([[1.0], [-1.0]]), 'a': np.array([[1.0], [-1.0]])}
    >>> x = jnp.ones((1, 1))
    >>> losses = straight_losses(net, permuted(net, [[1, 0]]), x, forward(net, x, jnp.tanh), jnp.tanh, points=3)
    >>> [round(loss, 2) for loss in losses.tolist()]
    [0.0, 2.32, 0.0]
    """
    return path_losses([Segment(start, end, -1, "straight")], x, y, activation, points=points, loss=loss)[0]


@partial(jax.jit, static_argnums=(5, 6))
def _losses(starts, ends, x, y, times, activation, loss):
    def at(start, end, t):
        # `where` makes the result exact at t = 1.
        params = jax.tree.map(lambda a, b: jnp.where(t == 1, b, a + t * (b - a)), start, end)
        return loss(forward(params, x, activation), y)

    along = lambda pair: jax.lax.map(lambda t: at(*pair, t), times)  # noqa: E731
    return jax.lax.map(along, (starts, ends))


def same(first: Network, second: Network) -> bool:
    """Whether all entries of two trees are equal.

    >>> same({'a': np.ones(2)}, {'a': np.ones(2)}), same({'a': np.ones(2)}, {'a': np.zeros(2)})
    (True, False)
    """
    return all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))


def _permute_layer(walk, layer, order, spare):
    kept = walk.incoming(layer, spare)
    hole = spare
    # The cycle of the spare comes last, since it changes the position of the spare.
    for cycle in sorted(_cycles(order), key=lambda cycle: spare in cycle):
        if spare in cycle:
            at = cycle.index(spare)
            cycle = cycle[at:] + cycle[:at]
        else:
            walk.relocate(layer, cycle[0], spare)
        for position, source in itertools.pairwise(cycle):
            walk.relocate(layer, source, position)
        if spare in cycle:
            hole = cycle[-1]
        else:
            walk.relocate(layer, spare, cycle[-1])
    walk.set_incoming(layer, hole, kept)
    walk.stop(layer, "incoming")


def _cycles(order) -> list[list[int]]:
    """Cycles i, order[i], order[order[i]], .. of more than one unit."""
    left, found = set(range(len(order))), []
    while left:
        unit, cycle = min(left), []
        while unit in left:
            left.remove(unit)
            cycle.append(unit)
            unit = int(order[unit])
        found += [cycle] if len(cycle) > 1 else []
    return found


def _find_spares(layers, orders, wanted, given):
    """A spare for each hidden layer, found from the last layer to the first; None if a layer has and needs none."""
    if given is not None and len(given) != len(orders):
        raise ValueError(f"spares has {len(given)} entries: give one for each of {len(orders)} hidden layers")
    spares, following = [], None
    for layer in reversed(range(len(orders))):
        seen = np.asarray(layers[layer + 1].kernel) != 0
        if following is not None:
            seen = np.delete(seen, following, axis=1)
        free = np.flatnonzero(~seen.any(1))
        # Prefer a spare that the permutation does not move, so that it is in no cycle.
        free = sorted(free.tolist(), key=lambda unit: orders[layer][unit] != unit)
        choice = next(iter(free), None) if given is None else given[layer]
        if (given is not None or wanted[layer]) and choice not in free:
            what = "no spare unit" if given is None else f"spare={choice}, whose outgoing weights are not 0"
            raise ValueError(
                f"hidden layer {layer} has {what}: a spare has outgoing weights that are all 0, except to the spare of "
                "the next layer; widen the layer by a unit with outgoing weights 0"
            )
        spares.append(choice)
        following = choice
    return spares[::-1]


def _check_permutations(layers, permutations):
    return _check_orders(permutations, [len(layer.kernel) for layer in layers[1:]])


def _check_orders(permutations, widths):
    if len(permutations) != len(widths):
        raise ValueError(
            f"permutations has {len(permutations)} entries: give one for each of {len(widths)} hidden layers"
        )
    orders = [np.asarray(order) for order in permutations]
    for layer, (order, m) in enumerate(zip(orders, widths)):
        if (
            order.shape != (m,)
            or not np.issubdtype(order.dtype, np.integer)
            or sorted(order.tolist()) != list(range(m))
        ):
            raise ValueError(
                f"permutations[{layer}]={order.tolist()} is not a permutation of the {m} units 0 .. {m - 1}"
            )
    return orders
