"""Canonical scales and signs of hidden units: one network of all that differ by c or -1 a unit.

With relu, c relu(z / c) = relu(z) for c > 0: incoming weights and bias of a unit may be divided by c where its outgoing
weights are multiplied by c. With an odd activation (tanh, sin) the same holds for c = -1. Neither holds behind a
normalisation. Matching canonical forms is matching up to permutations and scales (or signs).

Incoming is what a permutation moves along the last axis (the columns of a kernel, a bias), outgoing along any other.
"""

import graphlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sbjax import trees
from sbjax.symmetry.permutation import Move, Spec, check_spec

OF_NORMALISATIONS = ("scale", "mean", "var")


def canonical_scale(spec: Spec, tree: PyTree, *, names: Sequence[str] | None = None) -> PyTree:
    """The same function of a relu network with incoming norm 1 at every hidden unit.

    Layer by layer from the input, w_in, b -> w_in / c, b / c and w_out -> c w_out with c = |(w_in, b)|; a unit whose
    incoming weights are all zero is left as it is. Works under jit and vmap with the spec closed over.

    Args:
        spec: which axes belong to which units.
        tree: parameters, kernels [.., in, out] as in Flax.
        names: the permutations whose units are scaled; None = all. In a residual network the incoming weights of the
            stream depend on the scales of the blocks and the other way round: give the blocks alone.

    Raises:
        ValueError: an unknown name; units that depend on one another in a circle; units of a normalisation; a spec that
            does not fit the tree.

    Example:
        >>> import jax.numpy as jnp
        >>> spec = Spec({'h': 1}, {'h': (Move('in', 1), Move('out', 0))}, {})
        >>> canonical = canonical_scale(spec, {'in': jnp.array([[3.0], [4.0]]), 'out': jnp.array([[2.0]])})
        >>> float(canonical['out'][0, 0])
        10.0

    Source: Neyshabur et al., arXiv 1506.02617 (rescaling of relu units).
    """

    def scale(entries):
        norm = jnp.sqrt(jnp.sum(entries**2, 0))
        return jnp.where(norm > 0, norm, 1)

    return _canonical(spec, tree, names, scale)


def canonical_sign(spec: Spec, tree: PyTree, *, names: Sequence[str] | None = None) -> PyTree:
    """The same function of a network of odd activations, the largest incoming weight of every hidden unit positive.

    Largest in absolute value, over incoming weights and bias: no permutation of the units before can change it. Where
    two are nearly as large, a small change of weights may flip the sign.

    Arguments and errors as `canonical_scale`.

    Example:
        >>> import jax.numpy as jnp
        >>> spec = Spec({'h': 1}, {'h': (Move('in', 1), Move('out', 0))}, {})
        >>> canonical = canonical_sign(spec, {'in': jnp.array([[1.0], [-4.0]]), 'out': jnp.array([[2.0]])})
        >>> canonical['in'].ravel().tolist(), float(canonical['out'][0, 0])
        ([-1.0, 4.0], -2.0)
    """

    def sign(entries):
        largest = jnp.take_along_axis(entries, jnp.argmax(jnp.abs(entries), 0)[None], 0)[0]
        return jnp.where(largest < 0, -1, 1).astype(entries.dtype)

    return _canonical(spec, tree, names, sign)


def _canonical(spec: Spec, tree: PyTree, names, factor: Callable[[Float[Array, "k n"]], Float[Array, "n"]]) -> PyTree:
    check_spec(spec, tree)
    names = tuple(spec.sizes) if names is None else tuple(names)
    for name in names:
        if name not in spec.sizes:
            raise ValueError(f"names has {name!r}, which is no permutation of the spec: {', '.join(spec.sizes)}")
    leaves = {name: jnp.asarray(leaf) for name, leaf in trees.flatten(tree).items()}
    for name in names:
        for move in spec.moves[name]:
            if move.leaf.rpartition("/")[2] in OF_NORMALISATIONS:
                raise ValueError(
                    f"{name!r} moves {move.leaf!r} of a normalisation, behind which units have no free scale or sign; "
                    "leave it out with `names`"
                )
    for name in _from_the_input(spec, leaves, names):
        n = spec.sizes[name]
        incoming = [m for m in spec.moves[name] if m.axis == leaves[m.leaf].ndim - 1]
        outgoing = [m for m in spec.moves[name] if m.axis != leaves[m.leaf].ndim - 1]
        if not incoming:
            continue
        c = factor(jnp.concatenate([_rows(leaves[move.leaf], move, n) for move in incoming]))
        for move in incoming:
            leaves[move.leaf] = _times(leaves[move.leaf], move, 1 / c)
        for move in outgoing:
            leaves[move.leaf] = _times(leaves[move.leaf], move, c)
    return jax.tree.unflatten(jax.tree.structure(tree), list(leaves.values()))


def _from_the_input(spec, leaves, names):
    """The names, each after those whose units it reads."""
    moved = {}
    for name in names:
        for move in spec.moves[name]:
            moved.setdefault(move.leaf, []).append((name, move.axis == leaves[move.leaf].ndim - 1))
    before = {name: set() for name in names}
    for moves in moved.values():
        for name, _ in (item for item in moves if item[1]):
            before[name] |= {other for other, incoming in moves if not incoming}
    try:
        return list(graphlib.TopologicalSorter(before).static_order())
    except graphlib.CycleError as error:
        circle = " -> ".join(dict.fromkeys(error.args[1]))
        raise ValueError(
            f"the units of {circle} read one another in a circle, as along a residual stream, so that no order of "
            "scaling is canonical; leave the stream out with `names`"
        ) from error


def _seen(leaf, move: Move, n: int):
    return leaf.reshape(*leaf.shape[: move.axis], move.outer, n, move.inner, *leaf.shape[move.axis + 1 :])


def _rows(leaf, move, n):
    return jnp.moveaxis(_seen(leaf, move, n), move.axis + 1, -1).reshape(-1, n)


def _times(leaf, move, factor):
    seen = _seen(leaf, move, len(factor))
    shape = [1] * seen.ndim
    shape[move.axis + 1] = len(factor)
    return (seen * factor.astype(leaf.dtype).reshape(shape)).reshape(leaf.shape)
