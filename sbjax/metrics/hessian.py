"""Dense Hessians and Gauss-Newton matrices of small networks, and their inertia.

`hessian` takes any loss. `mlp_hessian` takes a stack of dense layers and is many times faster, since its entries are
matrix products over samples. Both respect a memory limit; for larger networks use the products of
`sbjax.metrics.curvature`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from sbjax import trees

MAX_BYTES = 2**31


class Inertia(NamedTuple):
    """Numbers of negative, zero and positive eigenvalues."""

    negative: int
    zero: int
    positive: int


def inertia(matrix: Float[Array, "n n"], *, rtol: float | None = None) -> Inertia:
    """Inertia of a symmetric matrix; eigenvalues with |lambda| <= rtol max |lambda| count as zero.

    Args:
        matrix: symmetric.
        rtol: None = 10 n eps of the dtype. Zero eigenvalues of a Hessian also have an error of the order of the
            gradient, so polish the critical point first.

    Raises:
        ValueError: not square, or not finite.

    >>> inertia(jnp.diag(jnp.array([2.0, 0.0, -1.0, 3.0])))
    Inertia(negative=1, zero=1, positive=2)
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise ValueError(f"matrix of shape {matrix.shape} must be square and finite: give a symmetric [n, n]")
    values = np.linalg.eigvalsh(matrix)
    floor = (10 * len(values) * np.finfo(values.dtype).eps if rtol is None else rtol) * np.abs(values).max(initial=0.0)
    negative, positive = int((values < -floor).sum()), int((values > floor).sum())
    return Inertia(negative, len(values) - negative - positive, positive)


def hessian(
    loss_fn: Callable[[PyTree], Float[Array, ""]],
    params: PyTree,
    *,
    chunk: int | None = None,
    max_bytes: int = MAX_BYTES,
) -> Float[Array, "n n"]:
    """H_ij = d^2 L / dw_i dw_j of any loss, forward over reverse.

    Args:
        loss_fn: params -> scalar, twice differentiable.
        params: tree of floats, n in all; rows and columns are ordered as by `jax.flatten_util.ravel_pytree`.
        chunk: columns computed at once; each needs the memory of a gradient. None = 32.
        max_bytes: limit for the matrix and the copy needed to symmetrise it.

    Returns:
        [n, n], symmetric.

    Raises:
        ValueError: the matrix exceeds `max_bytes`; `chunk` < 1.

    >>> hessian(lambda p: p['a'] ** 2 * p['b'], {'a': jnp.array(1.0), 'b': jnp.array(3.0)}).tolist()
    [[6.0, 2.0], [2.0, 0.0]]

    Source: Pearlmutter 1994, Neural Computation 6(1).
    """
    flat, unravel = ravel_pytree(params)
    check_fits(len(flat), flat.dtype.itemsize, max_bytes)
    chunk = 32 if chunk is None else chunk
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be >= 1 column")
    gradient = jax.grad(lambda w: loss_fn(unravel(w)))
    _, push = jax.linearize(gradient, flat)
    rows = jax.lax.map(push, jnp.eye(len(flat), dtype=flat.dtype), batch_size=min(chunk, len(flat)))
    return (rows + rows.T) / 2


def gauss_newton_matrix(
    residual_fn: Callable[[PyTree], Float[Array, " m"]],
    params: PyTree,
    *,
    chunk: int | None = None,
    max_bytes: int = MAX_BYTES,
) -> Float[Array, "n n"]:
    """2 J^T J with J = dr/dw: the Hessian of sum r^2 without the term 2 sum r r''; exact where all residuals are zero.

    Args:
        residual_fn: params -> r [m].
        params: as in `hessian`.
        chunk: columns of J computed at once; None = 32.
        max_bytes: limit for J and the product.

    Raises:
        ValueError: as `hessian`; r is not a vector.

    >>> gauss_newton_matrix(lambda w: jnp.array([w[0] * w[1], w[1]]), jnp.array([2.0, 3.0])).tolist()
    [[18.0, 12.0], [12.0, 10.0]]
    """
    flat, unravel = ravel_pytree(params)
    shape = jax.eval_shape(lambda w: residual_fn(unravel(w)), flat)
    if shape.ndim != 1:
        raise ValueError(f"residual_fn must give a vector [m], not shape {shape.shape}: ravel it")
    check_fits(len(flat), flat.dtype.itemsize, max_bytes, rows=shape.size)
    _, push = jax.linearize(lambda w: residual_fn(unravel(w)), flat)
    rows = jax.lax.map(push, jnp.eye(len(flat), dtype=flat.dtype), batch_size=min(chunk or 32, len(flat)))
    return 2 * rows @ rows.T


def mlp_hessian(
    layers: Sequence[tuple[Array, Array | None]],
    inputs: Float[Array, "batch d"],
    loss_fn: Callable[[Float[Array, " out"], PyTree], Float[Array, ""]],
    targets: PyTree,
    *,
    activation: Callable[[Array], Array] = jnp.tanh,
    max_bytes: int = MAX_BYTES,
    chunk: int | None = None,
) -> Float[Array, "n n"]:
    """Hessian of the mean over samples of loss_fn(f(x), y), with f a stack of dense layers; faster than `hessian`.

    With z_k = W_k^T h_{k-1} + b_k, h_k = activation(z_k), and h extended by a constant 1 for the bias, a sample adds

        d^2 l / dW_j dW_k = h_{j-1} h_{k-1}^T (x) d^2 l / dz_j dz_k  +  (dh_{k-1} / dz_j) (x) h_{j-1} dl/dz_k   (j < k),

    where derivatives with respect to z are total derivatives with respect to a shift of z. They need one tangent per
    unit instead of one per parameter; the rest is one product of [n_j, batch] and [batch, n_k] per pair of layers.

    Args:
        layers: (kernel [in, out], bias [out] or None) of each layer, first to last; the last is linear.
        inputs: [batch, d].
        loss_fn: (output [out], target of one sample) -> scalar, not divided by the number of samples.
        targets: tree with a leading batch axis.
        activation: elementwise and twice differentiable, applied between layers.
        max_bytes: limit for the matrix and a copy; chunks of samples are chosen to need no more than that.
        chunk: samples processed at once; None = chosen from `max_bytes`, at most 256.

    Returns:
        [n, n] in the order of `layers` (kernel by rows, bias, next layer), as `ravel_pytree` of a list of (kernel,
        bias).

    Raises:
        ValueError: shapes of consecutive layers that do not fit (names the layer); a matrix that exceeds `max_bytes`.

    >>> layers = [(jnp.ones((1, 2)), jnp.zeros(2)), (jnp.ones((2, 1)), None)]
    >>> x, y = jnp.array([[0.5], [1.0]]), jnp.array([0.0, 1.0])
    >>> mlp_hessian(layers, x, lambda f, y: (f[0] - y) ** 2, y).shape
    (6, 6)
    """
    _check_layers(layers, inputs)
    layers = [(jnp.asarray(kernel), bias) for kernel, bias in layers]
    dtype = trees.promoted(inputs, *(kernel for kernel, _ in layers))
    n = sum(kernel.size + (0 if bias is None else bias.size) for kernel, bias in layers)
    check_fits(n, dtype.itemsize, max_bytes)
    units = sum(kernel.shape[1] for kernel, _ in layers)
    if chunk is None:
        # Memory per sample: three tangents per unit, each over all units and layer inputs, and the product's factors.
        wide = units + sum(kernel.shape[0] for kernel, _ in layers) + 1
        chunk = int(np.clip(max_bytes // (dtype.itemsize * (3 * units * wide + 4 * wide**2)), 1, 256))
    count = len(inputs)
    chunk = min(chunk, count)
    parts = -(-count // chunk)
    chunk = -(-count // parts)
    # Pad the last part with copies of the last sample at weight zero: a valid input keeps the loss finite.
    rows = np.minimum(np.arange(parts * chunk), count - 1).reshape(parts, chunk)
    weights = jnp.asarray((np.arange(parts * chunk) < count).reshape(parts, chunk) / count, dtype)

    def add(total, part):
        index, weight = part
        taken = jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], targets)
        return jax.tree.map(jnp.add, total, _part(layers, inputs[index], loss_fn, taken, weight, activation)), None

    sizes = [kernel.size + (0 if bias is None else bias.size) for kernel, bias in layers]
    zero = [[jnp.zeros((sizes[j], sizes[k]), dtype) for k in range(len(sizes)) if k >= j] for j in range(len(sizes))]
    blocks, _ = jax.lax.scan(add, zero, (rows, weights))
    upper = [[blocks[min(j, k)][abs(k - j)] for k in range(len(sizes))] for j in range(len(sizes))]
    return jnp.block([[b if k >= j else b.T for k, b in enumerate(row)] for j, row in enumerate(upper)])


def check_fits(n: int, itemsize: int, max_bytes: int, *, rows: int | None = None) -> None:
    """Check that a dense [n, n] matrix and a copy (or an [n, rows] factor) fit into `max_bytes`.

    Raises:
        ValueError: it exceeds the limit; the message gives the size and alternatives.

    >>> check_fits(100_000, 4, 2**31)
    Traceback (most recent call last):
    ValueError: a dense matrix of 100,000 parameters takes 80.0 GB with its copy, more than max_bytes=2.1 GB: raise \
max_bytes, or take products with it (hessian_product of sbjax.metrics.curvature; sbjax.metrics.spectrum)
    """
    need = itemsize * n * (n + (n if rows is None else rows))
    if need > max_bytes:
        raise ValueError(
            f"a dense matrix of {n:,} parameters takes {need / 1e9:.1f} GB with its copy, more than "
            f"max_bytes={max_bytes / 1e9:.1f} GB: raise max_bytes, or take products with it "
            "(hessian_product of sbjax.metrics.curvature; sbjax.metrics.spectrum)"
        )


def _check_layers(layers, inputs):
    if not layers or inputs.ndim != 2:
        raise ValueError(f"layers ({len(layers)}) must be >= 1 and inputs {inputs.shape} of shape [batch, d]")
    width = inputs.shape[1]
    for i, (kernel, bias) in enumerate(layers):
        if kernel.ndim != 2 or kernel.shape[0] != width or (bias is not None and bias.shape != kernel.shape[1:]):
            shape = None if bias is None else bias.shape
            raise ValueError(
                f"layers[{i}] has kernel {kernel.shape} and bias {shape}: give [{width}, out], matching the previous "
                "layer, and [out] or None"
            )
        width = kernel.shape[1]


def _part(layers, x, loss_fn, targets, weight, activation):
    """Blocks [j][k - j], k >= j, of the weighted sum over one part of the samples."""
    widths = [kernel.shape[1] for kernel, _ in layers]
    splits = np.cumsum([0, *widths])

    def shifted(e):
        """Loss of each sample and the inputs of each layer, with e added to all pre-activations z."""

        def run(e, x, target):
            into = []
            for i, (kernel, bias) in enumerate(layers):
                into.append(x)
                z = x @ kernel + e[splits[i] : splits[i + 1]] + (0 if bias is None else bias)
                x = activation(z) if i < len(layers) - 1 else z
            return loss_fn(x, target), jnp.concatenate(into)

        return jax.vmap(run)(e, x, targets)

    def slopes(e):
        (_, into), pull = jax.vjp(shifted, e)
        return pull((weight, jnp.zeros_like(into)))[0], into

    zero = jnp.zeros((len(x), splits[-1]), x.dtype)
    (delta, into), push = jax.linearize(slopes, zero)
    tangents = jnp.broadcast_to(jnp.eye(splits[-1], dtype=x.dtype)[:, None], (splits[-1], *zero.shape))
    curved, moved = jax.vmap(push)(tangents)  # [unit, batch, unit] and [unit, batch, input of a layer]
    fan_ins = [kernel.shape[0] for kernel, _ in layers]
    starts = np.cumsum([0, *fan_ins])
    inputs = []
    for i, (_, bias) in enumerate(layers):
        h = into[:, starts[i] : starts[i + 1]]
        inputs.append(h if bias is None else jnp.concatenate([h, jnp.ones_like(h[:, :1])], 1))

    def block(j, k):
        rows, columns = slice(splits[j], splits[j + 1]), slice(splits[k], splits[k + 1])
        # The bias is treated as one more input, whose row follows the kernel's rows.
        both = (inputs[j].shape[1], inputs[k].shape[1])
        sides = _outer(inputs[j], inputs[k]).T @ curved[rows, :, columns].transpose(1, 0, 2).reshape(len(x), -1)
        total = sides.reshape(*both, widths[j], widths[k]).transpose(0, 2, 1, 3)
        if k > j:
            change = moved[rows, :, starts[k] : starts[k + 1]].transpose(1, 0, 2).reshape(len(x), -1)
            through = change.T @ _outer(inputs[j], delta[:, columns])  # [unit j x input k, input j x unit k]
            through = through.reshape(widths[j], fan_ins[k], both[0], widths[k]).transpose(2, 0, 1, 3)
            total = total.at[:, :, : fan_ins[k]].add(through)
        return total.reshape(both[0] * widths[j], both[1] * widths[k])

    return [[block(j, k) for k in range(j, len(layers))] for j in range(len(layers))]


def _outer(a: Float[Array, "batch n"], b: Float[Array, "batch m"]) -> Float[Array, "batch nm"]:
    return (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)
