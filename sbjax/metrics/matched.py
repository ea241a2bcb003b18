"""Replica distance modulo permutations of hidden units (D3), and what permutations hide.

Of the kinds of `sbjax.metrics.replica`, D0 counts a permuted copy as far and D1 and D2 look at arrays one by one. Here
every pair is laid on one another first, by one permutation wherever it acts. min over pi of D0 is NP-hard: a local
minimum is found (`sbjax.symmetry.matching`), no larger than D0, and an upper bound of the true one. D1 of order 2 is
a lower bound, leaf by leaf; D2 of a deeper layer is none, since the rows that it reads stay where they are.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from sbjax import rng, trees
from sbjax.asymmetry.weights import effective
from sbjax.metrics import bootstrap, replica
from sbjax.metrics.bootstrap import Estimate
from sbjax.metrics.norms import power_mean
from sbjax.metrics.replica import ReplicaDistance
from sbjax.metrics.scales import unit_scale
from sbjax.metrics.wasserstein import check_order, pairwise_lp
from sbjax.symmetry.matching import match_weights
from sbjax.symmetry.permutation import Spec, permute
from sbjax.symmetry.spec import derive_spec

MOST_REPLICAS = 6  # between which all pairs are matched: a run has many, and each pair costs a matching


def weight_spec(apply_fn: Callable[[PyTree, PyTree], Array], variables: PyTree, inputs: PyTree) -> Spec:
    """Which hidden units can be permuted, without frozen constants: for `weights_of`.

    Constants would have to move with the weights, and do not: for a network that has some, permutations say how far its
    replicas are from being each other's copies, and do not lead to the same function.

    Args:
        apply_fn: `(variables, inputs) -> outputs` of one replica, as `derive_spec`.
        variables: of one replica, arrays or shapes.
        inputs: a few inputs.

    Raises:
        ValueError: as `derive_spec`.
    """
    spec = derive_spec(apply_fn, variables, inputs)
    moves = {name: tuple(m for m in moves if not m.leaf.startswith("frozen/")) for name, moves in spec.moves.items()}
    return spec._replace(moves=moves)


def weights_of(variables: PyTree) -> PyTree:
    """Variables, stacked or not, with the weights that the network computes with, and without its constants.

    >>> sorted(weights_of({'params': {'w': 1.0}, 'frozen': {'c': 2.0}}))
    ['params']
    """
    kept = {name: tree for name, tree in variables.items() if name != "frozen"}
    return {**kept, "params": jax.tree.map(np.asarray, effective(variables))}


def matched_distance(
    stacked: PyTree,
    spec: Spec,
    *,
    key: Key[Array, ""],
    p: float = 2.0,
    restarts: int = 1,
    where: trees.Where = None,
    null: bool = True,
    canonical: Callable[[PyTree], PyTree] | None = None,
) -> ReplicaDistance:
    """D3: mean pairwise (1/n sum_i |a_i - pi(b)_i|^p)^(1/p), the hidden units of each pair matched.

    pi maximises <a, pi(b)> over the selected leaves, which minimises the distance of order 2; other orders are measured
    under the same pi. The scale-free form divides every layer by its standard deviation before matching, so that each
    of the two forms is a minimum of its own. The null is matched too: it says how near independent draws come for
    having so many permutations to choose from, and only below it is there anything that replicas share.

    What it cannot see: symmetries other than permutations, of which `canonical` removes scales or signs. It is a local
    minimum: more `restarts` can only lower it, in raw and null alike.

    Args:
        stacked: parameters with the replica axis first in every leaf, or a list of trees.
        spec: of one replica's tree.
        key: for matchings and null.
        p: order, 1 <= p < inf.
        restarts: of each matching.
        where: which leaves count, see `trees.Where`.
        null: whether to measure the null too, which takes as long again.
        canonical: applied to every replica first, such as `partial(canonical_scale, spec)`; to the null, too.

    Returns:
        `ReplicaDistance` of kind 'matched'.

    Raises:
        ValueError: as `marginal_distance` and `match_weights`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sbjax.symmetry.permutation import Move
        >>> spec = Spec({'h': 2}, {'h': (Move('in', 1), Move('out', 0))}, {})
        >>> stacked = {'in': jnp.array([[[1.0, 2.0]], [[2.0, 1.0]]]), 'out': jnp.array([[3.0, 4.0], [4.0, 3.0]])}
        >>> matched_distance(stacked, spec, key=jax.random.key(0), null=False).raw.total.distance.value
        0.0
    """
    check_order(p)
    stacked = _untraced(trees.replicas(stacked))
    sides = [_prepared(stacked, where, canonical), None]
    if null:
        drawn = replica.null_replicas(stacked, key=rng.stream(key, "null"), where=where)
        sides[1] = _prepared(drawn, where, canonical)

    def measure(tree):
        pairs = matched_pairs(tree, spec, key=rng.stream(key, "match"), p=p, restarts=restarts, where=where)
        return pairs, trees.replica_rows(tree, where), 0

    raw = replica.measured("matched", measure, p, *sides)
    sides = [None if side is None else unit_scale(side, where) for side in sides]
    return raw._replace(scale_free=replica.measured("matched", measure, p, *sides).raw)


class Hidden(NamedTuple):
    """D0 - D3, the mean over pairs in units of one weight, and with every layer divided by its standard deviation."""

    raw: Estimate
    scale_free: Estimate


def hidden_by_permutation(
    stacked: PyTree,
    spec: Spec,
    *,
    key: Key[Array, ""],
    restarts: int = 1,
    where: trees.Where = None,
    canonical: Callable[[PyTree], PyTree] | None = None,
) -> Hidden:
    """How much of the distance between replicas is the order of their hidden units: D0 - D3 of order 2, pair by pair.

    Never negative, and a lower bound, for matchings are local minima. It is large for independent draws as well, which
    also come nearer by being matched: compare D0 - D3 of `null_replicas`.

    Arguments and errors as `matched_distance`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sbjax.symmetry.permutation import Move
        >>> spec = Spec({'h': 2}, {'h': (Move('w', 0),)}, {})
        >>> hidden_by_permutation({'w': jnp.array([[1.0, 3.0], [3.0, 1.0]])}, spec, key=jax.random.key(0)).raw.value
        2.0
    """
    tree = _prepared(_untraced(trees.replicas(stacked)), where, canonical)

    def hidden(tree):
        rows = trees.replica_rows(tree, where)
        before = {name: pairwise_lp(leaf, 2.0) for name, leaf in rows.items()}
        after = matched_pairs(tree, spec, key=rng.stream(key, "match"), restarts=restarts, where=where)
        sizes = {name: leaf.size // len(leaf) for name, leaf in rows.items()}
        return bootstrap.over_pairs(_total(before, sizes) - _total(after, sizes))

    return Hidden(hidden(tree), hidden(unit_scale(tree, where)))


def matched_pairs(
    stacked: PyTree,
    spec: Spec,
    *,
    key: Key[Array, ""],
    p: float = 2.0,
    restarts: int = 1,
    where: trees.Where = None,
) -> dict[str, Float[np.ndarray, "replica replica"]]:
    """(1/n sum_i |a_i - pi(b)_i|^p)^(1/p) between all pairs of replicas, leaf by leaf, as in `matched_distance`.

    >>> import jax.numpy as jnp
    >>> from sbjax.symmetry.permutation import Move
    >>> spec = Spec({'h': 2}, {'h': (Move('w', 0),)}, {})
    >>> matched_pairs({'w': jnp.array([[1.0, 3.0], [3.0, 2.0]])}, spec, key=jax.random.key(0))['w'].tolist()
    [[0.0, 0.7071067811865476], [0.7071067811865476, 0.0]]
    """
    rows = trees.replica_rows(stacked, where)
    replicas = len(next(iter(rows.values())))
    key_like = lambda x: isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.extended)  # noqa: E731
    on_host = lambda leaf: leaf if key_like(leaf) else np.asarray(leaf)  # noqa: E731
    models = [trees.take(jax.tree.map(on_host, stacked), i) for i in range(replicas)]
    pairs = {name: np.zeros((replicas, replicas)) for name in rows}
    for r, s in itertools.combinations(range(replicas), 2):
        fold = jax.random.fold_in(key, r * replicas + s)
        order = {}
        if spec.sizes:
            order = match_weights(spec, models[r], models[s], key=fold, restarts=restarts, where=where).permutations
        a, b = (trees.floating(t, where) for t in (models[r], permute(spec, models[s], order)))
        for name, matrix in pairs.items():
            gap = np.asarray(a[name], np.float64) - np.asarray(b[name], np.float64)
            matrix[r, s] = matrix[s, r] = power_mean(gap.reshape(-1), p)
    return pairs


def _prepared(stacked, where, canonical):
    trees.check_finite(trees.replica_rows(stacked, where), "stacked")
    return stacked if canonical is None else jax.vmap(canonical)(stacked)


def _untraced(stacked):
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(stacked)):
        raise ValueError(
            "stacked is traced, and D3 matches units on the host: find permutations outside (match_weights, "
            "match_many), permute the replicas inside and take unmatched_distance of them, whose gradient is that of D3"
        )
    return stacked


def _total(pairs, sizes):
    shares = np.array([sizes[name] for name in pairs]) / sum(sizes[name] for name in pairs)
    return power_mean(np.stack([np.asarray(matrix, np.float64) for matrix in pairs.values()], -1), 2.0, shares)
