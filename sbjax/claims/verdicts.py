"""What our numbers say about a published claim: one word from a fixed list, by a rule.

A rule is an object with `rule` and what that rule needs. `good` is the direction that is claimed, 'less' or 'more'.

`interval`
    `null`, `good`: our interval against the value at which there is no effect. On the claimed side: holds, unless a
    control has the effect too, its own interval being on that side: explained by control. With `controls` 'over' a
    control cell is the effect over that control, which must then be on the claimed side as well. Across `null`: no
    difference shown. On the other side: does not hold here.
`reaches`
    `good`: our intervals against the published value. Each holds it, or lies beyond it on the claimed side: holds.
    Otherwise: does not hold here.
`apart`
    `good`: mean +- standard deviation of the first number against the second one (the reference). Apart on the claimed
    side: holds, unless that is so of a control cell too: explained by control. Overlapping: no difference shown.
`ordered`
    `good`: every number is beyond the one before it, on the claimed side, and the first and the last are apart where
    they have intervals: holds. Numbers without intervals in another order, or neighbours that are apart the other way:
    does not hold here. Otherwise: no difference shown.
`bound`
    `limit`, `good`: all numbers are at most (less) or at least (more) the limit: holds; otherwise does not hold here.
`by hand`
    `word`, `reason`: judged by a reader.
`not run`
    `reason`.

Every rule may have a `reason`, which is shown beside the word. Intervals are of single comparisons.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sbjax.common.names import check_choice

HOLDS, PARTLY, FAILS = "holds", "holds in part", "does not hold here"
OPEN, EXPLAINED, SHORT, NOT_RUN = "no difference shown", "explained by control", "too short to tell", "not run"
WORDS = {
    HOLDS: "our numbers say so too, at our scale",
    PARTLY: "for some of the cases that are claimed",
    FAILS: "our numbers say the contrary, or miss the published number, at our scale",
    OPEN: "the interval includes no effect, which is no proof that there is none",
    EXPLAINED: "it is seen, and a control without what is claimed to cause it shows it as well",
    SHORT: "run at a scale at which the claim cannot be seen",
    NOT_RUN: "no numbers of ours yet",
}
"""The words, and what each means."""

_NEEDS = {
    "interval": ("null", "good"),
    "reaches": ("good",),
    "apart": ("good",),
    "ordered": ("good",),
    "bound": ("limit", "good"),
    "by hand": ("word", "reason"),
    "not run": ("reason",),
}
_MAY = {"interval": ("controls",)}
_CELLS = {"interval": 1, "reaches": 1, "apart": 2, "ordered": 2, "bound": 1, "by hand": 1, "not run": 0}


class Verdict(NamedTuple):
    """A word of `WORDS`, the rule that gave it, and the reason of a reader, '' where there is none."""

    word: str
    rule: str
    reason: str


def check(rule: Mapping[str, Any], cells: int) -> None:
    """Refuse a rule that cannot be applied.

    Raises:
        ValueError: an unknown rule, direction or word, a missing field, or too few numbers.

    >>> check({'rule': 'interval', 'good': 'less'}, 1)
    Traceback (most recent call last):
        ...
    ValueError: verdict.null is missing: rule 'interval' needs null, good
    """
    name = rule.get("rule")
    check_choice(name, _NEEDS, what="verdict.rule")
    for field in _NEEDS[name]:
        if field not in rule:
            raise ValueError(f"verdict.{field} is missing: rule {name!r} needs {', '.join(_NEEDS[name])}")
    for field in rule:
        check_choice(field, ("rule", "reason", *_NEEDS[name], *_MAY.get(name, ())), what="verdict field")
    check_choice(rule.get("controls", "alone"), ("alone", "over"), what="verdict.controls")
    if "good" in rule:
        check_choice(rule["good"], ("less", "more"), what="verdict.good")
    if "word" in rule:
        check_choice(rule["word"], WORDS, what="verdict.word")
    if cells < _CELLS[name]:
        raise ValueError(f"verdict.rule={name!r} needs {_CELLS[name]} numbers of ours, there are {cells}")


def judge(
    rule: Mapping[str, Any], ours: Sequence[Any], controls: Sequence[Any] = (), published: float | None = None
) -> Verdict:
    """The verdict of a rule on our numbers.

    Args:
        rule: see the module.
        ours, controls: cells of records.
        published: the published number, for 'reaches'.

    Raises:
        ValueError: a cell without what the rule reads.

    >>> gain, rest = {'value': 0.5, 'low': 0.4, 'high': 0.6}, {'value': 1.0, 'low': 0.9, 'high': 1.1}
    >>> rule = {'rule': 'interval', 'null': 1, 'good': 'less'}
    >>> [judge(rule, [ours], controls).word for ours, controls in [(gain, [rest]), (gain, [gain]), (rest, [])]]
    ['holds', 'explained by control', 'no difference shown']
    >>> judge(rule | {'controls': 'over'}, [gain], [rest]).word
    'explained by control'
    """
    check(rule, len(ours))
    return Verdict(_word(rule, ours, controls, published), rule["rule"], rule.get("reason", ""))


def _word(rule, ours, controls, published):
    name, sign = rule["rule"], 1 if rule.get("good") == "more" else -1
    if name in ("by hand", "not run"):
        return rule.get("word", NOT_RUN)
    if name == "interval":
        side = _side(_ends(ours[0]), rule["null"], sign)
        over = rule.get("controls") == "over"
        return _explained(side, any((_side(_ends(cell), rule["null"], sign) == HOLDS) != over for cell in controls))
    if name == "reaches":
        if published is None:
            raise ValueError("verdict.rule='reaches' needs published.value")
        reached = [max(sign * end for end in _ends(cell)) >= sign * published for cell in ours]
        return HOLDS if all(reached) else FAILS
    if name == "apart":
        reference = _ends(ours[1])
        side = _apart(_ends(ours[0]), reference, sign)
        return _explained(side, any(_apart(_ends(cell), reference, sign) == HOLDS for cell in controls))
    if name == "ordered":
        return _ordered(ours, sign)
    return HOLDS if all(sign * value(cell) >= sign * rule["limit"] for cell in ours) else FAILS


def value(cell: Any) -> float:
    """The number of a cell, without its interval; of a count, the share.

    >>> value(1.5), value({'value': 2, 'low': 1, 'high': 3}), value({'count': 1, 'of': 4})
    (1.5, 2, 0.25)

    Raises:
        ValueError: it has none.
    """
    if isinstance(cell, Mapping) and "count" in cell:
        return cell["count"] / cell["of"]
    number = cell.get("value") if isinstance(cell, Mapping) else cell
    if not isinstance(number, int | float):
        raise ValueError(f"{cell!r} has no number")
    return number


def _ends(cell):
    if isinstance(cell, Mapping):
        if cell.get("low") is not None and cell.get("high") is not None:
            return cell["low"], cell["high"]
        if cell.get("spread") is not None:
            return cell["value"] - cell["spread"], cell["value"] + cell["spread"]
    raise ValueError(f"{cell!r} has no interval")


def _side(ends, null, sign):
    low, high = sorted(sign * (end - null) for end in ends)
    return HOLDS if low > 0 else FAILS if high < 0 else OPEN


def _apart(ends, reference, sign):
    low, high = sorted(sign * end for end in ends)
    least, most = sorted(sign * end for end in reference)
    return HOLDS if low > most else FAILS if high < least else OPEN


def _ordered(cells, sign):
    numbers = [sign * value(cell) for cell in cells]
    in_order = all(a < b for a, b in itertools.pairwise(numbers))
    try:
        ends = [_ends(cell) for cell in cells]
    except ValueError:
        return HOLDS if in_order else FAILS
    if any(_apart(after, before, sign) == FAILS for before, after in itertools.pairwise(ends)):
        return FAILS
    return HOLDS if in_order and _apart(ends[-1], ends[0], sign) == HOLDS else OPEN


def _explained(word, by_control):
    return EXPLAINED if word == HOLDS and by_control else word
