"""The weight matching objective <theta_A, pi(theta_B)> as an assignment matrix for one permutation at a time.

The objective is linear in each permutation separately. A `Term` is one leaf together with one permutation p that moves
it. With the others fixed it contributes sum_i G[i, p[i]], with G[i, j] = <a_i, b_j> for unit i of A and unit j of B.
A leaf of which permutations move ranges only is cut into blocks, each a leaf of its own.
Arrays are kept on the host, where assignments are solved.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from sbjax import trees
from sbjax.symmetry.permutation import Move, Permutations, Spec, check_spec

MOST_NUMPY = 2**18  # number of multiplications up to which OpenBLAS uses one thread


class Term(NamedTuple):
    """One leaf, or block of one, together with one permutation that moves it.

    Attributes:
        leaf: flat name of the leaf, numbered if it has several blocks.
        name: name of the permutation.
        a: the leaf of A, moved axis first.
        b: the leaf of B, moved axis last and the others in the order of `a`: the fastest layout for the product.
        others: permutations of the other axes, pairs (axis of b, name).
    """

    leaf: str
    name: str
    a: Float[np.ndarray | Array, "n ..."]
    b: Float[np.ndarray, "... n"]
    others: tuple[tuple[int, str], ...]


def make_terms(
    spec: Spec,
    reference: PyTree,
    model: PyTree,
    where: trees.Where = None,
    units: Sequence[float] = (1.0, 1.0),
) -> tuple[list[Term], float, float]:
    """Terms of a pair of trees, the constant part of the objective, and the objective at the identity.

    The trees are divided by `units`, and so is the objective.

    Raises:
        ValueError: trees of different structure or shapes, a spec that does not fit, NaN or infinite entries.
    """
    sides = [trees.floating(tree, where, what=what) for tree, what in ((reference, "reference"), (model, "model"))]
    for side, what in zip(sides, ("reference", "model"), strict=True):
        trees.check_finite(side, what)
    if alone := sorted(sides[0].keys() ^ sides[1].keys()):
        here, there = ("reference", "model") if alone[0] in sides[0] else ("model", "reference")
        raise ValueError(f"{here} has a leaf {alone[0]!r} that {there} lacks; match two trees of one structure")
    a, b = (
        {name: wide(leaf) if unit == 1 else wide(leaf) / unit for name, leaf in side.items()}
        for side, unit in zip(sides, units, strict=True)
    )
    moved: dict[str, list[tuple[str, Move]]] = {}
    for name, moves in spec.moves.items():
        for move in moves:
            moved.setdefault(move.leaf, []).append((name, move))
    check_spec(spec, reference)
    terms, constant, unpermuted = [], 0.0, 0.0
    for leaf in a:
        if a[leaf].shape != b[leaf].shape:
            raise ValueError(f"leaf {leaf!r} has shape {a[leaf].shape} in reference and {b[leaf].shape} in model")
        product = _product_of_all(a[leaf], b[leaf])
        unpermuted += product
        if leaf not in moved:
            constant += product
        else:
            found, rest = _terms_of_leaf(leaf, a[leaf], b[leaf], moved[leaf], spec.sizes)
            terms += found
            constant += rest
    return terms, constant, unpermuted


def wide(leaf) -> np.ndarray:
    """Copy a leaf to the host in float32 or wider."""
    leaf = np.asarray(leaf)
    return np.ascontiguousarray(leaf, leaf.dtype if trees.is_cut(leaf) else trees.wide_dtype(leaf))


def scale(tree: PyTree, where: trees.Where = None) -> float:
    """The power of two by which selected leaves are divided before products that would overflow or vanish in float32;
    1 for entries of ordinary size."""
    most = max(float(np.abs(wide(leaf)).max()) for leaf in trees.floating(tree, where).values())
    return 1.0 if 1e-12 < most < 1e12 or not 0 < most < np.inf else float(2.0 ** np.floor(np.log2(most)))


def gram(term: Term, permutations: Permutations) -> Float[np.ndarray | Array, "n n"]:
    """Gram matrix <a_i, b_j> with the leading axes of b permuted; a large one is dispatched asynchronously."""
    b = term.b
    for axis, other in term.others:
        b = np.take(b, permutations[other], axis)
    return _product(term.a, b)


def optimistic_gram(term: Term, permutations: Permutations) -> Float[np.ndarray | Array, "n n"]:
    """Upper bound of <a_i, b_j>, for each pair, over all permutations of the axes whose permutations are still unknown.

    By the rearrangement inequality it is the product of sorted entries. If B is a permuted copy of A, the correct
    assignment attains |a_i|^2 for each pair, which is the maximum.
    """
    a, b = term.a, term.b
    unknown = []
    for axis, other in term.others:
        if other in permutations:
            b = np.take(b, permutations[other], axis)
        else:
            unknown.append(axis)
    n = b.shape[-1]
    a, b = _sorted(np.moveaxis(np.asarray(a), 0, -1), unknown), _sorted(b, unknown)
    return _product(np.ascontiguousarray(a.reshape(-1, n).T), b)


def value(term: Term, permutations: Permutations) -> float:
    """Contribution of the leaf to the objective."""
    b = np.take(term.b, permutations[term.name], -1)
    for axis, other in term.others:
        b = np.take(b, permutations[other], axis)
    return float(np.einsum("ik,ki", *_flat(np.asarray(term.a), b), dtype=np.float64))


def _flat(a, b):
    return a.reshape(len(a), -1), b.reshape(-1, len(a))


def total(grams: Iterable[Array]) -> Float[np.ndarray, "n n"] | int:
    """Sum of Gram matrices, 0 for none.

    All are dispatched before the first is awaited, so that gathers and products overlap.
    """
    return sum(np.asarray(matrix) for matrix in list(grams))


def _product(a, b):
    # numpy for small products, which then need no compilation. For larger ones OpenBLAS uses spinning threads: up to 30
    # times slower than XLA on a busy machine, and 2 times slower on an idle one.
    if len(a) * a.size <= MOST_NUMPY:
        return np.matmul(*_flat(a, b))
    return _compiled_product(a, b)


@jax.jit
def _compiled_product(a, b):
    return jnp.matmul(*_flat(a, b), precision="highest")


def _sorted(x, axes):
    if not axes:
        return x
    rest = [axis for axis in range(x.ndim - 1) if axis not in axes]
    x = np.transpose(x, [*rest, x.ndim - 1, *axes])
    x = np.sort(x.reshape(*x.shape[: len(rest) + 1], -1), -1)
    return np.ascontiguousarray(np.moveaxis(x, -1, 0))


def _product_of_all(a, b) -> float:
    """<a, b> in float64; einsum instead of `np.vdot`, which would start the threads of OpenBLAS."""
    return float(np.einsum("i,i", a.reshape(-1), b.reshape(-1), dtype=np.float64))


def _terms_of_leaf(leaf, a, b, moves, sizes):
    """Terms of one leaf, with axes reshaped into the parts that the moves permute, and the product of what none moves.

    Without ranges there is one block, the leaf itself. Layers of a stack with moves of their own are leaves.
    """
    stack = next((move.stack for _, move in moves if move.stack != -1), None)
    if stack is not None:
        terms, constant = [], 0.0
        for layer in range(a.shape[stack]):
            acting = [(name, move.inside(stack)) for name, move in moves if move.stack != stack or move.layer == layer]
            slices = (x.take(layer, stack) for x in (a, b))
            found, rest = _terms_of_leaf(f"{leaf} layer {layer}", *slices, acting, sizes)
            terms += found
            constant += rest
        return terms, constant
    axes = [
        _cells(size, [(name, move) for name, move in moves if move.axis == axis], sizes)
        for axis, size in enumerate(a.shape)
    ]
    blocks = list(itertools.product(*axes))
    terms, constant = [], 0.0
    for number, block in enumerate(blocks):
        name = leaf if len(blocks) == 1 else f"{leaf} {number}"
        places = np.ix_(*(positions for positions, _ in block))
        pair = (x if len(blocks) == 1 and _in_order(block) else x[places] for x in (a, b))
        names = [piece for _, cell in block for piece in (*cell, None)]
        shape = [d for positions, cell in block for d in _shape(len(positions), [sizes[name] for name in cell])]
        found = _terms_of_block(name, *(x.reshape(shape) for x in pair), names)
        terms += found
        constant += 0.0 if found else _product_of_all(a[places], b[places])
    return terms, constant


def _in_order(block) -> bool:
    return all((positions[1:] > positions[:-1]).all() for positions, _ in block)


def _shape(size, units):
    return (*units, size // int(np.prod(units, dtype=int)))


def _cells(size, moves, sizes):
    """Parts of an axis on whose entries the same moves act: pairs (positions, names), so that positions are numbered
    [units of the first name, units of the second, .., rest]."""
    if not moves:
        return [(np.arange(size), ())]
    labels = np.full((len(moves), size), -1)
    for units, (name, move) in zip(labels, moves):
        units[move.positions(sizes[name])] = np.arange(sizes[name])[:, None]
    _, kinds = np.unique(labels >= 0, axis=1, return_inverse=True)
    cells = []
    for kind in range(kinds.max() + 1):
        positions = np.flatnonzero(kinds == kind)
        acting = np.flatnonzero(labels[:, positions[0]] >= 0)
        positions = positions[np.lexsort((positions, *labels[acting[::-1]][:, positions]))]
        cells.append((positions, tuple(moves[number][0] for number in acting)))
    return cells


def _terms_of_block(leaf, a, b, names):
    """Terms of an array whose dimensions are units of the permutations named, or of none."""
    pieces = [(dim, name) for dim, name in enumerate(names) if name is not None]
    terms = []
    for dim, name in pieces:
        leading = [d for d in range(a.ndim) if d != dim]
        others = tuple((leading.index(d), other) for d, other in pieces if d != dim)
        first, last = (np.ascontiguousarray(np.moveaxis(x, dim, to)) for x, to in ((a, 0), (b, -1)))
        first = first if len(first) * first.size <= MOST_NUMPY else jnp.asarray(first)  # convert once, not per product
        terms.append(Term(leaf, name, first, last, others))
    return terms
