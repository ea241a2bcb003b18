"""Words of other programs."""

from sbjax.common import elsewhere
from sbjax.models.families import FAMILIES
from sbjax.models.registry import model_specs


def test_options_of_networks_are_options_of_some_network():
    known = {option for family, table in FAMILIES.items() for name in table for option in model_specs(name, family)}
    assert set(elsewhere.MODEL) <= known
    assert set(elsewhere._MODEL_WORDS.values()) <= set(elsewhere.MODEL)


def test_a_field_that_is_there_comes_first():
    assert elsewhere.hint("loss", ["task.loss"]) == ", did you mean 'task.loss'?"
    assert elsewhere.hint("hidden", ["widths"]) == ", did you mean 'widths'?"
    assert elsewhere.hint("act_fn", ["model.activation"]) == ", did you mean 'model.activation'?"
    assert "did you mean 'replicas'" in elsewhere.hint("replcas", ["replicas", "reports"])
