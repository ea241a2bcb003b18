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
    assert narrow["conv_0/kernel"].shape == (3, 3, 3, 8)
    assert narrow["stage_3_block_2/conv_1/kernel"].shape == (3, 3, 32, 32)
    assert narrow["head/kernel"].shape == (32, 10)


def test_names():
    names = trees.flatten(shapes("resnet20", classes=10))
    assert {n.split("/")[0] for n in names} == {
        "conv_0",
        "norm_0",
        "head",
        *(f"stage_{s}_block_{b}" for s in (1, 2, 3) for b in range(3)),
    }
    assert [n for n in names if n.startswith("stage_2_block_0")] == [
        f"stage_2_block_0/{n}"
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


def test_identity_shortcut_subsamples_and_adds_zero_channels():
    """With the second stage's convolutions at zero, its block is the shortcut alone."""
    first, both = (
        ResNet(classes=24, blocks=b, channels=c, shortcut="identity", norm="none")
        for b, c in (((1,), (8,)), ((1, 1), (8, 24)))
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 7, 3)), jnp.float32)
    params = jax.jit(both.init)(jax.random.key(0), x)["params"]
    params["stage_2_block_0"] = jax.tree.map(jnp.zeros_like, params["stage_2_block_0"])
    params["head"] = {"kernel": jnp.eye(24), "bias": jnp.zeros(24)}
    _, states = first.apply(
        {"params": params | {"head": {"kernel": jnp.eye(8, 24), "bias": jnp.zeros(24)}}}, x, capture_intermediates=True
    )
    map_1 = states["intermediates"]["stage_1_block_0"]["__call__"][0]
    expected = jnp.pad(map_1[:, ::2, ::2].mean((1, 2)), ((0, 0), (0, 16)))
    np.testing.assert_allclose(both.apply({"params": params}, x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("stem", "side", "expected"), [("cifar", 32, (32, 16)), ("imagenet", 32, (8, 4)), ("imagenet", 33, (9, 5))]
)
def test_map_sizes(stem, side, expected):
    model = ResNet(classes=2, blocks=(1, 1), channels=(4, 8), stem=stem)

    def maps(key, x):
        return model.init_with_output(key, x, capture_intermediates=True, mutable=True)[1]["intermediates"]

    states = jax.eval_shape(maps, jax.random.key(0), jnp.ones((1, side, side, 3)))
    assert tuple(states[f"stage_{s}_block_0"]["__call__"][0].shape[1] for s in (1, 2)) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem": "image_net"}, "stem='image_net' is unknown; did you mean 'imagenet'"),
        ({"shortcut": "conv"}, "shortcut='conv' is unknown"),
        ({"blocks": (1, 1)}, "one of each for every stage"),
        ({"channels": (8, 8, 4), "shortcut": "identity"}, "take shortcut='projection'"),
        ({"norm": "bn"}, "norm='bn' is unknown"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        shapes("resnet20", classes=2, **options)
