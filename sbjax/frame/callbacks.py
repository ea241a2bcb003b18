"""Functions of a user that are told of every report of a run. They observe; none of them changes a number."""

import inspect
import logging
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from sbjax.common.names import import_path, is_import_path
from sbjax.common.options import words
from sbjax.frame.errors import ConfigError

logger = logging.getLogger(__name__)


class Event(NamedTuple):
    """One report.

    Attributes:
        arm, step: of which arm, after how many steps.
        metrics: as in a line of `metrics.jsonl`: a list with one number a replica (None where it stopped), or
            {'value', 'low', 'high'} of all replicas together, by name.
        workdir: the folder of the run.
    """

    arm: str
    step: int
    metrics: dict[str, Any]
    workdir: pathlib.Path


class Callbacks:
    """Callbacks by import path, called in their order. One that raises is told of in the log and not called again.

    A class is instantiated once, without arguments; a function is called as it is. After an interruption, reports that
    were made before it do not come again.

    Args:
        names: 'module:function', separated by commas.

    Raises:
        ConfigError: a name that cannot be imported or called.
    """

    def __init__(self, names: str):
        self._calls: dict[str, Callable[[Event], Any]] = {}
        for name in words(names):
            if not is_import_path(name):
                raise ConfigError(f"callbacks={name!r} must be 'module:function' or 'path/file.py:function'")
            try:
                found = import_path(name)
                found = found() if isinstance(found, type) else found
            except Exception as error:  # a class of the user may raise anything
                said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                raise ConfigError(f"callbacks={name!r}: {said}") from error
            if not callable(found):
                raise ConfigError(f"callbacks={name!r} cannot be called; give a function of one `Event`")
            try:
                inspect.signature(found).bind(None)
            except TypeError as error:
                raise ConfigError(f"callbacks={name!r} is called with one `Event`: {error}") from error
            except ValueError:  # a function without a signature
                pass
            self._calls[name] = found

    def __call__(self, event: Event) -> None:
        """Tell everyone."""
        for name, call in list(self._calls.items()):
            try:
                call(event)
            except Exception:  # the user's own code; hours of training must not be lost to it
                logger.exception("callback %s failed at step %d of arm %s; it is not called again", name, event.step,
                                 event.arm)  # fmt: skip
                del self._calls[name]
