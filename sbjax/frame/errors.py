"""The error of a configuration, and how the errors of library functions become one."""

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping

# 'width=0 must be > 0', 'masks[..]: ..', 'asymmetry.kind=..': a message that begins with the field it is about.
_FIELD = re.compile(r"[a-z_][\w.]*(\[[^\]]*\])?[.\w]*=")


class ConfigError(ValueError):
    """A configuration that cannot be run. The message names field, value and remedy."""


@contextlib.contextmanager
def told_as(
    section: str, *kinds: type[Exception], fields: Mapping[str, Collection[str]] | None = None
) -> Iterator[None]:
    """Turn what a library function raises into a `ConfigError` about a section of the config.

    Args:
        section: its name.
        kinds: what else is caught.
        fields: names of fields by section: a message about one that this section lacks and another has is told as of
            that one.

    >>> with told_as('model'):
    ...     raise ValueError('width=0 must be > 0')
    Traceback (most recent call last):
        ...
    sbjax.frame.errors.ConfigError: model.width=0 must be > 0
    >>> with told_as('task', fields={'task': ['size'], 'model': ['heads']}):
    ...     raise ValueError('heads=3 must divide the width')
    Traceback (most recent call last):
        ...
    sbjax.frame.errors.ConfigError: model.heads=3 must divide the width
    """
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError, NotImplementedError, ArithmeticError, MemoryError, *kinds) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise ConfigError("\n".join(_told(line, section, fields or {}) for line in lines)) from error


def _told(line, section, fields):
    if not (found := _FIELD.match(line)):
        return f"{section}: {line}"
    name = re.split(r"[.\[=]", found[0])[0]
    owner = section
    if fields and name not in fields.get(section, ()):
        owner = next((other for other, names in fields.items() if name in names), section)
    return f"{owner}.{line}"


@contextlib.contextmanager
def told_of_files(before: str = "") -> Iterator[None]:
    """Turn the error of a damaged file, or of a path, into a `ConfigError`: they say file and remedy themselves.

    >>> with told_of_files('--against=a: '):
    ...     raise ValueError('a/config.json cannot be read')
    Traceback (most recent call last):
        ...
    sbjax.frame.errors.ConfigError: --against=a: a/config.json cannot be read
    """
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{before}{error}") from error


@contextlib.contextmanager
def named_arm(name: str) -> Iterator[None]:
    """Say in errors which arm they are about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"arm {name!r}: {error}") from error
