"""What is refused, and in which words."""

import re

import pytest

from sbjax import config as config_lib
from sbjax.frame.config import ConfigError, arm_settings, base_config, check, differences, parse_words, shrink


def valid():
    config = base_config()
    config.train_epochs = 2.0
    config.arms = {"raw": {}, "expanded": {"expansion": {"kind": "image", "factor": 2, "fill": "0.5"}}}
    return config


def changed(path, value):
    tree = valid().to_dict()
    *sections, name = path.split(".")
    node = tree
    for section in sections:
        node = node[section]
    node[name] = value
    return tree


def test_complete_and_in_order():
    settings = check(valid())
    assert list(settings["arms"]) == ["raw", "expanded"]  # the reference first
    assert check({"train_steps": 5, "arms": {"raw": {}}})["optimizer"]["name"] == "sgd"  # defaults are filled in


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("replcas", 3, "replcas=3 is unknown, did you mean 'replicas'?"),
        ("task.batchsize", 3, "task.batchsize=3 is unknown, did you mean 'batch_size'?"),
        ("replicas", "ten", "replicas='ten' must be of type int"),
        ("replicas", 0, "replicas=0 must be >= 1"),
        ("reports", 0, "reports=0 must be >= 1"),
        ("task", 3, "task=3 must be a section"),
        ("task.flip", 1, "task.flip=1 must be of type bool"),
        ("task.train_share", 0.0, r"task.train_share=0.0 must lie in \(0, 1]"),
        ("optimizer.momentum", "big", "optimizer.momentum='big' must be of type float"),
        ("train_steps", 5, "give exactly one of them"),
        ("train_epochs", 0.0, "give exactly one of them"),
        ("reference", "rwa", "reference='rwa' is not an arm, did you mean 'raw'?"),
        ("checkpoint.keep", 0, "checkpoint.keep=0 must be >= 1"),
        ("arms.expanded.expanson", {}, "arms.expanded.expanson is unknown, did you mean 'expansion'?"),
        ("arms.expanded.task", {"batchsize": 3}, "arms.expanded.task.batchsize=3 is unknown"),
        ("arms.ra w", {}, "a name is made of letters"),
        ("arms.expanded.role", "contrl", "arms.expanded.role='contrl' is unknown; give reference, treatment or"),
        ("arms.expanded.order", "first", "arms.expanded.order='first' must be a whole number"),
    ],
)
def test_refusals_name_field_value_and_remedy(path, value, words):
    with pytest.raises(ConfigError, match=words):
        check(changed(path, value))


def test_every_problem_is_listed_at_once():
    tree = changed("replicas", "ten") | {"seed": "x"}
    with pytest.raises(ConfigError) as caught:
        check(tree)
    assert len(str(caught.value).splitlines()) == 2


def test_arm_takes_its_own_fields():
    tree = changed("arms.wide", {"model": {"name": "cnn", "channels": (8,)}, "task": {"batch_size": 32}})
    own = arm_settings(check(tree), "wide")
    assert own["model"] == {"name": "cnn", "channels": (8,)}  # another model brings all its fields
    assert own["task"]["batch_size"] == 32
    assert own["task"]["dataset"] == "digits"
    assert arm_settings(check(tree), "expanded")["expansion"]["factor"] == 2


def test_differences_name_fields_and_leave_paths_free():
    ours, theirs = check(valid()), check(changed("seed", 3))
    theirs["task"]["data_dir"] = "/elsewhere"
    assert differences(ours, theirs) == ["seed: 0 now, 3 in the workdir"]
    assert differences(ours, ours) == []


def test_words():
    choices = {"dataset": ["digits", "mnist"], "model": ["mlp", "cnn"]}
    assert parse_words("", choices) == {"dataset": "digits", "model": "mlp", "smoke": False}
    assert parse_words("smoke, cnn", choices) == {"dataset": "digits", "model": "cnn", "smoke": True}
    with pytest.raises(ConfigError, match="'mnst' is unknown, did you mean 'mnist'"):
        parse_words("mnst", choices)
    with pytest.raises(ConfigError, match="'digits' and 'mnist' are both a dataset"):
        parse_words("digits,mnist", choices)


def test_shrunk_config_is_valid_and_small():
    settings = check(shrink(valid()))
    assert settings["train_steps"] <= 10
    assert settings["replicas"] == 2


def test_every_default_is_documented_by_its_type():
    """A field whose default is None or a list could not be checked."""

    def leaves(tree):
        return [leaf for value in tree.values() for leaf in (leaves(value) if isinstance(value, dict) else [value])]

    assert all(isinstance(leaf, bool | int | float | str) for leaf in leaves(base_config().to_dict()))
    assert not re.search(r"jax", config_lib.base_config().to_json())


def test_arms_have_an_order_a_role_and_labels():
    arms = {
        "a": {"order": 2, "role": "control of size", "labels": {"size": 3}},
        "b": {"order": 1},
        "c": {},
        "raw": {"order": 5},
    }
    settings = check({"train_steps": 5, "arms": arms})
    assert list(settings["arms"]) == ["raw", "b", "a", "c"]
    assert config_lib.about_arms(settings)["a"] == arms["a"]
    # Nothing that is trained depends on them, so that a run goes on whatever they are now.
    assert config_lib.arm_settings(settings, "a") == config_lib.arm_settings(settings, "c")
    other = check({"train_steps": 5, "arms": arms | {"a": {"labels": {"size": 4}}, "raw": {}}})
    assert config_lib.differences(settings, other) == []
