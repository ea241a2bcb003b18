"""Quasi-partons at finite baryon chemical potential: densities and susceptibilities (arXiv 2501.10012)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from sbjax import trees
from sbjax.physics.qcd import check_temperature, log_partition


class FiniteDensity(NamedTuple):
    """Dimensionless densities at baryon chemical potential mu_B, arrays of one shape.

    Attributes:
        pressure, energy, entropy: as `EquationOfState`, with eps = T s - P + mu_B n_B.
        baryons: n_B/T^3, n_B = dP/dmu_B.
        chi_2: second baryon susceptibility, (1/T) d^2(ln Z/V)/dmu_B^2.
        chi_4: fourth, T d^4(ln Z/V)/dmu_B^4.
    """

    pressure: Array
    energy: Array
    entropy: Array
    baryons: Array
    chi_2: Array
    chi_4: Array


def finite_density(
    masses_fn: Callable[[Array, Array], Array],
    T: Float[ArrayLike, "*shape"],
    mu_B: Float[ArrayLike, "*shape"] = 0.0,
    *,
    nodes: int = 64,
) -> FiniteDensity:
    """Densities and baryon susceptibilities at (T, mu_B), by nested forward differentiation.

    Args:
        masses_fn: (T, mu_B) -> masses [*shape, 3] in GeV, elementwise; it is differentiated too.
        T: temperatures in GeV, positive.
        mu_B: baryon chemical potential in GeV, broadcast to T.
        nodes: number of quadrature nodes, see `qcd.quadrature`.

    Raises:
        ValueError: T that is not positive (checked outside `jit` only).

    >>> gas = jax.jit(lambda T: finite_density(lambda T, mu: jnp.zeros(3), T))(0.2)
    >>> round(float(gas.chi_2), 4), round(float(gas.chi_4), 3)  # massless: 1/3 and 2/(9 pi^2)
    (0.3333, 0.023)

    Source: code of arXiv 2501.10012: mu_q = mu_B/3 for all three flavours.
    """
    check_temperature(T)
    T = jnp.asarray(T)
    T = T.astype(trees.wide_dtype(T.dtype))
    mu = jnp.broadcast_to(jnp.asarray(mu_B, T.dtype), T.shape)

    def log_z(t, mu):
        return log_partition(t, masses_fn(t, mu), mu, nodes=nodes)

    def derivatives(order):
        """Derivatives of ln Z/V with respect to mu up to `order`, as a function of mu."""
        if not order:
            return lambda mu: (log_z(T, mu),)

        def longer(mu):
            values, slopes = jax.jvp(derivatives(order - 1), (mu,), (jnp.ones_like(mu),))
            return (*values, slopes[-1])

        return longer

    z, z1, z2, _, z4 = derivatives(4)(mu)
    _, slope = jax.jvp(lambda t: log_z(t, mu), (T,), (jnp.ones_like(T),))
    p, s, n = z / T**3, (z + T * slope) / T**3, z1 / T**2
    return FiniteDensity(p, s - p + mu * n / T, s, n, z2 / T, z4 * T)
