"""Canonical scales and signs: a unique representative under rescaling or sign flips of hidden units.

For relu, c relu(z / c) = relu(z) with c > 0: dividing the incoming weights and the bias of a unit by c and multiplying
its outgoing weights by c leaves the function unchanged. For odd activations (tanh, sin) the same holds with c = -1.
Neither holds behind a normalisation. Matching canonical forms is matching up to permutations and scales (or signs).

Axes moved by a permutation are incoming if they are last (columns of a kernel, bias), otherwise outgoing.
"""

import graphlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sbjax import trees
from sbjax.symmetry.permutation import Spec, check_spec

OF_NORMALISATIONS = ("scale", "mean", "var")


def canonical_scale(spec: Spec, tree: PyTree, *, names: Sequence[str] | None = None) -> PyTree:
    """Rescale a relu network to incoming norm 1 at every hidden unit, without changing its function.

    Layer by layer from the input: w_in, b -> w_in / c, b / c and w_out -> c w_out with c = |(w_in, b)|. Units with zero
    incoming weights are unchanged. Works under jit and vmap with the spec closed over.

    Args:
        spec: permutation spec; its permutations identify the units.
        tree: parameters, with kernels [.., in, out] as in Flax.
        names: permutations whose units are rescaled; None = all. In a residual network give the blocks only: scales of
            the residual stream and of the blocks depend on one another.

    Raises:
        ValueError: an unknown name; scales that depend on one another; units of a normalisation; a spec that does not
            fit the tree.

    Example:
        >>> import jax.numpy as jnp
        >>> from sbjax.symmetry.permutation import Move
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
    """Flip signs such that the largest incoming weight of every hidden unit is positive, for odd activations.

    Largest in absolute value among incoming weights and bias, which is invariant under permutations of the previous
    layer. Discontinuous: if two weights are nearly as large, a small change may flip the sign. The function of the
    network is unchanged. Arguments and errors as `canonical_scale`.

    Example:
        >>> import jax.numpy as jnp
        >>> from sbjax.symmetry.permutation import Move
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
                    f"{name!r} moves {move.leaf!r} of a normalisation, which fixes the scale and sign of its units; "
                    "leave it out with `names`"
                )
    for name in _from_the_input(spec, leaves, names):
        n = spec.sizes[name]
        incoming = [m for m in spec.moves[name] if _is_incoming(m, leaves)]
        outgoing = [m for m in spec.moves[name] if not _is_incoming(m, leaves)]
        if not incoming:
            continue
        c = factor(jnp.concatenate([_rows(leaves[move.leaf], move, n) for move in incoming]))
        for move in incoming:
            leaves[move.leaf] = _times(leaves[move.leaf], move, 1 / c)
        for move in outgoing:
            leaves[move.leaf] = _times(leaves[move.leaf], move, c)
    return jax.tree.unflatten(jax.tree.structure(tree), list(leaves.values()))


def _from_the_input(spec, leaves, names):
    """Names in topological order, inputs first: each permutation after those whose units feed into its units."""
    moved = {}
    for name in names:
        for move in spec.moves[name]:
            moved.setdefault(move.leaf, []).append((name, move))
    before = {name: set() for name in names}
    for moves in moved.values():
        for name, move in moves:
            if _is_incoming(move, leaves):
                before[name] |= {other for other, m in moves if m.meets(move) and not _is_incoming(m, leaves)}
    try:
        return list(graphlib.TopologicalSorter(before).static_order())
    except graphlib.CycleError as error:
        circle = " -> ".join(dict.fromkeys(error.args[1]))
        raise ValueError(
            f"the units of {circle} depend on one another in a cycle, as along a residual stream, so that no order of "
            "rescaling is canonical; leave the stream out with `names`"
        ) from error


def _is_incoming(move, leaves):
    return move.inside(move.stack).axis == leaves[move.leaf].ndim - 1 - (move.stack != -1)


def _rows(leaf, move, n):
    """The entries of each unit, as columns."""
    if move.stack != -1:
        leaf, move = jnp.take(leaf, move.layer, move.stack), move.inside(move.stack)
    rows = jnp.take(leaf, move.positions(n), axis=move.axis)  # [.., outer, n, inner, ..]
    return jnp.moveaxis(rows, move.axis + 1, -1).reshape(-1, n)


def _times(leaf, move, factor):
    if move.stack != -1:
        layer = (slice(None),) * move.stack + (move.layer,)
        return leaf.at[layer].set(_times(leaf[layer], move.inside(move.stack), factor))
    places = (slice(None),) * move.axis + (move.positions(len(factor)),)
    factor = factor.astype(leaf.dtype)[:, None].reshape(-1, 1, *(1,) * (leaf.ndim - move.axis - 1))
    return leaf.at[places].multiply(factor, unique_indices=True)
