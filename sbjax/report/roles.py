"""What the arms of a comparison are for: reference, treatment, or control of an explanation.

An arm has, besides its name, an `order` (its place in tables and figures), a `role` and `labels`. Roles are

`reference`
    what all others are compared with;
`treatment`
    what the experiment is about;
`control of WHAT`
    an arm that removes one explanation of a treatment's gain, and names it: 'control of resolution'.

Labels are texts and numbers by name, such as {'size': 5, 'constant': 'pi'}. Four are read in
reports of any kind, all others by the experiment alone:

`treatment`
    of a control: the arm whose gain it is to explain; without it the first treatment.
`about`
    what the arm is, in a few words that end a sentence: 'raw input with a wider first layer'.
`claim`
    what published work says of the arm, in a sentence with its source, such as 'expanded networks are more accurate
    (arXiv 2409.06402)'; the report shows it beside the verdict.
`shown`
    of many arms, those with a true value are drawn.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from sbjax.common.names import near

REFERENCE, TREATMENT, CONTROL = "reference", "treatment", "control of "
FACTS = ("order", "role", "labels")
"""What may be said of an arm."""

MOST = 12
"""Arms that figures with a line or a panel an arm, and sentences, show at most unless labels say which."""


@runtime_checkable
class WithRoles(Protocol):
    """What `sbjax.report.results.Results` has."""

    arms: tuple[str, ...]
    reference: str
    roles: Mapping[str, str]
    labels: Mapping[str, Mapping[str, Any]]


def default(arm: str, reference: str) -> str:
    """The role of an arm that has none.

    >>> default('raw', 'raw'), default('expanded', 'raw')
    ('reference', 'treatment')
    """
    return REFERENCE if arm == reference else TREATMENT


def check(arm: str, facts: Mapping[str, Any], *, reference: str) -> None:
    """Refuse what cannot be said of an arm.

    Raises:
        ValueError: with arm, field, value and remedy.

    >>> check('zero', {'role': 'controll'}, reference='raw')
    Traceback (most recent call last):
        ...
    ValueError: zero.role='controll' is unknown; give reference, treatment or 'control of' what
    """
    for name in facts:
        if name not in FACTS:
            raise ValueError(f"{arm}.{name} is unknown{near(name, FACTS)}; known: {', '.join(FACTS)}")
    order, role, labels = facts.get("order", 0), facts.get("role", default(arm, reference)), facts.get("labels", {})
    if isinstance(order, bool) or not isinstance(order, int):
        raise ValueError(f"{arm}.order={order!r} must be a whole number")
    control = isinstance(role, str) and role.startswith(CONTROL) and bool(role.removeprefix(CONTROL).strip())
    if role not in (REFERENCE, TREATMENT) and not control:
        raise ValueError(f"{arm}.role={role!r} is unknown; give {REFERENCE}, {TREATMENT} or 'control of' what")
    if (role == REFERENCE) != (arm == reference):
        raise ValueError(f"{arm}.role={role!r}: the reference is {reference!r}, and only it has the role {REFERENCE!r}")
    if not isinstance(labels, Mapping) or not all(isinstance(value, str | int | float) for value in labels.values()):
        raise ValueError(f"{arm}.labels={labels!r} must be texts and numbers by name, such as {{'size': 5}}")


def is_control(results: WithRoles, arm: str) -> bool:
    """Whether an arm removes an explanation."""
    return results.roles[arm].startswith(CONTROL)


def treatments(results: WithRoles) -> list[str]:
    """The arms that the experiment is about, in their order."""
    return [arm for arm in results.arms if results.roles[arm] == TREATMENT]


def controlled(results: WithRoles) -> dict[str, list[str]]:
    """Controls by the treatment that they are for, in the order of the arms; treatments without any are left out.

    A control of an arm that is not among the arms (any more) is left out.
    """
    about = treatments(results)
    found: dict[str, list[str]] = {arm: [] for arm in about}
    for arm in results.arms:
        if is_control(results, arm):
            whose = results.labels[arm].get("treatment", about[0] if about else None)
            if whose in found:
                found[whose].append(arm)
    return {arm: controls for arm, controls in found.items() if controls}


def pairs(results: WithRoles) -> list[tuple[str, str]]:
    """(arm, against): every other arm against the reference, then each treatment against each of its controls."""
    against = [(arm, results.reference) for arm in results.arms if arm != results.reference]
    return against + [(arm, control) for arm, controls in controlled(results).items() for control in controls]


def shown(results: WithRoles, *, most: int = MOST) -> tuple[str, ...]:
    """The arms of figures with a line or a panel an arm, and of sentences.

    All of them where labels say nothing and they are `most` or fewer. Of many arms with a true label `shown` these, the
    reference and the controls; of many without, the reference, the controls, and the first treatments up to `most` in
    total.
    """
    always = [arm for arm in results.arms if arm == results.reference or is_control(results, arm)]
    chosen = [arm for arm in results.arms if results.labels[arm].get("shown")]
    if len(results.arms) <= most:
        return results.arms
    room = max(0, most - len(always))
    kept = {*always, *(chosen or [arm for arm in results.arms if arm not in always][:room])}
    return tuple(arm for arm in results.arms if arm in kept)


def described(results: WithRoles, arms: Sequence[str]) -> str:
    """'zero: the same constants at 0; ..' of the arms with a label `about`; '' where none has one."""
    return "; ".join(f"{arm}: {results.labels[arm]['about']}" for arm in arms if results.labels[arm].get("about"))
