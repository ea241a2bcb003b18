"""Damped Gauss-Newton steps (Levenberg-Marquardt) for losses that are sums of squares.

optimistix has the method as a solver, but its state holds traced programs and the linearisation of the last accepted
point, so that it can be neither checkpointed as arrays nor carried to a new batch; hence one of our own.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from sbjax.optimizers.base import Optimizer, chained, length_unit
from sbjax.optimizers.damping import judge

ResidualFn = Callable[[PyTree], Float[Array, " m"]]


@dataclasses.dataclass(frozen=True)
class GaussNewton(Optimizer):
    """`gauss_newton()`: its damping finds the step length."""

    name: ClassVar[str] = "gauss_newton"
    scheduled: ClassVar[bool] = False
    needs_residuals: ClassVar[bool] = True
    one_gradient: ClassVar[bool] = False
    first_bias_unit = staticmethod(length_unit)

    def make(self, learning_rate: optax.ScalarOrSchedule | None = None) -> optax.GradientTransformationExtraArgs:
        del learning_rate
        return chained(gauss_newton())


class GaussNewtonState(NamedTuple):
    """Damping, and how the last step went.

    Attributes:
        count: updates done.
        rejected: how many of them would have raised the loss and were left out.
        damping: lambda of the next step.
        growth: factor on lambda if the next step is rejected.
        gain: loss reduction of the last step over the one that the linear model promised.
    """

    count: Int[Array, ""]
    rejected: Int[Array, ""]
    damping: Float[Array, ""]
    growth: Float[Array, ""]
    gain: Float[Array, ""]


def gauss_newton(
    *,
    initial_damping: float = 1e-3,
    accelerate: bool = True,
    max_dense_parameters: int = 4_000,
    chunk_bytes: int = 2**28,
    cg_steps: int = 200,
    cg_tol: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Levenberg-Marquardt steps for a loss sum r(w)^2 with residuals r [m] of n parameters w.

    With J = dr/dw [m, n], g = J^T r and r'' the second derivative of r(w + t v) at t = 0, a call tries one step d,

        (J^T J + lambda I) v = -g,    (J^T J + lambda I) a = -J^T r'',    d = v + a / 2 if |a| <= 3/8 |v|, else v,
        gain = (|r(w)|^2 - |r(w + d)|^2) / (|r|^2 - |r + J v|^2),

    where the denominator is |J v|^2 + 2 lambda |v|^2 without cancellation. If the loss falls, d is returned and
    lambda *= max(1/3, 1 - (2 gain - 1)^3). Otherwise the update is zero, lambda *= growth and growth doubles, from 2.
    The second order term a (geodesic acceleration) follows curved valleys, on networks with losses a thousandth and
    less of those without it after as many steps; it costs one more solve with the same factors.
    lambda starts at `initial_damping` times the curvature along the gradient, |J g|^2 / |g|^2, and stays between
    round-off squared and the inverse root of round-off times that. No learning rate.

    Up to `max_dense_parameters`, J is computed by columns (forward mode) if n <= m, else by rows (reverse mode), and v
    comes from the QR factors of [J; sqrt(lambda) I], or of its transpose if m < n, so that the condition number is
    never squared: losses reach 1e-25 and less in double precision. That takes m n numbers and (m + n) min(m, n)^2
    operations. Beyond, v comes from conjugate gradients on products with J and J^T.

    `update` takes `residual_fn`, params -> r [m], besides optax's `value` and `value_fn`, which it does not read: the
    loss is |r|^2, up to a constant factor.

    Args:
        initial_damping: of the first step; small where the start is good.
        accelerate: with the term a; needs residuals that can be differentiated twice in forward mode.
        max_dense_parameters: above it, matrix-free.
        chunk_bytes: how much of J is differentiated at once, times some ten for the intermediate values of a network.
        cg_steps: at most so many products J^T J v a solve.
        cg_tol: conjugate gradients stop when the linear residual is this small against g.

    Raises:
        ValueError: a setting that is not positive; on `update`, no `residual_fn`, or one that gives no vector.

    >>> x = jnp.linspace(0.0, 1.0, 20)
    >>> residual_fn = lambda w: w[0] * jnp.exp(w[1] * x) - 2.0 * jnp.exp(-1.5 * x)
    >>> optimizer = gauss_newton()
    >>> w = jnp.zeros(2)
    >>> state = optimizer.init(w)
    >>> update = jax.jit(lambda w, state: optimizer.update(w, state, w, residual_fn=residual_fn))
    >>> for _ in range(20):
    ...     updates, state = update(w, state)
    ...     w = optax.apply_updates(w, updates)
    >>> [round(float(x), 3) for x in w]
    [2.0, -1.5]

    Source: Marquardt 1963; the rule for lambda, Nielsen 1999, IMM-REP-1999-05; acceleration, Transtrum and Sethna,
    arXiv 1201.5885.
    """
    for name, number in (
        ("initial_damping", initial_damping),
        ("chunk_bytes", chunk_bytes),
        ("cg_steps", cg_steps),
        ("cg_tol", cg_tol),
    ):
        if not number > 0:
            raise ValueError(f"{name}={number} of gauss_newton must be > 0")

    def init(params: PyTree) -> GaussNewtonState:
        dtype = ravel_pytree(params)[0].dtype
        return GaussNewtonState(
            count=jnp.zeros((), jnp.int32),
            rejected=jnp.zeros((), jnp.int32),
            damping=jnp.zeros((), dtype),
            growth=jnp.full((), 2.0, dtype),
            gain=jnp.zeros((), dtype),
        )

    def update(updates, state, params=None, *, residual_fn: ResidualFn | None = None, **extra):
        del updates, extra  # the gradient is J^T r
        if residual_fn is None:
            raise ValueError(
                "gauss_newton needs `residual_fn`, params -> residuals [m] with loss = sum r^2: the task must give its "
                "residuals; for other losses use lbfgs or ssbroyden"
            )
        flat, unravel = ravel_pytree(params)

        def residuals(w):
            r = residual_fn(unravel(w))
            if r.ndim != 1:
                raise ValueError(f"residual_fn of gauss_newton must give a vector [m], not shape {r.shape}")
            return r.astype(flat.dtype)

        eps = jnp.finfo(flat.dtype).eps
        if len(flat) <= max_dense_parameters:
            r, jacobian = _jacobian(residuals, flat, chunk_bytes)

            def push(d):
                return jacobian @ d

            def pull(y):
                return jacobian.T @ y

        else:
            r, push = jax.linearize(residuals, flat)
            transposed = jax.linear_transpose(push, flat)

            def pull(y):
                return transposed(y)[0]

        g = pull(r)
        curvature = jnp.sum(push(g) ** 2) / jnp.maximum(jnp.sum(g**2), jnp.finfo(flat.dtype).tiny)
        damping = jnp.where(state.count == 0, initial_damping * curvature, state.damping)
        damping = jnp.clip(damping, eps**2 * curvature, eps**-0.5 * curvature)
        if len(flat) <= max_dense_parameters:
            solve = _factorise(jacobian, damping)
        else:

            def solve(y):
                def damped(x):
                    return pull(push(x)) + damping * x

                return jax.scipy.sparse.linalg.cg(damped, -pull(y), tol=cg_tol, maxiter=cg_steps)[0]

        v = solve(r)
        d = _accelerated(residuals, flat, v, solve) if accelerate else v
        before, after = jnp.sum(r**2), jnp.sum(residuals(flat + d) ** 2)
        promised = jnp.sum(push(v) ** 2) + 2 * damping * jnp.sum(v**2)
        judged = judge(before, after, promised, damping, state.growth)
        new = GaussNewtonState(
            count=optax.safe_increment(state.count),
            rejected=state.rejected + jnp.where(judged.accepted, 0, 1),
            damping=judged.damping,
            growth=judged.growth,
            gain=judged.gain,
        )
        return unravel(jnp.where(judged.accepted, d, 0.0)), new

    return optax.GradientTransformationExtraArgs(init, update)


def _jacobian(residuals, w: Float[Array, " n"], chunk_bytes: int) -> tuple[Float[Array, " m"], Float[Array, "m n"]]:
    """Residuals and their Jacobian, by columns or rows, whichever are fewer, as many at once as fit `chunk_bytes`."""
    m, n = jax.eval_shape(residuals, w).size, w.size
    chunk = max(1, chunk_bytes // (w.dtype.itemsize * (m + n)))
    if n <= m:
        r, push = jax.linearize(residuals, w)
        return r, _map(push, jnp.eye(n, dtype=w.dtype), chunk).T
    r, pull = jax.vjp(residuals, w)
    return r, _map(lambda y: pull(y)[0], jnp.eye(m, dtype=w.dtype), chunk)


def _map(function, rows, chunk):
    return jax.vmap(function)(rows) if len(rows) <= chunk else jax.lax.map(function, rows, batch_size=chunk)


def _factorise(jacobian: Float[Array, "m n"], damping: Float[Array, ""]) -> Callable[[Array], Array]:
    """y [m] -> -(J^T J + damping I)^-1 J^T y = -J^T (J J^T + damping I)^-1 y, by the smaller of the two QR forms."""
    m, n = jacobian.shape
    tall = jacobian if n <= m else jacobian.T
    q, upper = jnp.linalg.qr(jnp.concatenate([tall, jnp.sqrt(damping) * jnp.eye(min(m, n), dtype=tall.dtype)]))
    q = q[: max(m, n)]
    if n <= m:
        return lambda y: -jax.scipy.linalg.solve_triangular(upper, q.T @ y)
    return lambda y: -q @ jax.scipy.linalg.solve_triangular(upper, y, trans="T")


def _accelerated(residuals, w: Array, v: Array, solve: Callable[[Array], Array]) -> Array:
    def along(x):
        return jax.jvp(residuals, (x,), (v,))[1]

    a = solve(jax.jvp(along, (w,), (v,))[1])
    small = jnp.linalg.norm(a) <= 0.375 * jnp.linalg.norm(v)  # false for NaN
    return v + jnp.where(small, 0.5 * a, 0.0)
