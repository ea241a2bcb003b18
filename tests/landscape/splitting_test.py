"""Splits against the Hessian of the wide network, from critical points that are polished here."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from jax.flatten_util import ravel_pytree

from sbjax.landscape import counting, layered, manifold
from sbjax.landscape import splitting as lib

TEACHER = np.array([[0.6, 0.5], [-0.5, 0.5], [-0.2, -0.6], [0.1, -0.6]])
MUS = [
    (0.5, 0.5),
    (0.3, 0.7),
    (1.5, -0.5),
    (-2.0, 3.0),
    (1.0, 0.0),
    (0.2, 0.3, 0.5),
    (1.7, -0.3, -0.4),
    (0.6, 0.9, -0.5),
]


def generic(z):
    """No symmetry of its own, and neither odd nor even derivatives vanish at 0."""
    return jax.nn.sigmoid(4 * z) + jax.nn.softplus(z)


def grid(n, half_width):
    axis = np.linspace(-half_width, half_width, n)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)


X = grid(9, 5)


@functools.lru_cache(maxsize=1)
def targets():
    """One output, and two."""
    hidden = np.asarray(generic(X @ TEACHER.T), np.float64)
    return {1: hidden.sum(1, keepdims=True), 2: hidden @ np.array([[1, 1, 1, 1], [1, -1, 0.5, 0]]).T}


@functools.partial(jax.jit, static_argnums=(3,))
def loss_gradient_hessian(params, x, y, activation):
    flat, unflatten = ravel_pytree(params)

    def loss(flat):
        return jnp.mean(jnp.sum((layered.forward(unflatten(flat), x, activation) - y) ** 2, -1))

    return loss(flat), jax.grad(loss)(flat), jax.hessian(loss)(flat)


def polish(params, x, y, activation):
    """Newton steps from a point near a critical point."""
    flat, unflatten = ravel_pytree(params)
    for _ in range(6):
        _, gradient, hessian = loss_gradient_hessian(unflatten(flat), x, y, activation)
        flat = flat - np.linalg.lstsq(hessian, gradient)[0]
    loss, gradient, _ = loss_gradient_hessian(unflatten(flat), x, y, activation)
    assert jnp.max(jnp.abs(gradient)) < 1e-12
    assert loss > 1e-3
    return jax.tree.map(np.asarray, unflatten(flat))


# Minima of widths 1 and 2 for one output, of width 2 for two.
STARTS = {
    "one unit": {"w": [[0.0, -0.0244]], "a": [[5.5297]]},
    "two units": {"w": [[-0.0266, -0.311], [0.0786, 0.8088]], "a": [[3.2225], [1.3069]]},
    "two units, another": {"w": [[0.018, 0.1248], [-0.1062, -1.0523]], "a": [[3.4754], [1.1303]]},
    "two outputs": {"w": [[-0.8128, 0.3488], [0.0372, -0.0366]], "a": [[0.4532, -0.9573], [4.8137, 2.2271]]},
}


@functools.lru_cache(maxsize=8)
def narrow(name):
    start = {key: np.array(value) for key, value in STARTS[name].items()}
    return polish(start, X, targets()[start["a"].shape[1]], generic)


def measured(params, y):
    loss, gradient, hessian = loss_gradient_hessian(params, X, y, generic)
    values = np.linalg.eigvalsh(hessian)
    return float(loss), float(jnp.max(jnp.abs(gradient))), lib.inertia(hessian, tolerance=1e-11 * values[-1])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", STARTS)
def test_inertia_of_every_split(name, x64):
    base = narrow(name)
    y = targets()[base["a"].shape[1]]
    loss, _, hessian = loss_gradient_hessian(base, X, y, generic)
    inner = lib.inner_matrices(base, X, y, generic)
    before = lib.inertia(hessian, tolerance=0)
    seen = set()
    for unit, mu in itertools.product(range(len(base["w"])), MUS):
        wide = lib.split(base, unit, mu)
        wide_loss, gradient, found = measured(wide, y)
        assert wide_loss == pytest.approx(float(loss), rel=1e-13)
        assert gradient < 1e-12
        coefficients = [mu if t == unit else (1.0,) for t in range(len(base["w"]))]
        assert found == lib.predicted_inertia(hessian, inner, coefficients)
        if y.shape[1] == 1:
            s = inner.curvature[unit]
            added = lib.scalar_split_inertia(lib.inertia(s, tolerance=1e-9 * np.linalg.norm(s)), mu)
            assert found == tuple(np.add(before, added))
        seen.add(found)
    assert len(seen) > 2


def test_a_split_with_two_outputs_is_a_strict_saddle(x64):
    """Whatever mu, since D is not 0."""
    base = narrow("two outputs")
    inner = lib.inner_matrices(base, X, targets()[2], generic)
    for unit in (0, 1):
        coupling = inner.coupling[unit]
        np.testing.assert_allclose(coupling @ base["a"][unit], 0, atol=1e-12)
        assert np.linalg.matrix_rank(coupling, tol=1e-6) == 1
        block = lib.split_block(inner.curvature[unit], coupling, (0.5, 0.5))
        assert lib.inertia(block, tolerance=1e-11).negative >= 1


def test_inner_matrices_by_hand(x64):
    base, y = narrow("two outputs"), targets()[2]
    inner = lib.inner_matrices(base, X, y, generic)
    z = X @ base["w"].T
    residual = 2 * (np.asarray(generic(z)) @ base["a"] - y) / len(X)
    s, p = scipy.special.expit(4 * z), scipy.special.expit(z)
    first = 4 * s * (1 - s) + p
    second = 16 * s * (1 - s) * (1 - 2 * s) + p * (1 - p)
    for t in (0, 1):
        curvature = sum(r @ base["a"][t] * v * np.outer(x, x) for r, v, x in zip(residual, second[:, t], X))
        coupling = sum(v * np.outer(x, r) for r, v, x in zip(residual, first[:, t], X))
        np.testing.assert_allclose(inner.curvature[t], curvature, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(inner.coupling[t], coupling, rtol=1e-11, atol=1e-12)


def test_stability_of_splits_of_a_minimum():
    """S indefinite: never stable; S > 0: iff no mu is negative; S < 0: iff exactly one mu is positive."""
    for mu in MUS:
        nonzero = [c for c in mu if c]
        stable = {
            (0, 0, 2): min(nonzero) > 0,
            (2, 0, 0): sum(c > 0 for c in nonzero) == 1,
            (1, 0, 1): len(nonzero) == 1,
        }
        for curvature, expected in stable.items():
            assert (lib.scalar_split_inertia(lib.Inertia(*curvature), mu).negative == 0) == expected


def test_not_critical(x64):
    """Copies that are not parallel, and units that cancel each other at positive loss."""
    base, y = narrow("two outputs"), targets()[2]
    wide = lib.split(base, 0, (0.5, 0.5))
    shift = np.array([base["a"][0, 1], -base["a"][0, 0]])
    bent = {"w": wide["w"], "a": wide["a"] + np.stack([shift, -shift, 0 * shift])}
    loss, gradient, _ = measured(wide, y)
    bent_loss, bent_gradient, _ = measured(bent, y)
    assert bent_loss == pytest.approx(loss, rel=1e-13)
    assert gradient < 1e-12 < 1e-3 < bent_gradient
    dead = {"w": np.append(base["w"], [[0.3, -0.2]], 0), "a": np.append(base["a"], [[0.0, 0.0]], 0)}
    dead_loss, dead_gradient, _ = measured(dead, y)
    assert dead_loss == pytest.approx(loss, rel=1e-13)
    assert dead_gradient > 1e-3


def test_the_family_of_a_narrow_point(x64):
    base, y = narrow("two units"), targets()[1]
    members = list(lib.critical_family(jax.random.key(0), base, 4))
    assert len(members) == counting.G(2, 4)
    assert len({member.piece for member in members}) == len(members)
    hessian, inner = loss_gradient_hessian(base, X, y, generic)[2], lib.inner_matrices(base, X, y, generic)
    for member in members:
        _, gradient, found = measured(member.params, y)
        assert gradient < 1e-11
        assert found == lib.predicted_inertia(hessian, inner, member.coefficients)
        # It lies in the affine subspace of its piece.
        space = manifold.affine(member.piece, base)
        away = jax.tree.map(np.subtract, member.params, space.base)
        inside = sum(np.tensordot(space.basis[key], away[key], 2) for key in away)
        assert sum(np.sum(away[key] ** 2) for key in away) == pytest.approx(inside @ inside, rel=1e-10)
    again = next(lib.critical_family(jax.random.key(0), base, 4))
    jax.tree.map(np.testing.assert_array_equal, again.params, members[0].params)


DEEP = {
    "dense_0": {"kernel": [[-1.202764, 0.163124], [0.575339, -0.204184]], "bias": [0.25213, 0.456519]},
    "dense_1": {"kernel": [[2.322063, -0.879436], [1.986728, -4.863465]], "bias": [-5.425185, 8.862151]},
    "dense_2": {"kernel": [[-0.86086], [-0.583573]], "bias": [-3.131121]},
}


# A unit with several outgoing weights couples (D has rank 1), and each of its splits is a strict saddle.
@pytest.mark.parametrize(("layer", "rank"), [(0, 1), pytest.param(1, 0, marks=pytest.mark.extended)])
def test_deep_networks(layer, rank, x64):
    """A minimum of a 2-2-2-1 network with biases on the outputs of a 2-3-3-1 network."""
    rng, dims = np.random.default_rng(100), (2, 3, 3, 1)
    teacher = {
        f"dense_{i}": {"kernel": rng.normal(size=(n, m)), "bias": 0.5 * rng.normal(size=m)}
        for i, (n, m) in enumerate(itertools.pairwise(dims))
    }
    x = grid(7, 2)
    y = np.asarray(layered.forward(teacher, x, generic))
    base = polish({name: {k: np.array(v) for k, v in leaf.items()} for name, leaf in DEEP.items()}, x, y, generic)
    _, _, hessian = loss_gradient_hessian(base, x, y, generic)
    assert lib.inertia(hessian, tolerance=0) == (0, 0, 15)
    inner = lib.inner_matrices(base, x, y, generic, layer=layer)
    assert [np.linalg.matrix_rank(d, tol=1e-8) for d in inner.coupling] == [rank, rank]
    for unit, mu in itertools.product((0, 1), [(0.5, 0.5), (1.5, -0.5), (1.0, 0.0)]):
        wide = lib.split(base, unit, mu, layer=layer)
        _, gradient, found = loss_gradient_hessian(wide, x, y, generic)
        assert jnp.max(jnp.abs(gradient)) < 1e-11
        found = lib.inertia(found, tolerance=1e-11 * np.linalg.norm(found, 2))
        coefficients = [mu if t == unit else (1.0,) for t in (0, 1)]
        assert found == lib.predicted_inertia(hessian, inner, coefficients)
        assert found.negative > 0 or rank == 0


INVALID = [
    (lambda: lib.split(UNITS, 0, (0.5, 0.6)), "unit 0 sum to 1.1: they must sum to 1"),
    (lambda: lib.split(UNITS, 0, ()), "unit 0 sum to 0"),
    (lambda: lib.split(UNITS, 0, (math.nan, 1.0)), "unit 0 sum to nan"),
    (lambda: lib.split(UNITS, 2, (1.0,)), "unit=2 does not exist: hidden layer 0 has units 0 .. 1"),
    (lambda: lib.split(UNITS, 0, (1.0,), layer=1), "layer=1 does not exist: .*hidden layers 0 .. 0"),
    (lambda: lib.split({"w": np.ones((2, 2))}, 0, (1.0,)), r"entries \['w'\]: give"),
    (lambda: lib.split({"dense_0": {"kernel": np.ones((2, 2))}}, 0, (1.0,)), r"\['dense_0'\]: give"),
    (lambda: lib.split({**UNITS, "a": np.ones((3, 1))}, 0, (1.0,)), r"\[\(2, 2\), \(3, 1\)\]"),
    (lambda: lib.expand(UNITS, manifold.Piece(((0,), (1,)), ((2,),)), [(1,), (1,)]), "cancelling groups"),
    (lambda: lib.expand(UNITS, manifold.Piece(((0,), (2,)), ()), [(1,), (1,)]), "each unit 0 .. 1 once"),
    (lambda: lib.expand(UNITS, manifold.Piece(((0,), (1,)), ()), [(1,)]), r"groups of \[1\], piece of \[1, 1\]"),
    (lambda: next(lib.critical_family(jax.random.key(0), UNITS, 1)), "r=2 > m=1"),
    (lambda: lib.inner_matrices(UNITS, np.ones((4, 3)), np.ones((4, 1)), generic), r"x has shape \(4, 3\)"),
    (lambda: lib.inner_matrices(UNITS, np.ones((4, 2)), np.ones(4), generic), r"y \(4,\)"),
    (lambda: lib.predicted_inertia(np.eye(6), lib.Inner(np.ones((2, 2, 2)), np.ones((2, 2, 1))), [(1,)]), "1 entries"),
]
UNITS = {"w": np.ones((2, 2)), "a": np.ones((2, 1))}


@pytest.mark.wrong_types
@pytest.mark.parametrize(("call", "message"), INVALID)
def test_errors_name_field_value_and_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("activation", "symmetry"),
    [
        (generic, None),
        (jnp.exp, None),
        (jax.nn.elu, None),
        (jnp.tanh, "odd"),
        (jnp.cos, "even"),
        (jax.nn.relu, "positively homogeneous"),
        (jax.nn.leaky_relu, "positively homogeneous"),
        (jax.nn.sigmoid, "odd up to a constant"),
        (jax.nn.softplus, "even up to a linear function"),
        (jax.nn.gelu, "even up to a linear function"),
        (jax.nn.silu, "even up to a linear function"),
        (lambda z: 2 * z - 1, "affine"),
    ],
)
def test_symmetries_of_activations(activation, symmetry):
    assert layered.activation_symmetry(activation) == symmetry
    if symmetry:
        with pytest.warns(UserWarning, match=f"activation is {symmetry}: mind"):
            layered.warn_of_symmetry(activation, "mind")
        assert layered.warn_of_symmetry(activation, "mind", known=[symmetry]) == symmetry
