import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sbjax.metrics import curvature, hessian, spectrum

RNG = np.random.default_rng(0)


def network(params, x):
    for i, (kernel, bias) in enumerate(params):
        x = x @ kernel + (0 if bias is None else bias[None])
        x = jnp.tanh(x) if i < len(params) - 1 else x
    return x


def squared(output, target):
    return jnp.sum((output - target) ** 2)


def cross_entropy(output, target):
    return jax.nn.logsumexp(output) - output[0] * target[0]


@pytest.fixture
def net(x64):
    """(layers, inputs, targets) of a net with two hidden layers, one without biases."""
    sizes = (2, 4, 3, 2)
    layers = [
        (jnp.asarray(RNG.normal(size=io)), jnp.asarray(RNG.normal(size=io[1]))) for io in itertools.pairwise(sizes)
    ]
    layers[1] = (layers[1][0], None)
    return layers, jnp.asarray(RNG.normal(size=(11, 2))), jnp.asarray(RNG.normal(size=(11, 2)))


def by_jax(loss_fn, params):
    flat, unravel = ravel_pytree(params)
    return jax.jit(jax.hessian(lambda w: loss_fn(unravel(w))))(flat)


# Eleven samples in one part, and in three parts of which the last is filled up; 30 columns in parts of 7.
@pytest.mark.parametrize(
    ("sample_loss", "chunk"), [pytest.param(squared, None, marks=pytest.mark.extended), (cross_entropy, 4)]
)
def test_dense_hessians(net, sample_loss, chunk):
    layers, x, y = net

    def loss(layers):
        return jnp.mean(jax.vmap(sample_loss)(network(layers, x), y))

    general = jax.jit(lambda layers: hessian.hessian(loss, layers, chunk=7))(layers)
    ours = jax.jit(lambda layers: hessian.mlp_hessian(layers, x, sample_loss, y, chunk=chunk))(layers)
    np.testing.assert_allclose(general, by_jax(loss, layers), atol=1e-13)
    np.testing.assert_allclose(ours, general, atol=1e-13)


def test_hessian_of_a_single_layer_is_that_of_least_squares(x64):
    x, y = jnp.asarray(RNG.normal(size=(7, 3))), jnp.asarray(RNG.normal(size=(7, 1)))
    ours = hessian.mlp_hessian([(jnp.ones((3, 1)), None)], x, squared, y)
    np.testing.assert_allclose(ours, 2 * x.T @ x / 7, atol=1e-14)


def test_gauss_newton_is_the_hessian_at_zero_residuals_alone(net):
    layers, x, y = net
    exact = network(layers, x)

    def residuals(layers, target):
        return (network(layers, x) - target).ravel() / np.sqrt(len(x))

    @jax.jit
    def compare(layers, target):
        return (
            hessian.gauss_newton_matrix(lambda layers: residuals(layers, target), layers, chunk=7),
            hessian.hessian(lambda layers: jnp.sum(residuals(layers, target) ** 2), layers),
        )

    for target, equal in ((exact, True), (y, False)):
        ours, dense = compare(layers, target)
        assert (np.abs(ours - dense).max() < 1e-12) == equal
        assert np.linalg.eigvalsh(ours).min() > -1e-12


def test_products_match_the_matrices(net):
    layers, x, y = net
    batches = curvature.in_batches((x, y), 8)  # 8 and 3: weights matter

    def loss(layers, batch):
        return jnp.mean(jax.vmap(cross_entropy)(network(layers, batch[0]), batch[1]))

    v = jnp.asarray(RNG.normal(size=ravel_pytree(layers)[0].shape))
    dense = by_jax(lambda layers: loss(layers, (x, y)), layers)
    np.testing.assert_allclose(curvature.hessian_product(loss, layers, batches)(v), dense @ v, atol=1e-13)

    flat, unravel = ravel_pytree(layers)
    jacobian = jax.jit(jax.jacobian(lambda w: network(unravel(w), x)))(flat)  # [batch, out, n]
    probabilities = jax.nn.softmax(network(layers, x))
    inner = jax.vmap(jnp.diag)(probabilities) - probabilities[:, :, None] * probabilities[:, None, :]
    expected = jnp.einsum("bin,bij,bjm->nm", jacobian, inner, jacobian) / len(x)
    product = curvature.gauss_newton_product(
        lambda layers, batch: network(layers, batch[0]),
        lambda outputs, batch: jnp.mean(jax.vmap(cross_entropy)(outputs, batch[1])),
        layers,
        batches,
    )
    np.testing.assert_allclose(product(v), expected @ v, atol=1e-13)


@pytest.fixture
def matrix(x64):
    basis = np.linalg.qr(RNG.normal(size=(40, 40)))[0]
    return jnp.asarray(basis @ np.diag(np.linspace(-3.0, 10.0, 40)) @ basis.T)


def test_extreme_eigenvalues(matrix):
    values = np.linspace(-3.0, 10.0, 40)
    for which, expected in (("largest", values[-2:]), ("smallest", values[:2]), ("both", values[[0, -1]])):
        pairs = spectrum.extreme_eigenvalues(lambda v: matrix @ v, 40, 2, which=which, tol=1e-10, key=jax.random.key(0))
        np.testing.assert_allclose(pairs.values, expected, atol=1e-8)
        np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(2), atol=1e-10)
        assert pairs.residuals.max() < 1e-6


@pytest.mark.extended
def test_trace_within_its_error(matrix):
    estimate = spectrum.trace(lambda v: matrix @ v, 40, key=jax.random.key(0), probes=100)
    assert abs(estimate.value - np.trace(matrix)) < 4 * estimate.error
    off = matrix - jnp.diag(jnp.diag(matrix))
    assert estimate.error == pytest.approx(np.sqrt(2 * np.sum(off**2) / 100), rel=0.3)


@pytest.mark.extended
def test_lanczos_of_both_loops(matrix):
    vector = jnp.asarray(RNG.normal(size=40))
    for steps in (8, 40):
        ours, matfree = (
            spectrum.tridiagonalise(lambda v: matrix @ v, vector, steps, in_program=flag) for flag in (False, True)
        )
        for a, b in zip(ours, matfree):
            np.testing.assert_allclose(a, b, atol=1e-9)
    diagonal, beside = ours
    values = np.linalg.eigvalsh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    np.testing.assert_allclose(values, np.linspace(-3.0, 10.0, 40), atol=1e-10)  # a full space has all of them


def test_density_has_the_moments_of_its_probes(matrix):
    found = spectrum.spectral_density(lambda v: matrix @ v, 40, key=jax.random.key(0), steps=6, probes=3)
    for probe, nodes, weights in zip(jax.random.split(jax.random.key(0), 3), found.nodes, found.weights):
        v = np.asarray(jax.random.rademacher(probe, (40,), jnp.float64)) / np.sqrt(40)
        for power in range(12):  # exact below degree 2 steps
            moment = v @ np.linalg.matrix_power(np.asarray(matrix), power) @ v
            assert weights @ nodes**power == pytest.approx(moment, rel=1e-9)
    grid = np.linspace(-20, 30, 4001)
    assert np.trapezoid(spectrum.smooth(found, grid, 0.5), grid) == pytest.approx(1.0, abs=1e-10)


def test_exhausted_krylov_space():
    """Two distinct eigenvalues: two steps, whatever was asked for, in single precision."""
    diagonal = jnp.array([0.0] * 30 + [4.0] * 10)
    found = spectrum.spectral_density(lambda v: diagonal * v, 40, key=jax.random.key(0), steps=9)
    np.testing.assert_allclose(found.weights.sum(1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(found.weights @ found.nodes[0], 1.0, rtol=1e-6)
    assert (found.weights > 1e-4).sum() == 2


@pytest.mark.extended
def test_a_task_with_convolutions(toys):
    task = toys.classification(toys.Convolution())
    variables = jax.jit(task.init)(jax.random.key(0))
    loss = curvature.task_loss(task, variables, key=jax.random.key(1))
    batch = {"images": task.data["images"][:8], "labels": task.data["labels"][:8]}
    n = ravel_pytree(variables["params"])[0].size
    product = curvature.hessian_product(loss, variables["params"], [batch])
    dense = jax.jit(lambda params: hessian.hessian(lambda p: loss(p, batch), params))(variables["params"])
    top = spectrum.extreme_eigenvalues(product, n, key=jax.random.key(2)).values[0]
    assert top == pytest.approx(np.linalg.eigvalsh(dense)[-1], rel=1e-3)


def test_inertia():
    assert hessian.inertia(np.diag([1e-20, -1.0, 2.0])) == (1, 1, 1)
    assert hessian.inertia(np.diag([1e-6, -1.0, 2.0]), rtol=1e-5) == (1, 1, 1)
    assert hessian.inertia(np.diag([1e-6, -1.0, 2.0])) == (1, 0, 2)
    assert hessian.inertia(np.zeros((2, 2))) == (0, 2, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hessian.hessian(jnp.sum, jnp.zeros(100_000)), "80.0 GB.*max_bytes.*hessian_product"),
        (lambda: hessian.hessian(jnp.sum, jnp.zeros(3), chunk=0), "chunk=0"),
        (lambda: hessian.gauss_newton_matrix(jnp.sum, jnp.zeros(3)), r"vector \[m\]"),
        (lambda: hessian.mlp_hessian([(jnp.ones((3, 1)), None)], jnp.ones((4, 2)), squared, 0), r"layers\[0\].*\[2, o"),
        (lambda: hessian.inertia(np.array([[np.nan]])), "finite"),
        (lambda: curvature.in_batches((np.ones(3), np.ones(2)), 2), r"\[2, 3\]"),
        (lambda: curvature.hessian_product(jnp.sum, jnp.ones(2), []), "at least one batch"),
        (lambda: spectrum.trace(lambda v: v, 3, key=jax.random.key(0), probes=1), "probes=1"),
        (lambda: spectrum.extreme_eigenvalues(lambda v: v, 3, 3, key=jax.random.key(0)), "k=3"),
        (lambda: spectrum.extreme_eigenvalues(lambda v: v, 3, which="top", key=jax.random.key(0)), "which='top'"),
        (lambda: spectrum.spectral_density(lambda v: v, 3, steps=4, key=jax.random.key(0)), "steps=4"),
        (lambda: spectrum.spectral_density(lambda v: v, 30, steps=9, key=jax.random.key(0), max_bytes=99), "fewer"),
        (lambda: spectrum.tridiagonalise(lambda v: v * np.nan, jnp.ones(3), 2), "NaN"),
        (lambda: spectrum.smooth(spectrum.Spectrum(np.ones((1, 1)), np.ones((1, 1)), 1), [0.0], 0.0), "width=0.0"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
