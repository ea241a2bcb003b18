"""Rules, on numbers whose verdict is plain."""

import pytest

from sbjax.claims import verdicts
from sbjax.claims.verdicts import EXPLAINED, FAILS, HOLDS, OPEN, judge


def within(low, high):
    return {"value": (low + high) / 2, "low": low, "high": high}


def around(value, spread):
    return {"value": value, "spread": spread}


INTERVAL = {"rule": "interval", "null": 0, "good": "more"}
APART, ORDERED = {"rule": "apart", "good": "less"}, {"rule": "ordered", "good": "less"}
BOUND, REACHES = {"rule": "bound", "limit": 0.8, "good": "more"}, {"rule": "reaches", "good": "more"}


@pytest.mark.parametrize(
    ("rule", "ours", "controls", "word"),
    [
        (INTERVAL, [within(1, 2)], [], HOLDS),
        (INTERVAL, [within(-1, 2)], [], OPEN),
        (INTERVAL, [within(0, 2)], [], OPEN),
        (INTERVAL, [within(-2, -1)], [], FAILS),
        (INTERVAL | {"good": "less"}, [within(-2, -1)], [], HOLDS),
        (INTERVAL | {"null": 1}, [within(0.5, 2)], [], OPEN),
        (INTERVAL, [within(1, 2)], [within(-1, 1)], HOLDS),
        (INTERVAL, [within(1, 2)], [within(-1, 1), within(1, 3)], EXPLAINED),
        (INTERVAL | {"controls": "over"}, [within(1, 2)], [within(-1, 1)], EXPLAINED),
        (INTERVAL | {"controls": "over"}, [within(1, 2)], [within(1, 3)], HOLDS),
        (INTERVAL, [within(-1, 2)], [within(1, 3)], OPEN),  # there is nothing to explain
        (APART, [around(0.0, 0.1), around(1.0, 0.1)], [], HOLDS),
        (APART, [around(0.0, 0.1), around(1.0, 0.1)], [around(0.1, 0.1)], EXPLAINED),
        (APART, [around(0.0, 0.1), around(1.0, 0.1)], [around(1.0, 0.3)], HOLDS),
        (APART, [around(0.9, 0.1), around(1.0, 0.1)], [], OPEN),
        (APART, [around(2.0, 0.1), around(1.0, 0.1)], [], FAILS),
        (ORDERED, [3, 2, 1], [], HOLDS),
        (ORDERED, [3, 2, 2], [], FAILS),
        (ORDERED, [around(3, 0.6), around(2, 0.6), around(1, 0.6)], [], HOLDS),  # neighbours may overlap, ends not
        (ORDERED, [around(3, 2), around(2, 2), around(1, 2)], [], OPEN),
        (ORDERED, [around(2, 1), around(2.5, 1), around(0, 0.1)], [], OPEN),
        (ORDERED, [around(2, 0.1), around(2.5, 0.1), around(0, 0.1)], [], FAILS),
        (BOUND, [{"count": 8, "of": 10}, 0.9], [], HOLDS),
        (BOUND, [{"count": 7, "of": 10}, 0.9], [], FAILS),
        (REACHES, [within(60, 84)], [], FAILS),
        (REACHES, [within(60, 100)], [], HOLDS),
        (REACHES, [within(60, 100), within(0, 50)], [], FAILS),
    ],
)
def test_rules(rule, ours, controls, word):
    assert judge(rule, ours, controls, published=87.3).word == word


@pytest.mark.parametrize(
    ("rule", "ours", "said"),
    [
        ({"rule": "intervall"}, [1], "did you mean 'interval'"),
        ({"rule": "interval", "good": "less"}, [1], "verdict.null is missing"),
        ({**INTERVAL, "limit": 1}, [within(1, 2)], "'limit' is unknown"),
        ({**INTERVAL, "good": "up"}, [within(1, 2)], "verdict.good='up'"),
        ({**INTERVAL, "controls": "both"}, [within(1, 2)], "verdict.controls='both'"),
        ({"rule": "by hand", "word": "true", "reason": ""}, [1], "verdict.word='true'"),
        ({"rule": "by hand", "word": "holds"}, [1], "verdict.reason is missing"),
        (APART, [around(1, 2)], "needs 2 numbers of ours, there are 1"),
        (INTERVAL, [3.0], "has no interval"),
        (BOUND, ["minima"], "has no number"),
    ],
)
def test_what_cannot_be_judged_is_refused(rule, ours, said):
    with pytest.raises(ValueError, match=said):
        judge(rule, ours)


def test_a_reader_judges_with_a_reason():
    found = judge({"rule": "by hand", "word": "holds in part", "reason": "one of two sets"}, [1])
    assert found == verdicts.Verdict("holds in part", "by hand", "one of two sets")
    assert judge({"rule": "not run", "reason": "no data"}, []).word == "not run"
