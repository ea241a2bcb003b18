"""Activation matching against correlations of the whole data set by numpy, and planted permutations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from sbjax.models import make_model
from sbjax.symmetry.activation_matching import (
    init_moments,
    match_activations,
    match_moments,
    recorded,
    update_moments,
)
from sbjax.symmetry.permutation import Move, Spec, invert, permute

SPEC = Spec({"h": 6}, {"h": (Move("in", 1), Move("out", 0))}, {})


def stream(a, b, batches=4):
    moments = init_moments({"h": a})
    for x, y in zip(np.array_split(a, batches), np.array_split(b, batches), strict=True):
        moments = update_moments(moments, {"h": x}, {"h": y})
    return moments


@pytest.mark.parametrize("kind", ["pearson", "dot"])
def test_against_numpy(kind):
    """Streamed over uneven batches, with means far from zero."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 6))
    a = np.float32(rng.normal(size=(42, 6)) + 5)
    b = np.float32(a @ mix + rng.normal(size=(42, 6)))
    whole = np.corrcoef(a.T, b.T)[:6, 6:] if kind == "pearson" else a.T @ b / 42
    moments = stream(a, b)
    (place,) = moments["h"]
    np.testing.assert_allclose(place.cross, (a - a.mean(0)).T @ (b - b.mean(0)), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(place.square_b / 42, b.var(0), rtol=1e-4)
    expected = scipy.optimize.linear_sum_assignment(whole, maximize=True)[1]
    assert match_moments(SPEC, moments, kind=kind)["h"].tolist() == expected.tolist()


@pytest.mark.parametrize("kind", ["pearson", "dot"])
def test_dead_units_are_matched_last(kind):
    """Dead units among anticorrelated ones would be preferred, for a correlation of 0 is more than one of -1."""
    rng = np.random.default_rng(0)
    a = np.float32(rng.normal(size=(50, 6)))
    b = -a[:, [3, 1, 5, 0, 2, 4]]
    dead = 7.25 if kind == "pearson" else 0.0
    a[:, 2] = b[:, 0] = dead
    permutation = match_moments(SPEC, stream(a, b), kind=kind)["h"]
    assert permutation[2] == 0
    assert sorted(permutation.tolist()) == list(range(6))


def test_several_places():
    """One permutation seen at two places: their matrices are added."""
    rng = np.random.default_rng(0)
    first, second = (np.float32(rng.normal(size=(30, 3, 6))) for _ in range(2))
    order = rng.permutation(6)
    first[..., 0] = first[..., 1]  # alone, neither place tells all units apart
    second[..., 4] = second[..., 5]
    moments = init_moments({"h": [first, second]})
    moments = update_moments(moments, {"h": [first, second]}, {"h": [first[..., order], second[..., order]]})
    assert match_moments(SPEC, moments)["h"].tolist() == np.argsort(order).tolist()


def test_planted_in_a_model_of_the_package():
    """Activations are those that Flax captures."""
    model = make_model("mlp", classes=3, widths=(8, 7), norm="layer")
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 5)))
    moves = {
        f"h{i}": (
            *(Move(f"params/{name}", 0) for name in (f"dense_{i}/bias", f"norm_{i}/scale", f"norm_{i}/bias")),
            Move(f"params/dense_{i}/kernel", 1),
            Move(f"params/dense_{i + 1}/kernel", 0),
        )
        for i in range(2)
    }
    spec = Spec({"h0": 8, "h1": 7}, moves, {})
    rng = np.random.default_rng(0)
    planted = {"h0": rng.permutation(8), "h1": rng.permutation(7)}
    x = rng.normal(size=(40, 5)).astype(np.float32)
    permuted = permute(spec, variables, planted)
    apply = jax.jit(model.apply)
    np.testing.assert_allclose(apply(permuted, x), apply(variables, x), rtol=1e-4, atol=1e-5)

    def record(tree, batch):
        _, state = model.apply(tree, batch, capture_intermediates=True, mutable="intermediates")
        return recorded(spec, tree, state["intermediates"])

    assert {name: len(places) for name, places in jax.eval_shape(record, variables, x).items()} == {"h0": 2, "h1": 2}
    found = match_activations(spec, record, variables, permuted, np.split(x, 2))
    for name, order in invert(planted).items():
        assert found[name].tolist() == order.tolist()


def test_errors():
    record = lambda tree, x: {"h": x}  # noqa: E731
    x = jnp.ones((4, 6))
    for call, message in [
        (lambda: match_activations(SPEC, record, 0, 0, [x], kind="cosine"), "kind='cosine' is unknown"),
        (lambda: match_moments(SPEC, {}, kind="cosine"), "kind='cosine' is unknown"),
        (lambda: match_activations(SPEC, record, 0, 0, []), "batches is empty"),
        (lambda: match_activations(SPEC, record, 0, 0, [x[:, :5]]), "last axis must be the 6 units"),
        (lambda: match_activations(SPEC, lambda tree, x: {"g": x}, 0, 0, [x]), "gives 'g', which is no permutation"),
        (lambda: match_moments(SPEC, {"g": ()}), "activations of 'g', which is no permutation"),
        (lambda: match_activations(SPEC, record, 0, 0, [x * jnp.nan]), "NaN or infinite"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
