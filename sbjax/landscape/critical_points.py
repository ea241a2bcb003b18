"""Certificates of critical points: loss, gradient, and predicted and measured inertia of the Hessian.

Requires double precision, `jax.enable_x64(True)`: zero eigenvalues are distinguished from small ones by a gap of many
orders of magnitude, and with a sigmoid 1e-7 of the largest is an ordinary non-zero eigenvalue.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from sbjax import trees
from sbjax.landscape import splitting
from sbjax.landscape.layered import (
    Activation,
    Loss,
    Network,
    check_data,
    forward,
    hidden_layer,
    mean_squared_error,
    warn_of_symmetry,
)
from sbjax.landscape.manifold import Piece
from sbjax.landscape.splitting import Coefficients, Inertia, Member

MOST_BYTES = 4 * 2**30
"""Default limit for the size of a dense Hessian in bytes."""


class Certificate(NamedTuple):
    """Numerical evidence for a critical point.

    Attributes:
        loss: value of the loss.
        gradient: largest absolute entry of the gradient.
        predicted: inertia predicted by theory; None if there is no prediction.
        measured: inertia of the Hessian at the point.
    """

    loss: float
    gradient: float
    predicted: Inertia | None
    measured: Inertia

    @property
    def nullity_predicted(self) -> int | None:
        """Predicted dimension of the null space of the Hessian."""
        return None if self.predicted is None else self.predicted.zero

    @property
    def nullity_measured(self) -> int:
        """Measured dimension of the null space of the Hessian."""
        return self.measured.zero

    def holds(self, gradient: float = 1e-10) -> bool:
        """Whether the gradient is at most `gradient` and the measured inertia agrees with the prediction, if any."""
        return self.gradient <= gradient and self.predicted in (None, self.measured)


class Derivatives(NamedTuple):
    """Loss and its derivatives with respect to the flat parameters, ordered as by `jax.flatten_util.ravel_pytree`."""

    loss: float
    gradient: Float[np.ndarray, "n"]
    hessian: Float[np.ndarray, "n n"]


def derivatives(
    params: Network,
    x: Float[Array, "n din"],
    y: Float[Array, "n dout"],
    activation: Activation,
    *,
    loss: Loss = mean_squared_error,
    most_bytes: int = MOST_BYTES,
) -> Derivatives:
    """Loss, gradient and dense Hessian in double precision.

    Raises:
        ValueError: data that do not fit the network, single precision, or a Hessian larger than `most_bytes`.

    >>> one = np.ones((1, 1))
    >>> with jax.enable_x64(True):
    ...     found = derivatives({'w': one, 'a': one}, one, one, jnp.square)
    >>> found.hessian.tolist()
    [[2.0, 4.0], [4.0, 8.0]]
    """
    _check(params, x, y)
    n = trees.size(params)
    if 8 * n * n > most_bytes:
        raise ValueError(
            f"the Hessian of {n} parameters takes {8 * n * n / 2**30:.3g} GiB, more than most_bytes="
            f"{most_bytes / 2**30:.3g} GiB: use `lowest_eigenvalues`, which needs no matrix, or raise most_bytes"
        )
    value, gradient, hessian = _derivatives(params, x, y, activation, loss)
    return Derivatives(float(value), np.asarray(gradient), np.asarray(hessian))


def lowest_eigenvalues(
    params: Network,
    x: Float[Array, "n din"],
    y: Float[Array, "n dout"],
    activation: Activation,
    *,
    count: int = 4,
    loss: Loss = mean_squared_error,
) -> Float[np.ndarray, "count"]:
    """The lowest eigenvalues of the Hessian, ascending, by Lanczos on Hessian-vector products.

    A negative one proves a strict saddle. Not suited to determine the nullity, since Lanczos resolves degenerate zero
    eigenvalues slowly.

    Args:
        count: number of eigenvalues, below the number of parameters.

    Raises:
        ValueError: as `derivatives`; `count` out of range.

    >>> with jax.enable_x64(True):
    ...     net = {'w': np.ones((1, 1)), 'a': np.ones((1, 1))}
    ...     lowest_eigenvalues(net, np.ones((1, 1)), np.ones((1, 1)), jnp.square, count=1).round(9) + 0.0
    array([0.])
    """
    _check(params, x, y)
    n = trees.size(params)
    if not 1 <= count < n:
        raise ValueError(f"count={count}: ask for 1 .. {n - 1} eigenvalues of {n} parameters")
    flat, _ = ravel_pytree(params)
    product = lambda v: np.asarray(_hessian_product(params, v.reshape(flat.shape), x, y, activation, loss))  # noqa: E731
    operator = scipy.sparse.linalg.LinearOperator((n, n), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).normal(size=n)
    return np.sort(scipy.sparse.linalg.eigsh(operator, count, which="SA", v0=start, return_eigenvectors=False))


def certify(
    params: Network,
    x: Float[Array, "n din"],
    y: Float[Array, "n dout"],
    activation: Activation,
    *,
    predicted: Inertia | None = None,
    loss: Loss = mean_squared_error,
    rtol: float = 1e-11,
    most_bytes: int = MOST_BYTES,
) -> Certificate:
    """Loss, gradient and inertia at a point.

    Args:
        params: a network of either form, see `layered`.
        x, y: all data.
        predicted: predicted inertia.
        rtol: eigenvalues of at most this fraction of the largest absolute one count as zero.

    Errors as `derivatives`.

    >>> one = np.ones((1, 1))
    >>> with jax.enable_x64(True):
    ...     certify({'w': one, 'a': one}, one, one, jnp.square)
    Certificate(loss=0.0, gradient=0.0, predicted=None, measured=Inertia(negative=0, zero=1, positive=1))
    """
    found = derivatives(params, x, y, activation, loss=loss, most_bytes=most_bytes)
    largest = np.linalg.norm(found.hessian, 2)
    measured = splitting.inertia(found.hessian, tolerance=rtol * largest)
    return Certificate(found.loss, float(np.abs(found.gradient).max()), predicted, measured)


def certified_split(
    narrow: Network,
    piece: Piece,
    coefficients: Coefficients,
    x: Float[Array, "n din"],
    y: Float[Array, "n dout"],
    activation: Activation,
    *,
    layer: int = 0,
    loss: Loss = mean_squared_error,
    rtol: float = 1e-11,
) -> tuple[Member, Certificate]:
    """`splitting.expand` of a critical point, with predicted and measured inertia.

    Args:
        narrow: a critical point. If it is not critical, the certificate shows its gradient and the prediction fails.
        piece, coefficients, layer: as `splitting.expand`.

    Errors as `splitting.expand` and `derivatives`.
    """
    params = splitting.expand(narrow, piece, coefficients, layer=layer)
    before = derivatives(narrow, x, y, activation, loss=loss)
    inner = splitting.inner_matrices(narrow, x, y, activation, layer=layer, loss=loss)
    predicted = splitting.predicted_inertia(before.hessian, inner, coefficients, rtol=rtol)
    member = Member(params, piece, tuple(tuple(map(float, mu)) for mu in coefficients))
    return member, certify(params, x, y, activation, predicted=predicted, loss=loss, rtol=rtol)


def certified_family(
    key: Key[Array, ""],
    narrow: Network,
    m: int,
    x: Float[Array, "n din"],
    y: Float[Array, "n dout"],
    activation: Activation,
    *,
    layer: int = 0,
    scale: float = 1.0,
    loss: Loss = mean_squared_error,
    rtol: float = 1e-11,
) -> Iterator[tuple[Member, Certificate]]:
    """`splitting.critical_family` with certificates: one point on each of the G(r, m) subspaces.

    Errors as `certified_split`.
    """
    for member in splitting.critical_family(key, narrow, m, layer=layer, scale=scale):
        yield certified_split(
            narrow, member.piece, member.coefficients, x, y, activation, layer=layer, loss=loss, rtol=rtol
        )


def certified_minimum(
    params: Network,
    x: Float[Array, "n din"],
    y: Float[Array, "n dout"],
    activation: Activation,
    *,
    rtol: float = 1e-11,
    tolerance: float = 1e-9,
) -> Certificate:
    """Certificate of a zero-loss point of a two-layer network, with the nullity predicted by `zero_loss_nullity`.

    Warns if the activation has a symmetry, for which the predicted nullity may be too small. Errors as `certify` and
    `zero_loss_nullity`.
    """
    warn_of_symmetry(activation, "equivalent units add to the null space, which the prediction does not include")
    nullity = zero_loss_nullity(params, tolerance=tolerance)
    predicted = Inertia(0, nullity, trees.size(params) - nullity)
    return certify(params, x, y, activation, predicted=predicted, rtol=rtol)


def zero_loss_nullity(params: Network, *, tolerance: float = 1e-9) -> int:
    """Predicted nullity of the Hessian at a zero-loss point of {'w': [m, din], 'a': [m, dout]}.

    m (din + dout) - sum over distinct incoming vectors of (dout + din rank{outgoing vectors of the group}). At zero
    loss the Hessian equals the Gauss-Newton matrix, and the features sigma(w . x) and x_j sigma'(w . x) of distinct w
    are linearly independent for activations without symmetries. It can exceed the dimension of the manifold of minima.

    Args:
        params: the network.
        tolerance: relative to the largest entry: incoming vectors within it are equal, singular values of outgoing
            vectors below it are 0.

    Raises:
        ValueError: a network of another form.

    >>> zero_loss_nullity({'w': np.array([[1.0, 2.0], [1.0, 2.0]]), 'a': np.array([[1.0], [1.0]])})
    3
    """
    if set(params) != {"w", "a"}:
        raise ValueError(f"params has the entries {sorted(params)}: the nullity is known for {{'w', 'a'}}")
    w, a = np.asarray(params["w"]), np.asarray(params["a"])
    (m, din), dout = w.shape, a.shape[1]
    scale = np.abs(w).max()
    left, nullity = list(range(m)), m * (din + dout)
    while left:
        group = [unit for unit in left if np.abs(w[unit] - w[left[0]]).max() <= tolerance * scale]
        left = [unit for unit in left if unit not in group]
        rank = np.sum(np.linalg.svd(a[group], compute_uv=False) > tolerance * np.abs(a).max())
        nullity -= dout + din * int(rank)
    return nullity


def _check(params, x, y):
    check_data(params, x, y)
    hidden_layer(params, 0)
    if jnp.result_type(float) != np.float64:
        raise ValueError(
            "jax computes in single precision, too coarse for an inertia: use `with jax.enable_x64(True):`"
        )


def _flat_loss(params, x, y, activation, loss):
    flat, unflatten = ravel_pytree(params)
    return flat, lambda flat: loss(forward(unflatten(flat), x, activation), y)


@partial(jax.jit, static_argnums=(3, 4))
def _derivatives(params, x, y, activation, loss):
    flat, of_flat = _flat_loss(params, x, y, activation, loss)
    gradient = jax.value_and_grad(of_flat)
    value, first = gradient(flat)
    return value, first, jax.jacfwd(lambda flat: gradient(flat)[1])(flat)


@partial(jax.jit, static_argnums=(4, 5))
def _hessian_product(params, vector, x, y, activation, loss):
    flat, of_flat = _flat_loss(params, x, y, activation, loss)
    return jax.jvp(jax.grad(of_flat), (flat,), (vector,))[1]
