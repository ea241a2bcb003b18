"""Canonical scales and signs: the function stays, and all rescaled copies become one network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.symmetry.matching import match_weights
from sbjax.symmetry.permutation import Move, Spec, permute
from sbjax.symmetry.rescaling import canonical_scale, canonical_sign

# A map [2, n, 3] flattened on its way to the second layer: 5 -> 4 (as 2 x 4 x 3 inputs) -> 7 -> 2.
SPEC = Spec(
    {"h": 4, "g": 7},
    {
        "h": (Move("conv/kernel", 1), Move("conv/bias", 0), Move("dense/kernel", 0, outer=2, inner=3)),
        "g": (Move("dense/kernel", 1), Move("dense/bias", 0), Move("head/kernel", 0)),
    },
    {},
)
SHAPES = {
    "conv/kernel": (5, 4),
    "conv/bias": (4,),
    "dense/kernel": (24, 7),
    "dense/bias": (7,),
    "head/kernel": (7, 2),
    "head/bias": (2,),
}
X = np.random.default_rng(1).normal(size=(20, 2, 3, 5)).astype(np.float32)


def draw(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def apply(params, x, activation):
    hidden = activation(x @ params["conv/kernel"] + params["conv/bias"][None, None, None])
    hidden = jnp.moveaxis(hidden, -1, 2).reshape(len(x), -1)
    hidden = activation(hidden @ params["dense/kernel"] + params["dense/bias"][None])
    return hidden @ params["head/kernel"] + params["head/bias"][None]


def rescale(params, h, g):
    """By hand: units times h and g."""
    blocks = params["dense/kernel"].reshape(2, 4, 3, 7) / h[None, :, None, None]
    return {
        **params,
        "conv/kernel": params["conv/kernel"] * h,
        "conv/bias": params["conv/bias"] * h,
        "dense/kernel": blocks.reshape(24, 7) * g,
        "dense/bias": params["dense/bias"] * g,
        "head/kernel": params["head/kernel"] / g[:, None],
    }


CASES = {
    "scale": (canonical_scale, jax.nn.relu, lambda rng, n: rng.uniform(0.1, 10, n)),
    "sign of tanh": (canonical_sign, jnp.tanh, lambda rng, n: rng.choice([-1.0, 1.0], n)),
    "sign of sin": (canonical_sign, jnp.sin, lambda rng, n: rng.choice([-1.0, 1.0], n)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_canonical(case, seed):
    canonical, activation, factors = CASES[case]
    rng, params = np.random.default_rng(seed), draw(seed)
    copy = rescale(params, *(np.float32(factors(rng, n)) for n in (4, 7)))
    assert max(np.abs(copy[name] - params[name]).max() for name in params) > 0.5
    outputs = apply(params, X, activation)
    np.testing.assert_allclose(apply(copy, X, activation), outputs, rtol=1e-3, atol=1e-3)
    one, other = canonical(SPEC, params), canonical(SPEC, copy)
    np.testing.assert_allclose(apply(one, X, activation), outputs, rtol=1e-3, atol=1e-3)
    for name in params:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(canonical(SPEC, one)[name], one[name], rtol=1e-5, atol=1e-6)


def test_unit_norm():
    one = canonical_scale(SPEC, draw(0))
    norms = np.sqrt((one["dense/kernel"] ** 2).sum(0) + one["dense/bias"] ** 2)
    np.testing.assert_allclose(norms, 1, rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_of_a_permuted_copy(case):
    """Canonical forms commute with permutations, so that matching them finds permutation and scale together."""
    canonical, _, factors = CASES[case]
    rng, params = np.random.default_rng(0), draw(0)
    planted = {"h": rng.permutation(4), "g": rng.permutation(7)}
    copy = permute(SPEC, rescale(params, *(np.float32(factors(rng, n)) for n in (4, 7))), planted)
    one, other = canonical(SPEC, params), canonical(SPEC, copy)
    matched = match_weights(SPEC, one, other, key=jax.random.key(0))
    for name, leaf in permute(SPEC, other, matched.permutations).items():
        np.testing.assert_allclose(leaf, one[name], rtol=1e-4, atol=1e-5)


def test_dead_units_stay():
    params = draw(0)
    params["conv/kernel"][:, 1] = params["conv/bias"][1] = 0
    one = canonical_scale(SPEC, params)
    assert all(np.isfinite(leaf).all() for leaf in one.values())
    assert not one["conv/kernel"][:, 1].any()


def test_blocks_of_a_residual_network():
    """x + W_out relu(W_in x): the inner units alone."""
    spec = Spec({"s": 3, "i": 5}, {"s": (Move("in", 0), Move("out", 1)), "i": (Move("in", 1), Move("out", 0))}, {})
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in {"in": (3, 5), "out": (5, 3)}.items()}
    one = canonical_scale(spec, params, names=["i"])
    x = rng.normal(size=(4, 3)).astype(np.float32)
    outputs = [jax.nn.relu(x @ p["in"]) @ p["out"] for p in (params, one)]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="in a cycle"):
        canonical_scale(spec, params)


def test_errors():
    with pytest.raises(ValueError, match="'x', which is no permutation of the spec"):
        canonical_scale(SPEC, draw(0), names=["x"])
    spec = Spec({"h": 2}, {"h": (Move("norm/scale", 0),)}, {})
    with pytest.raises(ValueError, match="of a normalisation"):
        canonical_sign(spec, {"norm/scale": np.ones(2)})
    with pytest.raises(ValueError, match="which is not there"):
        canonical_sign(spec, {"w": np.ones(2)})
