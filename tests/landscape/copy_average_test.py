import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from jax.flatten_util import ravel_pytree

from sbjax.landscape.copy_average import (
    average_loss,
    copy_average_loss,
    copy_average_student,
    erf_kernel,
    orthonormal_teacher,
    population_loss,
)

RNG = np.random.default_rng(0)


def partitions(k, n, most=None):
    """Of k into n parts, descending."""
    most = k if most is None else most
    if n == 0:
        return [()] if k == 0 else []
    return [(first, *rest) for first in range(min(k, most), 0, -1) for rest in partitions(k - first, n - 1, first)]


def test_kernel_by_quadrature(x64):
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    x = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    weights = np.outer(weights, weights).ravel() / (2 * np.pi)
    u, v = 0.7 * RNG.normal(size=(3, 2)), 0.7 * RNG.normal(size=(2, 2))
    values = [scipy.special.erf(x @ w.T / np.sqrt(2)) for w in (u, v)]
    np.testing.assert_allclose(erf_kernel(u, v), np.einsum("n,ni,nj->ij", weights, *values), atol=1e-6)
    student, teacher = ({"w": w, "a": RNG.normal(size=(len(w), 2))} for w in (u, v))
    gap = values[0] @ student["a"] - values[1] @ teacher["a"]
    assert float(population_loss(student, teacher)) == pytest.approx(weights @ np.sum(gap**2, 1), abs=1e-5)


def test_closed_forms_of_the_paper():
    known = [0, 0.023222, 0.040593, 0.056755, 0.072453, 0.087923]
    np.testing.assert_allclose([average_loss(q) for q in range(1, 7)], known, atol=5e-7)
    assert copy_average_loss(2, 4) == average_loss(3)


def test_one_neuron_is_optimal_by_search(x64):
    teacher = orthonormal_teacher(3)
    value = jax.jit(lambda p: population_loss({"w": p[None, :3], "a": p[None, 3:]}, teacher))
    found = scipy.optimize.minimize(lambda p: float(value(p)), np.full(4, 0.5), tol=1e-12)
    assert found.fun == pytest.approx(average_loss(3), abs=1e-9)
    np.testing.assert_allclose(found.x, np.r_[copy_average_student([3])["w"][0], 3.0], atol=1e-4)


@pytest.mark.parametrize(("n", "k"), [(2, 4), pytest.param(4, 6, marks=pytest.mark.extended)])
def test_only_the_best_partition_is_a_minimum(x64, n, k):
    teacher = orthonormal_teacher(k)

    @jax.jit
    def derivatives(student):
        flat, unravel = ravel_pytree(student)

        def loss(p):
            return population_loss(unravel(p), teacher)

        return loss(flat), jax.grad(loss)(flat), jax.hessian(loss)(flat)

    losses = {}
    for sizes in partitions(k, n):
        loss, gradient, curvature = derivatives(jax.tree.map(jnp.asarray, copy_average_student(sizes)))
        assert float(loss) == pytest.approx(sum(average_loss(q) for q in sizes), abs=1e-13)
        assert np.abs(gradient).max() < 1e-13
        best = sizes == (k - n + 1,) + (1,) * (n - 1)
        assert (np.linalg.eigvalsh(curvature).min() > -1e-10) == best
        losses[sizes] = float(loss)
    assert min(losses.values()) == pytest.approx(copy_average_loss(n, k))
    if (n, k) == (2, 4):
        assert losses[2, 2] == pytest.approx(0.046443, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orthonormal_teacher(3, 2), "k=3"),
        (lambda: copy_average_student([2, 0]), r"sizes=\[2, 0\]"),
        (lambda: copy_average_loss(5, 4), "n=5"),
        (lambda: average_loss(0), "q=0"),
        (lambda: population_loss(orthonormal_teacher(2), orthonormal_teacher(2, 3)), "2 columns.*3"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
