"""Against numpy, and against the floor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.physics.equation import evaluate, spread
from sbjax.physics.errors import normalised_errors
from sbjax.physics.pdes import make_equation


def test_against_numpy(x64):
    rng = np.random.default_rng(0)
    u, e = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    found = normalised_errors(u + e, u, floor=1e-12, floor_max=1e-12)
    np.testing.assert_allclose(found.l2.value, np.linalg.norm(e, axis=0) / np.linalg.norm(u, axis=0))
    np.testing.assert_allclose(found.l1.value, abs(e).mean(0) / abs(u).mean(0))
    np.testing.assert_allclose(found.maximum.value, abs(e).max(0))
    assert not any(error.at_floor.any() for error in found)


def test_nothing_is_better_than_the_reference(x64):
    equation = make_equation("allen_cahn")
    floors = {"floor": equation.reference.floor, "floor_max": equation.reference.floor_max}
    u = evaluate(equation, spread(equation, 100))
    perfect = normalised_errors(u, u, **floors)
    assert all(error.at_floor.all() for error in perfect)
    assert float(perfect.l2.value[0]) == equation.reference.floor
    assert float(perfect.maximum.value[0]) == equation.reference.floor_max
    # An error of exactly the floor in L2, however it lies, is at or below the floor of L1.
    for shape in (np.ones_like(u), np.eye(100)[:, :1], u):
        error = shape * equation.reference.floor * np.linalg.norm(u) / np.linalg.norm(shape)
        found = normalised_errors(u + error, u, **floors)
        assert abs(error).sum() / abs(u).sum() <= float(found.l1.value[0]) * (1 + 1e-9)
    above = normalised_errors(u * (1 + 1e-6), u, **floors)
    assert not any(error.at_floor.any() for error in above)


def test_float32_has_a_floor_of_its_own():
    u = np.linspace(1, 2, 10)[:, None]
    found = jax.jit(lambda u: normalised_errors(u, u, floor=1e-12, floor_max=1e-12))(jnp.float32(u))
    eps = np.finfo(np.float32).eps
    assert found.l2.value.dtype == jnp.float32
    assert float(found.l2.value[0]) == eps
    assert float(found.maximum.value[0]) == 2 * eps
    assert all(error.at_floor.all() for error in found)


def test_what_is_not_finite_stays_so():
    found = normalised_errors([[np.nan], [1.0]], [[1.0], [1.0]], floor=0.1, floor_max=0.1)
    assert all(np.isnan(error.value).all() and not error.at_floor.any() for error in found)


def test_misuse_is_named():
    with pytest.raises(ValueError, match=r"predicted has shape \(3,\), reference \(3, 1\)"):
        normalised_errors(np.ones(3), np.ones((3, 1)), floor=0.1, floor_max=0.1)
    with pytest.raises(ValueError, match="floor_max=0 must be > 0"):
        normalised_errors(np.ones((3, 1)), np.ones((3, 1)), floor=0.1, floor_max=0)
