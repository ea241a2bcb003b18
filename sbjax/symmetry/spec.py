"""Derive permutation specs automatically from the jaxpr of a function.

`derive_spec` propagates every axis of every array through the jaxpr. Axes that meet in a contraction, a sum or an
elementwise operation are joined; axes of inputs, outputs and constants are fixed, as are axes whose order matters to an
operation. The remaining axes can be permuted without changing the function. The method is sound but not complete;
`Spec.fixed` gives the reason for every axis that stays.

Supported:

- elementwise functions, broadcasting, reductions, `dot_general`, convolutions (also grouped), pooling, transposes,
  indexing and Fourier transforms along other axes, segment sums, `jit`, custom derivatives, `checkpoint`, `cond`,
  `scan` (also over stacked weights, and from a learned initial state), `while`.
- Reshapes, by factors of an axis. Flattening a map [h, w, c] before a dense layer gives moves in blocks. A group norm
  with g groups of c / g channels gives two permutations: of whole groups, and within groups, the same in each (the full
  symmetry is larger, with a different permutation in every group).
- Concatenation, padding with zeros and splits into unequal parts: the parts become ranges of the axis, each permuted
  for itself (branches, skips of a U-Net, dense blocks, padded shortcuts). Where others meet them, ranges are cut
  shorter.
- Equal parts of an axis that are sliced: gates of a recurrent cell, one kernel for queries, keys and values. All parts
  are permuted alike.
- Layers stacked along an axis that a `scan` runs over, or of which one after the other is taken by its index: each has
  permutations of its own (`Move.stack`), also after casts and transposes. Where the stack is used in another way, in
  the inner of two nested loops, and in stacks of more than 256, all layers are permuted alike.

Not supported, so that the axes are fixed: slices of other parts of an axis, linear algebra, `shard_map`, random numbers
with the shape of a layer (dropout in training).

Source of the format: Ainsworth, Hayase, Srinivasa, "Git Re-Basin", arXiv 2209.04836.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array, Key, PyTree

from sbjax import trees
from sbjax.common.names import near
from sbjax.symmetry import verification
from sbjax.symmetry._factors import FREE, Axes, axes, fix
from sbjax.symmetry._modules import split
from sbjax.symmetry._moves import moves_of, named, permuted_twice
from sbjax.symmetry._stacks import Stack, depths, layers, leaf_stack
from sbjax.symmetry._tracing import follow
from sbjax.symmetry.permutation import Move, Spec, check_spec
from sbjax.symmetry.verification import verify

__all__ = ["derive_spec", "spec_from_axes", "verify"]


def derive_spec(
    apply_fn: Callable, variables: PyTree, *inputs: PyTree, key: Key[Array, ""] | None = None, verify: bool = True
) -> Spec:
    """Permutations of hidden units that leave a function unchanged.

    Args:
        apply_fn: pure function of (variables, *inputs) in evaluation mode, without dropout. It should return outputs
            only: new batch statistics would count as outputs, whose axes are fixed.
        variables: any pytree of arrays or `jax.ShapeDtypeStruct`s: Flax variables with batch statistics and frozen
            arrays, parameters alone, a dict of arrays; or a whole module of NNX (after `module.eval()`) or Equinox, as
            in `derive_spec(lambda module, x: module(x), module, x)`, of which the arrays are taken.
        inputs: example inputs, arrays or `jax.ShapeDtypeStruct`s; small ones suffice. Axes of size 1 or of accidentally
            equal sizes do no harm.
        key: for the verification; None = key 0.
        verify: verify the result numerically, see `verify`; compiles the function once in float64.

    Returns:
        The spec. Permutations are in order of first use and named after the first array they act on: 'dense_0' for
        'params/dense_0/kernel', numbered if one array has several ('conv_stem.0' for whole groups, 'conv_stem.1' within
        groups). What reads a concatenation has several moves on one axis. Arrays that the function does not use are
        fixed.

    Raises:
        ValueError: the verification fails (the function is not deterministic, or this module has a bug).

    >>> params = {'a': {'kernel': jnp.ones((3, 4)), 'bias': jnp.ones(4)}, 'b': {'kernel': jnp.ones((4, 2))}}
    >>> apply = lambda params, x: jnp.tanh(x @ params['a']['kernel'] + params['a']['bias']) @ params['b']['kernel']
    >>> spec = derive_spec(apply, params, jnp.ones(3))
    >>> spec.sizes
    {'a': 4}
    >>> [(move.leaf, move.axis) for move in spec.moves['a']]
    [('a/bias', 0), ('a/kernel', 1), ('b/kernel', 0)]
    >>> spec.fixed
    {'a/kernel[0]': 'input', 'b/kernel[1]': 'output'}
    """
    apply_fn, variables = split(apply_fn, variables)
    shapes = {name: jnp.shape(leaf) for name, leaf in trees.flatten(variables).items()}
    leaves, used = _follow_leaves(apply_fn, variables, inputs, shapes)
    for name, leaf in leaves.items():
        for factors in (factors for layer in layers(leaf) for factors in layer):
            if name not in used:
                fix(factors, "not used by the function")
            fix(permuted_twice(factors), "would be permuted twice on one axis")
    spec = named(*moves_of(leaves), used)
    check_spec(spec, variables)
    if verify:
        verification.verify(spec, apply_fn, variables, *inputs, key=jax.random.key(0) if key is None else key)
    return spec


def spec_from_axes(
    axes: Mapping[str, Sequence[str | None]],
    tree: PyTree,
    apply_fn: Callable | None = None,
    *inputs: PyTree,
    key: Key[Array, ""] | None = None,
) -> Spec:
    """A spec written by hand: the name of a permutation, or None, for each axis of each array.

    Args:
        axes: flat name -> one entry per axis. Arrays that are not listed are not permuted.
        tree: arrays, or anything with shapes.
        apply_fn, inputs, key: as in `derive_spec`. With `apply_fn` the spec is verified, see `verify`; without it, it
            is not checked that the function stays unchanged.

    Raises:
        ValueError: an unknown array, a wrong number of entries, axes of different sizes under one name, and as
            `sbjax.symmetry.permutation.check_spec`; with `apply_fn`, a permutation that changes the function.

    >>> tree = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}
    >>> spec_from_axes({'a': (None, 'p'), 'b': ('p', None)}, tree).sizes
    {'p': 4}

    Source: the `axes_to_perm` of git-re-basin.
    """
    shapes = {name: jnp.shape(leaf) for name, leaf in trees.flatten(trees.parameters(tree)).items()}
    sizes: dict[str, int] = {}
    moves: dict[str, list[Move]] = {}
    for leaf, names in axes.items():
        if leaf not in shapes:
            raise ValueError(f"axes: there is no leaf {leaf!r}{near(leaf, shapes)}")
        if isinstance(names, str) or len(names) != len(shapes[leaf]):
            raise ValueError(
                f"axes: {leaf!r} has shape {shapes[leaf]}: give a name or None for each axis, got {names!r}"
            )
        for axis, name in enumerate(names):
            if name is None:
                continue
            n = shapes[leaf][axis]
            if sizes.setdefault(name, n) != n:
                first = moves[name][0]
                raise ValueError(
                    f"axes: {name!r} names axis {axis} of {leaf!r} of size {n} and axis {first.axis} of {first.leaf!r} "
                    f"of size {sizes[name]}: give axes of different sizes different names"
                )
            moves.setdefault(name, []).append(Move(leaf, axis))
    moved = {(move.leaf, move.axis) for group in moves.values() for move in group}
    fixed = {
        f"{leaf}[{axis}]": "not named"
        for leaf, shape in shapes.items()
        for axis in range(len(shape))
        if (leaf, axis) not in moved
    }
    spec = Spec(sizes, {name: tuple(group) for name, group in moves.items()}, fixed)
    check_spec(spec, tree)
    if apply_fn is not None:
        verification.verify(spec, apply_fn, tree, *inputs, key=jax.random.key(0) if key is None else key)
    return spec


def _follow_leaves(
    apply_fn: Callable, variables: PyTree, inputs: tuple, shapes: dict[str, tuple[int, ...]]
) -> tuple[dict[str, Axes | Stack], list[str]]:
    """Axes of the leaves after they were followed through the function, and the leaves used, in order of first use.

    A leaf that may be a stack of layers, by the size of one of its axes, is taken for one until a use of it says
    otherwise.
    """
    closed = jax.make_jaxpr(apply_fn)(variables, *inputs)
    found = depths(closed.jaxpr)
    places = {name: [i for i, n in enumerate(shape) if n in found] for name, shape in shapes.items() if len(shape) > 1}
    while True:
        joined: set[str] = set()
        leaves = {
            name: leaf_stack(name, shape, places[name][0], joined)
            if places.get(name) and 0 not in shape
            else axes(shape, "empty" if 0 in shape else FREE)
            for name, shape in shapes.items()
        }
        used = _follow_once(closed, inputs, leaves)
        unused = {name for name, leaf in leaves.items() if isinstance(leaf, Stack) and name not in used}
        if not joined | unused:
            return leaves, used
        for name in joined | unused:
            places[name].pop(0)


def _follow_once(closed: ClosedJaxpr, inputs: tuple, leaves: dict[str, Axes | Stack]) -> list[str]:
    """Propagate the axes of the leaves through the function, joining and fixing their factors in place.

    Returns the leaves that are used, in order of first use.
    """
    fixed = [axes(jnp.shape(leaf), "input") for leaf in jax.tree.leaves(inputs)]
    owners = {id(leaf): name for name, leaf in leaves.items() if leaf}
    used: dict[str, None] = {}

    def see(operand: Axes | Stack) -> None:
        if id(operand) in owners:
            used.setdefault(owners[id(operand)])

    for result in follow(closed, [*leaves.values(), *fixed], see):
        see(result)
        for factors in (factors for layer in layers(result) for factors in layer):
            fix(factors, "output")
    return list(used)
