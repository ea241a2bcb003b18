"""sRGB and CIELAB, both ways, exactly and with finite gradients.

sRGB (IEC 61966-2-1) is decoded to linear light, taken to CIE XYZ by the matrix that follows from the chromaticities of
its primaries and of its white (ITU-R BT.709, D65), and from there to L*, a*, b* (CIE 15:2004) with respect to that
white, so that greys have a = b = 0. With the constants of the standard rounded as they are printed, encoding and
decoding would not be inverse where their two branches meet; here the threshold of encoding follows from the other one.

Arrays of numpy are computed by numpy, in double precision if they are float64 whatever jax is set to; all others by
jax, under jit, vmap and grad.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

AB_SCALE = 110.0
"""Targets of networks are a and b in units of this: within sRGB they lie between -108 and 99."""

MOST_LIGHT = 10.0
"""Values of sRGB beyond it are pixels from 0 to 255 and no light a little out of range."""

# x, y of red, green, blue and white.
_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_WHITE_XY = (0.3127, 0.3290)
_ENCODED, _SLOPE, _OFFSET, _GAMMA = 0.04045, 12.92, 0.055, 2.4
# Decoding leaves a gap of 3e-9 in linear light where its branches meet; encoding changes branches in the middle of it.
_MEETING = (_ENCODED / _SLOPE + ((_ENCODED + _OFFSET) / (1 + _OFFSET)) ** _GAMMA) / 2
_DELTA = 6 / 29


def _xyz_of(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1.0, (1 - x - y) / y])


WHITE = _xyz_of(*_WHITE_XY)
"""X, Y, Z of white (1, 1, 1)."""
_COLUMNS = np.stack([_xyz_of(*xy) for xy in _PRIMARIES], axis=1)
TO_XYZ = _COLUMNS * np.linalg.solve(_COLUMNS, WHITE)
"""XYZ = TO_XYZ @ linear RGB."""
_TO_RGB = np.linalg.inv(TO_XYZ)


def srgb_to_lab(rgb: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """L* in 0 .. 100, a*, b* of colours in [0, 1].

    c = (v <= 0.04045) ? v / 12.92 : ((v + 0.055) / 1.055)^2.4; (X, Y, Z) = M c; with f(t) = t^(1/3) above (6/29)^3 and
    t / (3 (6/29)^2) + 4/29 below: L = 116 f(Y/Yn) - 16, a = 500 (f(X/Xn) - f(Y/Yn)), b = 200 (f(Y/Yn) - f(Z/Zn)).

    Args:
        rgb: [.., 3], floating, in [0, 1]; outside of it both formulas are continued.

    Returns:
        [.., 3] in the dtype of `rgb`.

    Raises:
        ValueError: not floating, or the last axis is not 3.

    >>> srgb_to_lab(np.array([1.0, 0.0, 0.0])).round(2).tolist()
    [53.24, 80.09, 67.2]
    """
    rgb, xp = _checked("rgb", rgb)
    scaled = linear(rgb) @ (TO_XYZ / WHITE[:, None]).T.astype(rgb.dtype)
    fx, fy, fz = xp.moveaxis(_f(scaled, xp), -1, 0)
    return xp.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], axis=-1)


def lab_to_srgb(lab: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """The inverse of `srgb_to_lab`; colours that sRGB has not come out below 0 or above 1, and are not cut.

    Args:
        lab: [.., 3], floating: L*, a*, b*.

    Returns:
        [.., 3] in the dtype of `lab`.

    Raises:
        ValueError: not floating, or the last axis is not 3.

    >>> lab_to_srgb(np.array([53.2408, 80.0925, 67.2032])).round(3).tolist()
    [1.0, 0.0, 0.0]
    """
    lab, xp = _checked("lab", lab)
    fy = (lab[..., 0] + 16) / 116
    f = xp.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    high = f > _DELTA
    scaled = xp.where(high, f**3, 3 * _DELTA**2 * (f - 4 / 29))
    return encoded(scaled @ (_TO_RGB * WHITE).T.astype(lab.dtype))


def linear(rgb: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Linear light of encoded values.

    >>> float(linear(np.float64(0.5)).round(6))
    0.214041
    """
    xp = _namespace(rgb)
    high = rgb > _ENCODED
    # What is not taken must be finite too, or its gradient is NaN times 0.
    power = ((xp.where(high, rgb, 1.0) + _OFFSET) / (1 + _OFFSET)) ** _GAMMA
    return xp.where(high, power, rgb / _SLOPE)


def encoded(light: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Encoded values of linear light.

    >>> float(encoded(linear(np.float64(0.5))).round(12))
    0.5
    """
    xp = _namespace(light)
    high = light > _MEETING
    power = (1 + _OFFSET) * xp.where(high, light, 1.0) ** (1 / _GAMMA) - _OFFSET
    return xp.where(high, power, _SLOPE * light)


def _f(t, xp):
    high = t > _DELTA**3
    return xp.where(high, xp.cbrt(xp.where(high, t, 1.0)), t / (3 * _DELTA**2) + 4 / 29)


def _namespace(x) -> Any:
    return np if isinstance(x, np.ndarray | np.generic) else jnp


def _checked(name: str, x) -> tuple[Any, Any]:
    xp = _namespace(x)
    x = xp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating) or x.ndim < 1 or x.shape[-1] != 3:
        raise ValueError(
            f"{name} has shape {x.shape} and dtype {x.dtype}: give floating numbers [.., 3]; divide uint8 pixels by 255"
        )
    if name == "rgb" and xp is np and x.size and np.nanmax(x) > MOST_LIGHT:
        raise ValueError(f"rgb has values up to {np.nanmax(x):g}: pixels lie between 0 and 1; divide by 255")
    return x, xp
