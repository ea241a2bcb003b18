"""Weight matching: the permutation of hidden units that lays one network on another.

max_pi <theta_A, pi(theta_B)>, which is min_pi |theta_A - pi(theta_B)|, is a sum of bilinear assignment problems:
NP-hard in general, one linear assignment for one hidden layer. Coordinate descent solves for one permutation at a
time, the others fixed, until none can gain; the objective never decreases.

Beyond the published algorithm: the default start is not the identity, which is arbitrary, but propagated, that is,
permutations are solved outward from what is not permuted (inputs, outputs), each from the axes known by then. A
permutation is solved anew only where a neighbour has changed since. And further starts may be drawn at random.

Source: Git Re-Basin, arXiv 2209.04836, algorithm 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

# `scipy.optimize` takes long to import and is loaded by its first use, not by this line.
import scipy
from jaxtyping import Array, Key, PyTree

from sbjax import trees
from sbjax.symmetry import bilinear
from sbjax.symmetry.permutation import Permutations, Spec, check_permutations, permute


class Matched(NamedTuple):
    """A matching.

    Attributes:
        permutations: for `permute(spec, model, permutations)`.
        objective: <theta_A, pi(theta_B)> over the selected leaves.
        history: the objective at the winning start and after each of its sweeps; it never decreases.
        restarts: the objective that each start ended at.
        converged: whether the winning descent stopped since no single permutation gains.
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
    """The permutations of `model` that bring it closest to `reference`.

    A local maximum, exact for one hidden layer; at least as good as the identity and as `start`. A planted permutation
    without noise is found from the propagated start unless units are equal or so many axes are unknown that their
    sorted entries coincide.

    Args:
        spec: which axes move with which permutation.
        reference: tree of parameters, any float dtype.
        model: a tree of the same structure.
        key: for the order of the permutations and the random starts.
        restarts: descents; the first from `start` or the propagated start, the others from random permutations. The
            best objective wins.
        start: permutations to begin with, such as those of an earlier matching.
        max_sweeps: most sweeps over all permutations in one descent.
        where: which leaves count (batch statistics may be left out); all others are only permuted with them.

    Raises:
        ValueError: trees that differ in structure or shape or do not fit the spec, NaN entries, nothing selected,
            restarts < 1, max_sweeps < 1, or a `start` that is no permutation.

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
    terms, constant, unpermuted = bilinear.make_terms(spec, reference, model, where)
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
    if max(history[-1] for _, history, _ in ends) < unpermuted:  # as for copies that hardly differ
        identity = {name: np.arange(n) for name, n in spec.sizes.items()}
        ends.append(_descend(grams, identity, constant, rng, max_sweeps))
    objectives = tuple(history[-1] for _, history, _ in ends)
    best, history, converged = ends[int(np.argmax(objectives))]
    best = {name: permutation.astype(np.int32) for name, permutation in best.items()}
    return Matched(best, history[-1], tuple(history), objectives, converged)


class Frame(NamedTuple):
    """Models in a common frame.

    Attributes:
        permutations: for each model, in the order given.
        mean: the mean of the permuted models.
        history: sum of squared distances of the models to their mean at the start and after every pass.
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
    """Several models to a common frame: in random order, each is matched to the mean of the others.

    min over all permutations of sum_r |pi_r(theta_r) - mean|^2, by coordinate descent over models; it stops when the
    sum no longer falls. The first model starts as the frame, so that it begins, and usually ends, in its own order.

    Args:
        spec: which axes move with which permutation.
        models: at least two trees of one structure.
        key: for orders and random starts.
        restarts: as in `match_weights`, of the first matching of each model; the later ones start where it stands.
        max_passes: most passes over all models.
        where: which leaves count.

    Raises:
        ValueError: fewer than two models, or as `match_weights`.

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
    """Gram matrices of one matching by (permutation, number of its term), each with the permutations it was made at."""

    def __init__(self, by_name):
        self.by_name = by_name
        self.made = {}

    def at(self, name, number, permutations):
        """The matrix at these permutations, made anew unless it stands."""
        term = self.by_name[name][number]
        now = {other: permutations[other] for _, other in term.others}
        matrix, before = self.made.get((name, number), (None, {}))
        if matrix is None or any(before[other] is not now[other] for other in now):
            matrix = bilinear.gram(term, now)
        self.made[name, number] = matrix, now
        return matrix

    def value(self, permutations):
        """The objective, from matrices where they stand for these permutations."""
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
        # First in the order of the spec, which is that of the layers where it was derived: what is learned of one
        # layer serves the next.
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
    # Summed anew, for gains are rounded one by one.
    history[-1] = max(constant + grams.value(permutations), history[-2])
    return permutations, history, not stale


def _solve(matrix, old):
    """The best assignment and its gain; gains of the size of round-off are none."""
    _, new = scipy.optimize.linear_sum_assignment(matrix, maximize=True)
    standing = _picked(matrix, old)
    gain = float(_picked(matrix, new).sum() - standing.sum())
    round_off = 8 * float(np.finfo(matrix.dtype).eps) * float(np.abs(standing).sum())
    return (new, gain) if gain > round_off else (old, 0.0)


def _picked(matrix, permutation):
    return matrix[np.arange(len(permutation)), permutation].astype(np.float64)


def _accept_quadratic(terms, permutations, name, new):
    """A leaf that a permutation moves along two axes is quadratic in it: the assignment maximises a linearisation,
    and is taken only where the objective itself gains."""
    leaves = {term.leaf: term for term in terms}.values()
    old, changed = ({**permutations, name: p} for p in (permutations[name], new))
    gain = sum(bilinear.value(term, changed) - bilinear.value(term, old) for term in leaves)
    scale = sum(abs(bilinear.value(term, old)) for term in leaves)
    return (new, gain) if gain > 1e-6 * scale else (permutations[name], 0.0)


def _propagated(grams, sizes) -> Permutations:
    """Permutations solved one after another from what is known: the one of which most is known comes next.

    Known are the entries of a unit whose other axes are not permuted, or by permutations solved before. Where these are
    no more than vectors (biases, scales), the unknown axes enter by sorted entries.
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
