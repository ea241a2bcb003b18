"""Involutions by construction: exact symmetry of projections, tied units and kernels, and what is no involution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.landscape.layered import forward
from sbjax.symmetry import involution as inv

SKEW = inv.oblique_reflection([1.0, 0.4, -0.3], [1.0, -0.7, 0.2], 0.3)
EXACT = {
    "sign": inv.make_involution(np.diag([1.0, -1.0, -1.0])),
    "swap": inv.make_involution([[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
    "swap and sign": inv.make_involution([[0, -1, 0], [-1, 0, 0], [0, 0, -1]]),
}


def network(seed, dtype):
    random = np.random.default_rng(seed)
    sizes = [(3, 16), (16, 16), (16, 2)]
    params = {
        f"dense_{i}": {"kernel": jnp.asarray(random.normal(size=s), dtype), "bias": jnp.ones(s[1], dtype) / 3}
        for i, s in enumerate(sizes)
    }
    return lambda x: forward(params, x, jnp.tanh)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", EXACT)
def test_exact_to_the_last_bit_where_the_involution_is(name, sign):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(64, 3)), jnp.float32)
    moved = EXACT[name](x)
    np.testing.assert_array_equal(EXACT[name](moved), x)
    f = inv.projected(network(0, jnp.float32), EXACT[name], sign)
    np.testing.assert_array_equal(f(moved), sign * f(x))
    assert float(jnp.abs(f(x)).max()) > 0.1


@pytest.mark.parametrize("sign", [1, -1])
def test_affine_to_round_off_and_zero_where_nothing_moves(sign, x64):
    x = jnp.asarray(np.random.default_rng(2).normal(size=(64, 3)))
    np.testing.assert_allclose(SKEW(SKEW(x)), x, atol=1e-13)
    g = network(0, jnp.float64)
    f = inv.projected(g, SKEW, sign)
    np.testing.assert_allclose(f(SKEW(x)), sign * f(x), atol=1e-12)
    assert float(jnp.abs(g(SKEW(x)) - sign * g(x)).max()) > 0.1
    fixed = (x + SKEW(x)) / 2
    np.testing.assert_allclose(f(fixed), g(fixed) if sign == 1 else 0.0, atol=1e-12)
    np.testing.assert_allclose(inv.projected(f, SKEW, sign)(x), f(x), atol=1e-12)  # a projector


@pytest.mark.parametrize("sign", [1, -1])
def test_tied_units_are_the_projector(sign, x64):
    random = np.random.default_rng(3)
    w, c, a = (jnp.asarray(random.normal(size=s)) for s in ((3, 7), (7,), (7, 2)))
    x = jnp.asarray(random.normal(size=(20, 3)))
    wide, bias, readout = inv.tied_units(w, c, a, SKEW, sign)
    assert wide.shape == (3, 14)
    expected = inv.projected(lambda x: jax.nn.silu(x @ w + c[None]) @ a, SKEW, sign)(x)
    np.testing.assert_allclose(jax.nn.silu(x @ wide + bias[None]) @ readout, expected, atol=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_layers_of_pairs_keep_the_symmetry(sign, x64):
    """Three hidden layers; without crossed kernels it is the projector of the deep network."""
    random = np.random.default_rng(5)
    w, a = jnp.asarray(random.normal(size=(3, 7))), jnp.asarray(random.normal(size=(7, 2)))
    c = jnp.asarray(random.normal(size=(3, 7)))
    x = jnp.asarray(random.normal(size=(20, 3)))
    same = jnp.asarray(random.normal(size=(2, 7, 7)))
    for crossed in (jnp.asarray(random.normal(size=(2, 7, 7))), jnp.zeros((2, 7, 7))):
        wide, bias, readout = inv.tied_units(w, c[0], a, SKEW, sign)

        def f(x, crossed=crossed, wide=wide, bias=bias, readout=readout):
            h = jnp.tanh(x @ wide + bias[None])
            for layer in range(2):
                kernel, shift = inv.paired_layer(same[layer], crossed[layer], c[1 + layer])
                h = jnp.tanh(h @ kernel + shift[None])
            return h @ readout

        np.testing.assert_allclose(f(SKEW(x)), sign * f(x), atol=1e-12)
        assert float(jnp.abs(f(x)).max()) > 0.1

    def plain(x):
        h = jnp.tanh(x @ w + c[:1])
        for layer in range(2):
            h = jnp.tanh(h @ same[layer] + c[None, 1 + layer])
        return h @ a

    np.testing.assert_allclose(f(x), inv.projected(plain, SKEW, sign)(x), atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1])
def test_flips_of_images(axis, x64):
    """Logits of the projector do not move with the image; symmetric kernels flip their maps, with any sign."""
    random = np.random.default_rng(4)
    images, kernel = jnp.asarray(random.normal(size=(2, 6, 6, 3))), jnp.asarray(random.normal(size=(3, 3, 3, 4)))
    turn = inv.flip(axis - 3)

    def convolved(images, kernel):
        return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def logits(images):
        return jax.nn.relu(convolved(images, kernel)).reshape(len(images), -1) @ jnp.arange(144.0)[:, None]

    f = inv.projected(logits, turn)
    np.testing.assert_array_equal(f(turn(images)), f(images))
    for sign in (1, -1):
        tied = inv.flipped_kernel(kernel, axis, sign)
        np.testing.assert_allclose(convolved(turn(images), tied), sign * turn(convolved(images, tied)), atol=1e-12)


def tied(involution):
    return inv.tied_units(jnp.ones((1, 2)), jnp.ones(2), jnp.ones((2, 1)), involution, 1)


def test_an_involution_that_was_accepted_is_accepted_again():
    """Of single precision, by its tolerance."""
    normal = np.array([1.0, 2.0, 2.0]) / 3
    mirror = np.asarray(np.eye(3) - 2 * np.outer(normal, normal), np.float32) + np.float32(1e-7)
    with pytest.raises(ValueError, match="an involution has A A = 1"):
        inv.make_involution(mirror)
    even = inv.projected(lambda x: jnp.sin(x).sum(-1), inv.make_involution(mirror, tolerance=1e-5))
    x = jnp.arange(3.0)
    np.testing.assert_allclose(even(x), even(jnp.asarray(mirror) @ x), rtol=1e-5)


def test_whole_numbers_do_not_cut_the_shift():
    x = jnp.array([0, 1, 2])
    np.testing.assert_allclose(SKEW(x), SKEW(x.astype(float)), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: inv.make_involution([[1, 2]]), r"matrix has shape \(1, 2\)"),
        (lambda: inv.make_involution(np.ones((0, 0))), r"matrix has shape \(0, 0\)"),
        (lambda: inv.make_involution(np.eye(2), [1.0]), r"shift has shape \(1,\)"),
        (lambda: inv.make_involution([[0.6, 0.8], [-0.8, 0.6]]), "an involution has A A = 1"),
        (lambda: inv.make_involution(np.eye(2), [1.0, 0.0]), "an involution has A b = -b"),
        (lambda: inv.oblique_reflection([1, 0], [0, 1]), "lies in the hyperplane"),
        (lambda: inv.projected(jnp.sin, jnp.negative, 2), "sign=2 must be 1 or -1"),
        (lambda: inv.projected(jnp.sin, inv.Involution(2 * np.eye(1), np.zeros(1))), "an involution has A A = 1"),
        (lambda: tied(inv.Involution(2 * np.eye(1), np.zeros(1))), "an involution has A A = 1"),
        (lambda: tied(jnp.negative), "make one with make_involution"),
        (lambda: tied(inv.make_involution(-np.eye(2))), r"give \[2, m\], \[m\] and \[m, o\]"),
        (lambda: EXACT["swap"](jnp.ones(4)), "this involution is of 3 entries"),
        (lambda: inv.paired_layer(jnp.ones((2, 2)), jnp.ones((2, 3)), jnp.ones(2)), "same, crossed and bias"),
        (lambda: inv.flip(0), "axis=0 must be -3"),
        (lambda: inv.flipped_kernel(jnp.ones((3, 3, 1, 1)), 2), "axis=2 must be 0 or 1"),
    ],
)
@pytest.mark.wrong_types
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
