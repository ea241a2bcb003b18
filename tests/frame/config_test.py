"""What is refused, and in which words; what is left of a configuration once it is read."""

import json

import pytest

from sbjax import config as config_lib
from sbjax.common.options import Spec, describe
from sbjax.config import base_config, check, parse_words, read, shrink
from sbjax.experiments import registry
from sbjax.frame.differences import differences
from sbjax.frame.errors import ConfigError
from sbjax.frame.sections import SHARED, General

EXPANDED = {"expansion": {"kind": "image", "factor": 2, "fill": "0.5"}}


def valid(kind="images"):
    config = base_config(kind)
    config.train_steps = 0 if kind == "zoo" else 20  # a network of a zoo has epochs of its own
    config.monitor.kinds = ""
    config.arms = {"raw": {}}
    return config


def changed(*changes, kind="images"):
    """The valid config as nested dicts with (path, value) set; sections on the way are made."""
    tree = valid(kind).to_dict()
    for path, value in changes:
        *sections, name = path.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree


def test_complete_and_in_order():
    plan = read(changed(("arms.expanded", EXPANDED), ("arms.alpha", {"task": {"flip": True}, "order": 1})))
    assert [arm.name for arm in plan.arms] == ["raw", "expanded", "alpha"]  # the reference, then by order
    assert [arm.role for arm in plan.arms] == ["reference", "treatment", "treatment"]
    assert check({"train_steps": 5, "arms": {"raw": {}}})["optimizer"]["name"] == "sgd"  # defaults are filled in
    assert plan.settings == json.loads(json.dumps(plan.settings))
    # Read again, it is the same: what `config.json` holds is a config.
    assert read(plan.settings).settings == plan.settings


def test_what_is_not_read_is_not_kept():
    settings = check(changed(("optimizer.name", "adam"), ("optimizer.momentum", 0.0), ("optimizer.weight_decay", 0.0)))
    assert set(settings["optimizer"]) == {
        *("name", "learning_rate", "b1", "b2", "clip_norm", "schedule", "warmup_share", "first_bias_scale"),
    }
    assert settings["interpolation"] == {"between": ""}
    assert "population" not in check({"train_steps": 4, "replicas": 32, "arms": {"raw": {}}, "task": {"kind": "ising"}})


REFUSED = [
    ("replcas", 3, "replcas=3 is unknown, did you mean 'replicas'?"),
    ("batch_size", 3, "batch_size=3 is unknown, did you mean 'task.batch_size'?"),
    ("task.batchsize", 3, "task.batchsize=3 is unknown, did you mean 'batch_size'?"),
    ("task", 3, "task=3 must be a section"),
    ("task.kind", "image", "task.kind='image' is unknown, did you mean 'images'"),
    ("task.kind", "regression", "task.kind='regression' is now called 'functions'"),
    ("train_epochs", 2.0, "give exactly one of them"),
    ("train_steps", 0, "give exactly one of them"),
    ("reference", "rwa", "reference='rwa' is not an arm, did you mean 'raw'?"),
    ("arms.b", {"expanson": {}}, "arms.b.expanson is unknown, did you mean 'expansion'?"),
    ("arms.b", {"task": {"batchsize": 3}}, "arms.b.task.batchsize=3 is unknown"),
    ("arms.b", {"task": {"kind": "pinn"}}, "arms.b.task.kind='pinn' must be 'images' as in the whole run"),
    ("arms.b", {}, "arms.b has the settings of arms.raw"),
    ("arms.b", {**EXPANDED, "order": "2"}, "arms.b.order='2' must be a whole number"),
    ("arms.b", {**EXPANDED, "role": "reference"}, "arms.b.role='reference': reference='raw' has the role"),
    ("arms.b", {**EXPANDED, "role": "helper"}, "arms.b.role='helper'.*'control of WHAT'"),
    ("arms.ra w", {}, "a name is made of letters"),
    ("arms", {"raw": {}} | {str(i): {"model": {"widths": (i,)}} for i in range(1, 501)}, "arms are 501, more than 500"),
    ("arms.ra\udcff", {}, r"arms has a field 'ra\\udcff': text that is no UTF-8 cannot be written"),
    ("task.data_dir", "/data/\udcff", r"task.data_dir='/data/\\udcff': text that is no UTF-8 cannot be written"),
    ("lines", {"between": "pairs"}, "lines is now called 'interpolation'"),
    ("finish", {"steps": 3}, "finish is now called 'second_phase'"),
    ("mapping", {"devices": 1}, "mapping is now called 'placement'"),
    # What has no effect (each was once accepted in silence).
    ("optimizer.decay_every_steps", 5, "optimizer.decay_every_steps=5 has no effect with optimizer.schedule='cosine'"),
    (
        "optimizer.memory_size",
        5,
        "optimizer.memory_size=5 has no effect with optimizer.name='sgd': it is read by lbfgs",
    ),
    ("second_phase.name", "adam", "second_phase.name='adam' has no effect with second_phase.steps=0"),
    ("second_phase.steps", 10**11, "second_phase.steps=100000000000 must be <= 2147483647"),
    ("second_phase.steps", -1, "second_phase.steps=-1 must be >= 0"),
    ("second_phase.steps", True, "second_phase.steps=True must be of type int"),
    (
        "second_phase.steps",
        2**31 - 1,
        "train_steps=.* and second_phase.steps=2147483647 add up to more than 2147483647",
    ),
    ("second_phase.first_bias_scale", True, "second_phase.first_bias_scale=True has no effect with second_phase.steps"),
    ("interpolation.points", 7, "interpolation.points=7 has no effect with interpolation.between=''"),
    (
        "monitor",
        {"kinds": "marginal", "at": " , "},
        "monitor.at=' , ': monitor.kinds='marginal' would be measured nowhere",
    ),
    ("monitor.at", "start", "monitor.at='start' has no effect with monitor.kinds=''"),
]


@pytest.mark.wrong_types
@pytest.mark.parametrize(("path", "value", "words"), REFUSED)
def test_refusals_name_field_value_and_remedy(path, value, words):
    with pytest.raises(ConfigError, match=words):
        read(changed((path, value)))


OPTIMIZERS = [
    ("adam", {"momentum": 0.5}),
    ("adam", {"memory_size": 5}),
    ("adam", {"precondition_every": 3}),
    ("lbfgs", {"learning_rate": 123.0}),
    ("lbfgs", {"schedule": "step", "decay_every_steps": 3}),
    ("sgd", {"memory_size": -5}),
    ("sgd", {"b1": 0.5}),
    ("adamw", {"schedule": "constant", "decay_factor": 0.5}),
]


@pytest.mark.parametrize(("name", "fields"), OPTIMIZERS)
def test_an_optimizer_reads_its_own_options_alone(name, fields):
    with pytest.raises(ConfigError, match=r"optimizer\.\w+=.* has no effect"):
        read(changed(("optimizer", {"name": name, **fields})))


NOT_READ = [
    ("ising", "optimizer.name", "nonsense"),
    ("ising", "model", {"name": "nonsense"}),
    ("ising", "second_phase.steps", 7),
    ("ising", "population.learning_rate", 1.0),
    ("ising", "monitor.kinds", "nonsense"),
    ("ising", "checkpoint.keep_best", 2),
    ("ising", "placement.devices", 2),
    ("landscape", "optimizer.name", "nonsense"),
    ("landscape", "expansion", {"kind": "image", "factor": 2}),
    ("landscape", "reports", 3),
    ("landscape", "train_epochs", 2.0),
    ("pinn", "interpolation.between", "pairs"),
    ("qcd", "interpolation.between", "start"),
    ("functions", "interpolation.points", 3),
]


@pytest.mark.parametrize(("kind", "path", "value"), NOT_READ)
def test_a_section_that_a_kind_does_not_read_is_refused(kind, path, value):
    with pytest.raises(ConfigError, match=rf"{path.split('.')[0]}.* has no effect with task.kind='{kind}'"):
        read(changed((path, value), kind=kind))


@pytest.mark.parametrize("kind", ["ising", "landscape"])
@pytest.mark.parametrize("section", ["expansion", "optimizer", "model", "second_phase"])
def test_an_arm_that_differs_in_nothing_that_is_read_is_refused(kind, section):
    with pytest.raises(ConfigError, match=f"arms.b.{section} has no effect with task.kind='{kind}', whose arms differ"):
        read(changed((f"arms.b.{section}", {"name": "adam"}), kind=kind))


def wrong(spec: Spec):
    """Values that an option cannot have: below its bounds, of another type, an unknown word."""
    if spec.least is not None:
        yield spec.least - 1
    if spec.above is not None:
        yield spec.above
    if spec.most is not None:
        yield spec.most + 1
    if spec.below is not None:
        yield spec.below
    if spec.choices:
        yield "nonsense"
    yield {"a": 1} if not isinstance(spec.default, dict) else 3
    if isinstance(spec.default, float):
        yield float("nan")
    if isinstance(spec.default, bool):
        yield 1


FIELDS = [("", General), *SHARED.items()]
EVERY_FIELD = [
    *((s, f, v, "images") for s, part in FIELDS for f, spec in describe(part).items() for v in wrong(spec)),
    *(
        ("task", f, v, kind)
        for kind in registry.KINDS
        for f, spec in describe(registry.find({"kind": kind}).fields).items()
        for v in wrong(spec)
        if f not in registry.find({"kind": kind}).fixed
    ),
]


def test_every_field_refuses_what_it_cannot_be():
    """Made from the fields themselves: none accepts a value out of its bounds, of another type, or an unknown word."""
    accepted = []
    for section, field, value, kind in EVERY_FIELD:
        path = f"{section}.{field}" if section else field
        try:
            read(changed((path, value), kind=kind))
            said = ""
        except ConfigError as error:
            said = str(error)
        if field not in said:
            accepted.append((kind, path, value, said))
    assert accepted == []
    assert len(EVERY_FIELD) > 150


def test_every_problem_is_listed_at_once():
    with pytest.raises(ConfigError) as caught:
        read(changed(("replicas", "ten"), ("seed", "x"), ("task.flip", 1)))
    assert len(str(caught.value).splitlines()) == 3


def test_arm_takes_its_own_fields():
    wide = {"model": {"name": "cnn", "channels": (8,)}, "task": {"batch_size": 32}}
    plan = read(changed(("model", {"name": "mlp", "widths": (8,)}), ("arms.expanded", EXPANDED), ("arms.wide", wide)))
    arms = {arm.name: arm for arm in plan.arms}
    assert arms["wide"].model == {"name": "cnn", "channels": (8,)}  # another model brings all its fields
    assert (arms["wide"].task.batch_size, arms["wide"].task.dataset) == (32, "digits")
    assert arms["expanded"].expansion["factor"] == 2
    assert arms["expanded"].model["name"] == "mlp"


def test_an_arm_with_another_optimizer_inherits_what_it_reads():
    shared = {"name": "sgd", "momentum": 0.5, "learning_rate": 0.2}
    plan = read(changed(("optimizer", shared), ("arms.adam", {"optimizer": {"name": "adam"}})))
    assert plan.arms[1].optimizer.fields()["learning_rate"] == 0.2
    assert "momentum" not in plan.arms[1].optimizer.fields()


def test_differences_name_fields_and_leave_paths_and_facts_free():
    ours, theirs = read(changed()), check(changed(("seed", 3), ("task.data_dir", "/elsewhere")))
    theirs["checkpoint"]["keep"] = 5
    theirs["arms"]["raw"]["labels"] = {"a": 1}
    assert differences(ours.settings, theirs, ours.experiment) == ["seed: 0 now, 3 in the workdir"]
    assert differences(ours.settings, ours.settings, ours.experiment) == []


def test_a_section_of_an_earlier_version_says_its_new_name():
    config = base_config()
    for old, new in (("finish", "second_phase"), ("lines", "interpolation"), ("mapping", "placement")):
        with pytest.raises(ConfigError, match=f"'{old}' is now called '{new}'"):
            getattr(config, old)
    with pytest.raises(AttributeError, match="Did you mean"):
        _ = config.optimiser


def test_words():
    choices = {"dataset": ["digits", "mnist"], "model": ["mlp", "cnn"]}
    assert parse_words("", choices) == {"dataset": "digits", "model": "mlp", "smoke": False}
    assert parse_words("smoke, cnn", choices) == {"dataset": "digits", "model": "cnn", "smoke": True}
    with pytest.raises(ConfigError, match="'mnst' is unknown, did you mean 'mnist'"):
        parse_words("mnst", choices)
    with pytest.raises(ConfigError, match=r"did you mean .*any other set: --config.task.dataset=cifar100"):
        parse_words("cifar100", {"dataset": ("digits", "cifar10")})
    with pytest.raises(ConfigError, match="'digits' and 'mnist' are both a dataset"):
        parse_words("digits,mnist", choices)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_shrunk_config_is_valid_and_small(kind):
    config = valid(kind)
    config.precision.x64 = kind == "landscape"
    plan = read(shrink(config))
    assert plan.train_steps <= 10
    assert plan.replicas == {"ising": 32, "zoo": 8}.get(kind, 2)


def test_every_default_is_documented_by_its_type():
    """A field whose default is None or a list could not be set by a flag; nothing of jax may be among them."""

    def leaves(tree):
        parts = (leaves(value) if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
                 for value in tree.values())  # fmt: skip
        return [leaf for part in parts for leaf in part]

    for kind in registry.KINDS:
        tree = base_config(kind).to_dict()
        assert all(isinstance(leaf, bool | int | float | str) for leaf in leaves(tree)), kind
    assert "jax" not in config_lib.base_config().to_json()
