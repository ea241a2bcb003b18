"""Who is compared with whom, and who is drawn."""

import types

import pytest

from sbjax.report import roles as lib


def results(**arms):
    """Arms by name, {'role', 'labels'}; the first is the reference."""
    names, reference = tuple(arms), next(iter(arms))
    return types.SimpleNamespace(
        arms=names,
        reference=reference,
        roles={arm: about.get("role", lib.default(arm, reference)) for arm, about in arms.items()},
        labels={arm: about.get("labels", {}) for arm, about in arms.items()},
    )


def control(of, **labels):
    return {"role": f"control of {of}", "labels": labels}


def test_controls_belong_to_the_treatment_they_name_or_to_the_first():
    found = results(
        raw={}, small={}, large={}, zero=control("fill"), bias=control("bias", treatment="large"),
        lost=control("bias", treatment="gone"),
    )  # fmt: skip
    assert lib.controlled(found) == {"small": ["zero"], "large": ["bias"]}
    others = ("small", "large", "zero", "bias", "lost")
    assert lib.pairs(found) == [*((arm, "raw") for arm in others), ("small", "zero"), ("large", "bias")]
    assert lib.controlled(results(raw={}, zero=control("fill"))) == {}


def test_few_arms_are_all_shown():
    found = results(raw={}, **{f"t{i}": {"labels": {"shown": i == 0}} for i in range(3)})
    assert lib.shown(found) == found.arms


def test_of_many_arms_the_labelled_ones_and_the_controls():
    many = {f"t{i}": {"labels": {"shown": True} if i in (3, 9) else {}} for i in range(20)}
    found = results(raw={}, **many, zero=control("fill"))
    assert lib.shown(found) == ("raw", "t3", "t9", "zero")


def test_of_many_arms_without_labels_the_first():
    found = results(raw={}, **{f"t{i}": {} for i in range(20)}, zero=control("fill"))
    assert lib.shown(found, most=5) == ("raw", "t0", "t1", "t2", "zero")


def test_what_arms_are():
    found = results(raw={}, wide=control("size", about="more units"), zero=control("fill"))
    assert lib.described(found, found.arms) == "wide: more units"


@pytest.mark.parametrize(
    ("arm", "facts", "message"),
    [
        ("a", {"rol": "treatment"}, r"a.rol is unknown, did you mean 'role'\?; known: order, role, labels"),
        ("a", {"order": 1.5}, "a.order=1.5 must be a whole number"),
        ("a", {"role": "control of "}, "a.role='control of ' is unknown; give reference, treatment or 'control of' wh"),
        ("a", {"role": 3}, "a.role=3 is unknown"),
        ("a", {"role": "reference"}, "a.role='reference': the reference is 'raw'"),
        ("raw", {"role": "treatment"}, "raw.role='treatment': the reference is 'raw'"),
        ("a", {"labels": {"size": [1]}}, r"a.labels=\{'size': \[1\]\} must be texts and numbers"),
    ],
)
def test_refusals(arm, facts, message):
    with pytest.raises(ValueError, match=message):
        lib.check(arm, facts, reference="raw")
