"""Activation matching: permute hidden units such that their activations on a data set agree best.

Each permutation is one linear assignment on the correlations of hidden units; permutations are independent, so nothing
is iterated. Data can be streamed with `init_moments`, `update_moments`, `match_moments`.

Activations are a dict by name of permutation, with units on the last axis; a permutation may have several arrays (along
a residual stream), whose similarity matrices are added.

Source: Git Re-Basin, arXiv 2209.04836, section 3.1; Li et al., arXiv 1511.07543.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# `scipy.optimize` is slow to import; scipy loads it on first use.
import scipy
from jaxtyping import Array, Float, PyTree

from sbjax import trees
from sbjax.symmetry.permutation import Permutations, Spec

Activations = dict[str, Float[Array, "... n"] | Sequence[Float[Array, "... n"]]]
KINDS = ("pearson", "dot")


class Moments(NamedTuple):
    """Moments of the activations of two networks in one place: count, means, sums of products of deviations."""

    count: Float[Array, ""]
    mean_a: Float[Array, "n"]
    mean_b: Float[Array, "n"]
    square_a: Float[Array, "n"]
    square_b: Float[Array, "n"]
    cross: Float[Array, "n n"]


def match_activations(
    spec: Spec,
    record: Callable[[PyTree, Any], Activations],
    reference: PyTree,
    model: PyTree,
    batches: Iterable[Any],
    *,
    kind: str = "pearson",
) -> Permutations:
    """Permutations of `model` under which its hidden units agree best with those of `reference`.

    Maximises sum_i C[i, p[i]], with C[i, j] the correlation ('pearson') or E[a_i b_j] ('dot') of hidden units.

    Args:
        spec: permutation spec; only sizes are used.
        record: `(tree, batch) -> activations`, jitted here. A permutation it does not return stays the identity.
        reference, model: the two networks.
        batches: inputs, at least one batch.
        kind: 'pearson' or 'dot'.

    Raises:
        ValueError: an unknown kind or permutation, a wrong size of the last axis, no batch, or NaN activations.

    Example:
        >>> import jax.numpy as jnp
        >>> spec = Spec({'h': 2}, {'h': ()}, {})
        >>> record = lambda w, x: {'h': jnp.tanh(x @ w)}
        >>> x = jnp.array([[1.0, 1.0], [2.0, 0.5], [3.0, 2.0]])
        >>> match_activations(spec, record, jnp.eye(2), jnp.eye(2)[:, ::-1], [x])['h'].tolist()
        [1, 0]
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown; known: {', '.join(KINDS)}")
    step = jax.jit(lambda moments, a, b, batch: update_moments(moments, record(a, batch), record(b, batch)))
    moments = None
    for batch in batches:
        if moments is None:
            shapes = jax.eval_shape(record, reference, batch)
            _check(spec, shapes)
            moments = init_moments(shapes)
        moments = step(moments, reference, model, batch)
    if moments is None:
        raise ValueError("batches is empty; give at least one batch of inputs")
    return match_moments(spec, moments, kind=kind)


def init_moments(activations: Activations | dict[str, Any]) -> dict[str, tuple[Moments, ...]]:
    """Empty moments for activations of these shapes (arrays or `jax.ShapeDtypeStruct`).

    >>> init_moments({'h': jnp.ones((5, 2))})['h'][0].cross.shape
    (2, 2)
    """

    def zero(place):
        n, dtype = place.shape[-1], trees.wide_dtype(jnp.zeros((), place.dtype))
        vector = jnp.zeros(n, dtype)
        return Moments(jnp.zeros((), dtype), vector, vector, vector, vector, jnp.zeros((n, n), dtype))

    return {name: tuple(zero(place) for place in _places(places)) for name, places in activations.items()}


def update_moments(
    moments: dict[str, tuple[Moments, ...]], a: Activations, b: Activations
) -> dict[str, tuple[Moments, ...]]:
    """Add one batch to the moments. Pure; works under jit and scan.

    Source: pairwise update of Chan, Golub and LeVeque 1979, which avoids cancellation with large means.

    >>> moments = init_moments({'h': jnp.ones((5, 2))})
    >>> x = jnp.array([[0.0, 1.0], [2.0, 1.0]])
    >>> update_moments(moments, {'h': x}, {'h': x})['h'][0].square_a.tolist()
    [2.0, 0.0]
    """
    return {
        name: tuple(_merged(*parts) for parts in zip(places, _places(a[name]), _places(b[name]), strict=True))
        for name, places in moments.items()
    }


def match_moments(spec: Spec, moments: dict[str, tuple[Moments, ...]], *, kind: str = "pearson") -> Permutations:
    """Solve one linear assignment per permutation.

    Units without signal (constant for 'pearson', zero for 'dot') have correlation 0; units with signal are matched with
    one another as far as possible.

    Raises:
        ValueError: an unknown kind or permutation, or moments that are not finite.

    >>> x = jnp.array([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]])
    >>> moments = update_moments(init_moments({'h': x}), {'h': x}, {'h': x[:, ::-1]})
    >>> match_moments(Spec({'h': 2}, {'h': ()}, {}), moments)['h'].tolist()
    [1, 0]
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown; known: {', '.join(KINDS)}")
    permutations = {name: np.arange(n, dtype=np.int32) for name, n in spec.sizes.items()}
    for name, places in moments.items():
        if name not in spec.sizes:
            raise ValueError(f"activations of {name!r}, which is no permutation of the spec: {', '.join(spec.sizes)}")
        parts = [_similarity(place, kind) for place in places]
        matrix = sum(part for part, _, _ in parts)
        if not np.isfinite(matrix).all():
            raise ValueError(f"activations of {name!r} are NaN or infinite, or there was no batch; look at the inputs")
        active_a, active_b = (np.any([part[side] for part in parts], 0) for side in (1, 2))
        # The bonus for a pair of units with signal exceeds any sum of similarities.
        bonus = 4 * len(matrix) * max(np.abs(matrix).max(), 1e-30)
        matrix = matrix + bonus * np.outer(active_a, active_b)
        permutations[name] = scipy.optimize.linear_sum_assignment(matrix, maximize=True)[1].astype(np.int32)
    return permutations


def recorded(spec: Spec, variables: PyTree, intermediates: PyTree) -> Activations:
    """Activations from captured Flax intermediates: outputs of every module whose kernel, bias or scale has its last
    axis moved by the permutation.

    Outputs of modules are pre-activations; of one that acts on a concatenation, the range of the permutation is taken,
    and of layers stacked by `nn.scan` the layer, along axis 0 (`variable_axes={'params': 0, 'intermediates': 0}`).
    Permutations that act on blocks of an axis (group norm) are omitted, since they do not act on single units.

    Args:
        spec: spec of the variables or of the parameters alone.
        variables: the tree the spec was made for.
        intermediates: `updates['intermediates']` of `y, updates = module.apply(variables, x,
            capture_intermediates=True, mutable='intermediates')`.

    >>> from sbjax.symmetry.permutation import Move
    >>> spec = Spec({'h': 2}, {'h': (Move('params/dense_0/bias', 0),)}, {})
    >>> variables = {'params': {'dense_0': {'bias': jnp.zeros(2)}}}
    >>> recorded(spec, variables, {'dense_0': {'__call__': (jnp.zeros((5, 2)),)}})['h'][0].shape
    (5, 2)
    """
    leaves, outputs = trees.flatten(variables), trees.flatten(intermediates)
    found: dict[str, list[Array]] = {}
    for name, moves in spec.moves.items():
        n = spec.sizes[name]
        ranges = dict.fromkeys(
            (move.leaf.removeprefix("params/").rpartition("/")[0], move.before, move.stack != -1, move.layer)
            for move in moves
            if move.leaf in leaves and _on_last_axis(move, leaves[move.leaf]) and move.outer == move.inner == 1
        )
        for module, start, stacked, layer in ranges:
            calls = [out for key, out in outputs.items() if key.rpartition("/")[0] == f"{module}/__call__"]
            calls = [out[layer] if stacked else out for out in calls]
            found.setdefault(name, []).extend(out[..., start : start + n] for out in calls)
    return {name: places for name, places in found.items() if places}


def _on_last_axis(move, leaf):
    return move.inside(move.stack).axis == jnp.ndim(leaf) - 1 - (move.stack != -1)


def _places(activations):
    return (activations,) if hasattr(activations, "shape") else tuple(activations)


def _check(spec, activations):
    for name, places in activations.items():
        if name not in spec.sizes:
            raise ValueError(f"record gives {name!r}, which is no permutation of the spec: {', '.join(spec.sizes)}")
        for place in _places(places):
            if not place.shape or place.shape[-1] != spec.sizes[name]:
                raise ValueError(
                    f"record gives {name!r} of shape {place.shape}; its last axis must be the {spec.sizes[name]} units"
                )


def _merged(old: Moments, a, b) -> Moments:
    a, b = (x.reshape(-1, x.shape[-1]).astype(old.cross.dtype) for x in (a, b))
    new, mean_a, mean_b = len(a), a.mean(0), b.mean(0)
    a, b = a - mean_a[None], b - mean_b[None]
    count = old.count + new
    gap_a, gap_b = mean_a - old.mean_a, mean_b - old.mean_b
    share = old.count * new / count
    return Moments(
        count,
        old.mean_a + gap_a * new / count,
        old.mean_b + gap_b * new / count,
        old.square_a + (a**2).sum(0) + share * gap_a**2,
        old.square_b + (b**2).sum(0) + share * gap_b**2,
        old.cross + jnp.matmul(a.T, b, precision="highest") + share * jnp.outer(gap_a, gap_b),
    )


def _similarity(moments: Moments, kind: str):
    """Similarity matrix, and masks of the units with signal in either network."""
    eps = float(jnp.finfo(moments.cross.dtype).eps)
    count, mean_a, mean_b, square_a, square_b, cross = (np.asarray(x, np.float64) for x in moments)
    if kind == "dot":
        matrix = cross / max(count, 1) + np.outer(mean_a, mean_b)
        return matrix, square_a + mean_a**2 > 0, square_b + mean_b**2 > 0
    # Rounding gives a constant unit deviations of a few eps times its value.
    active = [square > count * (8 * eps * mean) ** 2 for square, mean in ((square_a, mean_a), (square_b, mean_b))]
    inverse = [
        np.where(mask, 1 / np.sqrt(np.where(mask, square, 1)), 0)
        for mask, square in zip(active, (square_a, square_b), strict=True)
    ]
    return cross * np.outer(*inverse), *active
