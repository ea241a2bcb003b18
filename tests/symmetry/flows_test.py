"""Reparametrised neural differential equations, against closed solutions and Runge-Kutta steps written here."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from sbjax.common import devices
from sbjax.symmetry import flows

RANDOM = np.random.default_rng(0)
A, W = np.eye(3) + 0.3 * RANDOM.normal(size=(3, 3)), RANDOM.normal(size=(3, 3))


def flow():
    return flows.Flow(lambda t, z: jnp.tanh(W @ z + t), lambda x: 2 * x, lambda z: z[:2])


def rk4(flow, x, steps):
    z, h = flow.read_in(x), (flow.end - flow.start) / steps
    for step in range(steps):
        t = flow.start + h * step
        k1 = flow.field(t, z)
        k2 = flow.field(t + h / 2, z + h / 2 * k1)
        k3 = flow.field(t + h / 2, z + h / 2 * k2)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + flow.field(t + h, z + h * k3))
    return np.asarray(flow.read_out(z))


X = np.array([0.3, -0.2, 0.5])


def test_linear_coordinates_commute_with_every_step():
    with devices.double():
        back = np.linalg.inv(A)
        moved = flows.in_coordinates(flow(), lambda z: A @ z, lambda z: back @ z)
        np.testing.assert_allclose(rk4(moved, X, 3), rk4(flow(), X, 3), rtol=1e-12)


def test_other_coordinates_at_the_order_of_the_method_and_scipy():
    with devices.double():
        moved = flows.in_coordinates(flow(), lambda z: jnp.sinh(z), lambda z: jnp.arcsinh(z))
        errors = [np.abs(rk4(moved, X, steps) - rk4(flow(), X, 200)).max() for steps in (10, 20)]
        assert 8 < errors[0] / errors[1] < 32
        solved = scipy.integrate.solve_ivp(
            lambda t, z: np.asarray(moved.field(jnp.asarray(t), jnp.asarray(z))),
            (0, 1),
            np.asarray(moved.read_in(X)),
            rtol=1e-10,
            atol=1e-10,
        )
        np.testing.assert_allclose(moved.read_out(jnp.asarray(solved.y[:, -1])), rk4(flow(), X, 200), rtol=1e-7)


def test_other_times():
    with devices.double():
        slow = flows.in_time(flow(), lambda s: s / 3, 0.0, 3.0)
        np.testing.assert_allclose(rk4(slow, X, 5), rk4(flow(), X, 5), rtol=1e-12)
        bent = flows.in_time(flow(), lambda s: s**2, 0.0, 1.0)
        np.testing.assert_allclose(rk4(bent, X, 100), rk4(flow(), X, 100), rtol=1e-6)
        assert np.abs(rk4(bent, X, 5) - rk4(flow(), X, 5)).max() > 1e-7
        with pytest.raises(ValueError, match="tau maps the ends to"):
            flows.in_time(flow(), lambda s: s / 2, 0.0, 1.0)


def test_other_times_within_a_compiled_function():
    """Ends that do not agree are told there too; a pace that is traced is taken as it is."""

    @jax.jit
    def ends(x, pace):
        plain = flow()
        fixed = flows.in_time(plain, lambda s: s / 4, 0.0, 4.0)
        traced = flows.in_time(plain, lambda s: pace * s, 0.0, 4.0)
        return [one.field(jnp.asarray(2.0), x) for one in (fixed, traced)]

    with devices.double():
        fixed, traced = ends(jnp.asarray(X), 0.25)
        np.testing.assert_allclose(fixed, np.tanh(W @ X + 0.5) / 4, rtol=1e-12)
        np.testing.assert_allclose(traced, fixed, rtol=1e-12)
        with pytest.raises(ValueError, match="tau maps the ends to"):
            jax.jit(lambda x: flows.in_time(flow(), lambda s: s / 2, 0.0, 1.0).field(0.5, x))(jnp.asarray(X))


LEAKY = functools.partial(jax.nn.leaky_relu, negative_slope=0.1)


@pytest.mark.parametrize(
    ("sigma", "expected"), [(jax.nn.relu, 4), (LEAKY, 4), (jnp.tanh, 0), (jax.nn.gelu, 0), (lambda y: 3 * y, 16)]
)
def test_what_commutes_with_an_activation(sigma, expected):
    with devices.double():
        found = flows.activation_algebra(sigma, 4)
    assert found.dimension == expected


def test_the_algebra_is_counted_in_double_precision_whatever_jax_is_set_to():
    """In single precision round-off hid the scales of relu."""
    assert not jax.config.jax_enable_x64
    assert [flows.activation_algebra(sigma, 3).dimension for sigma in (jax.nn.relu, jnp.tanh)] == [3, 0]
    with pytest.raises(ValueError, match="d=0 must be >= 1"):
        flows.activation_algebra(jnp.tanh, 0)
    with pytest.raises(ValueError, match="ranks need the same"):
        flows.activation_algebra(lambda y: jax.nn.relu(y).astype(jnp.float32), 3)
