"""The network of an equation, and the plain perceptron that it amounts to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.expansion.transform import ImageExpansion, VectorExpansion
from sbjax.models import make_field
from sbjax.models.field import effective_layers

BOX = {"lower": (-1.0, 0.0), "upper": (3.0, 0.5)}


def by_hand(params, x):
    for i in range(3):
        x = x @ np.asarray(params[f"dense_{i}"]["kernel"]) + np.asarray(params[f"dense_{i}"]["bias"])
        x = np.tanh(x) if i < 2 else x
    return x


def test_coordinates_are_scaled_then_expanded():
    field = make_field("field", unknowns=2, widths=(5, 4), normalise=True, expansion=VectorExpansion(1, 2), **BOX)
    variables = field.init(jax.random.key(0), jnp.zeros(2))
    x = np.array([[0.0, 0.1], [3.0, 0.5]])
    scaled = np.array([[-0.5, -0.6], [1.0, 1.0]])
    expanded = np.concatenate([np.full((2, 1), np.pi), scaled, np.full((2, 2), np.pi)], 1)
    np.testing.assert_allclose(field.apply(variables, x), by_hand(variables["params"], expanded), rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(field.apply(variables, x[0]), field.apply(variables, x)[0], rtol=1e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("expansion", [None, VectorExpansion(2, 2), VectorExpansion(0, 3, (1.0, 2.0, 3.0))])
def test_effective_layers_are_the_field(normalise, expansion, x64):
    field = make_field(
        "field", unknowns=1, widths=(5, 4), normalise=normalise, expansion=expansion, dtype="float64", x64=True, **BOX
    )
    variables = field.init(jax.random.key(1), jnp.zeros(2))
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 3, (7, 2)))
    h = x
    layers = effective_layers(field, variables["params"])
    assert layers[0][0].shape == (2, 5)
    for weight, bias in layers[:-1]:
        h = jnp.tanh(h @ weight + bias[None])
    np.testing.assert_allclose(h @ layers[-1][0] + layers[-1][1][None], field.apply(variables, x), rtol=1e-12)


@pytest.mark.extended
def test_glorot_start():
    field = make_field("field", unknowns=1, widths=(400, 300), **BOX)
    params = field.init(jax.random.key(0), jnp.zeros(2))["params"]
    np.testing.assert_allclose(jnp.std(params["dense_1"]["kernel"]), np.sqrt(2 / 700), rtol=0.01)
    assert not params["dense_1"]["bias"].any()


def test_random_features_are_frozen_and_scaled():
    field = make_field("field", unknowns=1, widths=(8, 8), features=4000, feature_scale=3.0, **BOX)
    variables = field.init(jax.random.key(0), jnp.zeros(2))
    frequencies = variables["frozen"]["frequencies"]
    np.testing.assert_allclose(jnp.std(frequencies), 3.0, rtol=0.03)
    assert variables["params"]["dense_0"]["kernel"].shape == (8000, 8)
    with pytest.raises(ValueError, match="random features is not a plain perceptron"):
        effective_layers(field, variables["params"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "feild"}, "did you mean 'field'"),
        ({"width": 3}, "^width=3 is unknown, did you mean 'widths'"),
        ({"widths": (0,)}, r"^widths=\(0,\) holds an entry that must be >= 1"),
        ({"activation": "tan"}, "did you mean 'tanh'"),
        ({"dtype": "float64"}, "^dtype='float64' needs double precision, x64=True"),
        ({"feature_scale": 2.0}, "^feature_scale=2.0 has no effect with features=0"),
        ({"expansion": ImageExpansion(2)}, r"^ImageExpansion does not fit an input of shape \(2,\)"),
        ({"features": -1}, "^features=-1 must be >= 0"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        make_field(options.pop("name", "field"), unknowns=1, **BOX, **options)
