"""Derivatives by automatic differentiation, Adam by hand, students that find their teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sbjax.experiments.landscape import students
from sbjax.landscape import teacher_student as ts

RNG = np.random.default_rng(0)
X = ts.grid_inputs(5, 2.0)
TEACHER = {"w": np.array([[0.6, 0.5], [-0.5, 0.5]]), "a": np.ones((2, 1))}


def planted(count, noise):
    """Students near the teacher, as numpy in double precision."""
    return {name: leaf + noise * RNG.normal(size=(count, *leaf.shape)) for name, leaf in TEACHER.items()}


def problem():
    return students.two_layer_problem(X, np.asarray(ts.two_layer(TEACHER, X, "g"))[:, 0], "g")


@pytest.mark.parametrize("form", ["two_layer", "deep"])
def test_derivatives(x64, form):
    y = RNG.normal(size=len(X))
    if form == "two_layer":
        found = students.two_layer_problem(X, y, "g")
        params = {name: jnp.asarray(leaf[0]) for name, leaf in planted(1, 1.0).items()}
        network = lambda params: ts.two_layer(params, X, "g")  # noqa: E731
    else:
        found = students.deep_problem(X, y)
        params = [(jnp.asarray(RNG.normal(size=io)), jnp.asarray(RNG.normal(size=io[1]))) for io in ((2, 2), (2, 1))]
        network = lambda params: ts.deep_tanh(params, X)  # noqa: E731
    _, unravel = ravel_pytree(params)
    reference = ts.student_residuals(lambda w, _: network(unravel(w)), X, y[:, None])

    @jax.jit
    def both(params):
        flat, _ = ravel_pytree(params)
        loss = lambda w: jnp.sum(reference(w) ** 2)  # noqa: E731
        return (found.residuals(params), found.jacobian(params), found.hessian(params)), (
            reference(flat),
            jax.jacfwd(reference)(flat).T,
            jax.hessian(loss)(flat),
        )

    for ours, theirs in zip(*both(params)):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_adam_by_hand(x64):
    """Three students on two devices, the last of which has one twice."""
    starts, steps, rate = planted(3, 0.3), 4, 0.01
    adam = students.train_adam(problem(), starts, steps=steps, learning_rate=rate)
    assert adam.steps == (0, 1, 2, 3, 4)

    def outputs(params):
        return np.asarray(ts.two_layer({k: jnp.asarray(v) for k, v in params.items()}, X, "g"))[:, 0]

    def slope(flat, y):
        """Central differences."""
        found, shapes = np.zeros_like(flat), flat.size
        for i in range(shapes):
            ends = []
            for sign in (1, -1):
                moved = flat.copy()
                moved[i] += sign * 1e-5
                ends.append(np.mean((outputs({"a": moved[:2, None], "w": moved[2:].reshape(2, 2)}) - y) ** 2))
            found[i] = (ends[0] - ends[1]) / 2e-5
        return found

    y, seed = outputs(TEACHER), 2
    flat = np.concatenate([starts["a"][seed].ravel(), starts["w"][seed].ravel()])
    first, second = np.zeros_like(flat), np.zeros_like(flat)
    for step in range(1, steps + 1):
        g = slope(flat, y)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        flat -= rate * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    ours = np.concatenate([np.ravel(adam.params["a"][seed]), np.ravel(adam.params["w"][seed])])
    np.testing.assert_allclose(ours, flat, atol=1e-7)
    losses = [np.mean((outputs({k: v[i, 1] for k, v in adam.recorded.items()}) - y) ** 2) for i in (0, 4)]
    np.testing.assert_allclose(adam.losses[[0, 4], 1], losses, rtol=1e-10)


def test_students_find_the_teacher(x64):
    """Five students in two dispatches of four, the second of which is mostly repeats."""
    found = students.polish_students(problem(), planted(5, 0.01), steps=60, newton_steps=5, chunk=2)
    assert found.loss.shape == (5,)
    assert found.loss.max() < 1e-25
    np.testing.assert_allclose(found.params["w"], np.broadcast_to(TEACHER["w"], (5, 2, 2)), atol=1e-9)


def test_stopping(x64):
    starts = planted(1, 0.1)
    assert students.train_adam(problem(), starts, steps=4, stop=lambda: True) is None
    assert students.polish_students(problem(), starts, stop=lambda: True) is None


def test_steps_that_are_recorded():
    found = students.record_steps(20_000)
    assert found[:3] == (0, 1, 2)
    assert found[-1] == 20_000
    assert len(found) <= 61
    assert list(found) == sorted(set(found))
