"""Self-scaled quasi-Newton methods against exact Hessians, scipy's BFGS and optax's L-BFGS."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from sbjax import trees
from sbjax.optimizers.quasi_newton import FAMILIES, MOST_PARAMETERS, scale_by_self_scaled, self_scaled

pytestmark = pytest.mark.usefixtures("x64")


def run(optimizer, value_fn, params, steps):
    """Parameters, state and the values before each step."""

    @jax.jit
    def go(params, state):
        def body(carry, _):
            params, state = carry
            value, grad = jax.value_and_grad(value_fn)(params)
            updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=value_fn)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(body, (params, state), None, length=steps)

    (params, state), values = go(params, optimizer.init(params))
    return params, state, values


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@pytest.mark.extended
@pytest.mark.parametrize("family", FAMILIES)
def test_rosenbrock_is_solved_in_about_the_steps_of_scipy(family):
    start = np.random.default_rng(0).uniform(-1, 1, 10)
    _, _, values = run(self_scaled(family), rosenbrock, jnp.asarray(start), 200)
    scipys = scipy.optimize.minimize(
        lambda x: float(rosenbrock(jnp.asarray(x))),
        start,
        jac=lambda x: np.asarray(jax.grad(rosenbrock)(jnp.asarray(x))),
        method="BFGS",
        options={"gtol": 1e-9},
    )
    assert values[-1] < 1e-20
    assert np.argmax(values < 1e-10) < 2 * scipys.nit


@pytest.mark.parametrize("family", FAMILIES)
def test_secant_equation_and_positive_definite(family):
    """H y = s after every accepted pair, and H stays symmetric positive definite."""
    optimizer = scale_by_self_scaled(family)
    matrix = jnp.diag(jnp.array([1.0, 3.0, 10.0, 40.0]))
    grad_fn = jax.jit(jax.grad(lambda w: 0.5 * w @ matrix @ w + jnp.sum(w**4)))
    update = jax.jit(optimizer.update)
    w = jnp.array([1.0, -2.0, 0.5, 1.0])
    state = optimizer.init(w)
    for _ in range(6):
        before, grad = w, grad_fn(w)
        direction, state = update(grad, state, w)
        w = w + 0.3 * direction
        _, after = update(grad_fn(w), state, w)
        s, y = w - before, grad_fn(w) - grad
        np.testing.assert_allclose(after.inverse @ y, s, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(after.inverse, after.inverse.T, atol=1e-12)
        assert np.linalg.eigvalsh(after.inverse).min() > 0


def test_no_scaling_gives_the_textbook_bfgs_update():
    """Where tau = 1 (b <= 1), 'bfgs' is (1 - s y^T/ys) H (1 - y s^T/ys) + s s^T/ys."""
    optimizer = scale_by_self_scaled("bfgs")
    rng = np.random.default_rng(1)
    root = rng.normal(size=(4, 4))
    inverse = jnp.asarray(root @ root.T + np.eye(4))
    w, grad = jnp.asarray(rng.normal(size=4)), jnp.asarray(rng.normal(size=4))
    state = optimizer.init(w)._replace(count=jnp.int32(3), params=w, grad=grad, inverse=inverse)
    s = -0.5 * inverse @ grad
    y = 3.0 * jnp.linalg.solve(inverse, s) + 0.1 * s  # steeper than H says: b < 1
    _, after = optimizer.update(grad + y, state, w + s)
    left = np.eye(4) - np.outer(s, y) / (y @ s)
    np.testing.assert_allclose(after.inverse, left @ inverse @ left.T + np.outer(s, s) / (y @ s), rtol=1e-10)


@pytest.mark.extended
def test_ill_conditioned_quadratic_beats_lbfgs():
    scales = jnp.logspace(0, 6, 50)

    def value_fn(w):
        return 0.5 * jnp.sum(scales * w**2)

    values = {
        name: run(optimizer, value_fn, jnp.ones(50), 150)[2][-1]
        for name, optimizer in (("broyden", self_scaled()), ("lbfgs", optax.lbfgs()))
    }
    assert values["broyden"] < 1e-2 * values["lbfgs"]


def test_negative_curvature_and_an_uphill_matrix_are_survived():
    optimizer = scale_by_self_scaled()
    w, grad = jnp.array([1.0, 1.0]), jnp.array([1.0, -1.0])
    state = optimizer.init(w)._replace(count=jnp.int32(2), params=w, grad=grad)
    _, after = optimizer.update(grad - 0.5, state, w + 0.5)  # y^T s < 0
    np.testing.assert_array_equal(after.inverse, jnp.eye(2))
    spoilt = state._replace(inverse=-jnp.eye(2))
    direction, after = optimizer.update(grad, spoilt, w)
    np.testing.assert_array_equal(direction, -grad)
    np.testing.assert_array_equal(after.inverse, jnp.eye(2))


def drive(value_fn, params, targets):
    """The states after every step, the objective of step k having `targets[k]`, and the last parameters."""
    optimizer = self_scaled()

    @jax.jit
    def step(params, state, target):
        def of_params(w):
            return value_fn(w, target)

        value, grad = jax.value_and_grad(of_params)(params)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=of_params)
        return optax.apply_updates(params, updates), state

    states = [optimizer.init(params)]
    for target in targets:
        params, state = step(params, states[-1], target)
        states.append(state)
    return states, params


def moving_quadratic(w, target):
    return 0.5 * jnp.sum(jnp.logspace(0, 3, len(w), dtype=w.dtype) * (w - target) ** 2)


@pytest.mark.parametrize("every", [1, 5])
def test_pairs_are_of_one_objective(every):
    """The target jumps every few steps: each pair has the curvature of the quadratic, which never changes."""
    rng = np.random.default_rng(7)
    targets = [jnp.asarray(t) for t in rng.normal(size=(20, 4)) for _ in range(every)]
    states, _ = drive(moving_quadratic, jnp.ones(4), targets)
    curvature = np.logspace(0, 3, 4)
    for before, after in itertools.pairwise(states[1:]):
        s = np.asarray(after[0].params - before[0].params)
        if np.linalg.norm(s) < 1e-6:  # at the minimum: nothing but round-off is left
            continue
        np.testing.assert_allclose(before[1].grad - before[0].grad, curvature * s, rtol=1e-6, atol=1e-9)
        # H' y = s, the secant equation.
        np.testing.assert_allclose(after[0].inverse @ (curvature * s), s, rtol=1e-5, atol=1e-10)


@pytest.mark.extended
def test_the_minimum_after_a_jump_is_found():
    targets = [jnp.zeros(8)] * 10 + [jnp.full(8, 3.0)] * 30
    _, w = drive(moving_quadratic, jnp.ones(8), targets)
    assert moving_quadratic(w, targets[-1]) < 1e-20


@pytest.mark.extended
def test_small_batches_drawn_anew_every_fifth_step_are_survived():
    """Rows of one consistent system: every batch has the same minimum, and other curvature."""
    rng = np.random.default_rng(7)
    rows = [jnp.asarray(rng.normal(size=(12, 6)) * np.logspace(0, 1, 6)) for _ in range(12)]
    batches = [batch for batch in rows for _ in range(5)]
    _, w = drive(lambda w, batch: jnp.mean((batch @ (w - 1)) ** 2), jnp.zeros(6), batches)
    assert jnp.max(jnp.abs(w - 1)) < 1e-6


@pytest.mark.extended
def test_replicas_under_vmap_are_as_one_by_one():
    starts = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (3, 4)))
    optimizer = self_scaled()
    together = jax.vmap(lambda w: run(optimizer, rosenbrock, w, 15)[0])(starts)
    for row, start in zip(together, starts):
        np.testing.assert_allclose(row, run(optimizer, rosenbrock, start, 15)[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes_are_kept(dtype):
    """Those of the method; optax's line search has scalars in double precision where jax has it."""
    optimizer, start = self_scaled(), jnp.linspace(-1, 1, 4).astype(dtype)
    state = trees.strong(optimizer.init(start))
    after, (direction, search) = jax.eval_shape(functools.partial(step, optimizer), start, state)
    assert after.dtype == dtype
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(direction)} == {dtype, "int32"}
    assert jax.tree.map(lambda leaf: leaf.dtype, search) == jax.tree.map(lambda leaf: leaf.dtype, state[1])


@pytest.mark.extended
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resume_is_equal(dtype):
    optimizer, start = self_scaled(), jnp.linspace(-1, 1, 4).astype(dtype)
    jitted = jax.jit(functools.partial(step, optimizer))
    states = [(start, trees.strong(optimizer.init(start)))]
    for _ in range(8):
        states.append(jitted(*states[-1]))
    w, state = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), states[4])
    for _ in range(4):
        w, state = jitted(w, state)
    jax.tree.map(np.testing.assert_array_equal, (w, state), states[-1])
    assert jitted._cache_size() == 1
    assert rosenbrock(w) < 0.1 * rosenbrock(start)


def step(optimizer, w, state):
    value, grad = jax.value_and_grad(rosenbrock)(w)
    updates, state = optimizer.update(grad, state, w, value=value, grad=grad, value_fn=rosenbrock)
    return optax.apply_updates(w, updates), state


def test_refusals():
    with pytest.raises(ValueError, match="family='dfp' of self-scaled methods is unknown; known: broyden, bfgs"):
        scale_by_self_scaled("dfp")
    with pytest.raises(ValueError, match="at most 20000 parameters are allowed: use lbfgs"):
        self_scaled().init(jnp.zeros(MOST_PARAMETERS + 1))
