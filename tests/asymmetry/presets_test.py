"""Published settings: trainable parameters counted without a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import trees
from sbjax.asymmetry import constants, mlp_mnist, resnet8, resnet20, trainable_size
from sbjax.models import make_model


@pytest.mark.parametrize(
    ("name", "options", "spec", "standard", "trainable"),
    [
        (
            "mlp",
            {"widths": (512,) * 3, "norm": "layer", "activation": "gelu"},
            mlp_mnist(),
            935_434,
            834_570,
        ),
        ("resnet20", {"norm": "layer"}, resnet20(), 272_474, 230_026),
        ("resnet20", {"norm": "layer", "width": 8}, resnet20(8), 17_289_866, 16_273_946),
        ("resnet8", {"norm": "layer"}, resnet8(), 78_042, 60_634),
    ],
    ids=["mlp", "resnet20", "resnet20, width 8", "resnet8"],
)
def test_published_parameter_counts(name, options, spec, standard, trainable):
    """Table of trainable parameters in arXiv 2405.20231; there ResNet20 of width 1 has two fewer, against its settings.

    ResNet8 is counted by hand: 78,042 less 432 (first convolution), 16 x 72 + 16 x 72, 32 x 72 + 32 x 72 + 32 x 8 and
    64 x 72 + 64 x 72 + 64 x 8 (blocks), 80 (head).
    """
    side = 28 if name == "mlp" else 32
    model = make_model(name, classes=10, **options)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, side, side, 1 if name == "mlp" else 3)))[
        "params"
    ]
    assert trainable_size({"params": params}) == trees.size(params) == standard
    made = constants(params, spec)
    assert trainable_size({"params": params, "frozen": {"asymmetry": made}}) == trainable
    for mask, fixed in zip(jax.tree.leaves(made["trainable"]), jax.tree.leaves(made["fixed"]), strict=True):
        assert (fixed[mask] == 0).all()
        assert (fixed[~mask] != 0).all()


@pytest.mark.parametrize("n_fix_stem", [4, 12])
def test_first_convolution_of_the_wide_resnet_can_be_left_trainable(n_fix_stem):
    mask = constants(
        {"conv_stem": {"kernel": np.zeros((3, 3, 3, 128))}, **stages()}, resnet20(8, n_fix_stem=n_fix_stem)
    )
    assert mask["trainable"]["conv_stem"]["kernel"].sum() == 128 * (27 - n_fix_stem)


def stages():
    """The least that every pattern of `resnet20` needs."""
    names = [f"stage_{s}_block_0/{c}" for s, c in ((0, "conv_0"), (1, "conv_0"), (1, "conv_shortcut"), (2, "conv_0"))]
    shapes = {name: (3, 3, 128, 4) for name in [*names, "stage_2_block_0/conv_shortcut"]} | {"head": (512, 10)}
    flat = {name: {"kernel": np.zeros(shape)} for name, shape in shapes.items()}
    tree = {"head": flat.pop("head")}
    for name, leaf in flat.items():
        block, conv = name.split("/")
        tree.setdefault(block, {})[conv] = leaf
    return tree


def test_no_published_setting_for_other_widths():
    with pytest.raises(ValueError, match="width=2: settings were published for widths 1 and 8"):
        resnet20(2)
