"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner. optax 0.2.8 has none."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from sbjax.common.options import option
from sbjax.optimizers.base import (
    Optimizer,
    b1_option,
    b2_option,
    chained,
    clip_norm_option,
    kernels,
    step_unit,
    weight_decay_option,
)

MAX_PRECONDITION_DIM = 10_000  # as in the published code


@dataclasses.dataclass(frozen=True)
class Soap(Optimizer):
    """`soap` after clipping. The first step sets its bases and moves nothing; b1 = b2 = 0.95 are usual."""

    name: ClassVar[str] = "soap"
    first_bias_unit = staticmethod(step_unit)

    b1: float = b1_option()
    b2: float = b2_option()
    weight_decay: float = weight_decay_option()
    precondition_every: int = option(10, "steps between refreshes of the bases", least=1)
    clip_norm: float = clip_norm_option()

    def make(self, learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
        turned = soap(learning_rate, self.b1, self.b2, self.weight_decay, self.precondition_every, mask=kernels)
        return chained(turned, clip_norm=self.clip_norm)


class SoapState(NamedTuple):
    """Moments, covariances and eigenbases.

    Attributes:
        count: updates done; the first one only sets the bases, so this is also the number of Adam's next step.
        mean: as params, running mean of the gradient, in the parameters' own coordinates.
        square: as params, running mean of the squared gradient, in the eigenbasis.
        covariances: for each array {axis: [d, d]}, running mean of G G^T with all other axes summed over.
        bases: for each array {axis: [d, d]}, orthonormal columns, estimated eigenvectors in falling order.
    """

    count: Int[Array, ""]
    mean: PyTree
    square: PyTree
    covariances: PyTree
    bases: PyTree


def soap(
    learning_rate: float | optax.Schedule,
    b1: float = 0.95,
    b2: float = 0.95,
    weight_decay: float = 0.0,
    precondition_every: int = 10,
    max_precondition_dim: int = MAX_PRECONDITION_DIM,
    *,
    eps: float = 1e-8,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SOAP with a learning rate and decoupled weight decay.

        w' = w - learning_rate (direction + weight_decay w), see `scale_by_soap`.

    Args:
        learning_rate: a number or a schedule of the calls.
        weight_decay: as in AdamW; not applied on the first call, which leaves the parameters as they are.
        mask: where to decay, as `optax.adamw` takes it; None = everywhere.

    Raises:
        ValueError: as `scale_by_soap`.

    >>> optimizer = soap(optax.cosine_decay_schedule(0.3, 100))
    >>> value_fn = lambda w: jnp.sum((jnp.array([[2.0, 1.0], [1.0, 3.0]]) @ w - 1.0) ** 2)
    >>> w = jnp.ones((2, 2))
    >>> state = optimizer.init(w)
    >>> update = jax.jit(optimizer.update)
    >>> for _ in range(100):
    ...     updates, state = update(jax.grad(value_fn)(w), state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> bool(value_fn(w) < 1e-2)
    True

    Source: Vyas et al., arXiv 2409.11321.
    """
    direction = scale_by_soap(b1, b2, precondition_every, max_precondition_dim, eps=eps)
    decay = optax.add_decayed_weights(weight_decay, mask)
    rate = optax.scale_by_learning_rate(learning_rate)

    def init(params):
        return direction.init(params), decay.init(params), rate.init(params)

    def update(updates, state, params=None, **extra):
        del extra
        first = state[0].count == 0
        updates, soap_state = direction.update(updates, state[0], params)
        decayed, decay_state = decay.update(updates, state[1], params)
        updates = jax.tree.map(lambda with_decay, u: jnp.where(first, u, with_decay), decayed, updates)
        updates, rate_state = rate.update(updates, state[2], params)
        return updates, (soap_state, decay_state, rate_state)

    return optax.GradientTransformationExtraArgs(init, update)


def scale_by_soap(
    b1: float = 0.95,
    b2: float = 0.95,
    precondition_every: int = 10,
    max_precondition_dim: int = MAX_PRECONDITION_DIM,
    *,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Directions of Adam in a slowly turning eigenbasis.

    For a matrix with gradient G [d, e], bases L [d, d] and R [e, e], at the t-th call after the first,

        M = b1 M + (1 - b1) G,    V = b2 V + (1 - b2) (L^T G R)^2,
        direction = L [(L^T M R) / (sqrt(V) + eps)] R^T  sqrt(1 - b2^t) / (1 - b1^t),
        C_L = b2 C_L + (1 - b2) G G^T,    C_R = b2 C_R + (1 - b2) G^T G,

    and when `precondition_every` divides t, after the step, the columns of L are sorted by diag(L^T C_L L), V likewise,
    and L = Q factor of C_L L (one power iteration); R likewise. Arrays of more axes have one basis an axis. Arrays of
    less than two axes, and axes longer than `max_precondition_dim`, are not turned: there it is Adam.

    The first call returns zeros, for all arrays, and sets L and R to the eigenvectors of G G^T and G^T G, as the
    published code does: so the gradient of a step never shapes the basis that it is projected on.

    Cost: two d x d arrays an axis; the eigenvectors and QR factors run in a branch that is not taken between
    refreshes, also under `vmap` (one replica that is due makes all compute, and only those that are due change).

    Raises:
        ValueError: an interval below 1.

    Source: Vyas et al., arXiv 2409.11321, algorithm 3, and https://github.com/nikhilvyas/SOAP.
    """
    if precondition_every < 1:
        raise ValueError(f"precondition_every={precondition_every} must be >= 1 step")

    def matrices(params, make):
        def of_one(leaf):
            # An axis of length 1 has nothing to turn.
            axes = [axis for axis, d in enumerate(leaf.shape) if leaf.ndim >= 2 and 1 < d <= max_precondition_dim]
            return {str(axis): make(leaf.shape[axis], dtype=leaf.dtype) for axis in axes}

        return jax.tree.map(of_one, params)

    def init(params: PyTree) -> SoapState:
        return SoapState(
            count=jnp.zeros((), jnp.int32),
            mean=optax.tree.zeros_like(params),
            square=optax.tree.zeros_like(params),
            covariances=matrices(params, lambda d, dtype: jnp.zeros((d, d), dtype)),
            bases=matrices(params, jnp.eye),
        )

    def update(updates, state, params=None, **extra):
        del params, extra
        first = state.count == 0
        treedef = jax.tree.structure(updates)
        parts = [treedef.flatten_up_to(tree) for tree in (updates, *state[1:])]
        moved = [_adam(*leaves, state.count, b1, b2, eps) for leaves in zip(*parts)]
        directions, means, squares, covariances = (list(column) for column in zip(*moved))
        bases = parts[-1]
        bases = jax.lax.cond(
            _anywhere(first),
            lambda: [_choose(first, _eigenbases(c), old) for c, old in zip(covariances, bases)],
            lambda: bases,
        )
        due = ~first & (state.count % precondition_every == 0)
        bases, squares = jax.lax.cond(
            _anywhere(due),
            lambda: _choose(due, _refresh(covariances, bases, squares), (bases, squares)),
            lambda: (bases, squares),
        )
        count = optax.safe_increment(state.count)
        trees = (treedef.unflatten(part) for part in (means, squares, covariances, bases))
        return treedef.unflatten(directions), SoapState(count, *trees)

    return optax.GradientTransformationExtraArgs(init, update)


def _adam(
    grad: Float[Array, "..."], mean: Array, square: Array, covariances: dict, bases: dict, t: Array, b1, b2, eps
) -> tuple[Array, Array, Array, dict]:
    """Direction, moments and covariances of one array; zeros and unchanged moments at t = 0."""
    first = t == 0
    new_mean = jnp.where(first, mean, b1 * mean + (1 - b1) * grad)
    new_square = jnp.where(first, square, b2 * square + (1 - b2) * _turn(grad, bases, 0) ** 2)
    t = jnp.maximum(t, 1).astype(grad.dtype)  # at t = 0 the mean is zero, and this keeps it from 0 / 0
    correction = jnp.sqrt(1 - b2**t) / (1 - b1**t)
    direction = _turn(_turn(new_mean, bases, 0) / (jnp.sqrt(new_square) + eps), bases, 1) * correction
    moved = {}
    for axis, covariance in covariances.items():
        others = [other for other in range(grad.ndim) if other != int(axis)]
        moved[axis] = b2 * covariance + (1 - b2) * jnp.tensordot(grad, grad, (others, others))
    return direction, new_mean, new_square, moved


def _turn(x: Array, bases: dict[str, Array], side: int) -> Array:
    """Into the eigenbasis (side 0: contract with rows) or back from it (side 1: with columns)."""
    for axis, basis in bases.items():
        x = jnp.moveaxis(jnp.tensordot(x, basis, (int(axis), side)), -1, int(axis))
    return x


def _eigenbases(covariances: dict[str, Array]) -> dict[str, Array]:
    return {axis: jnp.linalg.eigh(c)[1][:, ::-1] for axis, c in covariances.items()}


def _refresh(covariances: list[dict], bases: list[dict], squares: list[Array]) -> tuple[list[dict], list[Array]]:
    """One power iteration of every basis, and the squares in the new order of its columns."""
    new_bases, new_squares = [], []
    for covariance, basis, square in zip(covariances, bases, squares):
        turned = {}
        for axis, q in basis.items():
            power = covariance[axis] @ q
            order = jnp.argsort(-jnp.sum(q * power, axis=0))
            square = jnp.take(square, order, axis=int(axis))
            turned[axis] = jnp.linalg.qr(power[:, order])[0]
        new_bases.append(turned)
        new_squares.append(square)
    return new_bases, new_squares


def _choose(flag: Bool[Array, ""], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), new, old)


@jax.custom_batching.custom_vmap
def _anywhere(flag: Bool[Array, ""]) -> Bool[Array, ""]:
    """The flag; under `vmap`, whether it is set in any replica, as one unbatched value.

    `cond` on a batched flag would compute both branches at every step.
    """
    return flag


@_anywhere.def_vmap
def _anywhere_of_batch(axis_size, in_batched, flag):
    del axis_size
    return _anywhere(jnp.any(flag, axis=0) if in_batched[0] else flag), False
