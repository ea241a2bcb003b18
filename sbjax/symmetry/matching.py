"""Weight matching: the permutation of hidden units that brings one network closest to another.

max_pi <theta_A, pi(theta_B)>, equivalently min_pi |theta_A - pi(theta_B)|, is a sum of bilinear assignment problems:
NP-hard in general, a single linear assignment for one hidden layer. Coordinate descent solves for one permutation with
the others fixed until none improves; the objective never decreases.

Differences from the published algorithm: the default start is propagated instead of the identity (permutations are
solved outward from the unpermuted inputs and outputs, each using the axes already known); a permutation is solved again
only if a neighbour has changed; random restarts are possible.

Source: Git Re-Basin, arXiv 2209.04836, algorithm 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

# `scipy.optimize` is slow to import; scipy loads it on first use.
import scipy
from jaxtyping import Array, Key, PyTree

from sbjax import trees
from sbjax.symmetry import bilinear
from sbjax.symmetry.permutation import Permutations, Spec, check_permutations, permute


class Matched(NamedTuple):
    """Result of weight matching.

    Attributes:
        permutations: pass them to `permute(spec, model, permutations)`.
        objective: <theta_A, pi(theta_B)> over the selected leaves.
        history: objective at the best start and after each of its sweeps, non-decreasing.
        restarts: final objective of each start.
        converged: whether the best descent ended because no single permutation improves the objective.
    """

    permutations: Permutations
    objective: float
    history: tuple[float, ...]
    restarts: tuple[float, ...]
    converged: bool


def match_weights(
    spec: Spec,
    reference: PyTree,
    model: PyTree,
    *,
    key: Key[Array, ""],
    restarts: int = 1,
    start: Permutations | None = None,
    max_sweeps: int = 100,
    where: trees.Where = None,
) -> Matched:
    """Permutations of `model` that bring it closest to `reference`.

    Finds a local maximum of the objective that is at least as good as the identity and `start`; the global one for one
    hidden layer. From the propagated start, a planted permutation without noise is recovered unless units are equal or
    have equal sorted entries along axes that are still unknown.

    Args:
        spec: permutation spec.
        reference: tree of parameters, any float dtype.
        model: tree of the same structure.
        key: for the order of updates and random starts.
        restarts: number of descents: the first from `start` or the propagated start, the others from random
            permutations. The best objective is kept.
        start: initial permutations, for example from an earlier matching.
        max_sweeps: maximum number of sweeps over all permutations in one descent.
        where: leaves that enter the objective (batch statistics may be left out).

    Raises:
        ValueError: trees of different structure or shape, a spec that does not fit, NaN entries, no leaf selected,
            restarts < 1, max_sweeps < 1, or an invalid `start`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sbjax.symmetry.permutation import Move, Spec
        >>> spec = Spec({'h': 3}, {'h': (Move('in', 1), Move('out', 0))}, {})
        >>> a = {'in': jnp.eye(3), 'out': jnp.ones((3, 1))}
        >>> b = {'in': jnp.eye(3)[:, jnp.array([2, 0, 1])], 'out': jnp.ones((3, 1))}
        >>> match_weights(spec, a, b, key=jax.random.key(0)).permutations['h'].tolist()
        [1, 2, 0]

    Source: arXiv 2209.04836, algorithm 1; restarts as in arXiv 2606.04754.
    """
    for name, number in (("restarts", restarts), ("max_sweeps", max_sweeps)):
        if number < 1:
            raise ValueError(f"{name}={number} must be >= 1")
    if start is not None:
        check_permutations(spec, start)
    units = [bilinear.scale(tree, where) for tree in (reference, model)]
    terms, constant, unpermuted = bilinear.make_terms(spec, reference, model, where, units)
    if not terms:
        raise ValueError(f"where={where!r} selects no leaf that the spec moves; select weights of hidden layers")
    by_name = {name: [term for term in terms if term.name == name] for name in spec.sizes}
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    grams = _Grams(by_name)
    if start is None:
        starts = [_propagated(grams, spec.sizes)]
    else:
        starts = [{name: np.asarray(start.get(name, np.arange(n))) for name, n in spec.sizes.items()}]
    starts += [{name: rng.permutation(n) for name, n in spec.sizes.items()} for _ in range(restarts - 1)]
    ends = [_descend(grams, permutations, constant, rng, max_sweeps) for permutations in starts]
    if max(history[-1] for _, history, _ in ends) < unpermuted:  # possible if the two networks are nearly equal
        identity = {name: np.arange(n) for name, n in spec.sizes.items()}
        ends.append(_descend(grams, identity, constant, rng, max_sweeps))
    unit = units[0] * units[1]
    ends = [(order, [unit * value for value in history], converged) for order, history, converged in ends]
    objectives = tuple(history[-1] for _, history, _ in ends)
    best, history, converged = ends[int(np.argmax(objectives))]
    best = {name: permutation.astype(np.int32) for name, permutation in best.items()}
    return Matched(best, history[-1], tuple(history), objectives, converged)


class Frame(NamedTuple):
    """Several models aligned with one another.

    Attributes:
        permutations: permutations of each model, in the given order.
        mean: mean of the permuted models.
        history: sum of squared distances of the permuted models to their mean, at the start and after every pass.
    """

    permutations: tuple[Permutations, ...]
    mean: PyTree
    history: tuple[float, ...]


def match_many(
    spec: Spec,
    models: Sequence[PyTree],
    *,
    key: Key[Array, ""],
    restarts: int = 1,
    max_passes: int = 100,
    where: trees.Where = None,
) -> Frame:
    """Align several models: each in turn, in random order, is matched to the mean of the others.

    Minimises sum_r |pi_r(theta_r) - mean|^2 over all permutations by coordinate descent over models, until the sum no
    longer decreases. The first model is the initial reference, so it starts, and usually ends, unpermuted.

    Args:
        spec: permutation spec.
        models: at least two trees of equal structure.
        key: for orders and random starts.
        restarts: as in `match_weights`, for the first matching of each model; later ones start from its current
            permutations.
        max_passes: maximum number of passes over all models.
        where: leaves that enter the objective.

    Raises:
        ValueError: fewer than two models; as `match_weights`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sbjax.symmetry.permutation import Move, Spec
        >>> spec = Spec({'h': 3}, {'h': (Move('w', 0),)}, {})
        >>> models = [{'w': jnp.array(order)} for order in ([1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [2.0, 3.0, 1.0])]
        >>> match_many(spec, models, key=jax.random.key(0)).mean['w'].tolist()
        [1.0, 2.0, 3.0]

    Source: MergeMany of arXiv 2209.04836.
    """
    if len(models) < 2:
        raise ValueError(f"models has {len(models)} trees; a common frame needs at least 2")
    if max_passes < 1:
        raise ValueError(f"max_passes={max_passes} must be >= 1")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    identity = {name: np.arange(n, dtype=np.int32) for name, n in spec.sizes.items()}
    permutations = [identity for _ in models]
    permuted = list(models)
    for i in range(1, len(models)):
        mean = _mean(permuted[:i])
        matched = match_weights(spec, mean, models[i], key=jax.random.fold_in(key, i), restarts=restarts, where=where)
        permutations[i], permuted[i] = matched.permutations, permute(spec, models[i], matched.permutations)
    history = [_spread(permuted, where)]
    for number in range(max_passes):
        for i in rng.permutation(len(models)):
            others = _mean([tree for j, tree in enumerate(permuted) if j != i])
            fold = jax.random.fold_in(key, len(models) * (number + 1) + int(i))
            matched = match_weights(spec, others, models[i], key=fold, start=permutations[i], where=where)
            permutations[i], permuted[i] = matched.permutations, permute(spec, models[i], matched.permutations)
        history.append(_spread(permuted, where))
        if history[-1] >= history[-2] * (1 - 1e-6):
            break
    return Frame(tuple(permutations), _mean(permuted), tuple(history))


class _Grams:
    """Cache of Gram matrices by (permutation, index of term), each with the other permutations it was computed for."""

    def __init__(self, by_name):
        self.by_name = by_name
        self.made = {}

    def at(self, name, number, permutations):
        """Gram matrix at these permutations, recomputed if the cached one is out of date."""
        term = self.by_name[name][number]
        now = {other: permutations[other] for _, other in term.others}
        matrix, before = self.made.get((name, number), (None, {}))
        if matrix is None or any(before[other] is not now[other] for other in now):
            matrix = bilinear.gram(term, now)
        self.made[name, number] = matrix, now
        return matrix

    def value(self, permutations):
        """The objective, from cached matrices where they are up to date."""
        leaves = {}
        for name, terms in self.by_name.items():
            for number, term in enumerate(terms):
                matrix, at = self.made.get((name, number), (None, {}))
                if matrix is not None and all(at[other] is permutations[other] for other in at):
                    leaves[term.leaf] = float(_picked(np.asarray(matrix), permutations[name]).sum())
        for term in (term for terms in self.by_name.values() for term in terms if term.leaf not in leaves):
            leaves[term.leaf] = bilinear.value(term, permutations)
        return sum(leaves.values())


def _descend(grams, start, constant, rng, max_sweeps):
    """Coordinate descent from `start`: (permutations, history, converged)."""
    permutations = dict(start)
    history = [constant + grams.value(permutations)]
    stale = {name for name, terms in grams.by_name.items() if terms}
    for sweep in range(max_sweeps):
        gained = 0.0
        # The first sweep follows the spec, whose order is that of the layers: a matched layer helps to match the next.
        order = rng.permutation(sorted(stale)) if sweep else [name for name in grams.by_name if name in stale]
        for name in order:
            terms = grams.by_name[name]
            matrix = bilinear.total(grams.at(name, number, permutations) for number in range(len(terms)))
            stale.discard(name)
            new, gain = _solve(matrix, permutations[name])
            neighbours = {other for term in terms for _, other in term.others}
            if gain > 0 and name in neighbours:
                new, gain = _accept_quadratic(terms, permutations, name, new)
            if gain > 0:
                permutations[name] = new
                gained += gain
                stale |= neighbours
        history.append(history[-1] + gained)
        if not stale:
            break
    # Recomputed, since gains accumulate round-off.
    history[-1] = max(constant + grams.value(permutations), history[-2])
    return permutations, history, not stale


def _solve(matrix, old):
    """The optimal assignment and its gain; a gain within round-off counts as zero and keeps the old assignment."""
    _, new = scipy.optimize.linear_sum_assignment(matrix, maximize=True)
    standing = _picked(matrix, old)
    gain = float(_picked(matrix, new).sum() - standing.sum())
    round_off = 8 * float(np.finfo(matrix.dtype).eps) * float(np.abs(standing).sum())
    return (new, gain) if gain > round_off else (old, 0.0)


def _picked(matrix, permutation):
    return matrix[np.arange(len(permutation)), permutation].astype(np.float64)


def _accept_quadratic(terms, permutations, name, new):
    """For a permutation that moves a leaf along two axes the objective is quadratic and the assignment maximises a
    linearisation: accept it only if the objective itself increases."""
    leaves = {term.leaf: term for term in terms}.values()
    old, changed = ({**permutations, name: p} for p in (permutations[name], new))
    gain = sum(bilinear.value(term, changed) - bilinear.value(term, old) for term in leaves)
    scale = sum(abs(bilinear.value(term, old)) for term in leaves)
    return (new, gain) if gain > 1e-6 * scale else (permutations[name], 0.0)


def _propagated(grams, sizes) -> Permutations:
    """Solve permutations one after another, each from entries whose other axes are unpermuted or already solved.

    The permutation with the most such entries per unit is next. If it has only vectors (biases, scales), entries along
    unknown axes are compared after sorting, see `bilinear.optimistic_gram`.
    """
    known: Permutations = {}
    left = {name for name, terms in grams.by_name.items() if terms}

    def certain(name):
        terms = enumerate(grams.by_name[name])
        return [(i, term) for i, term in terms if all(other in known for _, other in term.others)]

    while left:
        name = max(sorted(left), key=lambda name: sum(term.a.size // sizes[name] for _, term in certain(name)))
        numbers = [number for number, _ in certain(name)]
        matrix = bilinear.total(grams.at(name, number, known) for number in numbers)
        if all(term.a.size == sizes[name] for _, term in certain(name)):
            rest = (term for number, term in enumerate(grams.by_name[name]) if number not in numbers)
            matrix = matrix + bilinear.total(bilinear.optimistic_gram(term, known) for term in rest)
        known[name] = scipy.optimize.linear_sum_assignment(matrix, maximize=True)[1]
        left.remove(name)
    return known | {name: np.arange(n) for name, n in sizes.items() if name not in known}


def _mean(models):
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *models)


def _spread(models, where):
    rows = [trees.floating(tree, where) for tree in models]
    total = 0.0
    for name in rows[0]:
        stacked = np.stack([bilinear.wide(row[name]) for row in rows]).astype(np.float64)
        total += float(((stacked - stacked.mean(0)) ** 2).sum())
    return total
