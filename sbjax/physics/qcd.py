"""Thermodynamics of quasi-partons: free quarks and gluons with temperature-dependent masses.

Temperatures, masses and chemical potentials are in GeV; densities are made dimensionless by powers of T, and `to_fm`
converts them to GeV/fm^3 and 1/fm^3. All functions are pure and differentiable to any order.

Source: arXiv 2211.07994. Susceptibilities and finite density: `sbjax.physics.finite_density`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from sbjax import trees

SPECIES = ("ud", "s", "g")
"""Order of the masses: up and down quarks (degenerate), strange quarks, gluons."""

DEGENERACIES = (24, 12, 16)
"""Flavours x (quark, antiquark) x spins x colours: 2 2 2 3, 1 2 2 3; gluons 8 colours x 2 polarisations."""

FREE_PRESSURE = 95 * np.pi**2 / 180
"""P/T^4 of massless partons: pi^2/90 (16 + 7/8 (24 + 12)) = 5.2090."""

HBAR_C = 0.1973269804
"""GeV fm (exact in SI, to ten digits)."""

CUTOFF = 40.0  # upper limit of p/T; e^-40 = 4e-18


class EquationOfState(NamedTuple):
    """Dimensionless densities at vanishing chemical potential, arrays of one shape.

    Attributes:
        pressure: P/T^4.
        energy: eps/T^4.
        entropy: s/T^3.
        anomaly: trace anomaly Delta/T^4 = (eps - 3P)/T^4 = T d(P/T^4)/dT.
        sound_speed_squared: c_s^2 = dP/d eps = (dP/dT)/(d eps/dT).
    """

    pressure: Array
    energy: Array
    entropy: Array
    anomaly: Array
    sound_speed_squared: Array


@functools.cache
def quadrature(nodes: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Int_0^inf f(x) dx for f that decays as e^-x: Gauss-Legendre in u with x = 40 u^2.

    The substitution removes the logarithmic singularity of light bosons at x = 0. With 64 nodes thermal integrals are
    accurate to 1e-12.

    Args:
        nodes: 1 to 128.

    Returns:
        x, w [nodes] in float64; w includes the factor dx/du.

    Raises:
        ValueError: `nodes` is out of range.

    >>> x, w = quadrature(64)
    >>> round(float(w @ np.exp(-x)), 12)
    1.0
    """
    if not 1 <= nodes <= 128:
        raise ValueError(f"nodes={nodes} must lie in 1 to 128; 64 give 12 digits")
    u, w = np.polynomial.legendre.leggauss(nodes)
    u, w = (u + 1) / 2, w / 2
    return CUTOFF * u**2, 2 * CUTOFF * u * w


def scaled_pressure(
    T: Float[ArrayLike, "*shape"],
    masses: Float[ArrayLike, "*shape 3"],
    mu_B: Float[ArrayLike, "*shape"] | None = None,
    *,
    nodes: int = 64,
) -> Float[Array, "*shape"]:
    """P/T^4 = (ln Z/V)/T^3 of the quasi-partons.

        ln Z_q / V = d_q/(2 pi^2) Int p^2 ln(1 + e^{-E/T}) dp,   ln Z_g / V = -d_g/(2 pi^2) Int p^2 ln(1 - e^{-E/T}) dp

    with E = sqrt(p^2 + m^2), by quadrature in p/T. With `mu_B`, E becomes E - mu_B/3 for quarks and E + mu_B/3 for
    antiquarks.

    Args:
        T: temperatures in GeV, positive.
        masses: GeV, in the order of `SPECIES`.
        mu_B: baryon chemical potential in GeV; None = 0, at half the cost.
        nodes: number of quadrature nodes, see `quadrature`.

    Raises:
        ValueError: T that is not positive (checked outside `jit` only); masses whose last axis is not 3.

    >>> round(float(scaled_pressure(0.2, jnp.zeros(3))), 3), round(FREE_PRESSURE, 3)
    (5.209, 5.209)

    Source: arXiv 2211.07994; degeneracies of the authors' code.
    """
    check_temperature(T)
    T, masses = jnp.asarray(T), jnp.asarray(masses)
    if masses.shape[-1:] != (3,):
        raise ValueError(f"masses has shape {masses.shape}; its last axis holds the three of {', '.join(SPECIES)}")
    dtype = _float_type(T, masses, *(() if mu_B is None else (mu_B,)))
    x, weights = (jnp.asarray(part, dtype) for part in _nodes_and_weights(nodes))
    ratio = (masses.astype(dtype) / T.astype(dtype)[..., None])[..., None]
    energy = jnp.sqrt(trees.along(x, ratio) ** 2 + ratio**2)  # E/T [*shape, 3, nodes]
    quark, gluon = energy[..., :2, :], energy[..., 2, :]
    if mu_B is None:
        fermions = jnp.log1p(jnp.exp(-quark))
    else:
        shift = (jnp.asarray(mu_B, dtype) / (3 * T.astype(dtype)))[..., None, None]
        # logaddexp gives ln(1 + e^(mu - E)) without overflow.
        fermions = (jnp.logaddexp(0.0, shift - quark) + jnp.logaddexp(0.0, -shift - quark)) / 2
    bosons = -jnp.log1p(-jnp.exp(-gluon))
    logarithms = jnp.concatenate([fermions, bosons[..., None, :]], -2)
    return jnp.sum(logarithms * trees.along(weights, logarithms), (-2, -1))


def _float_type(*arrays):
    """The dtype of a result, float32 or wider. Arrays that are all weakly typed keep theirs; with float32 as a further
    operand they would become that."""
    return trees.wide_dtype(trees.promoted(*arrays))


def _nodes_and_weights(nodes):
    """Nodes x [nodes] and weights d x^2 w / (2 pi^2) [3, nodes], with degeneracies d."""
    x, w = quadrature(nodes)
    return x, np.array(DEGENERACIES)[:, None] * (x**2 * w) / (2 * np.pi**2)


def log_partition(
    T: Float[ArrayLike, "*shape"],
    masses: Float[ArrayLike, "*shape 3"],
    mu_B: Float[ArrayLike, "*shape"] | None = None,
    *,
    nodes: int = 64,
) -> Float[Array, "*shape"]:
    """ln Z / V = P/T in GeV^3. Arguments and errors as `scaled_pressure`."""
    return scaled_pressure(T, masses, mu_B, nodes=nodes) * jnp.asarray(T) ** 3


def pressure_and_anomaly(
    pressure_fn: Callable[[Array], Array], T: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """P/T^4 and Delta/T^4 = T d(P/T^4)/dT, by one forward-mode derivative for all temperatures.

    Args:
        pressure_fn: T -> P/T^4, elementwise. Compute T-dependent masses inside: the total derivative then makes
            s = dP/dT hold by construction.
        T: temperatures in GeV.

    >>> [round(float(x), 4) for x in pressure_and_anomaly(lambda T: T**2, jnp.asarray(0.5))]
    [0.25, 0.5]
    """
    return jax.jvp(pressure_fn, (T,), (T,))


def equation_of_state(pressure_fn: Callable[[Array], Array], T: Float[ArrayLike, "*shape"]) -> EquationOfState:
    """All densities from p = P/T^4 as a function of T and its derivatives D p, D^2 p with D = T d/dT.

        Delta/T^4 = D p,  eps/T^4 = 3p + D p,  s/T^3 = 4p + D p,  c_s^2 = (4p + D p) / (12 p + 7 D p + D^2 p)

    Args:
        pressure_fn: T -> P/T^4, elementwise.
        T: temperatures in GeV, positive.

    Raises:
        ValueError: T that is not positive (checked outside `jit` only).

    >>> gas = equation_of_state(lambda T: scaled_pressure(T, jnp.zeros((*T.shape, 3))), jnp.array([0.2]))
    >>> round(float(gas.sound_speed_squared[0]), 4)  # massless: 1/3
    0.3333
    """
    check_temperature(T)
    T = jnp.asarray(T)
    T = T.astype(trees.wide_dtype(T.dtype))
    (p, dp), (_, ddp) = jax.jvp(lambda t: pressure_and_anomaly(pressure_fn, t), (T,), (T,))
    return EquationOfState(p, 3 * p + dp, 4 * p + dp, dp, (4 * p + dp) / (12 * p + 7 * dp + ddp))


def to_fm(eos: EquationOfState, T: Float[ArrayLike, "*shape"]) -> EquationOfState:
    """Convert dimensionless densities: pressure, energy and trace anomaly to GeV/fm^3, entropy to 1/fm^3.

    >>> eos = EquationOfState(*(jnp.ones(()) for _ in range(5)))
    >>> round(float(to_fm(eos, 0.2).pressure), 4)  # 0.2^4 / 0.19733^3
    0.2082
    """
    check_temperature(T)
    T = jnp.asarray(T)
    energy, number = T**4 / HBAR_C**3, T**3 / HBAR_C**3
    return EquationOfState(
        eos.pressure * energy, eos.energy * energy, eos.entropy * number, eos.anomaly * energy, eos.sound_speed_squared
    )


def tied_masses(
    T: Float[ArrayLike, "*shape"],
    pressure: Float[ArrayLike, "*shape"],
    *,
    nodes: int = 64,
    strange: float = 0.09,
    gluon: float = 1.5,
) -> Float[Array, "*shape 3"]:
    """Masses that reproduce a pressure under m_s = m_ud + `strange` and m_g = `gluon` m_ud, by bisection.

    The equation of state alone does not determine three masses; with these relations at all temperatures it does. (The
    training loss imposes them at high temperatures only.)

    Args:
        T: temperatures in GeV, positive.
        pressure: P/T^4, between the values at m_ud = 20 T and at m_ud = 0.
        nodes: number of quadrature nodes, see `quadrature`.
        strange: m_s - m_ud in GeV.
        gluon: m_g / m_ud; in thermal perturbation theory sqrt(3/2 (N_c/3 + N_f/6)) = 1.5 for 3 colours and flavours.

    Raises:
        ValueError: T that is not positive, or a pressure out of range (checked outside `jit` only).

    >>> masses = tied_masses(0.2, 1.6224)
    >>> [round(float(m), 2) for m in masses]
    [0.48, 0.57, 0.72]
    """
    check_temperature(T)
    T, pressure = jnp.broadcast_arrays(jnp.asarray(T), jnp.asarray(pressure))
    dtype = _float_type(T, pressure)
    T, pressure = T.astype(dtype), pressure.astype(dtype)

    def masses(light):
        return jnp.stack([light, light + strange, gluon * light], -1)

    def excess(light):
        return scaled_pressure(T, masses(light), nodes=nodes) - pressure

    low, high = jnp.zeros_like(T), 20 * T
    if not isinstance(T, jax.core.Tracer) and not isinstance(pressure, jax.core.Tracer):
        missed = ~np.asarray((excess(low) > 0) & (excess(high) < 0))
        if missed.any():
            raise ValueError(
                f"pressure={float(np.asarray(pressure)[missed].ravel()[0]):g} (P/T^4) cannot be reached by any masses; "
                f"give one in (0, {float(np.min(np.asarray(excess(low) + pressure))):.4g})"
            )

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        above = excess(middle) > 0
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    low, high = jax.lax.fori_loop(0, jnp.finfo(dtype).nmant + 4, halve, (low, high))
    return masses((low + high) / 2)


def check_temperature(T: ArrayLike) -> None:
    """Check that temperatures are positive and finite. Does nothing inside `jit`, where values are unknown.

    Raises:
        ValueError: naming the first invalid one.
    """
    if isinstance(T, jax.core.Tracer):
        return
    T = np.asarray(T)
    wrong = ~(np.isfinite(T) & (T > 0))
    if wrong.any():
        raise ValueError(f"T={T[wrong].ravel()[0]:g} must be a positive temperature in GeV, such as 0.155")
