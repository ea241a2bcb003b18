"""What orbax logs, and what its errors say, in a form for the terminal."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what orbax and its threads log of errors that are raised besides."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio", "orbax")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    yield  # where it fails they stay quiet: its threads go on for a while
    for logger, level in zip(loggers, before):
        logger.setLevel(level)


def said(error: Exception) -> str:
    """What went wrong, in one line: orbax and tensorstore add where in their source."""
    text = " ".join(str(error).split())
    code = re.search(r"os_error_code='(\d+)'", text)
    words = text.split(" [")[0][:300] if code is None else os.strerror(int(code.group(1)))
    return f"the disk is full ({words})" if "No space left on device" in words else words
