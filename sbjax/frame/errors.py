"""The error of a configuration, and how the errors of library functions become one."""

import contextlib
import re
from collections.abc import Iterator

# 'width=0 must be > 0', 'masks[..]: ..', 'asymmetry.kind=..': a message that begins with the field it is about.
_FIELD = re.compile(r"[a-z_][\w.]*(\[[^\]]*\])?[.\w]*=")


class ConfigError(ValueError):
    """A configuration that cannot be run. The message names field, value and remedy."""


@contextlib.contextmanager
def told_as(section: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn what a library function raises into a `ConfigError` about a section of the config.

    >>> with told_as('model'):
    ...     raise ValueError('width=0 must be > 0')
    Traceback (most recent call last):
        ...
    sbjax.frame.errors.ConfigError: model.width=0 must be > 0
    """
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError, NotImplementedError, ArithmeticError, MemoryError, *kinds) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        told = [f"{section}{'.' if _FIELD.match(line) else ': '}{line}" for line in lines]
        raise ConfigError("\n".join(told)) from error


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
