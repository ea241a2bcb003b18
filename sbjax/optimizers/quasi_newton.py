"""Self-scaled quasi-Newton methods with a dense inverse Hessian, for small networks in double precision.

L-BFGS keeps a few pairs; these keep all of the matrix, n^2 numbers for n parameters, and rescale it at every step. On
physics-informed networks of a few thousand parameters that is what reaches relative errors of 1e-7 and below.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from sbjax.optimizers.base import Optimizer, chained, length_unit

MOST_PARAMETERS = 20_000  # whose matrix takes 3.2 GB in double precision
FAMILIES = ("broyden", "bfgs")


@dataclasses.dataclass(frozen=True)
class SelfScaledBroyden(Optimizer):
    """`self_scaled('broyden')`: a line search finds the step length; for small networks in double precision."""

    name: ClassVar[str] = "ssbroyden"
    scheduled: ClassVar[bool] = False
    one_gradient: ClassVar[bool] = False
    first_bias_unit = staticmethod(length_unit)

    def make(self, learning_rate: optax.ScalarOrSchedule | None = None) -> optax.GradientTransformationExtraArgs:
        del learning_rate
        return chained(self_scaled("broyden"))


@dataclasses.dataclass(frozen=True)
class SelfScaledBfgs(Optimizer):
    """`self_scaled('bfgs')`: likewise."""

    name: ClassVar[str] = "ssbfgs"
    scheduled: ClassVar[bool] = False
    one_gradient: ClassVar[bool] = False
    first_bias_unit = staticmethod(length_unit)

    def make(self, learning_rate: optax.ScalarOrSchedule | None = None) -> optax.GradientTransformationExtraArgs:
        del learning_rate
        return chained(self_scaled("bfgs"))


class SelfScaledState(NamedTuple):
    """Inverse Hessian and the last point.

    Attributes:
        count: 0 before the first call, then 1 + the pairs (s, y) that came from one objective.
        params: [n], flat parameters at the last call.
        grad: [n], flat gradient there.
        inverse: [n, n], approximation of the inverse Hessian.
    """

    count: Int[Array, ""]
    params: Float[Array, " n"]
    grad: Float[Array, " n"]
    inverse: Float[Array, "n n"]


def scale_by_self_scaled(family: str = "broyden") -> optax.GradientTransformationExtraArgs:
    """Directions -H g with a self-scaled update of H.

    With s = x' - x, y = g' - g, h = y^T H y / y^T s, b = s^T H^-1 s / y^T s and a = h b - 1,

        H' = (H - H y y^T H / y^T H y + phi v v^T) / tau + s s^T / y^T s,
        v = sqrt(y^T H y) (s / y^T s - H y / y^T H y).

    'bfgs': phi = 1, tau = min(1, 1 / b). 'broyden': theta = max(theta-, min(theta+, (1 - b) / b)) with
    rho = min(1, h (1 - sqrt(a / (a + 1)))), theta- = (rho - 1) / a, theta+ = 1 / rho;
    phi = (1 - theta) / (1 + a theta); tau = min(1, 1 / b) min(sigma^(1/(1-n)), 1 / theta) for theta > 0, else
    min(min(1, 1 / b) sigma^(1/(1-n)), sigma),
    with sigma = 1 + a theta. H starts as the identity, scaled by y^T s / y^T y before its first update. A pair
    without positive curvature is left out.

    To be followed by a line search that meets the Wolfe conditions, see `self_scaled`. `update` takes `end_grad`: g'
    where it is not the gradient at hand, because the objective has changed since the last call.

    Raises:
        ValueError: an unknown family; on `init`, more than `MOST_PARAMETERS` parameters.

    Source: Al-Baali and Khalfan 2005; for PINNs, Urban, Stefanou and Pons, arXiv 2405.04230, section 3.
    """
    if family not in FAMILIES:
        raise ValueError(f"family={family!r} of self-scaled methods is unknown; known: {', '.join(FAMILIES)}")

    def init(params: PyTree) -> SelfScaledState:
        flat, _ = ravel_pytree(params)
        if len(flat) > MOST_PARAMETERS:
            raise ValueError(
                f"a dense quasi-Newton method keeps a matrix of {len(flat)} x {len(flat)} numbers; at most "
                f"{MOST_PARAMETERS} parameters are allowed: use lbfgs"
            )
        # Distinct buffers: the training step gives its buffers up.
        return SelfScaledState(
            jnp.zeros((), jnp.int32), jnp.array(flat), jnp.zeros_like(flat), jnp.eye(len(flat), dtype=flat.dtype)
        )

    def update(updates, state, params=None, *, end_grad=None, **extra):
        del extra
        grad, unravel = ravel_pytree(updates)
        flat, _ = ravel_pytree(params)
        end = grad if end_grad is None else ravel_pytree(end_grad)[0]
        inverse = jax.lax.cond(
            state.count > 0,
            lambda: _update_inverse(state, flat - state.params, end - state.grad, family),
            lambda: state.inverse,
        )
        direction = -inverse @ grad
        # Round-off can spoil H: then the next steps start afresh from steepest descent.
        downhill = direction @ grad < 0
        inverse = jnp.where(downhill, inverse, jnp.eye(len(flat), dtype=flat.dtype))
        direction = jnp.where(downhill, direction, -grad)
        return unravel(direction), SelfScaledState(state.count + 1, flat, grad, inverse)

    return optax.GradientTransformationExtraArgs(init, update)


def self_scaled(family: str = "broyden", *, max_linesearch_steps: int = 30) -> optax.GradientTransformationExtraArgs:
    """A self-scaled quasi-Newton method with optax's zoom line search, called as `optax.lbfgs` is.

    The objective may change between steps, as when collocation points are drawn anew: a pair is the difference of two
    gradients of the same objective, at the two ends of its line search.

    State: `(SelfScaledState, optax.ScaleByZoomLinesearchState)`.

    >>> optimizer = self_scaled('broyden')
    >>> value_fn = lambda w: jnp.sum((w - jnp.array([1.0, 2.0])) ** 2 * jnp.array([1.0, 10.0]))
    >>> w = jnp.zeros(2)
    >>> state = optimizer.init(w)
    >>> for _ in range(8):
    ...     value, grad = jax.value_and_grad(value_fn)(w)
    ...     updates, state = optimizer.update(grad, state, w, value=value, grad=grad, value_fn=value_fn)
    ...     w = optax.apply_updates(w, updates)
    >>> bool(value_fn(w) < 1e-8)
    True
    """
    direction = scale_by_self_scaled(family)
    search = optax.scale_by_zoom_linesearch(max_linesearch_steps, initial_guess_strategy="one")

    def init(params):
        return direction.init(params), search.init(params)

    def update(updates, state, params=None, *, value, grad, value_fn, **extra):
        del extra  # the line search refuses what it does not know
        updates, direction_state = direction.update(updates, state[0], params, end_grad=state[1].grad)
        updates, search_state = search.update(updates, state[1], params, value=value, grad=grad, value_fn=value_fn)
        return updates, (direction_state, search_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _update_inverse(state: SelfScaledState, s: Array, y: Array, family: str) -> Array:
    ys = y @ s
    tiny = jnp.finfo(s.dtype).tiny
    curved = ys > jnp.finfo(s.dtype).eps * jnp.linalg.norm(s) * jnp.linalg.norm(y)
    ys = jnp.where(curved, ys, 1.0)
    first = state.count == 1
    inverse = jnp.where(first, state.inverse * (ys / jnp.maximum(y @ y, tiny)), state.inverse)
    hy = inverse @ y
    yhy = jnp.maximum(y @ hy, tiny)
    # s = -alpha H g, so that H^-1 s = -alpha g needs no inverse; the first H was rescaled since.
    hg = state.inverse @ state.grad
    alpha = jnp.linalg.norm(s) / jnp.maximum(jnp.linalg.norm(hg), tiny)
    sbs = jnp.where(first, (s @ s) / jnp.maximum(ys / jnp.maximum(y @ y, tiny), tiny), -alpha * (s @ state.grad))
    b = jnp.maximum(sbs / ys, tiny)
    shrink = jnp.minimum(1.0, 1.0 / b)
    if family == "bfgs":
        phi, tau = 1.0, shrink
    else:
        phi, tau = _broyden(yhy / ys, b, shrink, len(s))
    v = jnp.sqrt(yhy) * (s / ys - hy / yhy)
    new = (inverse - jnp.outer(hy, hy) / yhy + phi * jnp.outer(v, v)) / tau + jnp.outer(s, s) / ys
    return jnp.where(curved & jnp.all(jnp.isfinite(new)), new, state.inverse)


def _broyden(h, b, shrink, n):
    """phi and tau of the self-scaled Broyden method."""
    eps = jnp.finfo(h.dtype).eps
    a = jnp.maximum(h * b - 1.0, eps)  # >= 0 by Cauchy and Schwarz
    rho = jnp.clip(h * (1.0 - jnp.sqrt(a / (a + 1.0))), eps, 1.0)
    theta = jnp.maximum((rho - 1.0) / a, jnp.minimum(1.0 / rho, (1.0 - b) / b))
    sigma = jnp.maximum(1.0 + theta * a, eps)
    power = sigma ** (1.0 / (1.0 - n)) if n > 1 else jnp.ones_like(sigma)
    tau = jnp.where(
        theta > 0,
        shrink * jnp.minimum(power, 1.0 / jnp.where(theta > 0, theta, 1.0)),
        jnp.minimum(shrink * power, sigma),
    )
    return (1.0 - theta) / sigma, tau
