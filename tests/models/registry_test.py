"""Networks by name: options from the fields of classes, and what is refused."""

import pickle

import jax
import jax.numpy as jnp
import pytest

from sbjax.common import options
from sbjax.common.names import import_path
from sbjax.models import (
    FAMILIES,
    make_denoiser,
    make_field,
    make_graph_model,
    make_map_model,
    make_metanet,
    make_model,
    make_quasi_partons,
    make_text_model,
    model_specs,
)

MAKE = {
    "image": lambda name, **given: make_model(name, classes=3, **given),
    "text": lambda name, **given: make_text_model(name, classes=3, vocabulary=9, **given),
    "graph": lambda name, **given: make_graph_model(name, classes=3, **given),
    "metanet": lambda name, **given: make_metanet(name, outputs=1, reading=None, **given),
    "denoiser": lambda name, **given: make_denoiser(name, reading=None, **given),
    "map": lambda name, **given: make_map_model(name, outputs=3, **given),
    "field": lambda name, **given: make_field(name, unknowns=1, lower=(0.0,), upper=(1.0,), x64=True, **given),
    "quasi_parton": lambda name, **given: make_quasi_partons(name, x64=True, **given),
}
NAMES = [(family, name) for family, models in FAMILIES.items() for name in models]


def outside(spec):
    """A value that an option must not have, for each of its bounds and choices, and one of another type."""
    one = spec.default[0] if isinstance(spec.default, tuple) else spec.default
    found = [] if spec.choices is None else ["nothing of the kind"]
    found += [] if spec.least is None else [type(one)(spec.least - 1)]
    found += [] if spec.above is None else [type(one)(spec.above)]
    found += [] if spec.below is None else [type(one)(spec.below)]
    found.append(object())
    return [(value,) for value in found] if isinstance(spec.default, tuple) else found


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_every_option_reaches_its_field_and_is_checked(family, name):
    specs = model_specs(name, family)
    made = MAKE[family](name)
    assert specs
    for option, spec in specs.items():
        assert spec.help
        assert getattr(made, option) == spec.default
        for value in spec.choices or ():
            assert getattr(MAKE[family](name, **{option: value}), option) == value
        for value in outside(spec):
            with pytest.raises(ValueError, match=rf"^{option}="):
                MAKE[family](name, **{option: value})
    with pytest.raises(ValueError, match=r"^optoin=1 is unknown.*; known: "):
        MAKE[family](name, optoin=1)


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_modules_are_values(family, name):
    """They compare, hash, clone and pickle, as static arguments and work in other processes need."""
    made = MAKE[family](name)
    assert made == MAKE[family](name)
    assert hash(made) == hash(MAKE[family](name))
    if family != "quasi_parton":  # a class that `nn.vmap` makes has no name to be found by
        assert pickle.loads(pickle.dumps(made)) == made
    option = next(iter(model_specs(name, family)))
    assert made.clone(**{option: getattr(made, option)}) == made


def test_what_a_name_fixes_is_no_option():
    for name, models in FAMILIES.items():
        for model in models.values():
            assert not set(model.fixed) & set(model_specs(name=next(iter(models)), family=name))
    assert "group" in options.describe(import_path(FAMILIES["image"]["p4cnn"].path))
    assert "group" not in model_specs("p4cnn")
    assert MAKE["image"]("p4mcnn").group == "p4m"


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("image", "resnet2O", "^name='resnet2O' is unknown, did you mean 'resnet20'"),
        ("image", "field", "^name='field' is a network of the family 'field', not 'image'; use mlp, cnn"),
        ("quasi_parton", "field", "^name='field' is a network of the family 'field', not 'quasi_parton'"),
        ("field", "no_such_module:Net", "^name='no_such_module:Net': there is no module 'no_such_module'"),
        (
            "image",
            "sbjax.models:Feild",
            "^name='sbjax.models:Feild': 'sbjax.models' has no 'Feild', did you mean 'Field'",
        ),
    ],
)
def test_names_that_do_not_exist(family, name, message):
    with pytest.raises(ValueError, match=message):
        MAKE[family](name)


def test_double_precision_has_to_be_on():
    box = {"unknowns": 1, "lower": (0.0,), "upper": (1.0,)}
    for make in (lambda: make_field("field", dtype="float64", **box),
                 lambda: make_quasi_partons("quasi_parton", dtype="float64")):  # fmt: skip
        with pytest.raises(ValueError, match=r"^dtype='float64' needs double precision"):
            make()


@pytest.mark.extended
def test_the_networks_of_this_package_by_import_path():
    """The very same function as by name, through the wrapper of a user's own."""
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    plain, own = (make_model(name, classes=3, channels=[4], norm="batch") for name in ("cnn", "sbjax.models:CNN"))
    variables = plain.init(jax.random.key(0), x)
    jax.tree.map(lambda a, b: jnp.array_equal(a, b) or pytest.fail("start"), variables, own.init(jax.random.key(0), x))
    for options_of_pass in ({}, {"train": True, "mutable": ["batch_stats"]}):
        a, b = (model.apply(variables, x, **options_of_pass) for model in (plain, own))
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), a, b)))
