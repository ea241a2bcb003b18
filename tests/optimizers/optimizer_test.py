"""Every optimiser by name, against optax called by hand and against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax import trees
from sbjax.optimizers.optimizer import LINE_SEARCHED, OPTIMIZERS, make_optimizer, make_schedule
from sbjax.optimizers.soap import soap

PARAMS = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.3, -0.7])}
CURVATURE = {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "bias": jnp.array([0.5, 1.5])}


def quadratic(params):
    return sum(jax.tree.leaves(jax.tree.map(lambda h, w: 0.5 * jnp.sum(h * w**2), CURVATURE, params)))


def residuals(params):
    parts = jax.tree.map(lambda h, w: (jnp.sqrt(0.5 * h) * w).ravel(), CURVATURE, params)
    return jnp.concatenate(jax.tree.leaves(parts))


def run(optimizer, steps):
    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(quadratic)(params)
        updates, state = optimizer.update(
            grads, state, params, value=value, grad=grads, value_fn=quadratic, residual_fn=residuals
        )
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, trees.strong(optimizer.init(PARAMS))
    for _ in range(steps):
        params, state = step(params, state)
    return params, step._cache_size()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_minimises_and_compiles_once(name):
    rate = {"sgd": 0.05, "adam": 0.1, "adamw": 0.1, "soap": 0.1}.get(name, 1.0)
    params, programs = run(make_optimizer(name, rate), 25 if name in (*LINE_SEARCHED, "gauss_newton") else 200)
    assert quadratic(params) < 1e-4 * quadratic(PARAMS)
    assert programs == 1


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (make_optimizer("sgd", 0.05, momentum=0.8, nesterov=True), optax.sgd(0.05, 0.8, nesterov=True)),
        (make_optimizer("sgd", 0.05, momentum=0.0), optax.sgd(0.05)),
        (make_optimizer("adam", 0.01, b1=0.8, b2=0.99), optax.adam(0.01, 0.8, 0.99)),
        (
            make_optimizer("adamw", 0.01, weight_decay=0.1),
            optax.adamw(0.01, weight_decay=0.1, mask={"kernel": True, "bias": False}),
        ),
        (
            make_optimizer("soap", 0.01, b1=0.8, b2=0.9, weight_decay=0.1, precondition_every=2),
            soap(0.01, 0.8, 0.9, 0.1, 2, mask={"kernel": True, "bias": False}),
        ),
    ],
)
def test_same_as_optax_by_hand(ours, theirs):
    for a, b in zip(
        *(jax.tree.leaves(run(optax.with_extra_args_support(o), 5)[0]) for o in (ours, theirs)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_sgd_decay_is_an_l2_penalty_on_kernels_only():
    """One step: kernel (1 - lr decay) w - lr g, bias b - lr g."""
    params, _ = run(make_optimizer("sgd", 0.1, momentum=0.0, weight_decay=0.5), 1)
    grads = jax.grad(quadratic)(PARAMS)
    np.testing.assert_allclose(params["kernel"], PARAMS["kernel"] * (1 - 0.1 * 0.5) - 0.1 * grads["kernel"], rtol=1e-6)
    np.testing.assert_allclose(params["bias"], PARAMS["bias"] - 0.1 * grads["bias"], rtol=1e-6)


def test_clipping_bounds_the_step():
    params, _ = run(make_optimizer("sgd", 1.0, momentum=0.0, clip_norm=0.25), 1)
    step = jax.tree.map(lambda new, old: new - old, params, PARAMS)
    np.testing.assert_allclose(optax.tree.norm(step), 0.25, rtol=1e-5)


def test_schedules():
    cosine = make_schedule("cosine", 0.2, train_steps=100, warmup_steps=20)
    expected = [0.2 * s / 20 if s < 20 else 0.1 * (1 + np.cos(np.pi * (s - 20) / 80)) for s in range(101)]
    np.testing.assert_allclose([cosine(s) for s in range(101)], expected, atol=1e-7)
    stairs = make_schedule("step", 1.0, train_steps=30, decay_every_steps=10, decay_factor=0.5)
    np.testing.assert_allclose([stairs(s) for s in (0, 9, 10, 25)], [1, 1, 0.5, 0.25], rtol=1e-6)
    constant = make_schedule("constant", 0.3, train_steps=10)
    assert float(constant(7)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make_optimizer("sdg", 0.1), "optimizer.name='sdg' is unknown, did you mean 'sgd'"),
        (lambda: make_optimizer("adam", 0.1, weight_decay=0.1), r"optimizer.weight_decay=0.1 has no effect"),
        (lambda: make_optimizer("sgd", 0.1, momentum=1.5), r"optimizer.momentum=1.5 must lie in \[0, 1\)"),
        (lambda: make_optimizer("lbfgs", 0.1, clip_norm=1.0), "optimizer.clip_norm=1.0"),
        (lambda: make_optimizer("gauss_newton", 0.1, clip_norm=1.0), "optimizer.clip_norm=1.0 would break the step"),
        (lambda: make_optimizer("gauss_newton", 0.1, weight_decay=0.1), "optimizer.weight_decay=0.1 has no effect"),
        (lambda: make_optimizer("soap", 0.1, precondition_every=0), "optimizer.precondition_every=0 must be >= 1"),
        (lambda: make_schedule("cosin", 0.1, train_steps=5), "optimizer.schedule='cosin'.*'cosine'"),
        (lambda: make_schedule("cosine", -0.1, train_steps=5), "optimizer.learning_rate=-0.1"),
        (lambda: make_schedule("cosine", float("nan"), train_steps=5), "optimizer.learning_rate=nan"),
        (lambda: make_schedule("step", 0.1, train_steps=5), "optimizer.decay_every_steps=0"),
        (lambda: make_schedule("cosine", 0.1, train_steps=5, warmup_steps=6), "optimizer.warmup_share"),
    ],
)
def test_refusals_name_the_field(call, words):
    with pytest.raises(ValueError, match=words):
        call()
