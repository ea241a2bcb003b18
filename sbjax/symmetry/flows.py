"""Gauge symmetry of neural differential equations: dz/dt = F(t, z), z(0) = R(x), and the output Q(z(1)).

- Space: z' = phi(z) gives F'(t, z') = (Dphi F)(t, phi^-1(z')), R' = phi o R, Q' = Q o phi^-1, for any diffeomorphism
  phi.
- Time: t = tau(s) gives F'(s, z) = F(tau(s), z) dtau/ds.

Both leave the output as it is, up to the solver. Explicit Runge-Kutta steps commute with linear phi exactly. A field of
a fixed form, as W -> relu(W z), stays in that form only for those phi that commute with its activation:
`activation_algebra` counts them.

Source: arXiv 2402.02362 (abstract); formulas by the chain rule.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sbjax.common import devices
from sbjax.symmetry.attention_dimension import NullSpace, null_space

Field = Callable[[Float[Array, ""], Float[Array, " d"]], Float[Array, " d"]]
Map = Callable[[Float[Array, " d"]], Float[Array, " d"]]


class Flow(NamedTuple):
    """A field F(t, z), a read-in and a read-out, each of one point, over times [start, end]."""

    field: Field
    read_in: Map
    read_out: Map
    start: float = 0.0
    end: float = 1.0


def in_coordinates(flow: Flow, phi: Map, inverse: Map) -> Flow:
    """The same flow in the coordinates z' = phi(z).

    Args:
        flow: any.
        phi, inverse: a diffeomorphism and its inverse, of one point.

    >>> flow = Flow(lambda t, z: -z, lambda x: x, lambda z: z)
    >>> moved = in_coordinates(flow, lambda z: z**3, lambda z: jnp.cbrt(z))
    >>> float(moved.field(0.0, jnp.array([8.0]))[0])  # z = 2: 3 z^2 (-z)
    -24.0
    """

    def field(t, moved):
        z = inverse(moved)
        return jax.jvp(phi, (z,), (flow.field(t, z),))[1]

    return flow._replace(
        field=field, read_in=lambda x: phi(flow.read_in(x)), read_out=lambda z: flow.read_out(inverse(z))
    )


def in_time(flow: Flow, tau: Callable[[Float[Array, ""]], Float[Array, ""]], start: float, end: float) -> Flow:
    """The same flow in the time s, t = tau(s), which must map [start, end] onto the times of the flow, increasing.

    Raises:
        ValueError: tau does not map the ends onto the ends; not looked at where it depends on traced parameters.

    >>> flow = in_time(Flow(lambda t, z: -z, lambda x: x, lambda z: z), lambda s: s / 2, 0.0, 2.0)
    >>> float(flow.field(0.0, jnp.array([1.0]))[0]), flow.end
    (-0.5, 2.0)
    """
    with jax.ensure_compile_time_eval():  # numbers inside of `jit` too, unless tau has traced parameters
        ends = [tau(jnp.asarray(end, float)) for end in (start, end)]
    known = not any(isinstance(end, jax.core.Tracer) for end in ends)
    ends = [float(end) for end in ends] if known else ends
    if known and not np.allclose(ends, (flow.start, flow.end), rtol=1e-6, atol=1e-6):
        raise ValueError(f"tau maps the ends to {ends}, the flow has times {[flow.start, flow.end]}: they must agree")

    def field(s, z):
        t, rate = jax.jvp(tau, (s,), (jnp.ones_like(s),))
        return flow.field(t, z) * rate

    return flow._replace(field=field, start=start, end=end)


def activation_algebra(activation: Callable[[Array], Array], d: int, *, points: int = 0) -> NullSpace:
    """Matrices X with X sigma(y) = sigma'(y) X y at all y: to first order, what commutes with an activation.

    d for relu (diagonal matrices, which generate positive scales), none for tanh, d^2 for a linear one.

    Computed in double precision whatever jax is set to.

    Raises:
        ValueError: d < 1, too few points, an activation that is not entry by entry or cannot keep double precision.

    >>> [activation_algebra(sigma, 3).dimension for sigma in (jax.nn.relu, jnp.tanh, lambda y: y)]
    [3, 0, 9]
    """
    if d < 1:
        raise ValueError(f"d={d} must be >= 1")
    y = np.random.default_rng(0).normal(size=(points or 4 * d, d))
    with devices.double():
        value, slope = map(np.asarray, jax.jvp(activation, (jnp.asarray(y),), (jnp.ones(y.shape),)))
    if value.dtype != np.float64 or value.shape != y.shape:
        raise ValueError(
            f"activation gives {value.dtype}{list(value.shape)} for float64{list(y.shape)}: ranks need the same"
        )
    rows = np.einsum("ij,pk->pijk", np.eye(d), value) - np.einsum("ij,pi,pk->pijk", np.eye(d), slope, y)
    return null_space(rows.reshape(-1, d * d))
