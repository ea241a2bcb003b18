"""Certificates and the nullity at zero loss, against a Hessian by hand and the published table."""

import functools
import itertools

import jax
import numpy as np
import pytest
import scipy

from sbjax.landscape import counting, manifold, splitting
from sbjax.landscape import critical_points as lib

TEACHER = np.array([[0.6, 0.5], [-0.5, 0.5], [-0.2, -0.6], [0.1, -0.6]])


def generic(z):
    """No symmetry of its own, and neither odd nor even derivatives vanish at 0."""
    return jax.nn.sigmoid(4 * z) + jax.nn.softplus(z)


def feature(z):
    """`generic` and its derivative by numpy."""
    s = scipy.special.expit(4 * z)
    return s + np.logaddexp(0, z), 4 * s * (1 - s) + scipy.special.expit(z)


def grid(n):
    axis = np.linspace(-5, 5, n)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)


X = grid(21)


def teacher_outputs(dout=1):
    weights = np.array([[1, 1, 1, 1], [1, -1, 0.5, 2]]).T[:, :dout]
    return {"w": TEACHER, "a": weights.astype(float)}, feature(X @ TEACHER.T)[0] @ weights


# Copies of the first unit with their mu; zero groups with their outgoing weights.
NULLITIES = {
    "minimal": ([], [], (0, 0)),
    "one extra copy": ([0.3, 0.7], [], (3, 2)),
    "one extra copy without output": ([1.0, 0.0], [], (3, 4)),
    "one unit that cancels": ([], [[0.0]], (2, 2)),
    "two that cancel each other": ([], [[0.8, -0.8]], (3, 4)),
    "three that cancel": ([], [[0.8, -0.5, -0.3]], (6, 6)),
    "two that cancel alone": ([], [[0.0], [0.0]], (4, 4)),
    "a copy and one that cancels": ([0.3, 0.7], [[0.0]], (5, 4)),
}


def configuration(mus, zeros, dout):
    """The teacher with that expansion; outgoing vectors of a group are not parallel where there are two outputs."""
    units, _ = teacher_outputs(dout)
    w, a = list(units["w"]), list(units["a"])
    if mus:
        twist = np.array([0.0, 0.4])[:dout] * (mus[1] != 0)
        a[0] = mus[0] * units["a"][0] + twist
        w.append(units["w"][0])
        a.append(mus[1] * units["a"][0] - twist)
    for number, group in enumerate(zeros):
        second = np.roll(group, 1) if len(group) > 2 else group
        for outgoing in np.stack([group, second], 1)[:, :dout]:
            w.append(np.array([0.9 - 0.5 * number, -0.3]))
            a.append(outgoing)
    return {"w": np.array(w), "a": np.array(a)}


@pytest.mark.parametrize("dout", [1, 2])
@pytest.mark.parametrize("name", NULLITIES)
def test_nullity_at_zero_loss(name, dout, x64):
    mus, zeros, expected = NULLITIES[name]
    params = configuration(mus, zeros, dout)
    assert lib.zero_loss_nullity(params) == expected[dout - 1]
    # The Hessian by hand: Gauss-Newton, J^T J with J of features.
    z = X @ params["w"].T
    value, first = feature(z)
    rows = []
    for d in range(dout):
        by_w = (first * params["a"][:, d])[:, :, None] * X[:, None, :]
        by_a = np.zeros((len(X), len(z[0]), dout))
        by_a[:, :, d] = value
        rows.append(np.concatenate([by_a.reshape(len(X), -1), by_w.reshape(len(X), -1)], 1))
    jacobian = np.concatenate(rows)
    values = np.linalg.svd(jacobian, compute_uv=False) ** 2
    nullity = np.sum(values <= 1e-11 * values[0])
    assert nullity == expected[dout - 1]


@pytest.mark.parametrize(("name", "dout"), [("a copy and one that cancels", 1), ("two that cancel each other", 2)])
def test_certificate_of_a_global_minimum(name, dout, x64):
    mus, zeros, expected = NULLITIES[name]
    found = lib.certified_minimum(configuration(mus, zeros, dout), X, teacher_outputs(dout)[1], generic)
    assert found.loss < 1e-28
    assert found.holds()
    assert found.nullity_predicted == found.nullity_measured == expected[dout - 1]
    assert not found._replace(predicted=splitting.Inertia(0, 0, 18)).holds()


def test_symmetric_activations_have_more_zeros(x64):
    """tanh: two antipodal units have the features of one, which the formula takes for two."""
    units = {"w": np.array([[0.6, 0.5], [-0.6, -0.5], [0.1, -0.6]]), "a": np.ones((3, 1))}
    y = np.tanh(X @ units["w"].T) @ units["a"]
    with pytest.warns(UserWarning, match="the activation is odd: .*null space"):
        found = lib.certified_minimum(units, X, y, jax.numpy.tanh)
    assert (found.nullity_predicted, found.nullity_measured, found.holds()) == (0, 3, False)


@functools.lru_cache(maxsize=1)
def narrow():
    """A minimum of width 2 at positive loss."""
    x, (_, y) = X, teacher_outputs()
    params = {"w": np.array([[-0.0266, -0.311], [0.0786, 0.8088]]), "a": np.array([[3.2225], [1.3069]])}
    for _ in range(12):
        here = lib.derivatives(params, x, y, generic)
        step = np.linalg.solve(here.hessian, here.gradient)
        params = {"a": params["a"] - step[:2].reshape(2, 1), "w": params["w"] - step[2:].reshape(2, 2)}
    here = lib.derivatives(params, x, y, generic)
    assert np.abs(here.gradient).max() < 1e-13
    assert here.loss > 0.1
    assert np.linalg.eigvalsh(here.hessian)[0] > 1e-3
    return params


def test_certified_family(x64):
    _, y = teacher_outputs()
    found = list(lib.certified_family(jax.random.key(1), narrow(), 3, X, y, generic))
    assert len(found) == counting.G(2, 3)
    for member, certificate in found:
        assert certificate.holds()
        assert certificate.nullity_measured == 1
        assert certificate.loss == pytest.approx(found[0][1].loss, rel=1e-12)
        again, same = lib.certified_split(narrow(), member.piece, member.coefficients, X, y, generic)
        assert (same, again.coefficients) == (certificate, member.coefficients)


def test_points_that_are_not_critical_do_not_hold(x64):
    _, y = teacher_outputs()
    off = {"w": narrow()["w"] + 1e-3, "a": narrow()["a"]}
    _, certificate = lib.certified_split(off, manifold.Piece(((0, 2), (1,)), ()), [(0.5, 0.5), (1.0,)], X, y, generic)
    assert certificate.gradient > 1e-6
    assert not certificate.holds()
    dead = {"w": np.append(narrow()["w"], [[0.3, -0.2]], 0), "a": np.append(narrow()["a"], [[0.0]], 0)}
    assert lib.certify(dead, X, y, generic).gradient > 1e-3


def test_derivatives_by_differences(x64):
    _, y = teacher_outputs()
    params = {"w": narrow()["w"] + 0.1, "a": narrow()["a"]}
    here = lib.derivatives(params, X, y, generic)

    def loss(flat):
        w, a = flat[2:].reshape(2, 2), flat[:2].reshape(2, 1)
        return np.mean((feature(X @ w.T)[0] @ a - y) ** 2)

    flat = np.concatenate([params["a"].ravel(), params["w"].ravel()])
    assert here.loss == pytest.approx(loss(flat), rel=1e-13)
    steps = 1e-4 * np.eye(6)
    gradient = [(loss(flat + e) - loss(flat - e)) / 2e-4 for e in steps]
    np.testing.assert_allclose(here.gradient, gradient, rtol=1e-5, atol=1e-6)
    for (i, d), (j, e) in itertools.product(enumerate(steps), repeat=2):
        mixed = loss(flat + d + e) - loss(flat + d - e) - loss(flat - d + e) + loss(flat - d - e)
        assert here.hessian[i, j] == pytest.approx(mixed / 4e-8, rel=1e-4, abs=1e-4)


def test_lowest_eigenvalues_without_a_matrix(x64):
    _, y = teacher_outputs()
    wide = splitting.split(narrow(), 0, (1.5, -0.5))
    values = np.linalg.eigvalsh(lib.derivatives(wide, X, y, generic).hessian)
    found = lib.lowest_eigenvalues(wide, X, y, generic, count=3)
    np.testing.assert_allclose(found, values[:3], atol=1e-10 * values[-1])


HUGE = {"w": np.zeros((30_000, 2)), "a": np.zeros((30_000, 1))}
ONE = {"w": np.zeros((1, 2)), "a": np.zeros((1, 1))}
Y = np.zeros((len(X), 1))
INVALID = [
    (lambda: lib.derivatives(HUGE, X, Y, generic), "90000 parameters takes 60.3 GiB, .*`lowest_eigenvalues`"),
    (lambda: lib.certify(ONE, X, Y, generic, most_bytes=8), "3 parameters .*raise most_bytes"),
    (lambda: lib.derivatives(ONE, X, X, generic), r"y \(441, 2\)"),
    (lambda: lib.lowest_eigenvalues(ONE, X, Y, generic, count=3), "count=3: ask for 1 .. 2"),
    (lambda: lib.zero_loss_nullity({"dense_0": ONE}), r"entries \['dense_0'\]"),
]


@pytest.mark.parametrize(("call", "message"), INVALID)
def test_errors_name_field_value_and_remedy(call, message, x64):
    with pytest.raises(ValueError, match=message):
        call()


def test_single_precision_is_refused():
    with pytest.raises(ValueError, match=r"single precision.*enable_x64"):
        lib.certify(ONE, X, Y, generic)
