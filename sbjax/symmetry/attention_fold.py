"""One representative of a transformer's parameters: norms folded, free directions set to zero, factors balanced.

`fold` removes what is free beside the group of `sbjax.symmetry.attention`, `balance` chooses scales in it:

- gain and bias of a norm go into the layers that read from it;
- behind a layer norm inputs have mean zero, so that kernels that read lose the mean over inputs, and what writes into
  the stream loses its mean over outputs, which the next layer norm would remove;
- the first layer sees nothing beside what embeddings and positions span: where these have fewer rows than the stream is
  wide, kernels of the first layer lose the rest;
- a bias of the keys adds the same to all scores of a query: it is set to zero, except with RoPE;
- a bias of the values passes through attention, whose weights sum to one: it moves into the bias of the output;
- directions of values that the first layer sees nothing of, or that the output does not read: both sides lose them;
- of all U with one function W_Q U, W_K U^-T the one with equal Gram matrices has the least sum of squares; what is left
  free are orthogonal U (with RoPE, phases). Likewise for values and output, and for the two sides of a relu unit.
"""

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Float, PyTree

from sbjax import trees
from sbjax.symmetry import attention
from sbjax.symmetry.attention import AttentionGauge, DenseGauge, Gauge
from sbjax.symmetry.attention_layout import Attention, Layout, check_layout

FLOOR = 1e-14  # of eigenvalues of a Gram matrix, over its trace: for heads that are dead in a direction
RANK = 1e-7  # of singular values, over the largest: smaller ones are round-off
TINY = float(np.finfo(np.float64).tiny ** 0.5)


def fold(layout: Layout, params: PyTree) -> PyTree:
    """The same function with gains 1, norm biases 0, and the free directions above at zero; float64 arrays of numpy.

    Exact also for norms with an epsilon.

    Raises:
        ValueError: a layout that does not fit, entries that are not finite, or a bias of a norm or of values that no
            layer behind it can take up.

    >>> from sbjax.models.transformer import Transformer
    >>> from sbjax.symmetry.attention_layout import layout_of
    >>> params = Transformer(classes=2, width=4, depth=1, heads=2).init(jax.random.key(0), np.ones((1, 3, 2)))['params']
    >>> params['norm_0']['scale'] = 2 * np.ones(4)
    >>> layout = layout_of(params, norm='rms', activation='relu')
    >>> folded = fold(layout, params)
    >>> float((folded['attention_0']['query']['kernel'] / params['attention_0']['query']['kernel']).max())
    2.0
    """
    check_layout(layout, params)
    leaves = trees.flatten(params)
    trees.check_finite(leaves, "params")
    leaves = {name: np.array(leaf, np.float64) for name, leaf in leaves.items()}

    def read(norm, *paths):
        scale, bias = leaves[f"{norm}/scale"], leaves.get(f"{norm}/bias")
        for path in paths:
            kernel = leaves[f"{path}/kernel"]
            if bias is not None and bias.any():
                if f"{path}/bias" not in leaves:
                    raise ValueError(f"{norm}/bias is not zero and {path} has no bias to take it up; give it one")
                leaves[f"{path}/bias"] += np.tensordot(bias, kernel, 1)
            kernel = np.einsum("d,d...->d...", scale, kernel)
            kernel = kernel - kernel.mean(0) if layout.norm == "layer" else kernel
            if norm == first and seen is not None:
                kernel = np.tensordot(seen.T, np.tensordot(seen, kernel, 1), 1)
            leaves[f"{path}/kernel"] = kernel
        leaves[f"{norm}/scale"] = np.ones_like(scale)
        if bias is not None:
            leaves[f"{norm}/bias"] = np.zeros_like(bias)

    def write(*names):
        for name in names:
            if name in leaves and layout.norm == "layer":
                leaves[name] = leaves[name] - leaves[name].mean(-1, keepdims=True)

    write(*layout.written)
    first = layout.layers[0].norm if layout.layers else layout.head_norm
    seen = seen_by_the_first_layer({name: leaves[name] for name in layout.written})
    for layer in layout.layers:
        if isinstance(layer, Attention):
            read(layer.norm, *(f"{layer.path}/{name}" for name in ("query", "key", "value")))
            _fold_biases(layout, layer.path, leaves)
            _drop_dead_values(layer.path, leaves)
            write(f"{layer.path}/out/kernel", f"{layer.path}/out/bias")
        else:
            read(layer.norm, layer.into)
            write(f"{layer.out}/kernel", f"{layer.out}/bias")
    read(layout.head_norm, layout.head)
    return jax.tree.unflatten(jax.tree.structure(params), list(leaves.values()))


def seen_by_the_first_layer(written: Mapping[str, np.ndarray]) -> Float[np.ndarray, "r d"] | None:
    """An orthonormal basis of what embeddings and positions span, None where they have as many rows as columns.

    >>> seen_by_the_first_layer({'embedding': np.ones((2, 3)), 'positions': np.ones((1, 3))}) is None
    True
    >>> seen_by_the_first_layer({'embedding': np.eye(3)[:2]}).shape
    (2, 3)
    """
    if not written:
        return None
    rows = np.concatenate([leaf.reshape(-1, leaf.shape[-1]) for leaf in written.values()])
    if len(rows) >= rows.shape[1]:
        return None
    _, values, basis = np.linalg.svd(rows, full_matrices=False)
    return basis[values > 1e-10 * values[0]]


def balance(layout: Layout, params: PyTree) -> tuple[PyTree, Gauge]:
    """The same function with balanced factors, and the gauge that leads there.

    Args:
        layout: of the network.
        params: folded.

    Raises:
        ValueError: a layout that does not fit, entries that are not finite.

    >>> from sbjax.models.transformer import Transformer
    >>> from sbjax.symmetry.attention_layout import layout_of
    >>> params = Transformer(classes=2, width=4, depth=1, heads=2).init(jax.random.key(0), np.ones((1, 3, 2)))['params']
    >>> layout = layout_of(params, norm='rms', activation='relu')
    >>> found = balance(layout, fold(layout, params))[0]['attention_0']
    >>> grams = [np.einsum('dhk,dhl->hkl', found[name]['kernel'], found[name]['kernel']) for name in ('query', 'key')]
    >>> bool(np.allclose(*grams))
    True
    """
    leaves = {name: np.asarray(leaf, np.float64) for name, leaf in trees.flatten(params).items()}
    trees.check_finite(leaves, "params")
    gauge, layers = attention.identity_gauge(layout, params), []
    for layer, part in zip(layout.layers, gauge.layers, strict=True):
        if isinstance(layer, Attention):
            query, key, value, out = attention_factors(leaves, layer.path)
            if layout.rope:
                size = [np.sqrt((np.abs(attention.planes(x)) ** 2).sum(1)) for x in (query, key)]
                alive = (size[0] > 0) & (size[1] > 0)
                qk = attention.plane_matrix(
                    np.sqrt(np.where(alive, size[1] / np.where(alive, size[0], 1), 1)).astype(complex)
                )
            else:
                qk = np.stack([_balancing(q.T @ q, k.T @ k) for q, k in zip(query, key, strict=True)])
            vo = np.stack([_balancing(v.T @ v, o @ o.T) for v, o in zip(value, out, strict=True)])
            layers.append(AttentionGauge(part.heads, qk, vo))
        else:
            scale = part.scale
            if layout.activation == "relu":
                into, out = dense_factors(leaves, layer)
                sizes = np.linalg.norm(into, axis=0), np.linalg.norm(out, axis=1)
                alive = (sizes[0] > 0) & (sizes[1] > 0)
                scale = np.sqrt(np.where(alive, sizes[1] / np.where(alive, sizes[0], 1), 1))
            layers.append(DenseGauge(part.order, scale))
    gauge = gauge._replace(layers=tuple(layers))
    return attention.transform(layout, params, gauge), gauge


def attention_factors(
    leaves: dict[str, np.ndarray], path: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Float[np.ndarray, "heads v d"]]:
    """Queries, keys and values [heads, d (+ 1 with a bias), k], and the output [heads, v, d]."""
    found = []
    for name in ("query", "key", "value"):
        kernel = np.moveaxis(leaves[f"{path}/{name}/kernel"], 0, 1)
        if f"{path}/{name}/bias" in leaves:
            kernel = np.concatenate([kernel, leaves[f"{path}/{name}/bias"][:, None]], 1)
        found.append(kernel)
    return found[0], found[1], found[2], leaves[f"{path}/out/kernel"]


def dense_factors(leaves, layer) -> tuple[Float[np.ndarray, "r m"], Float[np.ndarray, "m d"]]:
    """What comes into the units of a pair of dense layers, with the bias as the last row, and what goes out."""
    into = leaves[f"{layer.into}/kernel"]
    if f"{layer.into}/bias" in leaves:
        into = np.concatenate([into, leaves[f"{layer.into}/bias"][None]])
    return into, leaves[f"{layer.out}/kernel"]


def _fold_biases(layout, path, leaves):
    if f"{path}/key/bias" in leaves and not layout.rope:
        leaves[f"{path}/key/bias"] = np.zeros_like(leaves[f"{path}/key/bias"])
    value = leaves.get(f"{path}/value/bias")
    if value is not None and value.any():
        if f"{path}/out/bias" not in leaves:
            raise ValueError(f"{path}/value/bias is not zero and {path}/out has no bias to take it up; give it one")
        leaves[f"{path}/out/bias"] += np.tensordot(value, leaves[f"{path}/out/kernel"], 2)
        leaves[f"{path}/value/bias"] = np.zeros_like(value)


def _drop_dead_values(path, leaves):
    """W_V and W_O of each head on the directions between them that both use; their product stays."""
    value, out = leaves[f"{path}/value/kernel"], leaves[f"{path}/out/kernel"]
    for head in range(len(out)):
        used = _support(value[:, head].T)
        if used.shape[1] < len(used):
            out[head] = used @ (used.T @ out[head])
        used = _support(out[head])
        if used.shape[1] < len(used):
            value[:, head] = value[:, head] @ used @ used.T


def _support(matrix):
    """An orthonormal basis of the span of the columns."""
    vectors, values, _ = np.linalg.svd(matrix, full_matrices=False)
    return vectors[:, values > RANK * max(values.max(initial=0.0), TINY)]


def _balancing(a, b):
    """The symmetric U with U a U = U^-1 b U^-1: its square is the geometric mean of a^-1 and b.

    Both are taken on what a spans, where they are of full rank after `fold`; U is 1 on the rest.
    """
    values, vectors = np.linalg.eigh(a)
    used = vectors[:, values > RANK**2 * max(values.max(), TINY)]
    a, b = (_power(used.T @ x @ used, 1.0, max(np.trace(x) * FLOOR, TINY)) for x in (a, b))
    root, inverse = _power(a, 0.5), _power(a, -0.5)
    within = _power(inverse @ _power(root @ b @ root, 0.5) @ inverse, 0.5)
    return np.eye(len(vectors)) + used @ (within - np.eye(len(within))) @ used.T


def _power(matrix, exponent, least=TINY):
    """A power of a symmetric matrix, its eigenvalues at least `least`."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, least) ** exponent) @ vectors.T
