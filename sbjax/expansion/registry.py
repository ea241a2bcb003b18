"""Expansions by name: those of this package, and your own by import path."""

from collections.abc import Mapping
from typing import Any

from sbjax.common import options
from sbjax.common.names import check_choice, import_path, is_import_path
from sbjax.expansion.kinds import Expansion, ImageExpansion, SequenceExpansion, VectorExpansion

EXPANSIONS = {"image": ImageExpansion, "vector": VectorExpansion, "sequence": SequenceExpansion}

_NUMBERS = ("fill", "value")  # of those: options that hold one number or several


def make_expansion(fields: Mapping[str, Any]) -> Expansion | None:
    """An expansion from its name and options.

    Args:
        fields: 'kind', which is 'none', a name of `EXPANSIONS`, or the import path of a class of your own with the
            methods of `Expansion` ('my_expansions:Channels', 'path/my_expansions.py:Channels'); and options, which are
            the fields of that class. `fill` and `value` may be text: '0.5', '0.5,0.4,0.3', 'mean'.

    Returns:
        The expansion, None for 'none'.

    Raises:
        ValueError: an unknown kind or option (with near names), an impossible value, a class without the methods. Every
            line begins with the option's name.

    >>> make_expansion({'kind': 'vector', 'before': 0, 'after': 3, 'value': '1,2,3'})
    VectorExpansion(before=0, after=3, value=(1.0, 2.0, 3.0))
    """
    given = dict(fields)
    kind = given.pop("kind", None)
    if kind == "none":
        if given:
            name, value = next(iter(given.items()))
            raise ValueError(f"{name}={value!r} has no effect with kind='none'; leave it out, or name a kind")
        return None
    part = _find(kind)
    if kind in EXPANSIONS:
        given |= {name: parse_fill(given[name]) for name in _NUMBERS if name in given}
    made, problems = options.read(part, given, where="")
    if problems:
        raise ValueError("\n".join(problems))
    if not isinstance(made, Expansion):
        missing = ", ".join(f"`{name}`" for name in ("expand", "contract") if not hasattr(made, name))
        raise ValueError(f"kind={kind!r} has no method {missing}, which an expansion needs")
    return made


def expansion_specs(kind: str) -> dict[str, options.Spec]:
    """The options of a kind of expansion, by name.

    Raises:
        ValueError: an unknown kind.

    >>> list(expansion_specs('vector'))
    ['before', 'after', 'value']
    """
    return {} if kind == "none" else options.describe(_find(kind))


def parse_fill(value: Any) -> Any:
    """'0.5' as 0.5, '0.5,0.4,0.3' or a list as a tuple, anything else unchanged.

    >>> parse_fill('0.5'), parse_fill('0.5, 0.4'), parse_fill([1.0, 2.0]), parse_fill('mean')
    (0.5, (0.5, 0.4), (1.0, 2.0), 'mean')
    """
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        return value
    return numbers[0] if len(numbers) == 1 else numbers


def _find(kind: Any) -> Any:
    """The class of a kind."""
    if not is_import_path(kind):
        check_choice(kind, ["none", *EXPANSIONS], what="kind")
        return EXPANSIONS[kind]
    try:
        return import_path(kind)
    except ValueError as error:
        raise ValueError(f"kind={kind!r}: {error}") from error
