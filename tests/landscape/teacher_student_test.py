import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from sbjax.landscape import teacher_student as ts

RNG = np.random.default_rng(0)


def test_activations_by_scipy(x64):
    z = np.linspace(-4, 4, 33)
    expected = {
        "sigmoid": scipy.special.expit(z),
        "g": scipy.special.expit(4 * z) + np.log1p(np.exp(z)),
        "tanh": np.tanh(z),
        "softplus": np.log1p(np.exp(z)),
        "erf": scipy.special.erf(z / np.sqrt(2)),
    }
    assert set(expected) == set(ts.ACTIVATIONS)
    for name, values in expected.items():
        np.testing.assert_allclose(ts.ACTIVATIONS[name](jnp.asarray(z)), values, atol=1e-14)


def test_data_of_the_paper():
    inputs = ts.grid_inputs()
    assert {tuple(row) for row in inputs} == set(itertools.product(np.arange(-5, 5.25, 0.25), repeat=2))
    teacher = ts.two_layer_teacher()
    by_hand = sum(scipy.special.expit(inputs @ row) for row in ([0.6, 0.5], [-0.5, 0.5], [-0.2, -0.6], [0.1, -0.6]))
    with jax.enable_x64(True):
        np.testing.assert_allclose(ts.two_layer(teacher, inputs, "sigmoid")[:, 0], by_hand, atol=1e-14)


def test_residuals_add_up_to_the_mean_squared_error(x64):
    inputs, targets = RNG.normal(size=(7, 2)), RNG.normal(size=(7, 3))
    params = {"w": jnp.asarray(RNG.normal(size=(4, 2))), "a": jnp.asarray(RNG.normal(size=(4, 3)))}
    residuals = ts.student_residuals(lambda p, x: ts.two_layer(p, x, "erf"), inputs, targets)
    outputs = scipy.special.erf(inputs @ np.asarray(params["w"]).T / np.sqrt(2)) @ np.asarray(params["a"])
    assert float(jnp.sum(residuals(params) ** 2)) == pytest.approx(np.sum((outputs - targets) ** 2) / 7, rel=1e-13)
    with pytest.raises(ValueError, match="7 inputs have 6"):
        ts.student_residuals(lambda p, x: x, inputs, targets[:6])


def test_students_are_glorot_and_paired():
    init = jax.jit(ts.init_students, static_argnums=(1, 2))
    few, many = (init(jax.random.key(0), seeds, 6) for seeds in (3, 400))
    np.testing.assert_array_equal(few["w"], many["w"][:3])
    for name, end in (("w", np.sqrt(6 / 8)), ("a", np.sqrt(6 / 7))):
        values = np.asarray(many[name]).ravel()
        assert scipy.stats.kstest(values, scipy.stats.uniform(-end, 2 * end).cdf).pvalue > 1e-3
    with pytest.raises(ValueError, match="width=0"):
        ts.init_students(jax.random.key(0), 1, 0)


@pytest.mark.extended
def test_deep_network_by_hand(x64):
    layers = jax.jit(ts.init_deep_students, static_argnums=(1, 2))(jax.random.key(0), 2, (2, 4, 3, 1))
    layers = [(kernel[1], bias[1] + 0.3) for kernel, bias in layers]
    x = RNG.normal(size=(5, 2))
    hidden = x
    for kernel, bias in layers[:-1]:
        hidden = np.tanh(hidden @ np.asarray(kernel) + np.asarray(bias))
    expected = hidden @ np.asarray(layers[-1][0]) + np.asarray(layers[-1][1])
    np.testing.assert_allclose(ts.deep_tanh(layers, jnp.asarray(x)), expected, atol=1e-14)


def test_tally():
    """A copied pair, a copy, a triple that cancels, a single of weight zero, a pair that does not, two others."""
    rows = [
        [0.6, 0.5],
        [0.6, 0.5],
        [-0.5, 0.5],
        *[[2.0, 2.0]] * 3,
        [5.0, 0.0],
        *[[-3.0, 1.0]] * 2,
        [0.2, 0.6],
        [0.0, 0.0],
    ]
    out = [0.7, 0.3, 1.0, 0.5, 0.5, -1.0, 0.0, 0.5, 0.2, 0.3, 0.4]
    order = RNG.permutation(len(rows))
    student = {"w": np.array(rows)[order], "a": np.array(out)[order, None]}
    teacher = ts.two_layer_teacher()
    assert ts.tally_neurons(student, teacher) == (3, {1: 1, 3: 3}, 1, 1, 2)
    # A group sum of -1 is not zero, whatever its sign.
    assert ts.tally_neurons({"w": np.array([[5.0, 0.0]]), "a": np.array([[-1.0]])}, teacher) == (0, {}, 0, 0, 1)
    with pytest.raises(ValueError, match="3 entries"):
        ts.tally_neurons({"w": np.ones((2, 3)), "a": np.ones((2, 1))}, teacher)


def test_deep_teacher_is_near_what_it_was_fitted_to(x64):
    inputs = ts.grid_inputs()
    target = ts.deep_target(inputs)
    outputs = np.asarray(ts.deep_tanh(ts.deep_teacher(), inputs))
    assert np.mean((outputs - target) ** 2) < 0.1 * np.var(target)


def test_unknown_activation():
    with pytest.raises(ValueError, match=r"'sigmoind'.*sigmoid"):
        ts.two_layer({"w": np.ones((1, 2)), "a": np.ones((1, 1))}, np.ones((1, 2)), "sigmoind")
