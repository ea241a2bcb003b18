"""Gauge group of a transformer: maps of its parameters that leave its function as it is, permutations being some.

For a pre-norm transformer with the residual stream x [.., d] as rows, these are:

- stream: x -> x S. What writes into the stream gets S on the right, what reads from it S^T on the left. A norm lets
  pass what commutes with it, see `stream_groups`.
- queries and keys of a head: W_Q -> W_Q U, W_K -> W_K U^-T, since scores are W_Q W_K^T. U is any invertible matrix.
  With rotary positions (RoPE) scores are W_Q R_m W_K^T for every distance m, and U must commute with the rotations R_m:
  one complex number for each plane, where frequencies differ.
- values and output of a head: W_V -> W_V V, W_O -> V^-1 W_O, V any invertible matrix, with or without RoPE.
- heads are permuted, and hidden units of dense layers; with relu these are scaled by c > 0 too, with tanh by 1 or -1.

Sources: arXiv 2606.17830 (attention, RoPE), 2506.22712 (stream), 2606.31963 (stream with gains kept), 2402.02362.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int, Key, PyTree

from sbjax import trees
from sbjax.common.names import check_choice
from sbjax.symmetry.attention_layout import Attention, Layout, check_layout, stream_groups, width

ORTHOGONAL = 1e-4  # of the entries of S S^T - 1: float32 passes


class AttentionGauge(NamedTuple):
    """Of one attention layer: new head a is old head `heads[a]`, then its factors are multiplied by U and V."""

    heads: Int[np.ndarray, " heads"]
    qk: Float[np.ndarray | Array, "heads k k"]
    vo: Float[np.ndarray | Array, "heads k k"]


class DenseGauge(NamedTuple):
    """Of two dense layers: new unit i is old unit `order[i]`, what comes in times `scale[i]`, what goes out over it."""

    order: Int[np.ndarray, " m"]
    scale: Float[np.ndarray | Array, " m"]


class Gauge(NamedTuple):
    """One element of the group: `stream` [d, d], orthogonal, and a gauge for each layer."""

    stream: Float[np.ndarray | Array, "d d"]
    layers: tuple[AttentionGauge | DenseGauge, ...]


def identity_gauge(layout: Layout, params: PyTree) -> Gauge:
    """The identity of the group, in float64."""
    check_layout(layout, params)
    leaves = trees.flatten(params)
    layers: list[AttentionGauge | DenseGauge] = []
    for layer in layout.layers:
        if isinstance(layer, Attention):
            _, heads, size = jnp.shape(leaves[f"{layer.path}/query/kernel"])
            values = jnp.shape(leaves[f"{layer.path}/value/kernel"])[-1]
            eyes = (np.broadcast_to(np.eye(k), (heads, k, k)).copy() for k in (size, values))
            layers.append(AttentionGauge(np.arange(heads), *eyes))
        else:
            units = jnp.shape(leaves[f"{layer.into}/kernel"])[1]
            layers.append(DenseGauge(np.arange(units), np.ones(units)))
    return Gauge(np.eye(width(layout, params)), tuple(layers))


def transform(layout: Layout, params: PyTree, gauge: Gauge) -> PyTree:
    """Apply a gauge: a tree of the same function, in exact arithmetic.

    A stream that is no (signed) permutation needs a tree with folded norms, see `sbjax.symmetry.attention_fold.fold`.
    Works under jit and vmap with the layout closed over; trees of numpy arrays are transformed by numpy.

    Raises:
        ValueError: a layout that does not fit the tree, or a gauge that does not fit both or is none: an order that is
            no permutation, a scale of 0, a singular matrix, a stream that is not orthogonal (what is traced or on an
            accelerator is not looked at but for its shape).

    >>> from sbjax.models.transformer import Transformer
    >>> from sbjax.symmetry.attention_layout import layout_of
    >>> net, x = Transformer(classes=3, width=8, depth=1), jax.random.normal(jax.random.key(0), (2, 4, 5))
    >>> params = net.init(jax.random.key(1), x)['params']
    >>> layout = layout_of(params, norm='rms', activation='relu')
    >>> moved = transform(layout, params, random_gauge(jax.random.key(2), layout, params))
    >>> bool(jnp.allclose(net.apply({'params': moved}, x), net.apply({'params': params}, x), atol=1e-5))
    True
    """
    check_layout(layout, params)
    leaves = trees.flatten(params)
    _check_gauge(layout, leaves, gauge)
    xp = np if trees.on_host(*leaves.values()) and not _traced(gauge) else jnp
    leaves = {name: xp.asarray(leaf) for name, leaf in leaves.items()}
    moved = dict(leaves)

    def like(name, value):
        moved[name] = value.astype(leaves[name].dtype)

    stream = xp.asarray(gauge.stream)

    def pass_norm(name):
        # For a signed permutation stream^2 is the permutation; for an orthogonal one, gains of 1 stay 1.
        like(f"{name}/scale", leaves[f"{name}/scale"] @ stream**2)
        if f"{name}/bias" in leaves:
            like(f"{name}/bias", leaves[f"{name}/bias"] @ stream)

    def write(name, kernel=None):
        like(f"{name}/kernel", (leaves[f"{name}/kernel"] if kernel is None else kernel) @ stream)
        if f"{name}/bias" in leaves:
            like(f"{name}/bias", leaves[f"{name}/bias"] @ stream)

    for name in layout.written:
        like(name, leaves[name] @ stream)
    for layer, part in zip(layout.layers, gauge.layers, strict=True):
        pass_norm(layer.norm)
        if isinstance(layer, Attention):
            qk, vo = (xp.asarray(matrix) for matrix in (part.qk, part.vo))
            factors = {"query": qk, "key": xp.swapaxes(xp.linalg.inv(qk), 1, 2), "value": vo}
            for name, factor in factors.items():
                kernel, bias = f"{layer.path}/{name}/kernel", f"{layer.path}/{name}/bias"
                read = xp.tensordot(stream.T, leaves[kernel], 1)[:, part.heads]
                like(kernel, xp.einsum("dhk,hkl->dhl", read, factor))
                if bias in leaves:
                    like(bias, xp.einsum("hk,hkl->hl", leaves[bias][part.heads], factor))
            out = leaves[f"{layer.path}/out/kernel"][part.heads]
            write(f"{layer.path}/out", xp.einsum("hkl,hld->hkd", xp.linalg.inv(vo), out))
        else:
            scale = xp.asarray(part.scale)
            like(f"{layer.into}/kernel", stream.T @ leaves[f"{layer.into}/kernel"][:, part.order] * scale)
            if f"{layer.into}/bias" in leaves:
                like(f"{layer.into}/bias", leaves[f"{layer.into}/bias"][part.order] * scale)
            write(layer.out, leaves[f"{layer.out}/kernel"][part.order] / scale[:, None])
    pass_norm(layout.head_norm)
    like(f"{layout.head}/kernel", stream.T @ leaves[f"{layout.head}/kernel"])
    return jax.tree.unflatten(jax.tree.structure(params), list(moved.values()))


def compose(first: Gauge, second: Gauge) -> Gauge:
    """The gauge that acts as `first` and then `second`."""
    layers: list[AttentionGauge | DenseGauge] = []
    for a, b in zip(first.layers, second.layers, strict=True):
        if isinstance(a, AttentionGauge):
            layers.append(AttentionGauge(a.heads[b.heads], a.qk[b.heads] @ b.qk, a.vo[b.heads] @ b.vo))
        else:
            layers.append(DenseGauge(a.order[b.order], a.scale[b.order] * b.scale))
    return Gauge(first.stream @ second.stream, tuple(layers))


def invert(gauge: Gauge) -> Gauge:
    """The inverse: `compose(gauge, invert(gauge))` is the identity."""
    layers: list[AttentionGauge | DenseGauge] = []
    for part in gauge.layers:
        if isinstance(part, AttentionGauge):
            back = np.argsort(part.heads)
            layers.append(AttentionGauge(back, np.linalg.inv(part.qk)[back], np.linalg.inv(part.vo)[back]))
        else:
            back = np.argsort(part.order)
            layers.append(DenseGauge(back, 1 / part.scale[back]))
    return Gauge(gauge.stream.T, tuple(layers))


def random_gauge(
    key: Key[Array, ""], layout: Layout, params: PyTree, *, stream: str = "orthogonal", spread: float = 1.0
) -> Gauge:
    """A gauge at random.

    Args:
        key: where it comes from.
        layout, params: of the network.
        stream: one of `stream_groups`; 'orthogonal' for trees with folded norms.
        spread: singular values of U and V, and moduli with RoPE, are exp(t) with t uniform in [-spread, spread]. Scales
            of relu units are powers of two from 1/8 to 8, so that they can be compared exactly.

    Raises:
        ValueError: a stream that the norm does not admit, a layout that does not fit, a spread that is not in [0, 10].
    """
    if not 0 <= spread <= 10:
        raise ValueError(f"spread={spread} must be >= 0 and <= 10: singular values are exponentials of it")
    check_choice(stream, stream_groups(layout.norm, folded=True), what="stream")
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    layers: list[AttentionGauge | DenseGauge] = []
    identity = identity_gauge(layout, params)
    for part in identity.layers:
        if isinstance(part, AttentionGauge):
            draw = _random_planes if layout.rope else _random_invertible
            qk = np.stack([draw(random, part.qk.shape[-1], spread) for _ in part.qk])
            vo = np.stack([_random_invertible(random, part.vo.shape[-1], spread) for _ in part.vo])
            layers.append(AttentionGauge(random.permutation(part.heads), qk, vo))
        else:
            units = len(part.order)
            scale = {
                "relu": 2.0 ** random.integers(-3, 4, units),
                "tanh": random.choice([-1.0, 1.0], units),
                "gelu": np.ones(units),
            }[layout.activation]
            layers.append(DenseGauge(random.permutation(units), scale))
    return Gauge(_random_stream(random, layout.norm, stream, len(identity.stream)), tuple(layers))


def planes(factors: Float[np.ndarray, "... k"]) -> Complex[np.ndarray, "... p"]:
    """Entries (2p, 2p + 1) of the last axis as complex numbers."""
    if factors.shape[-1] % 2:
        raise ValueError(f"factors have {factors.shape[-1]} entries in the last axis: give two for each plane")
    return factors[..., 0::2] + 1j * factors[..., 1::2]


def plane_matrix(numbers: Complex[np.ndarray | Array, "... p"]) -> Float[np.ndarray | Array, "... k k"]:
    """Matrices on the right of rows that multiply plane p by the complex number z_p.

    >>> plane_matrix(np.array([1j])).tolist()
    [[0.0, 1.0], [-1.0, 0.0]]
    """
    size = 2 * numbers.shape[-1]
    even, odd = np.arange(0, size, 2), np.arange(1, size, 2)
    same, turned = np.zeros((2, size // 2, size, size))
    same[even // 2, even, even] = same[even // 2, odd, odd] = 1
    turned[even // 2, even, odd], turned[even // 2, odd, even] = 1, -1
    xp = np if isinstance(numbers, np.ndarray) else jnp
    same, turned = (matrix.astype(numbers.real.dtype) for matrix in (same, turned))
    return xp.tensordot(numbers.real, same, 1) + xp.tensordot(numbers.imag, turned, 1)


def mean_free_basis(d: int) -> Float[np.ndarray, "d d-1"]:
    """An orthonormal basis of the vectors of mean zero."""
    if d < 1:
        raise ValueError(f"d={d} must be >= 1")
    return np.linalg.svd(np.eye(d) - 1 / d)[0][:, : d - 1]


def _random_orthogonal(random, n):
    q, r = np.linalg.qr(random.normal(size=(n, n)))
    return q * np.sign(np.diag(r))


def _random_invertible(random, n, spread):
    middle = np.exp(random.uniform(-spread, spread, n))
    return _random_orthogonal(random, n) * middle @ _random_orthogonal(random, n)


def _random_planes(random, n, spread):
    size, turn = np.exp(random.uniform(-spread, spread, n // 2)), random.uniform(0, 2 * np.pi, n // 2)
    return plane_matrix(size * np.exp(1j * turn))


def _random_stream(random, norm, kind, d):
    if kind == "identity":
        return np.eye(d)
    if kind == "orthogonal" and norm == "rms":
        return _random_orthogonal(random, d)
    if kind == "orthogonal":
        basis = mean_free_basis(d)
        return basis @ _random_orthogonal(random, d - 1) @ basis.T + 1 / d
    return np.eye(d)[random.permutation(d)] * (random.choice([-1.0, 1.0], d) if kind == "signed" else 1.0)


def _check_gauge(layout, leaves, gauge):
    kinds = tuple(AttentionGauge if isinstance(layer, Attention) else DenseGauge for layer in layout.layers)
    if tuple(map(type, gauge.layers)) != kinds:
        raise ValueError(
            f"the gauge has {len(gauge.layers)} layers, the layout {len(kinds)}, or they are of other kinds"
        )
    d = len(leaves[f"{layout.head_norm}/scale"])
    _check_part("stream", gauge.stream, (d, d), lambda s: np.abs(s @ s.T - np.eye(d)).max() < ORTHOGONAL, "orthogonal")
    for layer, part in zip(layout.layers, gauge.layers):
        if isinstance(part, AttentionGauge):
            _, heads, size = jnp.shape(leaves[f"{layer.path}/query/kernel"])
            values = jnp.shape(leaves[f"{layer.path}/value/kernel"])[-1]
            _check_part(f"heads of {layer.path}", part.heads, (heads,), _is_order, "a permutation")
            for name, matrix, k in (("qk", part.qk, size), ("vo", part.vo, values)):
                _check_part(f"{name} of {layer.path}", matrix, (heads, k, k), _is_invertible, "invertible")
        else:
            units = jnp.shape(leaves[f"{layer.into}/kernel"])[1]
            _check_part(f"order of {layer.into}", part.order, (units,), _is_order, "a permutation")
            _check_part(f"scale of {layer.into}", part.scale, (units,), np.all, "without zeros")


def _check_part(name, value, shape, test, word):
    if jnp.shape(value) != shape:
        raise ValueError(f"gauge: {name} has shape {jnp.shape(value)}, the network needs {shape}")
    if isinstance(value, np.ndarray) and not (np.isfinite(value).all() and test(value)):
        raise ValueError(f"gauge: {name} must be finite and {word}")


def _is_order(order):
    return (np.sort(order) == np.arange(len(order))).all()


def _is_invertible(matrices):
    return (np.linalg.slogdet(matrices)[0] != 0).all()


def _traced(gauge: Gauge) -> bool:
    return any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(gauge))
