"""sRGB and CIELAB against formulas written another way, and against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.data import colour_space as lib

# L*, a*, b* of corners of the cube as colour tables print them (D65, 2 degrees).
PRINTED = {
    (1, 0, 0): (53.24, 80.09, 67.20), (0, 1, 0): (87.73, -86.18, 83.18), (0, 0, 1): (32.30, 79.19, -107.86),
    (0, 1, 1): (91.11, -48.09, -14.13), (1, 0, 1): (60.32, 98.23, -60.82), (1, 1, 0): (97.14, -21.55, 94.48),
    (1, 1, 1): (100.0, 0.0, 0.0), (0, 0, 0): (0.0, 0.0, 0.0),
}  # fmt: skip


def colours():
    """Random ones, greys, corners, and those around the thresholds of both conversions."""
    rng = np.random.default_rng(0)
    edges = np.array(
        [0.0, 0.04045, np.nextafter(0.04045, 1), 0.0404482362771, 0.0450, 1 / 255, 10 / 255, 11 / 255, 1.0]
    )
    near = np.stack(np.meshgrid(edges, edges, edges), axis=-1).reshape(-1, 3)
    greys = np.repeat(np.arange(256)[:, None] / 255, 3, axis=1)
    return np.concatenate([rng.random((5000, 3)), rng.random((2000, 3)) * 0.06, greys, near])


def one_colour(red, green, blue):
    """Scalars, the matrix of the standard as printed, CIE's epsilon and kappa."""

    def decode(v):
        return v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4

    r, g, b = map(decode, (red, green, blue))
    x = 0.4124 * r + 0.3576 * g + 0.1805 * b
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = 0.0193 * r + 0.1192 * g + 0.9505 * b
    epsilon, kappa = 216 / 24389, 24389 / 27

    def f(t):
        return t ** (1 / 3) if t > epsilon else (kappa * t + 16) / 116

    fx, fy, fz = f(x / 0.9505), f(y / 1.0), f(z / 1.0890)
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def test_round_trip_in_double_precision():
    rgb = colours()
    np.testing.assert_allclose(lib.lab_to_srgb(lib.srgb_to_lab(rgb)), rgb, rtol=0, atol=1e-12)
    with jax.enable_x64(True):
        back = jax.jit(lambda x: lib.lab_to_srgb(lib.srgb_to_lab(x)))(jnp.asarray(rgb))
        assert back.dtype == jnp.float64
        np.testing.assert_allclose(back, rgb, rtol=0, atol=1e-12)


def test_outside_of_the_cube_too():
    light = np.linspace(-0.5, 2.0, 20001)
    np.testing.assert_allclose(lib.linear(lib.encoded(light)), light, atol=1e-12)
    lab = np.random.default_rng(1).uniform((0, -120, -120), (100, 120, 120), (2000, 3))
    np.testing.assert_allclose(lib.srgb_to_lab(lib.lab_to_srgb(lab)), lab, atol=1e-9)


def test_against_formulas_written_another_way():
    rgb = colours()[:3000]
    wanted = np.array([one_colour(*row) for row in rgb])
    np.testing.assert_allclose(lib.srgb_to_lab(rgb), wanted, atol=0.03)  # the printed matrix has four digits


@pytest.mark.parametrize("rgb", PRINTED)
def test_against_printed_tables(rgb):
    np.testing.assert_allclose(lib.srgb_to_lab(np.array(rgb, float)), PRINTED[rgb], atol=0.02)


def test_the_matrix_is_that_of_the_standard():
    printed = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    np.testing.assert_allclose(lib.TO_XYZ, printed, atol=6e-5)
    np.testing.assert_allclose(lib.TO_XYZ.sum(1), lib.WHITE, atol=1e-15)


def test_against_scikit_image():
    skimage = pytest.importorskip("skimage.color")
    rgb = colours()
    np.testing.assert_allclose(lib.srgb_to_lab(rgb), skimage.rgb2lab(rgb), atol=0.02)


def test_greys_have_no_colour():
    grey = np.repeat(np.linspace(0, 1, 500)[:, None], 3, axis=1)
    lab = lib.srgb_to_lab(grey)
    assert np.abs(lab[:, 1:]).max() < 1e-12
    assert (np.diff(lab[:, 0]) > 0).all()
    np.testing.assert_allclose(lab[[0, -1], 0], (0, 100), atol=1e-12)


def test_gradients_are_finite_and_those_of_differences(x64):
    rgb = colours()[::7]
    back = lambda lab: lib.lab_to_srgb(lab)  # noqa: E731
    for fn, x in ((lib.srgb_to_lab, rgb), (back, lib.srgb_to_lab(rgb)), (back, np.zeros((1, 3)))):
        jacobian = np.asarray(jax.vmap(jax.jacrev(fn))(jnp.asarray(x)))
        assert np.isfinite(jacobian).all()
        inside = (np.abs(rgb - 0.04045) > 1e-3).all(-1) if len(x) == len(rgb) else np.ones(1, bool)
        for axis in range(3):
            step = 1e-6 * np.eye(3)[axis]
            difference = (fn(x + step) - fn(x - step)) / 2e-6
            np.testing.assert_allclose(jacobian[inside][..., axis], difference[inside], rtol=1e-3, atol=1e-3)


def test_single_precision_stays_and_is_close():
    rgb = colours().astype(np.float32)
    lab = jax.jit(lib.srgb_to_lab)(jnp.asarray(rgb))
    assert lab.dtype == jnp.float32
    np.testing.assert_allclose(lab, lib.srgb_to_lab(rgb.astype(np.float64)), atol=2e-3)
    np.testing.assert_allclose(lib.lab_to_srgb(lab), rgb, atol=2e-5)


@pytest.mark.parametrize("bad", [np.zeros((2, 3), np.uint8), np.zeros((2, 4)), np.float64(0.5)])
def test_what_is_no_colour_is_refused(bad):
    for fn in (lib.srgb_to_lab, lib.lab_to_srgb):
        with pytest.raises(ValueError, match=r"give floating numbers \[.., 3\]; divide uint8 pixels by 255"):
            fn(bad)


def test_pixels_that_were_not_divided_are_refused():
    with pytest.raises(ValueError, match="rgb has values up to 255: pixels lie between 0 and 1; divide by 255"):
        lib.srgb_to_lab(np.full((2, 3), 255.0))
    assert np.isfinite(lib.srgb_to_lab(np.full((2, 3), 1.2))).all()
