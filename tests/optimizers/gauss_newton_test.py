"""Levenberg-Marquardt against scipy, closed forms, invariances, and its three solvers against one another."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from sbjax.optimizers import gauss_newton as module
from sbjax.optimizers.gauss_newton import gauss_newton

pytestmark = pytest.mark.usefixtures("x64")

X = np.linspace(0.0, 3.0, 30)
Y = 2.0 * np.exp(-1.3 * X) + 0.5 + 0.05 * np.random.default_rng(0).normal(size=30)
START = {"amplitude": 1.0, "rate": 0.1, "offset": 0.0}


def curve(w):
    return w["amplitude"] * jnp.exp(-w["rate"] * X) + w["offset"] - Y


def run(optimizer, residual_fn, params, steps):
    """Parameters, state and the loss before each step."""

    @functools.partial(jax.jit, static_argnums=2)
    def go(params, state, steps):
        def body(carry, _):
            params, state = carry
            value, grad = jax.value_and_grad(lambda p: jnp.sum(residual_fn(p) ** 2))(params)
            updates, state = optimizer.update(
                grad, state, params, value=value, grad=grad, value_fn=None, residual_fn=residual_fn
            )
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(body, (params, state), None, length=steps)

    params = jax.tree.map(jnp.asarray, params)
    (params, state), values = go(params, optimizer.init(params), steps)
    return params, state, values


def init_net(seed, sizes=(1, 10, 10, 1)):
    rng = np.random.default_rng(seed)
    return [(jnp.asarray(rng.normal(size=(a, b)) / np.sqrt(a)), jnp.zeros(b)) for a, b in itertools.pairwise(sizes)]


def net(params, x):
    for kernel, bias in params[:-1]:
        x = jnp.tanh(x @ kernel + bias)
    return x @ params[-1][0] + params[-1][1]


def regression(m):
    x = jnp.linspace(-1, 1, m)[:, None]
    target = jnp.sin(3 * x)
    return lambda params: (net(params, x) - target)[:, 0] / jnp.sqrt(m)


@pytest.mark.parametrize("solver", [{}, {"accelerate": False}, {"max_dense_parameters": 1}])
def test_same_minimum_as_scipy(solver):
    names = list(START)
    scipys = scipy.optimize.least_squares(
        lambda w: np.asarray(curve(dict(zip(names, w)))), list(START.values()), method="lm", xtol=1e-14, ftol=1e-14
    )
    params, _, values = run(gauss_newton(**solver), curve, START, 40)
    np.testing.assert_allclose([params[name] for name in names], scipys.x, rtol=1e-6)
    assert float(values[-1]) == pytest.approx(2 * scipys.cost, rel=1e-12)
    assert np.all(np.diff(values) <= 0)


def test_linear_residuals_take_the_ridge_solution():
    """One step on A w - b is -(A^T A + lambda I)^-1 A^T (A w - b), for few and for many residuals."""
    rng = np.random.default_rng(1)
    for m, n in ((7, 4), (4, 7)):
        a, b = rng.normal(size=(m, n)), rng.normal(size=m)
        w, state, _ = run(gauss_newton(initial_damping=0.1), lambda w, a=a, b=b: a @ w - b, jnp.zeros(n), 1)
        g = -a.T @ b
        damping = 0.1 * np.sum((a @ g) ** 2) / np.sum(g**2)
        np.testing.assert_allclose(w, np.linalg.solve(a.T @ a + damping * np.eye(n), -g), rtol=1e-10)
        assert float(state.gain) == pytest.approx(1.0)
        assert float(state.damping) == pytest.approx(damping / 3)


@pytest.mark.slow
def test_tanh_regression_reaches_round_off_where_lbfgs_does_not():
    """sin(3 x) by a 1-10-10-1 net: below 1e-16, and thousands of times below L-BFGS after as many steps."""
    residual_fn = regression(40)
    _, state, values = run(gauss_newton(), residual_fn, init_net(0), 600)
    assert values[-1] < 1e-16
    assert int(state.rejected) < 120
    params = init_net(0)
    _, lbfgs = jax.jit(lambda: _lbfgs(residual_fn, params, 600))()
    assert values[-1] < 1e-3 * lbfgs[-1]


def _lbfgs(residual_fn, params, steps):
    optimizer = optax.lbfgs()

    def value_fn(p):
        return jnp.sum(residual_fn(p) ** 2)

    def body(carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(value_fn)(params)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=value_fn)
        return (optax.apply_updates(params, updates), state), value

    return jax.lax.scan(body, (params, optimizer.init(params)), None, length=steps)


def test_a_problem_with_a_zero_is_solved_to_round_off():
    """Rosenbrock's valley as residuals: quadratic convergence to 1e-25 and below, and nothing breaks there."""
    params, state, values = run(
        gauss_newton(), lambda w: jnp.stack([10 * (w[1] - w[0] ** 2), 1 - w[0]]), [-1.2, 1.0], 60
    )
    assert values[-1] < 1e-25
    np.testing.assert_allclose(params, [1.0, 1.0], atol=1e-12)
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(state))


@pytest.mark.extended
def test_turned_residuals_and_parameters_change_nothing():
    """r -> c U r leaves the path as it is; w -> V w turns it."""
    rng = np.random.default_rng(2)
    u, v = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (30, 3))

    def vector(w):
        return curve(dict(zip(START, w)))

    start = jnp.array([1.0, 0.1, 0.0])
    for steps in (3, 8):
        plain, state, _ = run(gauss_newton(), vector, start, steps)
        other, other_state, _ = run(gauss_newton(), lambda w: 7.0 * u @ vector(w), start, steps)
        np.testing.assert_allclose(other, plain, rtol=1e-8)
        assert int(state.rejected) < steps
        np.testing.assert_allclose(other_state.damping, 49 * state.damping, rtol=1e-6)
        other, _, _ = run(gauss_newton(), lambda b: vector(v @ b), v.T @ start, steps)
        np.testing.assert_allclose(v @ other, plain, rtol=1e-8)


def test_a_rejected_step_leaves_the_parameters_and_raises_the_damping():
    """r = (1, atan(9 w)) from afar: full Gauss-Newton steps overshoot."""
    optimizer = gauss_newton(initial_damping=1e-9, accelerate=False)

    def residual_fn(w):
        return jnp.concatenate([jnp.ones(1), jnp.arctan(9 * w)])

    w, state, rejections = jnp.array([1.0]), optimizer.init(jnp.zeros(1)), 0
    for _ in range(20):
        updates, new = optimizer.update(w, state, w, residual_fn=residual_fn)
        if int(new.rejected) > int(state.rejected):
            rejections += 1
            np.testing.assert_array_equal(updates, np.zeros(1))
            if state.count:
                assert float(new.damping) == pytest.approx(float(state.damping * state.growth))
            assert float(new.growth) == min(2 * float(state.growth), 1024)
            assert float(new.gain) == 0
        else:
            assert np.sum(residual_fn(w + updates) ** 2) < np.sum(residual_fn(w) ** 2)
        w, state = w + updates, new
    assert rejections >= 3
    assert abs(float(w[0])) < 1e-8


def test_a_trial_that_is_not_finite_is_rejected():
    optimizer = gauss_newton(initial_damping=1e-9)
    w = jnp.array([0.5])
    updates, state = optimizer.update(w, optimizer.init(w), w, residual_fn=lambda w: jnp.log(w) + 3.0)
    assert float(updates[0]) == 0
    assert int(state.rejected) == 1


@pytest.mark.extended
@pytest.mark.slow
def test_solvers_agree():
    """By columns, by rows, in chunks, and matrix-free: one step from one start."""
    params = init_net(3, (1, 5, 5, 1))
    flat = {}
    for name, m, settings in (
        ("tall", 60, {}),
        ("tall chunks", 60, {"chunk_bytes": 8_000}),
        ("tall free", 60, {"max_dense_parameters": 1, "cg_tol": 1e-13, "cg_steps": 500}),
        ("wide", 30, {}),
        ("wide chunks", 30, {"chunk_bytes": 8_000}),
        ("wide free", 30, {"max_dense_parameters": 1, "cg_tol": 1e-13, "cg_steps": 500}),
    ):
        after, _, _ = run(gauss_newton(**settings), regression(m), params, 1)
        flat[name] = jax.flatten_util.ravel_pytree(after)[0]
    for shape in ("tall", "wide"):
        np.testing.assert_allclose(flat[f"{shape} chunks"], flat[shape], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(flat[f"{shape} free"], flat[shape], rtol=1e-6, atol=1e-6)


def test_jacobian_by_rows_and_by_columns():
    rng = np.random.default_rng(5)
    for m, n in ((6, 3), (3, 6)):
        a = jnp.asarray(rng.normal(size=(m, n)))
        for chunk_bytes in (1, 200, 10**6):
            r, jacobian = module._jacobian(lambda w, a=a: jnp.sin(a @ w), jnp.ones(n), chunk_bytes)
            np.testing.assert_allclose(r, np.sin(a @ np.ones(n)))
            np.testing.assert_allclose(jacobian, np.cos(a @ np.ones(n))[:, None] * a, rtol=1e-12)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("solver", [{}, {"max_dense_parameters": 1}])
def test_replicas_under_vmap_are_as_one_by_one(solver):
    starts = jnp.asarray(np.random.default_rng(6).uniform(0.2, 1.5, (3, 3)))
    optimizer = gauss_newton(**solver)

    def solve(w):
        return run(optimizer, lambda w: curve(dict(zip(START, w))), w, 6)[0]

    for row, start in zip(jax.vmap(solve)(starts), starts):
        np.testing.assert_allclose(row, solve(start), rtol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resume_is_equal_and_dtypes_are_kept(dtype):
    optimizer = gauss_newton()
    update = jax.jit(lambda w, state: optimizer.update(w, state, w, residual_fn=lambda w: curve(w).astype(dtype)))

    def go(w, state, steps):
        for _ in range(steps):
            updates, state = update(w, state)
            w = optax.apply_updates(w, updates)
        return w, state

    start = {name: jnp.asarray(value, dtype) for name, value in START.items()}
    straight = go(start, optimizer.init(start), 8)
    saved = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), go(start, optimizer.init(start), 5))
    jax.tree.map(np.testing.assert_array_equal, straight, go(*saved, 3))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(straight)} == {dtype, "int32"}
    assert update._cache_size() == 1


def test_refusals():
    optimizer = gauss_newton()
    w = jnp.ones(2)
    with pytest.raises(ValueError, match="gauss_newton needs `residual_fn`"):
        optimizer.update(w, optimizer.init(w), w, value=1.0, grad=w, value_fn=jnp.sum)
    with pytest.raises(ValueError, match=r"must give a vector \[m\], not shape \(\)"):
        optimizer.update(w, optimizer.init(w), w, residual_fn=jnp.sum)
    with pytest.raises(ValueError, match="cg_steps=0 of gauss_newton must be > 0"):
        gauss_newton(cg_steps=0)
