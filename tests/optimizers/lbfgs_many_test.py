"""L-BFGS with counts of iterations, and jobs over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from sbjax.optimizers import lbfgs_many as fit_many

LEVELS = (10.0, 1e-1, 1e-3, 1e-30)


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def test_counts_are_those_of_a_plain_loop(x64):
    """optax stepped in Python: losses and gradients at every iteration, and scipy for where it ends."""
    start = jnp.array([-1.2, 1.0])
    fit = jax.jit(
        lambda x: fit_many.fit_lbfgs(
            rosenbrock, x, steps=60, tolerance=1e-6, records=4, loss_levels=LEVELS, gradient_levels=LEVELS
        )
    )
    fitted = jax.tree.map(np.asarray, fit(start))
    optimizer = optax.lbfgs(memory_size=10)
    update = jax.jit(
        lambda x, state: optimizer.update(
            jax.grad(rosenbrock)(x), state, x, value=rosenbrock(x), grad=jax.grad(rosenbrock)(x), value_fn=rosenbrock
        )
    )
    x, state = start, optimizer.init(start)
    losses, slopes, places = [float(rosenbrock(x))], [float(jnp.abs(jax.grad(rosenbrock)(x)).max())], [x]
    while slopes[-1] >= 1e-6:
        updates, state = update(x, state)
        x = x + updates
        places.append(x)
        losses.append(float(rosenbrock(x)))
        slopes.append(float(jnp.abs(jax.grad(rosenbrock)(x)).max()))
    assert fitted.iterations == len(losses) - 1
    assert 15 < fitted.iterations < 60
    padded, path = (series + [series[-1]] * (61 - len(series)) for series in (losses, places))
    # The last digits of a loss near 0 depend on how it is compiled.
    np.testing.assert_allclose(fitted.losses, padded[::15], rtol=1e-6, atol=1e-13)
    np.testing.assert_allclose(fitted.path, path[::15], atol=1e-6)
    for found, series in ((fitted.loss_reached, losses), (fitted.gradient_reached, slopes)):
        expected = [next((i for i, v in enumerate(series) if v < level), -1) for level in LEVELS]
        assert found.tolist() == expected
    best = scipy.optimize.minimize(lambda x: float(rosenbrock(x)), [-1.2, 1.0], method="L-BFGS-B").x
    np.testing.assert_allclose(fitted.params, best, atol=1e-4)


def test_jobs_keep_their_order_and_stop():
    double = jax.jit(lambda x: 2 * x)
    seen = []
    results = fit_many.run_all(double, [(float(i),) for i in range(7)], on_done=lambda n, r: seen.append((n, float(r))))
    assert [float(r) for r in results] == [2.0 * i for i in range(7)]
    assert sorted(seen) == [(i, 2.0 * i) for i in range(7)]
    assert fit_many.run_all(double, [(1.0,), (2.0,)], stop=lambda: True) == [None, None]


def test_jobs_run_in_the_callers_precision(x64):
    (result,) = fit_many.run_all(jax.jit(lambda x: x + 1e-12), [(1.0,)])
    assert result.dtype == np.float64
    assert result > 1


def test_an_error_in_a_job_is_raised():
    with pytest.raises(TypeError):
        fit_many.run_all(jax.jit(lambda x, y: x), [(1.0,)])


def test_refusals():
    with pytest.raises(ValueError, match="steps=0 and records=10 must be >= 1"):
        fit_many.fit_lbfgs(rosenbrock, jnp.zeros(2), steps=0, tolerance=1e-6)
