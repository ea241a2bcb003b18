"""What a specification refuses."""

import pytest

from sbjax.asymmetry import AsymmetrySpec, MaskSpec


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "W"}, "asymmetry.kind='W' is unknown"),
        ({"kind": "syr"}, "asymmetry.kind='syr' is unknown, did you mean 'syre'"),
        ({"kind": "w"}, r"asymmetry.masks=\(\) masks nothing"),
        ({"kind": "w", "masks": (("a", 3),)}, "asymmetry.masks holds .* give pairs"),
        (
            {"kind": "sigma", "sigma0": 1.0},
            "asymmetry.sigma0=1.0 has no effect with asymmetry.kind='sigma'.*only with kind='syre'",
        ),
        ({"kind": "syre", "init": "authors"}, "asymmetry.init='authors' has no effect"),
        ({"kind": "syre", "sigma0": -1.0}, "asymmetry.sigma0=-1.0 must be >= 0"),
        ({"kind": "sigma", "gate_scale": 0.0}, "asymmetry.gate_scale=0.0 must be > 0"),
        ({"kind": "fixed_bias", "bias_bound": float("inf")}, "asymmetry.bias_bound=inf must be a finite number"),
        ({"kind": "syre", "mask_seed": 0.5}, "asymmetry.mask_seed=0.5 must be of type int"),
        ({"kind": "w", "masks": (("a", MaskSpec(1)),), "init": "author"}, "init='author' is unknown, did you mean"),
    ],
)
def test_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        AsymmetrySpec(**fields)


@pytest.mark.wrong_types
def test_lists_from_a_config():
    pairs = [["dense_0/kernel", MaskSpec(1)]]
    assert hash(AsymmetrySpec("w", masks=pairs)) == hash(AsymmetrySpec("w", masks=(("dense_0/kernel", MaskSpec(1)),)))
