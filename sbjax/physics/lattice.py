"""Lattice QCD equations of state with 2 + 1 flavours at vanishing chemical potential: published parametrisations.

`PARAMETRISATIONS` has them as functions of T that give P/T^4; `reference` gives all densities in float64.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from sbjax.physics.qcd import FREE_PRESSURE, EquationOfState, check_temperature, equation_of_state, tied_masses
from sbjax.suggest import near

HOTQCD_ROWS = np.array(
    [
        [0.130, 1.01, 0.439, 2.33, 2.77],
        [0.155, 2.43, 0.726, 4.61, 5.34],
        [0.175, 3.56, 1.094, 6.85, 7.94],
        [0.200, 4.05, 1.613, 8.89, 10.50],
        [0.225, 3.88, 2.083, 10.13, 12.21],
        [0.250, 3.57, 2.476, 10.99, 13.47],
        [0.300, 2.96, 3.072, 12.18, 15.25],
        [0.350, 2.43, 3.487, 12.89, 16.38],
        [0.400, 1.99, 3.782, 13.34, 17.12],
    ]
)
"""Continuum values of the HotQCD collaboration, arXiv 1407.6387: T in GeV, Delta/T^4, P/T^4, eps/T^4, s/T^3."""

_NODES = 200  # of the integral over the trace anomaly


def hotqcd_2014(T: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """P/T^4 of the HotQCD collaboration for T in 0.1 to 0.4 GeV.

        1/2 (1 + tanh(c_t (t - t_0))) (p_id + a_n/t + b_n/t^2 + d_n/t^4) / (1 + a_d/t + b_d/t^2 + d_d/t^4)

    with t = T/0.154 GeV and p_id = 95 pi^2/180. Below 0.045 GeV the denominator has a root.

    >>> round(float(hotqcd_2014(0.2)), 3)
    1.622

    Source: arXiv 1407.6387, eq. 16 and Table II.
    """
    t = jnp.asarray(T) / 0.154
    above = FREE_PRESSURE - 8.7704 / t + 3.9200 / t**2 + 0.3419 / t**4
    below = 1 - 1.2600 / t + 0.8425 / t**2 - 0.0475 / t**4
    return (1 + jnp.tanh(3.8706 * (t - 0.9761))) / 2 * above / below


def _wuppertal_budapest(T, *, f0, f1, f2, g1, g2):
    """P/T^4 = Int_0^T (Delta/T'^4) dT'/T', with Delta/T^4 = e^{-h1/t - h2/t^2} (h0 + f0 (tanh(f1 t + f2) + 1) / (1 +
    g1 t + g2 t^2)), t = T/0.2 GeV."""
    T = jnp.asarray(T)
    u, w = np.polynomial.legendre.leggauss(_NODES)
    u, w = (jnp.asarray(part, jnp.promote_types(T.dtype, jnp.float32)) for part in ((u + 1) / 2, w / 2))
    t = T[..., None] * u / 0.2
    hadrons = jnp.exp(0.1800 / t - 0.0350 / t**2)
    anomaly = hadrons * (0.1396 + f0 * (jnp.tanh(f1 * t + f2) + 1) / (1 + g1 * t + g2 * t**2))
    return jnp.sum(anomaly * w / u, -1)


def wuppertal_budapest_2010(T: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """P/T^4 of the Wuppertal-Budapest collaboration, by integration of their trace anomaly.

    >>> round(float(wuppertal_budapest_2010(0.2)), 3)
    1.651

    Source: arXiv 1007.2580.
    """
    return _wuppertal_budapest(T, f0=2.76, f1=6.79, f2=-5.29, g1=-0.47, g2=1.04)


def wuppertal_budapest_2013(T: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """As `wuppertal_budapest_2010`, of their later continuum limit.

    >>> round(float(wuppertal_budapest_2013(0.2)), 3)
    1.602

    Source: arXiv 1309.5258.
    """
    return _wuppertal_budapest(T, f0=1.05, f1=6.39, f2=-4.72, g1=-0.92, g2=0.57)


PARAMETRISATIONS: dict[str, Callable[[Array], Array]] = {
    "hotqcd_2014": hotqcd_2014,
    "wuppertal_budapest_2010": wuppertal_budapest_2010,
    "wuppertal_budapest_2013": wuppertal_budapest_2013,
}

VALID = (0.1, 0.4)
"""GeV: where the parametrisations stand for lattice data."""


def reference(name: str, T: Float[ArrayLike, "*shape"]) -> EquationOfState:
    """All densities of a parametrisation, computed in float64 whatever the precision of the caller.

    Args:
        name: of `PARAMETRISATIONS`.
        T: concrete, GeV.

    Returns:
        numpy arrays in float64.

    Raises:
        ValueError: an unknown name; T outside `VALID`.

    >>> round(float(reference('hotqcd_2014', 0.155).anomaly), 4)
    2.4482
    """
    check_name(name)
    check_temperature(T)
    T = np.asarray(T, np.float64)
    lower, upper = VALID
    outside = np.clip(T, lower, upper) != T
    if outside.any():
        raise ValueError(
            f"T={T[outside].ravel()[0]:g} GeV lies outside the lattice data of {name}; give {lower} to {upper}"
        )
    with jax.enable_x64(True):
        return EquationOfState(*map(np.asarray, _all(name)(T)))


@functools.cache
def _all(name):
    return jax.jit(lambda T: equation_of_state(PARAMETRISATIONS[name], T))


def reference_masses(name: str, T: Float[ArrayLike, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """`tied_masses` of a parametrisation in float64. Arguments and errors as `reference`."""
    pressure = reference(name, T).pressure
    with jax.enable_x64(True):
        return np.asarray(_tied_masses(np.asarray(T, np.float64), pressure))


_tied_masses = jax.jit(tied_masses)


def check_name(name: str) -> None:
    """Refuse an unknown parametrisation.

    Raises:
        ValueError: naming it and those there are.
    """
    if name not in PARAMETRISATIONS:
        raise ValueError(
            f"parametrisation {name!r} is unknown{near(name, PARAMETRISATIONS)}; known: {', '.join(PARAMETRISATIONS)}"
        )
