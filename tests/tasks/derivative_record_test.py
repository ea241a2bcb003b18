"""What 'auto' chooses is what the record says is fast."""

import dataclasses

import pytest

from sbjax.models import make_field
from sbjax.physics.derivatives import MODES
from sbjax.physics.pdes import make_equation
from sbjax.tasks import derivative_record as lib
from sbjax.tasks.field_partials import NEAR, PREFERRED, choose_mode


def field_of(equation, width=32, layers=3, **options):
    box = {"lower": equation.lower, "upper": equation.upper}
    return make_field("field", unknowns=len(equation.unknowns), widths=(width,) * layers, **box, **options)


@pytest.mark.parametrize(("net", "name"), [(net, name) for net, row in lib.MS.items() for name in row])
def test_the_choice_is_fast_by_the_record(net, name):
    equation, row = make_equation(name), lib.MS[net][name]
    kinds = {"perceptron": {}, "other": {"activation": "silu"}, "features": {"features": 16}}
    field = field_of(equation, net.width, net.layers, **kinds[net.kind])
    assert lib.recorded(name, field) is row
    assert {"forward", "forward_over_reverse"} <= set(row) <= {"mlp", *MODES}
    assert ("mlp" in row) == (net.kind == "perceptron")
    chosen = choose_mode("auto", equation, field)
    assert row[chosen] <= (1 + NEAR) * min(row[mode] for mode in PREFERRED if mode in row)


def test_the_nearest_size_and_the_kind_decide(monkeypatch):
    small, large, other = lib.Net("perceptron", 3, 32), lib.Net("perceptron", 5, 100), lib.Net("other", 3, 32)
    planted = {
        small: {"heat": {"mlp": 2.0, "forward": 2.3, "nested": 1.0}},
        large: {"heat": {"mlp": 2.0, "forward": 1.9, "nested": 9.0}},
        other: {"heat": {"forward": 3.0, "forward_over_reverse": 2.0, "taylor": 1.0}},
    }
    monkeypatch.setattr(lib, "MS", planted)
    heat = make_equation("heat")
    assert choose_mode("auto", heat, field_of(heat, 20)) == "nested"
    assert choose_mode("auto", heat, field_of(heat, 80, 4)) == "mlp"  # the fastest up to a tenth
    assert choose_mode("auto", heat, field_of(heat, 80, 4, activation="silu")) == "forward_over_reverse"
    assert choose_mode("auto", heat, field_of(heat, 80, features=3)) == "forward"  # no row: the rule
    assert choose_mode("taylor", heat, field_of(heat)) == "taylor"  # what is asked for is taken


def test_an_equation_without_a_record_has_a_rule():
    for name, tanh, silu in (("advection", "mlp", "forward_over_reverse"), ("kdv", "mlp", "forward")):
        own = dataclasses.replace(make_equation(name), name="own")
        assert choose_mode("auto", own, field_of(own)) == tanh
        assert choose_mode("auto", own, field_of(own, activation="silu")) == silu
