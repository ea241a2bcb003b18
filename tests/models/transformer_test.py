"""The small transformer: against attention written out, and RoPE by its invariance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.models.transformer import Transformer, rope_frequencies, rotate

X = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)


def norm(x, scale, kind, eps):
    x = x - x.mean(-1, keepdims=True) if kind == "layer" else x
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * scale


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_against_numpy(kind, positions):
    net = Transformer(classes=4, width=8, depth=1, heads=2, norm=kind, eps=0.1, positions=positions, activation="tanh")
    params = net.init(jax.random.key(0), X)["params"]
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = X @ p["embedding"]["kernel"]
    if positions == "learned":
        x = x + p["positions_table"]
    y = norm(x, p["norm_0"]["scale"], kind, 0.1)
    out = 0
    for head in range(2):
        q, k, v = (y @ p["attention_0"][name]["kernel"][:, head] for name in ("query", "key", "value"))
        scores = np.zeros((2, 5, 5))
        for i in range(5):
            for j in range(5):
                turned = np.eye(4)
                if positions == "rope":
                    for plane, frequency in enumerate((1.0, 0.1)):
                        c, s = np.cos((i - j) * frequency), np.sin((i - j) * frequency)
                        turned[2 * plane : 2 * plane + 2, 2 * plane : 2 * plane + 2] = [[c, -s], [s, c]]
                # <R_i q, R_j k> = <R_(i-j) q, k>.
                scores[:, i, j] = np.sum((q[:, i] @ turned.T) * k[:, j], -1)
        weights = np.exp(scores / 2)
        weights /= weights.sum(-1, keepdims=True)
        out = out + weights @ v @ p["attention_0"]["out"]["kernel"][head]
    x = x + out
    y = norm(x, p["norm_1"]["scale"], kind, 0.1)
    x = x + np.tanh(y @ p["dense_0"]["kernel"]) @ p["dense_1"]["kernel"]
    y = norm(x, p["norm_last"]["scale"], kind, 0.1).mean(-2)
    expected = y @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(net.apply({"params": params}, X), expected, rtol=1e-4, atol=1e-5)


def test_rotations_see_distances_only():
    random = np.random.default_rng(0)
    q, k = random.normal(size=(2, 6, 1, 4))
    angles = np.arange(6)[:, None] * np.array(rope_frequencies(4))
    scores = [
        np.einsum("ihk,jhk->ij", rotate(jnp.asarray(q), turn), rotate(jnp.asarray(k), turn))
        for turn in (angles, angles + 7 * np.array(rope_frequencies(4)))
    ]
    np.testing.assert_allclose(*scores, atol=1e-4)


def test_refusals():
    with pytest.raises(ValueError, match="heads=3 must divide width=8"):
        Transformer(classes=2, width=8, heads=3).init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="size=3 of a head must be even"):
        Transformer(classes=2, width=9, heads=3, positions="rope").init(jax.random.key(0), X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "batch"}, "norm='batch' is unknown; known: rms, layer"),
        ({"positions": "sines"}, "positions='sines' is unknown"),
        ({"activation": "swish"}, "activation='swish' is unknown"),
        ({"depth": -1}, "depth=-1 must be >= 1"),
        ({"heads": 0}, "heads=0 must be >= 1"),
        ({"eps": float("nan")}, "eps=nan must be a finite number"),
        ({"classes": 0}, "classes=0 must be >= 1"),
    ],
)
def test_options_that_a_class_made_by_hand_would_take_for_others(options, message):
    with pytest.raises(ValueError, match=message):
        Transformer(**{"classes": 2, **options}).init(jax.random.key(0), X)


@pytest.mark.wrong_types
def test_places_and_planes_that_do_not_fit():
    for x in (jnp.ones(3), jnp.ones((2, 0, 3))):
        with pytest.raises(ValueError, match="give tokens"):
            Transformer(classes=2).init(jax.random.key(0), x)
    for base in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="of the frequencies must be > 0"):
            rope_frequencies(4, base)
    with pytest.raises(ValueError, match="one for each place and plane"):
        rotate(jnp.ones((2, 1, 3)), np.zeros((2, 1)))
