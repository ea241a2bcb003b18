"""Neuron splitting: critical points of wide networks from critical points of narrow ones, and their Hessians.

Unit t is replaced by k copies with the same incoming weights and outgoing weights mu_i a_t, sum_i mu_i = 1. The
function is unchanged, and a critical point stays critical (arXiv 2105.12221). In the variables u = sum_i mu_i dw_i,
v_i = dw_i - u, b = sum_i da_i, c_i = da_i - mu_i b the wide Hessian is block diagonal: the narrow Hessian acting on
(u, b), and for each split unit the block

    sum_i mu_i v_i . S v_i + 2 sum_i v_i . D c_i    on    sum_i mu_i v_i = 0, sum_i c_i = 0,

    S = sum_x (rho . a_t) sigma''(w_t . h) h h^T,    D = sum_x sigma'(w_t . h) h rho^T,

where h is the input of the layer (extended by 1 if it has biases) and rho the derivative of the loss with respect to
the pre-activations of the next layer. This holds for any hidden layer of a deep network and any loss, since the rest of
the network depends on sums over copies only. Hence the inertia of the wide Hessian follows from the narrow network.

Copies whose outgoing vectors sum to a_t without being parallel to it are not critical; neither are cancelling units at
positive loss.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from sbjax.landscape import counting
from sbjax.landscape.layered import (
    Activation,
    Layer,
    Loss,
    Network,
    affine,
    check_data,
    from_layers,
    hidden_layer,
    mean_squared_error,
)
from sbjax.landscape.manifold import Piece, contrasts, pieces

Coefficients = Sequence[Sequence[float]]
"""For each unit of the narrow layer, the mu of its copies, with sum 1."""


class Inertia(NamedTuple):
    """Numbers of negative, zero and positive eigenvalues."""

    negative: int
    zero: int
    positive: int


class Inner(NamedTuple):
    """Matrices S and D of each unit of one hidden layer at a critical point.

    Attributes:
        curvature: S, [r, n, n] with n incoming weights per unit, the bias last.
        coupling: D, [r, n, d] with d outgoing weights per unit; D_t a_t = 0.
    """

    curvature: Float[np.ndarray, "r n n"]
    coupling: Float[np.ndarray, "r n d"]


class Member(NamedTuple):
    """One of the critical points induced by a narrow network.

    Attributes:
        params: parameters, in the form of the narrow network.
        piece: assignment of units to copies.
        coefficients: mu of the copies of each narrow unit.
    """

    params: dict[str, Any]
    piece: Piece
    coefficients: tuple[tuple[float, ...], ...]


def split(params: Network, unit: int, coefficients: Sequence[float], *, layer: int = 0) -> dict[str, Any]:
    """Replace one hidden unit by consecutive copies.

    Args:
        params: a network of either form, see `layered`.
        unit: index of the unit.
        coefficients: mu_1 .. mu_k with sum 1, of any signs.
        layer: index of the hidden layer.

    Raises:
        ValueError: coefficients that do not sum to 1, an index out of range, or a network of another form.

    >>> wide = split({'w': np.array([[1.0, 2.0]]), 'a': np.array([[4.0]])}, 0, (0.75, 0.25))
    >>> wide['w'].tolist(), wide['a'].ravel().tolist()
    ([[1.0, 2.0], [1.0, 2.0]], [3.0, 1.0])
    """
    layers, layer = hidden_layer(params, layer)
    r, k = layers[layer].kernel.shape[1], len(coefficients)
    if not 0 <= unit < r:
        raise ValueError(f"unit={unit} does not exist: hidden layer {layer} has units 0 .. {r - 1}")
    groups = [(t,) if t < unit else tuple(range(t, t + k)) if t == unit else (t + k - 1,) for t in range(r)]
    return expand(
        params, Piece(tuple(groups), ()), [coefficients if t == unit else (1,) for t in range(r)], layer=layer
    )


def expand(params: Network, piece: Piece, coefficients: Coefficients, *, layer: int = 0) -> dict[str, Any]:
    """Split all units of a hidden layer at once, with copies at the positions given by `piece`.

    Args:
        params: a network of either form with r units in that layer.
        piece: positions of the copies, without cancelling groups: these are not critical at positive loss (use
            `manifold.sample` at zero loss).
        coefficients: for each of the r units, the mu of its copies.
        layer: index of the hidden layer.

    Raises:
        ValueError: as `split`; a piece that does not fit.

    >>> narrow = {'w': np.array([[1.0], [2.0]]), 'a': np.array([[4.0], [5.0]])}
    >>> wide = expand(narrow, Piece(((0, 2), (1,)), ()), [(0.75, 0.25), (1.0,)])
    >>> wide['w'].ravel().tolist(), wide['a'].ravel().tolist()
    ([1.0, 2.0, 1.0], [3.0, 5.0, 1.0])
    """
    layers, layer = hidden_layer(params, layer)
    r = layers[layer].kernel.shape[1]
    check_coefficients(piece, coefficients, r)
    source, factor = _sources(piece, coefficients)
    here, after = layers[layer], layers[layer + 1]
    factor = factor.astype(after.kernel.dtype)
    layers = list(layers)
    layers[layer] = Layer(here.kernel[:, source], None if here.bias is None else here.bias[source])
    layers[layer + 1] = Layer(after.kernel[source] * factor[:, None], after.bias)
    return from_layers(layers, params)


def critical_family(
    key: Key[Array, ""], params: Network, m: int, *, layer: int = 0, scale: float = 1.0
) -> Iterator[Member]:
    """A random point on each of the `counting.G(r, m)` subspaces of critical points induced by a narrow network.

    Each subspace has dimension m - r. The mu of a group are 1/k plus a normal vector with sum 0 and standard deviation
    `scale` per direction.

    Raises:
        ValueError: m is smaller than the width of that layer, or too large to enumerate all pieces.

    >>> narrow = {'w': np.array([[1.0]]), 'a': np.array([[1.0]])}
    >>> [member.params['w'].shape for member in critical_family(jax.random.key(0), narrow, 3)]
    [(3, 1)]
    """
    layers, _ = hidden_layer(params, layer)
    r = layers[layer % (len(layers) - 1)].kernel.shape[1]
    r, m = counting.pair(r, m)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    for piece in pieces(r, m):
        if piece.zeros:
            # Pieces are ordered by the number of cancelling units.
            return
        coefficients = []
        for group in piece.copies:
            k = len(group)
            coefficients.append(tuple((1 / k + contrasts(k) @ rng.normal(scale=scale, size=k - 1)).tolist()))
        yield Member(expand(params, piece, coefficients, layer=layer), piece, tuple(coefficients))


def inner_matrices(
    params: Network,
    x: Float[Array, "n din"],
    y: Float[Array, "n dout"],
    activation: Activation,
    *,
    layer: int = 0,
    loss: Loss = mean_squared_error,
) -> Inner:
    """S and D of every unit of a hidden layer, see the module docstring.

    Raises:
        ValueError: data that do not fit the network, or no such layer.

    >>> narrow = {'w': jnp.array([[1.0]]), 'a': jnp.array([[1.0]])}
    >>> inner_matrices(narrow, jnp.ones((1, 1)), jnp.zeros((1, 1)), jnp.square).curvature.tolist()
    [[[4.0]]]
    """
    check_data(params, x, y)
    _, layer = hidden_layer(params, layer)
    return Inner(*map(np.asarray, _inner(params, x, y, activation, layer, loss)))


@partial(jax.jit, static_argnums=(3, 4, 5))
def _inner(params, x, y, activation, layer, loss):
    layers, _ = hidden_layer(params, layer)
    for below in layers[:layer]:
        x = activation(affine(below, x))
    z = affine(layers[layer], x)

    def rest(following):
        for above in layers[layer + 2 :]:
            following = affine(above, activation(following))
        return loss(following, y)

    rho = jax.grad(rest)(affine(layers[layer + 1], activation(z)))
    slope = lambda z: jax.jvp(activation, (z,), (jnp.ones_like(z),))[1]  # noqa: E731
    first, second = jax.jvp(slope, (z,), (jnp.ones_like(z),))
    h = x if layers[layer].bias is None else jnp.concatenate([x, jnp.ones_like(x[:, :1])], 1)
    weight = (rho @ layers[layer + 1].kernel.T) * second
    product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    return product("xt,xi,xj->tij", weight, h, h), product("xt,xi,xd->tid", first, h, rho)


def split_block(
    curvature: Float[Array, "n n"], coupling: Float[Array, "n d"], coefficients: Sequence[float]
) -> Float[np.ndarray, "size size"]:
    """Block that splitting one unit adds to the Hessian, in orthonormal coordinates of (v, c); size (k - 1) (n + d).

    >>> split_block(np.eye(1), np.zeros((1, 1)), (0.5, 0.5)).round(9) + 0.0
    array([[0.5, 0. ],
           [0. , 0. ]])
    """
    mu = np.asarray(coefficients, float)
    k, d = len(mu), coupling.shape[1]
    # Bases of the vectors orthogonal to mu and of those with sum zero.
    normal = np.linalg.svd(mu[None])[2][1:].T
    zero_sum = contrasts(k)
    quadratic = np.kron(normal.T @ (mu[:, None] * normal), curvature)
    mixed = np.kron(normal.T @ zero_sum, coupling)
    return np.block([[quadratic, mixed], [mixed.T, np.zeros(((k - 1) * d,) * 2)]])


def scalar_split_inertia(curvature: Inertia, coefficients: Sequence[float]) -> Inertia:
    """Inertia added by splitting a unit with one outgoing weight, in closed form.

    (p - 1) inertia(S) + q inertia(-S) + (k - 1) zeros + n zeros per mu_i = 0, with p positive and q negative mu_i. It
    follows from Sylvester's law, since D = 0 at a critical point. Starting from a minimum: an indefinite S gives a
    strict saddle if at least two mu_i are non-zero; S > 0 gives no negative eigenvalue iff no mu_i is negative, S < 0
    iff exactly one is positive.

    Args:
        curvature: inertia of S.
        coefficients: mu, with sum 1.

    >>> scalar_split_inertia(Inertia(0, 0, 2), (0.5, 0.5)), scalar_split_inertia(Inertia(0, 0, 2), (1.5, -0.5))
    (Inertia(negative=0, zero=1, positive=2), Inertia(negative=2, zero=1, positive=0))
    """
    positive = sum(c > 0 for c in coefficients)
    negative = sum(c < 0 for c in coefficients)
    k, n = len(coefficients), sum(curvature)
    return Inertia(
        (positive - 1) * curvature.negative + negative * curvature.positive,
        (positive - 1 + negative) * curvature.zero + k - 1 + (k - positive - negative) * n,
        (positive - 1) * curvature.positive + negative * curvature.negative,
    )


def inertia(matrix: Float[Array, "n n"], *, tolerance: float) -> Inertia:
    """Inertia of a symmetric matrix; eigenvalues of at most `tolerance` in absolute value count as zero.

    >>> inertia(np.diag([-1.0, 1e-20, 2.0, 3.0]), tolerance=1e-12)
    Inertia(negative=1, zero=1, positive=2)
    """
    values = np.linalg.eigvalsh(np.asarray(matrix, np.float64)) if len(matrix) else np.zeros(0)
    negative, positive = int(np.sum(values < -tolerance)), int(np.sum(values > tolerance))
    return Inertia(negative, len(values) - negative - positive, positive)


def predicted_inertia(
    narrow: Float[Array, "n n"], inner: Inner, coefficients: Coefficients, *, rtol: float = 1e-11
) -> Inertia:
    """Inertia of the Hessian after splitting units of one hidden layer, predicted from the narrow network.

    Args:
        narrow: Hessian of the narrow network at the critical point.
        inner: `inner_matrices` at the critical point.
        coefficients: for each unit, the mu of its copies.
        rtol: eigenvalues below this fraction of the largest count as zero.

    Raises:
        ValueError: the number of coefficient lists is not that of units.

    >>> predicted_inertia(np.eye(2), Inner(np.eye(1)[None], np.zeros((1, 1, 1))), [(0.5, 0.5)])
    Inertia(negative=0, zero=1, positive=3)
    """
    if len(coefficients) != len(inner.curvature):
        raise ValueError(
            f"coefficients has {len(coefficients)} entries: give one for each of {len(inner.curvature)} units"
        )
    blocks = [split_block(s, d, mu) for s, d, mu in zip(inner.curvature, inner.coupling, coefficients) if len(mu) > 1]
    blocks.append(np.asarray(narrow))
    largest = max(np.linalg.norm(block, 2) for block in blocks)
    return Inertia(*map(sum, zip(*(inertia(block, tolerance=rtol * largest) for block in blocks))))


def check_coefficients(piece: Piece, coefficients: Coefficients, r: int) -> None:
    """Check coefficients against a piece.

    Raises:
        ValueError: coefficients of a group that do not sum to 1 or whose number is not that of its copies; cancelling
            groups; units that are missing or assigned twice.
    """
    sizes = [len(group) for group in piece.copies]
    if len(sizes) != r or [len(mu) for mu in coefficients] != sizes:
        raise ValueError(
            f"coefficients has groups of {[len(mu) for mu in coefficients]}, piece of {sizes}: give the same for each "
            f"of the {r} units of the narrow layer"
        )
    if piece.zeros:
        raise ValueError(
            f"piece has cancelling groups {piece.zeros}, which are not critical at positive loss: leave them out"
        )
    if sorted(sum(piece.copies, ())) != list(range(sum(sizes))):
        raise ValueError(f"piece={piece} must hold each unit 0 .. {sum(sizes) - 1} once")
    for t, mu in enumerate(coefficients):
        total = math.fsum(mu)
        if not abs(total - 1) <= 1e-9 * max(1.0, math.fsum(map(abs, mu))):
            raise ValueError(
                f"coefficients of unit {t} sum to {total:.12g}: they must sum to 1, divide them by their sum"
            )


def _sources(piece, coefficients):
    """For each wide unit, the index of its narrow unit and its mu."""
    m = sum(map(len, piece.copies))
    source, factor = np.zeros(m, int), np.zeros(m)
    for t, (group, mu) in enumerate(zip(piece.copies, coefficients)):
        source[list(group)], factor[list(group)] = t, mu
    return source, factor
