"""Points where the gradient vanishes to round-off, by damped Gauss-Newton and Newton steps.

They bear the singular Hessians of over-parameterised networks. All of it is one program and maps over seeds; use double
precision. `gauss_newton` is the same idea as an optimiser; they share the rule for the damping, see `damping`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from sbjax.optimizers.damping import judge

CUTOFFS = (1e-5, 1e-7, 1e-9, 1e-11)
MANY = 400  # parameters; from there on a Cholesky factor is several times cheaper than all eigenpairs


class Polished(NamedTuple):
    """A point and how critical it is.

    Attributes:
        params: where the largest entry of the gradient was smallest.
        loss: there.
        gradient: the largest entry there.
        steps: of the first two parts.
    """

    params: PyTree
    loss: Float[Array, ""]
    gradient: Float[Array, ""]
    steps: Int[Array, ""]


def polish(
    residual_fn: Callable[[PyTree], Float[Array, " m"]],
    params: PyTree,
    *,
    jacobian_fn: Callable[[PyTree], Float[Array, "n m"]] | None = None,
    hessian_fn: Callable[[PyTree], Float[Array, "n n"]] | None = None,
    steps: int = 1000,
    newton_steps: int = 300,
    final_steps: int = 20,
    tol: float = 1e-13,
) -> Polished:
    """From a point to a critical one of L = sum r^2, in three parts.

    1. Levenberg-Marquardt, -sum_i u_i (u_i . J^T r) / (lambda_i + damping) over the eigenpairs of J^T J. With residuals
       left it converges linearly. (`sbjax.optimizers.gauss_newton` keeps the condition number by a QR factorisation,
       which takes XLA's CPU backend milliseconds at 1681 rows; Newton steps make up for it here.) With `MANY`
       parameters the same step comes from a Cholesky factor of J^T J + damping, and one that fails is damped more.
    2. Damped Newton, the same with half the Hessian for J^T J and |lambda_i| for lambda_i: quadratic convergence. It
       ends where no step lowers the loss in round-off, which is where |grad L| is some sqrt(eps L |H|).
    3. Newton on the gradient, -sum_i u_i (u_i . g) / lambda_i over |lambda_i| > c max |lambda|, or damped with c in
       place of a cut: of both and all c in `CUTOFFS` the one with the smallest gradient, and none that raises it.
       Alone it ends at the nearest critical point of any kind.

    Args:
        residual_fn: params -> r [m].
        params: tree of floats, some hundred in all.
        jacobian_fn: params -> dr/dw, a row for each entry of `ravel_pytree(params)`; None = forward mode, a pass for
            each parameter. Networks of few outputs have it in one pass.
        hessian_fn: params -> d^2 L / dw^2 in the same order, of the whole L; None = forward over reverse.
        steps: Levenberg-Marquardt steps at most.
        newton_steps: damped Newton steps at most.
        final_steps: Newton steps on the gradient.
        tol: the first two parts end where the largest entry of the gradient is below.

    Returns:
        `Polished`.

    >>> with jax.enable_x64(True):
    ...     found = jax.jit(lambda w: polish(lambda w: jnp.stack([w[0] ** 2 - 2.0, w[1] * w[0]]), w))(jnp.ones(2))
    ...     print(f"{found.params[0]:.6f}", bool(found.gradient < 1e-12))
    1.414214 True

    Source: the rule for the damping, Nielsen 1999, IMM-REP-1999-05.
    """
    flat, unravel = ravel_pytree(params)

    def residuals(w):
        return residual_fn(unravel(w))

    def loss(w):
        return jnp.sum(residuals(w) ** 2)

    slope = jax.grad(loss)

    def size(w):
        found = jnp.max(jnp.abs(slope(w)))
        return jnp.where(jnp.isfinite(found), found, jnp.inf)

    def searching(most, carry):
        step, w, _, _, stuck = carry
        return (step < most) & (size(w) > tol) & (stuck < 40)

    def gauss_newton(w):
        if jacobian_fn is None:
            r, push = jax.linearize(residuals, w)
            jacobian = jax.vmap(push)(jnp.eye(len(w), dtype=w.dtype))  # [n, m]
        else:
            r, jacobian = residuals(w), jacobian_fn(unravel(w))
        return jnp.sum(r**2), jacobian @ r, jacobian @ jacobian.T

    def full(w):
        if hessian_fn is None:
            g, push = jax.linearize(slope, w)
            matrix = jax.vmap(push)(jnp.eye(len(w), dtype=w.dtype))
        else:
            g, matrix = slope(w), hessian_fn(unravel(w))
        return loss(w), g / 2, (matrix + matrix.T) / 4

    # The damping is relative to the largest eigenvalue or a bound on it, so that no scale has to be guessed.
    def by_eigenpairs(half, matrix, damping):
        values, vectors = jnp.linalg.eigh(matrix)
        values = jnp.abs(values)
        shift, along = damping * jnp.max(values), vectors.T @ half
        return vectors @ (along / (values + shift)), shift

    def by_cholesky(half, matrix, damping):
        shift = damping * jnp.max(jnp.sum(jnp.abs(matrix), axis=1))
        factor = jax.scipy.linalg.cho_factor(matrix + shift * jnp.eye(len(half), dtype=half.dtype), lower=True)
        return jax.scipy.linalg.cho_solve(factor, half), shift

    def search(model, solve, carry):
        step, w, damping, growth, stuck = carry
        before, half, matrix = model(w)
        change, shift = solve(half, matrix, jnp.maximum(damping, jnp.finfo(w.dtype).eps))
        tried = w - change
        after = loss(tried)
        judged = judge(before, after, half @ change + shift * change @ change, damping, growth)
        good = judged.accepted
        stuck = jnp.where(good, 0, stuck + 1)
        return step + 1, jnp.where(good, tried, w), jnp.clip(judged.damping, 1e-16, 1e8), judged.growth, stuck

    zero, first = jnp.zeros((), jnp.int32), jnp.full((), 1e-3, flat.dtype)
    w, taken = flat, zero
    quick = by_cholesky if len(flat) >= MANY else by_eigenpairs
    for model, solve, most in ((gauss_newton, quick, steps), (full, by_eigenpairs, newton_steps)):
        start = (zero, w, first, 2 * jnp.ones_like(first), zero)
        more, w, *_ = jax.lax.while_loop(partial(searching, most), partial(search, model, solve), start)
        taken = taken + more
    cutoffs = jnp.asarray(CUTOFFS, flat.dtype)

    def newton(_, w):
        _, half, matrix = full(w)
        values, vectors = jnp.linalg.eigh(matrix)
        kept = jnp.abs(values) > cutoffs[:, None] * jnp.max(jnp.abs(values))
        along = vectors.T @ half
        exact = jnp.where(kept, along / jnp.where(kept, values, 1.0), 0.0)
        damped = along / (jnp.abs(values) + cutoffs[:, None] * jnp.max(jnp.abs(values)))
        tried = jnp.concatenate([w[None], w - exact @ vectors.T, w - damped @ vectors.T])
        return tried[jnp.argmin(jax.vmap(size)(tried))]

    w = jax.lax.fori_loop(0, final_steps, newton, w)
    return Polished(unravel(w), loss(w), size(w), taken)
