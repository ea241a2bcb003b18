"""ResNets: published parameter counts, names, shortcuts, stems."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import trees
from sbjax.models import ResNet, make_model


def shapes(name, side=32, **options):
    model = make_model(name, **options)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, side, side, 3)))["params"]


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("resnet8", {"classes": 10}, 78_042),  # by hand: 432 + 32, 4672, 14528, 57728, 650
        ("resnet18", {"classes": 10}, 11_173_962),
        ("resnet18", {"classes": 1000, "stem": "imagenet"}, 11_689_512),
        ("resnet20", {"classes": 10}, 272_474),
        ("resnet20", {"classes": 10, "shortcut": "identity"}, 269_722),
    ],
)
def test_published_parameter_counts(name, options, count):
    assert trees.size(shapes(name, **options)) == count


def test_width_scales_every_stage():
    narrow = trees.flatten(shapes("resnet20", classes=10, width=0.5))
    assert narrow["conv_stem/kernel"].shape == (3, 3, 3, 8)
    assert narrow["stage_2_block_2/conv_1/kernel"].shape == (3, 3, 32, 32)
    assert narrow["head/kernel"].shape == (32, 10)


def test_names():
    names = trees.flatten(shapes("resnet20", classes=10))
    assert {n.split("/")[0] for n in names} == {
        "conv_stem",
        "norm_stem",
        "head",
        *(f"stage_{s}_block_{b}" for s in (0, 1, 2) for b in range(3)),
    }
    assert [n for n in names if n.startswith("stage_1_block_0")] == [
        f"stage_1_block_0/{n}"
        for n in (
            "conv_0/kernel",
            "conv_1/kernel",
            "conv_shortcut/kernel",
            "norm_0/bias",
            "norm_0/scale",
            "norm_1/bias",
            "norm_1/scale",
            "norm_shortcut/bias",
            "norm_shortcut/scale",
        )
    ]


@pytest.mark.parametrize("norm", ["group", "none"])
def test_bias_only_without_a_normalisation(norm):
    names = trees.flatten(shapes("resnet20", classes=10, norm=norm))
    assert any(n.startswith("conv") and n.endswith("bias") for n in names) == (norm == "none")


@pytest.mark.extended
def test_identity_shortcut_subsamples_and_adds_zero_channels():
    """With the second stage's convolutions at zero, its block is the shortcut alone."""
    model = ResNet(classes=16, stages=(1, 1), base=8, shortcut="identity", norm="none")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 7, 3)), jnp.float32)
    params = jax.jit(model.init)(jax.random.key(0), x)["params"]
    params["stage_1_block_0"] = jax.tree.map(jnp.zeros_like, params["stage_1_block_0"])
    params["head"] = {"kernel": jnp.eye(16), "bias": jnp.zeros(16)}
    y, states = model.apply({"params": params}, x, capture_intermediates=True)
    before = states["intermediates"]["stage_0_block_0"]["__call__"][0]
    expected = jnp.pad(before[:, ::2, ::2].mean((1, 2)), ((0, 0), (4, 4)))
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("stem", "side", "expected"), [("cifar", 32, (32, 16)), ("imagenet", 32, (8, 4)), ("imagenet", 33, (9, 5))]
)
def test_map_sizes(stem, side, expected):
    model = ResNet(classes=2, stages=(1, 1), base=4, stem=stem)

    def maps(key, x):
        return model.init_with_output(key, x, capture_intermediates=True, mutable=True)[1]["intermediates"]

    states = jax.eval_shape(maps, jax.random.key(0), jnp.ones((1, side, side, 3)))
    assert tuple(states[f"stage_{s}_block_0"]["__call__"][0].shape[1] for s in (0, 1)) == expected
