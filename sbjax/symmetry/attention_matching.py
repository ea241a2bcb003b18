"""Matching of transformers modulo their gauge group: heads, factors of heads, hidden units and the residual stream.

min_g |a - g b|^2 over the group of `sbjax.symmetry.attention`. Non-compact directions (scales, invertible U and V) are
taken out first: both networks are balanced, see `sbjax.symmetry.attention_fold`. What is left is compact, so that
<a, g b> is maximised, block by block, each block exactly:

- heads: for every pair the best U and V are polar factors (with RoPE, phases; both closed), their gains a linear
  assignment;
- hidden units: a linear assignment, of absolute values where signs are free;
- stream: a polar factor (orthogonal) or a linear assignment.

The objective never decreases; with the stream known, all other blocks are global optima. The start of the stream is the
best for what is tied to tokens and classes: embeddings, positions and the head.

Sources: arXiv 2209.04836 (coordinate descent), 2606.17830 (heads, RoPE), 2506.22712 (orthogonal stream), 2502.00264
(polar factors).
"""

from typing import NamedTuple

import jax
import numpy as np

# `scipy.optimize` is slow to import; scipy loads it on first use.
import scipy
from jaxtyping import Array, Key, PyTree

from sbjax import trees
from sbjax.common.names import check_choice
from sbjax.symmetry import attention
from sbjax.symmetry.attention import AttentionGauge, DenseGauge, Gauge
from sbjax.symmetry.attention_fold import attention_factors, balance, dense_factors, fold
from sbjax.symmetry.attention_layout import Attention, Layout, check_layout, stream_groups

FACTORS = ("identity", "permutation", "full")
GAIN = 1e-12  # of the objective, over |a| |b|: less is no improvement
STILL = 1e-9  # of the entries of the stream


class Matched(NamedTuple):
    """Result of matching two transformers.

    Attributes:
        reference: the reference in the form that was matched to: folded and balanced where the group needs it. Its
            function is that of the reference.
        params: the model, moved as near to that as was found. Its function is that of the model.
        gauge: leads from the model, folded if the stream is orthogonal or the factors are full, to `params`.
        reference_gauge: leads from the reference, likewise folded, to `reference`.
        objective: <reference, params>.
        history: objective at the start and after each sweep of the best descent, non-decreasing.
        restarts: final objective of each start.
        converged: whether the best descent ended because no block improved.
    """

    reference: PyTree
    params: PyTree
    gauge: Gauge
    reference_gauge: Gauge
    objective: float
    history: tuple[float, ...]
    restarts: tuple[float, ...]
    converged: bool


def match_transformers(
    layout: Layout,
    reference: PyTree,
    model: PyTree,
    *,
    key: Key[Array, ""],
    stream: str = "orthogonal",
    factors: str = "full",
    restarts: int = 1,
    max_sweeps: int = 200,
) -> Matched:
    """Bring one transformer as near to another as its gauge group allows.

    Args:
        layout: of both networks.
        reference: parameters, any float dtype.
        model: a tree of the same structure.
        key: of the starts after the first one.
        stream: group that acts on the residual stream: 'identity', 'permutation', 'signed' (RMSNorm) or 'orthogonal'.
        factors: of queries and keys, values and outputs: 'identity'; 'permutation' (of the entries of a head; none with
            RoPE); 'full': all that leaves the function as it is, signs and scales of hidden units among them. Heads and
            hidden units are permuted in any case.
        restarts: descents, the first from embeddings and head, the others from streams at random. The best is kept.
        max_sweeps: of one descent.

    Raises:
        ValueError: trees that differ in structure or shapes or do not fit the layout, entries that are not finite or
            whose squares are not, a group that the norm does not admit, restarts or max_sweeps < 1.

    >>> from sbjax.models.transformer import Transformer
    >>> from sbjax.symmetry.attention_layout import layout_of
    >>> net, x = Transformer(classes=3, width=8, depth=1), np.ones((1, 4, 5), np.float32)
    >>> a = net.init(jax.random.key(1), x)['params']
    >>> layout = layout_of(a, norm='rms', activation='relu')
    >>> folded = fold(layout, a)
    >>> b = attention.transform(layout, folded, attention.random_gauge(jax.random.key(2), layout, a))
    >>> found = match_transformers(layout, a, b, key=jax.random.key(3))
    >>> distance(found.reference, found.params) < 1e-9
    True
    """
    whole = factors == "full"
    check_choice(factors, FACTORS, what="factors")
    check_choice(stream, stream_groups("rms", folded=True), what="stream")
    if stream not in (groups := stream_groups(layout.norm, folded=True)):
        raise ValueError(f"stream={stream!r} does not pass a norm={layout.norm!r}; give {', '.join(groups)}")
    for name, value in (("restarts", restarts), ("max_sweeps", max_sweeps)):
        if value < 1:
            raise ValueError(f"{name}={value} must be >= 1")
    if jax.tree.structure(reference) != jax.tree.structure(model):
        raise ValueError("reference and model differ in structure; match two trees of one network")
    _check_shapes(reference, model, "reference", "model")
    sides, gauges = [], []
    for params in (reference, model):
        check_layout(layout, params)
        trees.check_finite(trees.flatten(params), "params")
        params = fold(layout, params) if whole or stream == "orthogonal" else _double(params)
        with np.errstate(over="ignore"):
            if not np.isfinite(_square(params)):
                raise ValueError("params: squares of the entries overflow, with gains in the kernels; scale them down")
        params, gauge = balance(layout, params) if whole else (params, attention.identity_gauge(layout, params))
        sides.append(params)
        gauges.append(gauge)
    a, b = sides
    identity = attention.identity_gauge(layout, a)
    anchors = _stream_matrix(layout, trees.flatten(a), trees.flatten(b), tied=True)
    starts = [_best_stream(layout, stream, *anchors)]
    for number in range(1, restarts):
        random = attention.random_gauge(jax.random.fold_in(key, number), layout, a, stream=stream)
        starts.append(random.stream)
    descents = [
        _descend(layout, a, b, identity._replace(stream=start), stream, factors, max_sweeps) for start in starts
    ]
    ends = tuple(history[-1] for _, history, _ in descents)
    gauge, history, converged = descents[int(np.argmax(ends))]
    return Matched(
        a,
        attention.transform(layout, b, gauge),
        attention.compose(gauges[1], gauge),
        gauges[0],
        history[-1],
        tuple(history),
        ends,
        converged,
    )


def distance(a: PyTree, b: PyTree) -> float:
    """|a - b| / |a| over all leaves.

    Raises:
        ValueError: leaves of different shapes, or an a of zeros.

    >>> distance({'x': np.array([3.0, 4.0])}, {'x': np.array([3.0, 4.5])})
    0.1
    """
    a, b = (_double(tree) for tree in (a, b))
    _check_shapes(a, b, "a", "b")
    if not _square(a):
        raise ValueError("a has no entry other than 0: there is no distance relative to it")
    gap = jax.tree.map(lambda x, y: np.sum((x - y) ** 2), a, b)
    return float(np.sqrt(sum(jax.tree.leaves(gap)) / _square(a)))


def _check_shapes(a, b, *names):
    first, second = ({name: np.shape(leaf) for name, leaf in trees.flatten(tree).items()} for tree in (a, b))
    for name, shape in first.items():
        if second.get(name) != shape:
            raise ValueError(f"leaf {name!r} has shape {shape} in {names[0]}, in {names[1]} {second.get(name, 'none')}")


def _double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def _square(tree):
    return sum(float(np.sum(leaf**2)) for leaf in jax.tree.leaves(tree))


def _descend(layout, a, b, gauge, stream, factors, max_sweeps):
    """Blocks in turn until none improves: the layers, which do not depend on one another, then the stream."""
    size = np.sqrt(_square(a) * _square(b))
    first, identity = trees.flatten(a), attention.identity_gauge(layout, a)
    history, converged = [], False
    for _ in range(max_sweeps):
        turned = trees.flatten(attention.transform(layout, b, identity._replace(stream=gauge.stream)))
        layers = tuple(_match_layer(layout, layer, first, turned, factors) for layer in layout.layers)
        gauge = gauge._replace(layers=layers)
        moved = trees.flatten(attention.transform(layout, b, gauge._replace(stream=identity.stream)))
        if not history:
            history.append(_objective(layout, a, b, gauge))
        before = gauge.stream
        gauge = gauge._replace(stream=_best_stream(layout, stream, *_stream_matrix(layout, first, moved)))
        history.append(max(_objective(layout, a, b, gauge), history[-1]))
        # The objective is flat at its maximum, so that the stream is looked at too.
        if history[-1] - history[-2] <= GAIN * size and np.abs(gauge.stream - before).max() <= STILL:
            converged = True
            break
    return gauge, history, converged


def _objective(layout, a, b, gauge):
    moved = attention.transform(layout, b, gauge)
    return sum(float(np.vdot(x, y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(moved), strict=True))


def _match_layer(layout, layer, a, b, factors):
    if not isinstance(layer, Attention):
        (into, out), (its_into, its_out) = (dense_factors(leaves, layer) for leaves in (a, b))
        gains = into.T @ its_into + out @ its_out.T
        signs = factors == "full" and layout.activation == "tanh"
        order = _assign(np.abs(gains) if signs else gains)
        best = gains[np.arange(len(order)), order]
        return DenseGauge(order, np.where(best < 0, -1.0, 1.0) if signs else np.ones(len(order)))
    query, key, value, out = attention_factors(a, layer.path)
    its_query, its_key, its_value, its_out = attention_factors(b, layer.path)
    pairs = "jrk,irl->ijkl"  # head i of a, head j of b: its factors on the left
    qk = np.einsum(pairs, its_query, query) + np.einsum(pairs, its_key, key)
    vo = np.einsum(pairs, its_value, value) + np.einsum("jkd,ild->ijkl", its_out, out)
    qk, vo = _best_factors(qk, factors, bool(layout.rope)), _best_factors(vo, factors, False)
    heads = _assign(qk[1] + vo[1])
    here = np.arange(len(heads))
    return AttentionGauge(heads, qk[0][here, heads], vo[0][here, heads])


def _best_factors(products, factors, rope):
    """For every pair of heads the U that maximises tr(U^T C), and that maximum."""
    if factors == "identity" or (rope and factors == "permutation"):
        return np.broadcast_to(np.eye(products.shape[-1]), products.shape), np.trace(products, axis1=2, axis2=3)
    if factors == "permutation":
        size = products.shape[-1]
        found = np.stack([_permutation(c) for c in products.reshape(-1, size, size)]).reshape(products.shape)
        return found, np.sum(found * products, (2, 3))
    if rope:
        # C of a plane is [[x, y], [z, w]]: over complex u, Re(conj(u) ((x + w) + i (y - z))) is greatest at its phase.
        even, odd = (slice(start, None, 2) for start in (0, 1))
        x, w, y, z = (
            np.diagonal(products[:, :, rows, columns], axis1=2, axis2=3)
            for rows, columns in ((even, even), (odd, odd), (even, odd), (odd, even))
        )
        numbers = (x + w) + 1j * (y - z)
        sizes = np.abs(numbers)
        return attention.plane_matrix(np.where(sizes > 0, numbers / np.where(sizes > 0, sizes, 1), 1)), sizes.sum(-1)
    left, values, right = np.linalg.svd(products)
    return left @ right, values.sum(-1)


def _assign(gains):
    return scipy.optimize.linear_sum_assignment(gains, maximize=True)[1]


def _permutation(gains):
    """The permutation matrix P with the greatest sum(P * gains)."""
    found = np.zeros_like(gains)
    found[_assign(gains.T), np.arange(len(gains))] = 1
    return found


def _stream_matrix(layout, a, b, tied=False):
    """M with <a, b S> = tr(S^T M) for what carries the stream once, and the same for gains, which S^2 moves.

    With `tied`, only what no other part of the gauge moves.
    """
    d = len(a[f"{layout.head_norm}/scale"])
    found, gains = np.zeros((d, d)), np.zeros((d, d))

    def last(name):  # axis
        nonlocal found
        if name in a:
            found = found + b[name].reshape(-1, d).T @ a[name].reshape(-1, d)

    def first(name):
        nonlocal found
        found = found + b[name].reshape(d, -1) @ a[name].reshape(d, -1).T

    norms = [layout.head_norm]
    for name in layout.written:
        last(name)
    first(f"{layout.head}/kernel")
    for layer in layout.layers if not tied else ():
        norms.append(layer.norm)
        if isinstance(layer, Attention):
            for name in ("query", "key", "value"):
                first(f"{layer.path}/{name}/kernel")
        else:
            first(f"{layer.into}/kernel")
        out = f"{layer.path}/out" if isinstance(layer, Attention) else layer.out
        last(f"{out}/kernel")
        last(f"{out}/bias")
    for norm in norms:
        gains = gains + np.outer(b[f"{norm}/scale"], a[f"{norm}/scale"])
        last(f"{norm}/bias")
    return found, gains


def _best_stream(layout, group, matrix, gains):
    if group == "identity":
        return np.eye(len(matrix))
    if group == "permutation":
        return _permutation(matrix + gains)
    if group == "signed":
        return _permutation(np.abs(matrix) + gains) * np.where(matrix < 0, -1.0, 1.0)
    if layout.norm == "layer":
        basis = attention.mean_free_basis(len(matrix))
        return basis @ _polar(basis.T @ matrix @ basis) @ basis.T + 1 / len(matrix)
    return _polar(matrix)


def _polar(matrix):
    left, _, right = np.linalg.svd(matrix)
    return left @ right
