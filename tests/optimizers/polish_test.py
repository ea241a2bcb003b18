import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from sbjax.landscape import teacher_student as ts
from sbjax.optimizers import polish as module
from sbjax.optimizers.polish import polish


@pytest.mark.parametrize(("width", "solved"), [pytest.param(1, False, marks=pytest.mark.extended), (3, True)])
def test_students_reach_critical_points(x64, width, solved):
    """Too narrow and too wide: the gradient vanishes at a loss and on a manifold of zeros."""
    inputs = ts.grid_inputs(6, 3.0)
    teacher = {"w": np.array([[0.6, 0.5], [-0.5, 0.5]]), "a": np.ones((2, 1))}
    targets = ts.two_layer(teacher, inputs, "g")
    residuals = ts.student_residuals(lambda p, x: ts.two_layer(p, x, "g"), inputs, targets)
    starts = ts.init_students(jax.random.key(0), 3, width)
    found = jax.jit(jax.vmap(lambda p: polish(residuals, p, steps=200)))(starts)
    assert (np.asarray(found.loss) < 1e-20).any() == solved
    best = np.asarray(found.gradient).min()
    assert best < 1e-12
    gradient = jax.jit(jax.vmap(jax.grad(lambda p: jnp.sum(residuals(p) ** 2))))(found.params)
    largest = np.maximum(*(np.abs(np.asarray(leaf)).max((1, 2)) for leaf in (gradient["w"], gradient["a"])))
    np.testing.assert_allclose(largest, found.gradient, rtol=1e-3, atol=1e-14)


@pytest.mark.parametrize("many", [1, 100], ids=["cholesky", "eigenpairs"])
def test_levenberg_marquardt_finds_what_scipy_finds(x64, monkeypatch, many):
    """A fit with residuals left and, in its last column, a direction that changes nothing."""
    monkeypatch.setattr(module, "MANY", many)
    rng = np.random.default_rng(0)
    matrix, targets = rng.normal(size=(12, 4)), rng.uniform(-0.9, 0.9, 12)
    matrix[:, 3] = 0.0
    found = jax.jit(
        lambda w: polish(lambda w: jnp.tanh(matrix @ w) - targets, w, steps=200, newton_steps=0, final_steps=0)
    )(jnp.zeros(4))
    tight = dict.fromkeys(("ftol", "xtol", "gtol"), 1e-15)
    expected = scipy.optimize.least_squares(
        lambda w: np.tanh(matrix @ w) - targets, np.zeros(4), jac="3-point", **tight
    )
    assert found.loss == pytest.approx(2 * expected.cost, rel=1e-12)
    np.testing.assert_allclose(found.params, expected.x, atol=1e-6)
    assert found.gradient < 3e-8


def test_newton_stays_at_a_saddle(x64):
    """x^2 - y^2 from a point nearby, with no step of descent, as sum of squares of (x^2 - y^2 + 2)."""

    def residuals(w):
        return jnp.stack([w[0] ** 2 - w[1] ** 2 + 2.0])

    found = jax.jit(lambda w: polish(residuals, w, steps=0, newton_steps=0))(jnp.array([0.1, -0.1]))
    np.testing.assert_allclose(found.params, 0.0, atol=1e-13)
    assert found.loss == pytest.approx(4.0)
