"""The U-Net: parameters, sides that do not divide, data sites, permutations of its channels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax import trees
from sbjax.expansion.transform import ImageExpansion, expand
from sbjax.models import UNet, make_map_model
from sbjax.symmetry.permutation import permute, random_permutations
from sbjax.symmetry.spec import derive_spec


def made(x, **given):
    model = UNet(**{"outputs": 2, "width": 4, "depth": 3, **given})
    return model, jax.jit(model.init)(jax.random.key(0), x)


@pytest.mark.parametrize(
    ("given", "count"), [({}, 487_730), ({"width": 32, "depth": 3}, 469_000), ({"width": 32}, 1_940_000)]
)
def test_parameters_are_counted(given, count):
    model = make_map_model("unet", outputs=2, **given)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    assert trees.size(shapes["params"]) == pytest.approx(count, rel=0 if not given else 0.01)


def test_a_wider_one_costs_what_the_expanded_one_does():
    """Twice the width on the raw image, or four times the pixels."""

    def flops(width, side):
        model, x = UNet(2, width=width), jax.ShapeDtypeStruct((1, side, side, 1), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
        return jax.jit(model.apply).lower(variables, x).cost_analysis()["flops"]

    assert 0.85 < flops(32, 32) / flops(16, 64) < 1.05


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("side", "filled"), [((8, 8), (8, 8)), ((7, 10), (8, 12)), ((5, 3), (8, 4))])
def test_any_sides(side, filled):
    x = jax.random.normal(jax.random.key(1), (2, *side, 1))
    model, variables = made(x)
    more = jnp.pad(x, [(0, 0), *((0, whole - part) for whole, part in zip(filled, side)), (0, 0)], mode="edge")
    apply = jax.jit(model.apply)
    found = apply(variables, x)
    assert found.shape == (2, *side, 2)
    np.testing.assert_allclose(found, apply(variables, more)[:, : side[0], : side[1]], rtol=1e-6, atol=1e-6)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_a_training_step_reaches_every_parameter(norm):
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    model, variables = made(x, norm=norm, activation="silu")

    def loss(params):
        out, _ = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
        return (out**2).sum()

    for name, gradient in trees.flatten(jax.jit(jax.grad(loss))(variables["params"])).items():
        assert np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > 0, name
    assert ("batch_stats" in variables) == (norm == "batch")


def test_the_head_at_data_sites_is_the_map_at_data_sites():
    expansion = ImageExpansion(2, 0.5, offset=1)
    x = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    model, variables = made(expand(expansion, x))
    sited = model.clone(sites=expansion)
    whole = jax.jit(model.apply)(variables, expand(expansion, x))
    assert whole.shape == (2, 16, 16, 2)
    found = jax.jit(sited.apply)(variables, expand(expansion, x))
    np.testing.assert_allclose(found, whole[:, 1::2, 1::2], rtol=1e-5, atol=1e-6)


def test_channels_of_every_level_can_be_permuted():
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    model, variables = made(x, depth=2)
    spec = derive_spec(model.apply, variables, x)
    assert sorted(spec.sizes.values()) == sorted(2 * [4, 8] + 2 * [4])
    other = permute(spec, variables, random_permutations(jax.random.key(3), spec))
    assert float(optax.tree.norm(jax.tree.map(jnp.subtract, other, variables))) > 0
    apply = jax.jit(model.apply)
    np.testing.assert_allclose(apply(other, x), apply(variables, x), rtol=1e-4, atol=1e-5)
