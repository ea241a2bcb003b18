"""Libraries of the extra `bayes`, imported when they are asked for."""

import importlib
from types import ModuleType


def library(name: str, *, what: str) -> ModuleType:
    """A package of the extra.

    Args:
        name: of the module.
        what: is made with it, for the error.

    Raises:
        ImportError: with the line that installs it.

    >>> library('math', what='nothing').__name__
    'math'
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(
            f"{what} with {package}, which is not installed or cannot be imported ({error}): pip install 'sbjax[bayes]'"
        ) from error
