"""Every optimiser through every property, and each against optax or closed forms written out here."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax import trees
from sbjax.common import options
from sbjax.optimizers import OPTIMIZERS, SCHEDULES, Adam, AdamW, Constant, Cosine, Lbfgs, Sgd, Soap, Step
from sbjax.optimizers.base import calls_the_loss

PARAMS = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.3, -0.7])}
CURVATURE = {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "bias": jnp.array([0.5, 1.5])}
# By name: a learning rate and the steps to a ten thousandth of the loss.
SPEED = {"sgd": (0.05, 200), "look_ahead_sgd": (0.01, 400), "adam": (0.1, 200), "adamw": (0.1, 200), "soap": (0.1, 200)}
PARTS = [*OPTIMIZERS.values(), *SCHEDULES.values()]
ON_KERNELS = {"kernel": True, "bias": False}


def quadratic(params):
    return sum(jax.tree.leaves(jax.tree.map(lambda h, w: 0.5 * jnp.sum(h * w**2), CURVATURE, params)))


def residuals(params):
    parts = jax.tree.map(lambda h, w: (jnp.sqrt(0.5 * h) * w).ravel(), CURVATURE, params)
    return jnp.concatenate(jax.tree.leaves(parts))


def make(part):
    return part.make(SPEED[part.name][0]) if part.scheduled else part.make()


def make_step(optimizer, **extra):
    def step(params, state):
        value, grads = jax.value_and_grad(quadratic)(params)
        extras = {"value": value, "grad": grads, "value_fn": quadratic, "residual_fn": residuals, **extra}
        updates, state = optimizer.update(grads, state, params, **extras)
        return optax.apply_updates(params, updates), state

    return step


def run(optimizer, steps, params=PARAMS, **extra):
    step = jax.jit(make_step(optimizer, **extra))
    state = trees.strong(optimizer.init(params))
    for _ in range(steps):
        params, state = step(params, state)
    return params, step._cache_size()


def outside(spec):
    """Values just out of the bounds, of a wrong type, or not finite."""
    tiny = 1 if isinstance(spec.default, int) or isinstance(spec.like, int) else 1e-9
    by_bound = ((spec.least, -tiny), (spec.above, 0), (spec.most, tiny), (spec.below, 0))
    found = [bound + shift for bound, shift in by_bound if bound is not None] + ["a"]
    return [*found, float("nan"), float("inf")] if isinstance(spec.default, float) else found


# Every optimiser


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_minimises_and_compiles_once(name):
    params, programs = run(make(OPTIMIZERS[name]()), SPEED.get(name, (None, 25))[1])
    assert quadratic(params) < 1e-4 * quadratic(PARAMS)
    assert programs == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_keeps_its_shapes(name):
    optimizer = make(OPTIMIZERS[name]())
    state = trees.strong(optimizer.init(PARAMS))
    _, after = jax.eval_shape(make_step(optimizer), PARAMS, state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_extra_arguments_are_taken(name):
    """The factors of a population, which all but their reader ignore."""
    optimizer = make(OPTIMIZERS[name]())
    plain, _ = run(optimizer, 2)
    drawn, _ = run(optimizer, 2, hyper={"learning_rate": 0.5, "weight_decay": 0.1})
    same = jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), plain, drawn))
    assert same != OPTIMIZERS[name].reads_population


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_replicas_train_as_they_do_alone(name):
    optimizer = make(OPTIMIZERS[name]())
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.3 * leaf]), PARAMS)
    step, states = jax.jit(jax.vmap(make_step(optimizer))), jax.vmap(optimizer.init)(stacked)
    together = stacked
    for _ in range(3):
        together, states = step(together, trees.strong(states))
    for replica in (0, 1):
        alone, _ = run(optimizer, 3, trees.take(stacked, replica))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), trees.take(together, replica), alone
        )


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_options_out_of_range_are_refused(part):
    needed = {"decay_every_steps": 1} if part is Step else {}
    part(**needed)
    for option, spec in options.describe(part).items():
        assert spec.help
        for value in outside(spec):
            with pytest.raises(ValueError, match=f"^{option}={value!r} must be"):
                part(**{**needed, option: value})
    with pytest.raises(dataclasses.FrozenInstanceError):
        part(**needed).name = "other"


def test_an_option_of_one_name_has_one_default():
    """A flat section could not say otherwise."""
    found = {}
    for part in PARTS:
        for option, spec in options.describe(part).items():
            assert found.setdefault(option, spec) == spec


# One by one


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Sgd(momentum=0.8, weight_decay=0.0).make(0.05), optax.sgd(0.05, 0.8, nesterov=True)),
        (Sgd(momentum=0.8, nesterov=False, weight_decay=0.0).make(0.05), optax.sgd(0.05, 0.8)),
        (Sgd(momentum=0.0, weight_decay=0.0).make(0.05), optax.sgd(0.05)),
        (Adam(b1=0.8, b2=0.99).make(0.01), optax.adam(0.01, 0.8, 0.99)),
        (
            Adam(clip_norm=0.5).make(0.01),
            optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.01)),
        ),
        (
            AdamW(b1=0.8, b2=0.99, weight_decay=0.1).make(0.01),
            optax.adamw(0.01, 0.8, 0.99, weight_decay=0.1, mask=ON_KERNELS),
        ),
    ],
)
def test_same_as_optax(ours, theirs):
    theirs = optax.with_extra_args_support(theirs)
    jax.tree.map(np.testing.assert_array_equal, run(ours, 5)[0], run(theirs, 5)[0])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("memory_size", [1, 10])
def test_lbfgs_is_that_of_optax(memory_size):
    """Called as optax documents it, with nothing that it does not know."""
    theirs, params = optax.lbfgs(memory_size=memory_size), PARAMS
    state = theirs.init(params)
    for _ in range(4):
        value, grad = optax.value_and_grad_from_state(quadratic)(params, state=state)
        updates, state = theirs.update(grad, state, params, value=value, grad=grad, value_fn=quadratic)
        params = optax.apply_updates(params, updates)
    ours, _ = run(Lbfgs(memory_size=memory_size).make(), 4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, params)


def test_sgd_decay_is_an_l2_penalty_on_kernels_only():
    """One step: kernel (1 - lr decay) w - lr g, bias b - lr g."""
    params, _ = run(Sgd(momentum=0.0, weight_decay=0.5).make(0.1), 1)
    grads = jax.grad(quadratic)(PARAMS)
    np.testing.assert_allclose(params["kernel"], PARAMS["kernel"] * (1 - 0.1 * 0.5) - 0.1 * grads["kernel"], rtol=1e-6)
    np.testing.assert_allclose(params["bias"], PARAMS["bias"] - 0.1 * grads["bias"], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "soap"])
def test_clipping_is_of_the_gradient(name):
    """With a gradient of norm 1/4 in place of the whole one."""
    decay = {} if name == "adam" else {"weight_decay": 0.0}
    optimizer = OPTIMIZERS[name](clip_norm=0.25, **decay).make(1.0)
    plain = OPTIMIZERS[name](**decay).make(1.0)
    large = jax.grad(quadratic)(PARAMS)
    small = jax.tree.map(lambda g: 0.25 * g / optax.tree.norm(large), large)
    states = optimizer.init(PARAMS), plain.init(PARAMS)
    for _ in range(2):  # the first step of soap moves nothing
        clipped, ours = optimizer.update(large, states[0], PARAMS)
        expected, theirs = plain.update(small, states[1], PARAMS)
        states = ours, theirs
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), clipped, expected)


@pytest.mark.extended
def test_soap_is_adam_in_the_first_eigenbasis(x64):
    """As long as the bases are those of the first gradient G: w -= lr (L adam(L^T G R) R^T + decay w), in numpy."""
    rate, b1, b2, decay, w = 0.01, 0.8, 0.9, 0.1, np.array([[1.0, -2.0], [0.5, 3.0]])
    h, mean, square = np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros((2, 2)), np.zeros((2, 2))
    bias, bias_mean, bias_square, k = np.array([0.3, -0.7]), 0.0, 0.0, np.array([0.5, 1.5])
    params = {"kernel": jnp.asarray(w), "bias": jnp.asarray(bias)}
    optimizer = Soap(b1=b1, b2=b2, weight_decay=decay, precondition_every=100).make(rate)
    state = optimizer.init(params)
    left, right = (np.linalg.eigh(c)[1] for c in ((h * w) @ (h * w).T, (h * w).T @ (h * w)))
    for t in range(4):
        grads = {"kernel": h * params["kernel"], "bias": k * params["bias"]}
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        if t == 0:
            continue
        turned = left.T @ (h * w) @ right
        mean, square = b1 * mean + (1 - b1) * turned, b2 * square + (1 - b2) * turned**2
        # Epsilon matters: the first gradient is diagonal in its own bases.
        step = mean / (np.sqrt(square) + 1e-8) * np.sqrt(1 - b2**t) / (1 - b1**t)
        bias_mean, bias_square = b1 * bias_mean + (1 - b1) * k * bias, b2 * bias_square + (1 - b2) * (k * bias) ** 2
        w = w - rate * (left @ step @ right.T + decay * w)
        bias = bias - rate * (bias_mean / (1 - b1**t)) / np.sqrt(bias_square / (1 - b2**t))
    np.testing.assert_allclose(params["kernel"], w, rtol=1e-6)
    np.testing.assert_allclose(params["bias"], bias, rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_a_step_costs(name):
    """What an optimiser says of itself is what it does: line searches and Jacobians call the loss."""
    made = OPTIMIZERS[name]()
    assert made.one_gradient != calls_the_loss(made.make(0.1))


# Schedules


def test_schedules():
    cosine = Cosine(warmup_share=0.2).make(0.2, 100)
    expected = [0.2 * s / 20 if s < 20 else 0.1 * (1 + np.cos(np.pi * (s - 20) / 80)) for s in range(101)]
    np.testing.assert_allclose([cosine(s) for s in range(101)], expected, atol=1e-7)
    stairs = Step(decay_every_steps=10, decay_factor=0.5, warmup_share=0.0).make(1.0, 30)
    np.testing.assert_allclose([stairs(s) for s in (0, 9, 10, 25)], [1, 1, 0.5, 0.25], rtol=1e-6)
    constant = Constant(warmup_share=0.3).make(0.3, 10)
    np.testing.assert_allclose([constant(s) for s in range(5)], [0, 0.1, 0.2, 0.3, 0.3], rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_which_schedule_ends_at_zero(name):
    part = SCHEDULES[name](**({"decay_every_steps": 10} if name == "step" else {}))
    assert (abs(float(part.make(1.0, 30)(30))) < 1e-7) == part.ends_at_zero


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
def test_impossible_rates(rate):
    with pytest.raises(ValueError, match=f"^learning_rate={rate} must be"):
        Constant().make(rate, 10)
