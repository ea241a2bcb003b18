"""Optimisers in other units against factors on their steps and against the substituted problem."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.optimizers.gauss_newton import gauss_newton
from sbjax.optimizers.rescaled import rescaled

pytestmark = pytest.mark.usefixtures("x64")

# With numpy, since double precision is on inside the tests only.
PARAMS = {"a": np.array([1.0, -2.0]), "b": np.array([[0.5], [3.0]])}
SCALE = {"a": 0.3, "b": 5.0}
TARGET = {"a": np.array([0.2, 0.1]), "b": np.array([[1.5], [-1.0]])}


def times(tree, scale):
    return jax.tree.map(lambda leaf, s: leaf * s, tree, scale)


def residual_fn(w):
    a, b = w["a"] - TARGET["a"], (w["b"] - TARGET["b"])[:, 0]
    return jnp.concatenate([a, 2 * b, a * b, a**2])


def value_fn(w):
    return jnp.sum(residual_fn(w) ** 2)


def run(optimizer, residual_fn, params, steps):
    """Parameters after every step."""

    def value_fn(w):
        return jnp.sum(residual_fn(w) ** 2)

    extra = {"value_fn": value_fn, "residual_fn": residual_fn}

    @jax.jit
    def step(params, state):
        value, grad = jax.value_and_grad(value_fn)(params)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, **extra)
        return optax.apply_updates(params, updates), state

    state, path = optimizer.init(params), []
    for _ in range(steps):
        params, state = step(params, state)
        path.append(params)
    return path


def lbfgs():
    inner = optax.lbfgs()

    def update(updates, state, params, residual_fn, **extra):
        return inner.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(inner.init, update)


@pytest.mark.parametrize(
    ("optimizer", "power"), [(optax.sgd(0.01), 2), (optax.sgd(0.01, 0.9), 2), (optax.adam(0.01, eps=1e-14), 1)]
)
def test_sgd_steps_scale_with_the_square_and_adams_with_the_factor(optimizer, power):
    grads = jax.grad(value_fn)(jax.tree.map(jnp.asarray, PARAMS))
    optimizer = optax.with_extra_args_support(optimizer)
    plain, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    ours = rescaled(optimizer, SCALE)
    scaled, _ = ours.update(grads, ours.init(PARAMS), PARAMS)
    for name, s in SCALE.items():
        np.testing.assert_allclose(scaled[name], plain[name] * s**power, rtol=1e-9)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("make", [lbfgs, gauss_newton, lambda: optax.with_extra_args_support(optax.adam(0.1))])
def test_same_path_as_the_substituted_problem(make):
    """w_k = s beta_k, where beta minimises f(s beta)."""
    ours = run(rescaled(make(), SCALE), residual_fn, PARAMS, 8)
    beta = jax.tree.map(lambda leaf, s: leaf / s, PARAMS, SCALE)
    theirs = run(make(), lambda b: residual_fn(times(b, SCALE)), beta, 8)
    for w, b in zip(ours, theirs, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9), w, times(b, SCALE))
    assert value_fn(ours[-1]) < 0.5 * value_fn(PARAMS)


def test_weight_decay_acts_on_beta():
    """AdamW without gradient: w - lr decay w, whatever the factors, for decay is linear in w."""
    optimizer = rescaled(optax.add_decayed_weights(0.1), SCALE)
    zeros = optax.tree.zeros_like(PARAMS)
    updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
    jax.tree.map(lambda u, w: np.testing.assert_allclose(u, 0.1 * w, rtol=1e-12), updates, PARAMS)


@pytest.mark.extended
def test_factors_of_one_change_nothing_and_a_function_gives_factors():
    ones = run(rescaled(lbfgs(), jax.tree.map(lambda _: 1.0, PARAMS)), residual_fn, PARAMS, 5)
    plain = run(lbfgs(), residual_fn, PARAMS, 5)
    jax.tree.map(np.testing.assert_array_equal, ones, plain)
    optimizer = rescaled(optax.sgd(1.0), lambda params: jax.tree.map(lambda leaf: leaf.size**-0.5, params))
    state = optimizer.init(PARAMS)
    updates, _ = optimizer.update(PARAMS, state, None)  # no parameters, as optax allows
    jax.tree.map(lambda u, w: np.testing.assert_allclose(u, -w / 2, rtol=1e-12), updates, PARAMS)


def test_replicas_under_vmap_and_float32():
    optimizer = rescaled(optax.sgd(0.1), SCALE)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]).astype(jnp.float32), PARAMS)
    states = jax.vmap(optimizer.init)(stacked)
    updates, states = jax.vmap(optimizer.update)(stacked, states, stacked)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((updates, states))} == {"float32"}
    jax.tree.map(lambda u, w, s: np.testing.assert_allclose(u, -0.1 * s**2 * w, rtol=1e-6), updates, stacked, SCALE)


def test_a_task_without_residuals_still_gets_the_error_of_gauss_newton():
    optimizer = rescaled(gauss_newton(), SCALE)
    with pytest.raises(ValueError, match="gauss_newton needs `residual_fn`"):
        optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, value_fn=value_fn, residual_fn=None)


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        ({"a": 1.0}, "has the structure .* but the parameters have"),
        ({"a": 1.0, "b": -2.0}, r"scale of \['b'\] is -2.0; it must be positive and finite"),
        ({"a": float("nan"), "b": 1.0}, r"scale of \['a'\] is nan"),
        ({"a": 1.0, "b": np.ones(2)}, r"scale of \['b'\] has shape \(2,\); give one positive number an array"),
    ],
)
def test_refusals(scale, words):
    with pytest.raises(ValueError, match=words):
        rescaled(optax.sgd(0.1), scale).init(PARAMS)
