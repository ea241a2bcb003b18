"""In what two resolved configurations differ, as far as it matters to a run that goes on."""

import json
from collections.abc import Mapping
from typing import Any

from sbjax.common import options
from sbjax.frame import sections as sections_lib
from sbjax.frame.protocol import Experiment
from sbjax.frame.reader import ARM_WORDS


def differences(ours: dict[str, Any], theirs: dict[str, Any], experiment: Experiment) -> list[str]:
    """'field: a here, b there' for every field that may not change when a run goes on.

    Order, role and labels of an arm may: nothing is trained by them.
    """
    ours, theirs = (flat(json.loads(json.dumps(_trained_by(side)))) for side in (ours, theirs))
    free = free_fields(experiment)
    return [
        f"{name}: {ours.get(name, 'absent')!r} now, {theirs.get(name, 'absent')!r} in the workdir"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name) and name not in free
    ]


def free_fields(experiment: Experiment) -> set[str]:
    """Fields that may change between a run and its continuation: where data lie, what is kept of checkpoints."""
    parts = {"task": experiment.fields, **sections_lib.SHARED}
    specs = {f"{name}.{field}": s for name, part in parts.items() for field, s in options.describe(part).items()}
    return {name for name, spec in specs.items() if spec.free}


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{'a.b': leaf} of nested dicts.

    >>> flat({'a': {'b': 1, 'c': {}}, 'd': 2})
    {'a.b': 1, 'a.c': {}, 'd': 2}
    """
    if not isinstance(tree, Mapping) or not tree:
        return {prefix[:-1]: tree}
    return {k: v for name, value in tree.items() for k, v in flat(value, f"{prefix}{name}.").items()}


def _trained_by(settings):
    arms = settings.get("arms", {})
    return {
        **settings,
        "arms": {arm: {k: v for k, v in own.items() if k not in ARM_WORDS} for arm, own in arms.items()},
    }
