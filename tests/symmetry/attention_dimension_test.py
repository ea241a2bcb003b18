"""Counts of continuous symmetries: closed forms against null spaces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import trees
from sbjax.common import devices
from sbjax.models.transformer import Transformer, rope_frequencies
from sbjax.symmetry import attention_dimension as lib
from sbjax.symmetry.attention_layout import layout_of


@pytest.mark.parametrize(
    ("frequencies", "unrotated", "expected"),
    [
        ([1.0, 0.1, 0.01], 0, 6),  # (C*)^3
        ([1.0, 1.0, 0.1], 0, 10),  # GL(2, C) and C*
        ([1.0, -1.0], 0, 8),  # a plane and its mirror image turn alike
        ([1.0, 2 * np.pi - 1], 0, 8),  # whole distances cannot tell
        ([np.pi, 0.3], 0, 6),  # a change of sign commutes with all of GL(2, R)
        ([0.0, 0.3], 0, 6),
        ([0.3], 3, 11),  # rotations of a part of a head
        ([0.0, 0.3], 2, 18),
        ([], 5, 25),
    ],
)
def test_what_rope_leaves_of_a_head(frequencies, unrotated, expected):
    assert lib.rope_dimension(frequencies, unrotated=unrotated) == expected
    matrices = []
    for rotation in lib.rotations(frequencies, range(1, 6)):
        size = len(rotation)
        matrices.append(np.eye(size + unrotated))
        matrices[-1][:size, :size] = rotation
    assert lib.commutant(matrices).dimension == expected


@pytest.mark.parametrize(("norm", "n"), [("rms", 5), ("layer", 4)])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_what_a_norm_lets_pass(norm, n, eps):
    expected = n * (n - 1) // 2 + (eps == 0)
    found = lib.norm_null_space(norm, 5, eps=eps)
    assert (found.dimension, lib.stream_dimension(norm, 5, eps=eps)) == (expected, expected)
    assert found.kept > 1e3 * found.dropped


@pytest.mark.parametrize("inner", [2, 3, 5])
def test_two_factors(inner):
    with devices.double():
        random = np.random.default_rng(0)
        params = {"a": jnp.asarray(random.normal(size=(3, inner))), "b": jnp.asarray(random.normal(size=(inner, 4)))}
        found = lib.null_dimension(lambda p, x: x @ p["a"] @ p["b"], params, jnp.asarray(random.normal(size=(20, 3))))
    assert found.dimension == lib.factor_dimension(3, 4, inner)


NETS = {
    "rms": {"norm": "rms"},
    "rms_scale": {"norm": "rms", "eps": 0.0, "activation": "tanh"},
    "rope": {"norm": "rms", "positions": "rope", "bias": True},
    "rope_equal": {"norm": "rms", "positions": "rope", "rope_base": 1.0, "activation": "gelu"},
    "layer": {"norm": "layer", "bias": True, "activation": "gelu"},
    "layer_rope": {"norm": "layer", "positions": "rope", "bias": True},
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", NETS)
def test_no_continuous_symmetry_of_a_transformer_is_missing(name):
    options = NETS[name]
    net = Transformer(classes=3, width=6, depth=1, heads=2, size=4, hidden=3, **options)
    random = np.random.default_rng(3)
    with devices.double():
        params = net.init(jax.random.key(0), jnp.ones((1, 5, 5)))["params"]
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) + 0.3 * random.normal(size=leaf.shape), params)
        inputs = jnp.asarray(random.normal(size=(trees.size(params) // 2, 5, 5)))
        found = lib.null_dimension(lambda p, x: net.apply({"params": p}, x), params, inputs)
    rope = rope_frequencies(4, options.get("rope_base", 100.0)) if options.get("positions") == "rope" else ()
    layout = layout_of(params, norm=options["norm"], activation=options.get("activation", "relu"), rope=rope)
    parts = lib.transformer_dimensions(layout, params, eps=options.get("eps", 1e-6))
    assert found.dimension == sum(parts.values()), parts
    assert found.kept > 10 * found.dropped


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lib.null_space(np.full((3, 3), np.nan)), "entries that are not finite"),
        (lambda: lib.null_space(np.ones((3, 0))), "without unknowns"),
        (lambda: lib.null_space(np.eye(2), rtol=np.nan), "rtol=nan"),
        (lambda: lib.stream_dimension("rms", 4, eps=-1.0), "eps=-1.0 must be >= 0"),
        (lambda: lib.norm_null_space("layer", 1), "d=1 leaves nothing"),
        (lambda: lib.rotations([np.nan], [1]), "must be finite"),
        (lambda: lib.commutant([]), "no matrices are given"),
        (lambda: lib.commutant([np.eye(2), np.eye(3)]), "give square ones of one size"),
        (lambda: lib.rope_dimension([np.nan]), "must be finite"),
        (lambda: lib.factor_dimension(-1, 2, 3), "rows=-1, columns=2 and inner=3 must be >= 1"),
        (lambda: lib.stream_dimension("batch", 4), "norm='batch' is unknown"),
        (lambda: lib.norm_null_space("batch", 4), "norm='batch' is unknown"),
        (lambda: lib.stream_dimension("layer", 1), "d=1 leaves nothing after a norm of kind 'layer'"),
    ],
)
def test_what_has_no_dimension_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_refusals():
    with pytest.raises(ValueError, match="2 equations for 3 unknowns: give more inputs"):
        lib.null_space(np.ones((2, 3)))
    with pytest.raises(ValueError, match="ranks need float64"):
        lib.null_dimension(lambda p, x: p * x, jnp.ones(1, jnp.float32), jnp.ones(3))
