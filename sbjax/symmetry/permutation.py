"""Permutation specs and their application to trees of parameters.

A `Spec` lists the array axes that each permutation of hidden units moves. Permuting a layer's units (columns of its
kernel, its bias, rows of the next kernel) leaves the function of the network unchanged. `sbjax.symmetry.spec` derives
the spec of a network.

Convention: a permutation p is an array of indices; unit i of the new network is unit p[i] of the old one.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree

from sbjax import rng, trees
from sbjax.common.names import near

Permutations = dict[str, Int[Array, "_"]]
"""Indices by name of permutation; a missing name means the identity."""


class Move(NamedTuple):
    """One axis of one array that a permutation acts on.

    Attributes:
        leaf: flat name of the array, such as 'dense_0/kernel', see `sbjax.trees.flatten`.
        axis: non-negative index of the axis.
        outer, inner: the axis is viewed as [outer, n, inner] and its middle part permuted. After flattening a map
            [h, w, c], the kernel of the next dense layer has outer = h w.
        before, after, gap: entries of the axis that are not moved: in front of this view, behind it, and between two of
            its `outer` blocks. They belong to other ranges of an axis that reads a concatenation.
        stack, layer: only the slice `layer` along the axis `stack` is moved: one layer of weights stacked for a `scan`.
            stack = -1: all are.
    """

    leaf: str
    axis: int
    outer: int = 1
    inner: int = 1
    before: int = 0
    after: int = 0
    gap: int = 0
    stack: int = -1
    layer: int = 0

    def positions(self, n: int) -> Int[np.ndarray, "outer n inner"]:
        """Indices of the axis that belong to each of n units.

        >>> Move('w', 0, outer=2, before=1, gap=3).positions(2).tolist()
        [[[1], [2]], [[6], [7]]]
        """
        block = np.arange(n * self.inner).reshape(n, self.inner)
        return self.before + (n * self.inner + self.gap) * np.arange(self.outer)[:, None, None] + block

    def length(self, n: int) -> int:
        """Size of the axis.

        >>> Move('w', 0, outer=2, before=1, gap=3).length(2)
        8
        """
        return self.before + self.outer * n * self.inner + (self.outer - 1) * self.gap + self.after

    def meets(self, other: "Move") -> bool:
        """Whether both act on one layer of a leaf.

        >>> first, second = (Move('w', 1, stack=0, layer=layer) for layer in (0, 1))
        >>> first.meets(Move('w', 1)), first.meets(second)
        (True, False)
        """
        apart = -1 != self.stack == other.stack and self.layer != other.layer
        return self.leaf == other.leaf and not apart

    def inside(self, stack: int) -> "Move":
        """The same move of one slice along the axis `stack`, an array with an axis less.

        >>> Move('w', 2, stack=0, layer=3).inside(0), Move('w', 1).inside(2).axis
        (Move(leaf='w', axis=1, outer=1, inner=1, before=0, after=0, gap=0, stack=-1, layer=0), 1)
        """
        left = lambda axis: axis - (-1 < stack < axis)  # noqa: E731
        if self.stack in (-1, stack):
            return self._replace(axis=left(self.axis), stack=-1, layer=0)
        return self._replace(axis=left(self.axis), stack=left(self.stack))


class Spec(NamedTuple):
    """Permutations of a network and the axes they act on.

    Attributes:
        sizes: number of units n of each permutation.
        moves: axes that each permutation acts on.
        fixed: 'leaf[axis]' -> reason why this axis, or a factor of it, cannot be permuted.
    """

    sizes: dict[str, int]
    moves: dict[str, tuple[Move, ...]]
    fixed: dict[str, str]


def identity(spec: Spec) -> Permutations:
    """The identity permutations.

    >>> identity(Spec({'dense_0': 3}, {'dense_0': ()}, {}))['dense_0'].tolist()
    [0, 1, 2]
    """
    return {name: jnp.arange(n) for name, n in spec.sizes.items()}


def random_permutations(key: Key[Array, ""], spec: Spec) -> Permutations:
    """Independent uniformly random permutations; each depends only on the key, its name and its size.

    >>> p = random_permutations(jax.random.key(0), Spec({'dense_0': 3}, {'dense_0': ()}, {}))
    >>> sorted(p['dense_0'].tolist())
    [0, 1, 2]
    """
    return {name: jax.random.permutation(rng.stream(key, name), n) for name, n in spec.sizes.items()}


def permute(spec: Spec, tree: PyTree, permutations: Permutations, *, missing: str = "error") -> PyTree:
    """Permute the units of a tree: new[.., i, ..] = old[.., p[i], ..] on every axis that p acts on.

    Works under jit, vmap and grad with the spec closed over. numpy arrays stay numpy arrays if the permutations are
    numpy arrays too.

    Args:
        spec: permutation spec.
        tree: parameters, or the tree the spec was made for.
        permutations: indices by name.
        missing: 'error' or 'skip' leaves of the spec that the tree lacks. 'skip' allows to apply the spec of all
            variables to `{'params': params}`.

    Raises:
        ValueError: an unknown permutation or a wrong length; a missing leaf, or one whose size does not fit.

    >>> spec = Spec({'p': 2}, {'p': (Move('a', 1), Move('b', 0))}, {})
    >>> tree = {'a': np.array([[1, 2]]), 'b': np.array([3, 4])}
    >>> {name: leaf.tolist() for name, leaf in permute(spec, tree, {'p': np.array([1, 0])}).items()}
    {'a': [[2, 1]], 'b': [4, 3]}
    """
    if missing not in ("error", "skip"):
        raise ValueError(f"missing={missing!r} is unknown: give 'error' or 'skip'")
    check_permutations(spec, permutations)
    leaves = trees.flatten(tree)
    absent = lambda leaf: missing == "skip" and leaf not in leaves  # noqa: E731
    for name in permutations:
        for move in spec.moves.get(name, ()):
            if not absent(move.leaf):
                _check_move(name, spec.sizes[name], move, leaves)
    for name, order in permutations.items():
        for move in spec.moves.get(name, ()):
            if not absent(move.leaf):
                leaves[move.leaf] = _take(leaves[move.leaf], order, spec.sizes[name], move)
    return jax.tree.unflatten(jax.tree.structure(tree), list(leaves.values()))


def compose(first: Permutations, then: Permutations) -> Permutations:
    """Composition i -> f[g[i]]: permute(., compose(f, g)) = permute(permute(., f), g).

    >>> compose({'p': np.array([1, 2, 0])}, {'p': np.array([1, 0, 2])})['p'].tolist()
    [2, 1, 0]
    """
    both = {name: first[name][then[name]] for name in first if name in then}
    return {name: both.get(name, order) for name, order in (first | then).items()}


def invert(permutations: Permutations) -> Permutations:
    """Inverse permutations.

    >>> invert({'p': np.array([1, 2, 0])})['p'].tolist()
    [2, 0, 1]
    """
    return {name: order.argsort() for name, order in permutations.items()}


def check_permutations(spec: Spec, permutations: Permutations) -> None:
    """Check that permutations have names known to the spec and valid indices (inside `jit`: valid shapes).

    Raises:
        ValueError: naming the invalid permutation.
    """
    for name, order in permutations.items():
        if name not in spec.sizes:
            raise ValueError(f"permutation {name!r} is not in the spec{near(name, spec.sizes)}")
        n = spec.sizes[name]
        if jnp.shape(order) != (n,):
            raise ValueError(f"permutation {name!r} has shape {jnp.shape(order)}: give {n} indices")
        if not isinstance(order, jax.core.Tracer) and sorted(np.asarray(order).tolist()) != list(range(n)):
            raise ValueError(f"permutation {name!r} must hold each of 0 .. {n - 1} once")


def check_spec(spec: Spec, tree: PyTree) -> None:
    """Check that a spec is consistent and fits a tree.

    Args:
        spec: the spec to check.
        tree: arrays, or anything with shapes.

    Raises:
        ValueError: sizes and moves with different names; a missing leaf or axis; an axis whose size is not that of the
            move; a permutation that acts twice on one entry; two on one axis that do not commute; a layer that is not
            there, or of a stack whose layers another permutation moves.

    >>> check_spec(Spec({'p': 2}, {'p': (Move('a', 0),)}, {}), {'a': np.zeros(2)})
    """
    if spec.sizes.keys() != spec.moves.keys():
        odd = ", ".join(sorted(spec.sizes.keys() ^ spec.moves.keys()))
        raise ValueError(f"permutations {odd} have a size or moves, but not both: give both")
    leaves = trees.flatten(tree)
    by_axis: dict[tuple[str, int], list[tuple[str, Move]]] = {}
    for name, moves in spec.moves.items():
        for move in moves:
            _check_move(name, spec.sizes[name], move, leaves)
            by_axis.setdefault((move.leaf, move.axis), []).append((name, move))
    for name, move in (pair for moves in [*by_axis.values()] for pair in moves):
        if across := by_axis.get((move.leaf, move.stack)):
            raise ValueError(
                f"permutation {name!r} acts on single layers of leaf {move.leaf!r} along axis {move.stack}, which "
                f"permutation {across[0][0]!r} moves: fix one"
            )
    for (leaf, axis), acting in by_axis.items():
        n = jnp.shape(leaves[leaf])[axis]
        acting = [(name, move, *_labels(move, spec.sizes[name], n)) for name, move in acting]
        for (name, move, *own), (other, second, *its) in itertools.combinations(acting, 2):
            where = f"axis {axis} of leaf {leaf!r}"
            if not move.meets(second):
                continue
            if name == other and ((own[0] >= 0) & (its[0] >= 0)).any():
                raise ValueError(f"permutation {name!r} acts twice on {where}: drop one of {move} and {second}")
            if name != other and not _commute(own, its):
                raise ValueError(
                    f"permutations {name!r} and {other!r} overlap on {where} and do not commute: {move}, {second}; "
                    "give them factors of the axis that are apart, or fix one"
                )


def _labels(move: Move, n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The unit of each entry of an axis, or -1, and where it goes when all units move on by one."""
    places, units, shifted = move.positions(n), np.full(size, -1), np.arange(size)
    units[places] = np.arange(n)[:, None]
    shifted[places] = np.roll(places, -1, 1)
    return units, shifted


def _commute(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> bool:
    """Whether all permutations of two moves commute: neither changes the units of the other, and cycles commute."""
    return all(np.array_equal(*pair) for pair in ((a[0], a[0][b[1]]), (b[0], b[0][a[1]]), (a[1][b[1]], b[1][a[1]])))


def _check_move(name: str, n: int, move: Move, leaves: dict[str, Any]) -> None:
    if move.leaf not in leaves:
        raise ValueError(
            f"permutation {name!r} acts on leaf {move.leaf!r}, which is not there{near(move.leaf, leaves)}"
        )
    shape = jnp.shape(leaves[move.leaf])
    if not 0 <= move.axis < len(shape):
        raise ValueError(f"permutation {name!r} acts on axis {move.axis} of leaf {move.leaf!r} of shape {shape}")
    if move.stack != -1 and not (
        0 <= move.stack < len(shape) and move.stack != move.axis and 0 <= move.layer < shape[move.stack]
    ):
        raise ValueError(
            f"permutation {name!r} acts on layer {move.layer} along axis {move.stack} of leaf {move.leaf!r} of shape "
            f"{shape}: give another axis than the moved one, and a layer of it"
        )
    right = min(move.outer, n, move.inner) >= 1 and min(move.before, move.after, move.gap) >= 0
    if not right or move.length(n) != shape[move.axis]:
        around = f" with {move.before} before, {move.after} after and {move.gap} between" if any(move[4:7]) else ""
        must = "size" if around else "product"
        raise ValueError(
            f"permutation {name!r} of {n} units acts on axis {move.axis} of leaf {move.leaf!r} of shape {shape}, seen "
            f"as [{move.outer}, {n}, {move.inner}]{around}, whose {must} must be {shape[move.axis]}"
        )


def _take(leaf: Array, order: Array, n: int, move: Move) -> Array:
    """Reorder the units of the moved axis."""
    library = np if isinstance(leaf, np.ndarray) and isinstance(order, np.ndarray) else jnp
    leaf = library.asarray(leaf)
    if move.stack != -1:
        place = (slice(None),) * move.stack + (move.layer,)
        layer = _take(leaf[place], order, n, move.inside(move.stack))
        if library is not np:
            return leaf.at[place].set(layer)
        leaf = leaf.copy()
        leaf[place] = layer
        return leaf
    if move[2:] == Move("", 0)[2:]:
        return library.take(leaf, order, axis=move.axis)
    places = move.positions(n)
    moved = library.take(library.asarray(places), order, axis=1)
    kept = np.arange(leaf.shape[move.axis])
    if library is np:
        kept[places] = moved
    else:
        kept = jnp.asarray(kept).at[places].set(moved, unique_indices=True)
    return library.take(leaf, kept, axis=move.axis)
