"""Near names, for errors about a name that does not exist."""

import difflib
from collections.abc import Iterable


def near(name: object, known: Iterable[str]) -> str:
    """', did you mean ..?' or nothing.

    >>> near('exanded', ['raw', 'expanded'])
    ", did you mean 'expanded'?"
    """
    close = difflib.get_close_matches(str(name), list(known), n=2, cutoff=0.5)
    return f", did you mean {' or '.join(map(repr, close))}?" if close else ""
