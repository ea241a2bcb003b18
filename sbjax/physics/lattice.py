"""Lattice QCD equations of state with 2 + 1 flavours at vanishing chemical potential.

`PARAMETRISATIONS` holds published fits of P/T^4 as functions of T; `reference` returns all densities in float64, from a
fit or from splines through the lattice points.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from sbjax import trees
from sbjax.common import devices
from sbjax.common.names import near
from sbjax.physics.qcd import FREE_PRESSURE, EquationOfState, check_temperature, equation_of_state, tied_masses

HOTQCD_ROWS = np.array(
    [
        [0.13, 1.01, 0.439, 2.33, 2.77, 0.168], [0.135, 1.21, 0.481, 2.65, 3.13, 0.153],
        [0.14, 1.46, 0.529, 3.05, 3.58, 0.146], [0.145, 1.76, 0.586, 3.52, 4.11, 0.144],
        [0.15, 2.09, 0.651, 4.05, 4.7, 0.144], [0.155, 2.43, 0.726, 4.61, 5.34, 0.148],
        [0.16, 2.76, 0.808, 5.19, 6, 0.153], [0.165, 3.07, 0.898, 5.76, 6.66, 0.159],
        [0.17, 3.34, 0.994, 6.32, 7.32, 0.167], [0.175, 3.56, 1.094, 6.85, 7.94, 0.176],
        [0.18, 3.74, 1.197, 7.33, 8.53, 0.185], [0.185, 3.88, 1.302, 7.78, 9.08, 0.194],
        [0.19, 3.97, 1.406, 8.19, 9.6, 0.202], [0.195, 4.03, 1.51, 8.56, 10.07, 0.21],
        [0.2, 4.05, 1.613, 8.89, 10.5, 0.218], [0.205, 4.05, 1.713, 9.19, 10.9, 0.225],
        [0.21, 4.03, 1.81, 9.46, 11.27, 0.232], [0.215, 3.99, 1.904, 9.7, 11.61, 0.238],
        [0.22, 3.94, 1.995, 9.93, 11.92, 0.243], [0.225, 3.88, 2.083, 10.13, 12.21, 0.247],
        [0.23, 3.82, 2.168, 10.32, 12.49, 0.251], [0.235, 3.76, 2.249, 10.5, 12.75, 0.254],
        [0.24, 3.69, 2.328, 10.68, 13, 0.256], [0.245, 3.63, 2.403, 10.84, 13.24, 0.259],
        [0.25, 3.57, 2.476, 10.99, 13.47, 0.261], [0.255, 3.5, 2.546, 11.14, 13.68, 0.264],
        [0.26, 3.44, 2.613, 11.28, 13.89, 0.266], [0.265, 3.38, 2.678, 11.41, 14.09, 0.268],
        [0.27, 3.32, 2.741, 11.54, 14.28, 0.27], [0.275, 3.26, 2.801, 11.66, 14.46, 0.272],
        [0.28, 3.2, 2.859, 11.77, 14.63, 0.274], [0.285, 3.14, 2.915, 11.88, 14.8, 0.276],
        [0.29, 3.08, 2.969, 11.99, 14.95, 0.278], [0.295, 3.02, 3.021, 12.08, 15.11, 0.28],
        [0.3, 2.96, 3.072, 12.18, 15.25, 0.282], [0.305, 2.91, 3.12, 12.27, 15.39, 0.283],
        [0.31, 2.85, 3.167, 12.35, 15.52, 0.285], [0.315, 2.79, 3.212, 12.43, 15.64, 0.286],
        [0.32, 2.74, 3.256, 12.51, 15.76, 0.288], [0.325, 2.69, 3.298, 12.58, 15.88, 0.289],
        [0.33, 2.63, 3.338, 12.65, 15.99, 0.291], [0.335, 2.58, 3.377, 12.71, 16.09, 0.292],
        [0.34, 2.53, 3.415, 12.78, 16.19, 0.293], [0.345, 2.48, 3.452, 12.83, 16.29, 0.294],
        [0.35, 2.43, 3.487, 12.89, 16.38, 0.296], [0.355, 2.38, 3.521, 12.94, 16.47, 0.297],
        [0.36, 2.33, 3.554, 13, 16.55, 0.298], [0.365, 2.29, 3.586, 13.04, 16.63, 0.299],
        [0.37, 2.24, 3.617, 13.09, 16.71, 0.3], [0.375, 2.2, 3.647, 13.14, 16.78, 0.301],
        [0.38, 2.15, 3.675, 13.18, 16.85, 0.302], [0.385, 2.11, 3.703, 13.22, 16.92, 0.302],
        [0.39, 2.07, 3.73, 13.26, 16.99, 0.303], [0.395, 2.03, 3.756, 13.3, 17.05, 0.304],
        [0.4, 1.99, 3.782, 13.34, 17.12, 0.304],
    ]
)  # fmt: skip
"""Continuum values of the HotQCD collaboration, arXiv 1407.6387: T in GeV, Delta/T^4, P/T^4, eps/T^4, s/T^3, c_s^2.

Steps of 5 MeV from 0.13 to 0.4 GeV, with the printed digits. `hotqcd_2014` is a fit to the same data; from 0.155 GeV on
its pressure is up to 0.72 % above the table.
"""

_NODES = 200  # quadrature nodes of the integral over the trace anomaly
_BLOCK = 256  # temperatures per compiled call


def hotqcd_2014(T: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """P/T^4 of the HotQCD collaboration for T from 0.1 to 0.4 GeV.

        1/2 (1 + tanh(c_t (t - t_0))) (p_id + a_n/t + b_n/t^2 + d_n/t^4) / (1 + a_d/t + b_d/t^2 + d_d/t^4)

    with t = T/0.154 GeV and p_id = 95 pi^2/180. The denominator has a root below 0.045 GeV.

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
    T = T.astype(trees.wide_dtype(T.dtype))[..., None]
    u, w = np.polynomial.legendre.leggauss(_NODES)
    u, w = (trees.along(jnp.asarray(part, T.dtype), T) for part in ((u + 1) / 2, w / 2))
    t = T * u / 0.2
    hadrons = jnp.exp(0.1800 / t - 0.0350 / t**2)
    anomaly = hadrons * (0.1396 + f0 * (jnp.tanh(f1 * t + f2) + 1) / (1 + g1 * t + g2 * t**2))
    return jnp.sum(anomaly * w / u, -1)


def wuppertal_budapest_2010(T: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """P/T^4 of the Wuppertal-Budapest collaboration, integrated from their trace anomaly.

    >>> round(float(wuppertal_budapest_2010(0.2)), 3)
    1.651

    Source: arXiv 1007.2580.
    """
    return _wuppertal_budapest(T, f0=2.76, f1=6.79, f2=-5.29, g1=-0.47, g2=1.04)


def wuppertal_budapest_2013(T: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """As `wuppertal_budapest_2010`, with the later continuum limit.

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

POINTS = "hotqcd_points"
"""Name of the reference that interpolates `HOTQCD_ROWS`, each density by a cubic spline."""

NAMES = (*PARAMETRISATIONS, POINTS)

VALID = {POINTS: (0.13, 0.4)} | dict.fromkeys(PARAMETRISATIONS, (0.1, 0.4))
"""Range of the lattice data in GeV, by name."""


def reference(name: str, T: Float[ArrayLike, "*shape"]) -> EquationOfState:
    """All densities of a parametrisation or of the lattice points, in float64 for any jax precision.

    For the points, identities such as eps = 3P + Delta hold to the rounding of the table, a few 1e-3.

    Args:
        name: a name of `NAMES`.
        T: concrete temperatures in GeV.

    Returns:
        numpy arrays in float64.

    Raises:
        ValueError: an unknown name; T outside `VALID`.

    >>> round(float(reference('hotqcd_2014', 0.155).anomaly), 4)
    2.4482
    >>> round(float(reference(POINTS, 0.155).anomaly), 4)
    2.43
    """
    check_name(name)
    check_temperature(T)
    T = np.asarray(T, np.float64)
    lower, upper = VALID[name]
    outside = np.clip(T, lower - 1e-12, upper + 1e-12) != T
    if outside.any():
        raise ValueError(
            f"T={T[outside].ravel()[0]:g} GeV lies outside the lattice data of {name}; give {lower} to {upper}"
        )
    if name == POINTS:
        anomaly, pressure, energy, entropy, sound = np.moveaxis(_spline()(T), -1, 0)
        return EquationOfState(pressure, energy, entropy, anomaly, sound)
    with devices.double():
        return EquationOfState(*_in_blocks(_all(name), T))


@functools.cache
def _spline():
    from scipy.interpolate import CubicSpline

    return CubicSpline(HOTQCD_ROWS[:, 0], HOTQCD_ROWS[:, 1:])


@functools.cache
def _all(name):
    return jax.jit(lambda T: equation_of_state(PARAMETRISATIONS[name], T))


def reference_masses(name: str, T: Float[ArrayLike, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """`tied_masses` for the pressure of a parametrisation, in float64. Arguments and errors as `reference`."""
    pressure = reference(name, T).pressure
    with devices.double():
        (masses,) = _in_blocks(_tied_masses, np.asarray(T, np.float64), pressure)
    return masses


_tied_masses = jax.jit(lambda T, pressure: (tied_masses(T, pressure),))


def _in_blocks(function, *arrays):
    """Apply an elementwise jitted function to arrays of one shape, padded to whole blocks to limit the number of
    compilations."""
    shape, size = arrays[0].shape, arrays[0].size
    found = function(*(np.resize(array, -(-size // _BLOCK) * _BLOCK) for array in arrays))
    return [np.asarray(part)[:size].reshape((*shape, *part.shape[1:])) for part in found]


def check_name(name: str) -> None:
    """Check the name of a parametrisation.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name not in NAMES:
        raise ValueError(f"parametrisation {name!r} is unknown{near(name, NAMES)}; known: {', '.join(NAMES)}")
