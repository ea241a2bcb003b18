"""How wide a terminal is, and a text on it."""

import shutil
import unicodedata

WIDTH = 110
"""Columns of a terminal that `format_table` keeps to, or fewer where the terminal has fewer, see `room`."""

LEAST = 30
"""Columns of the narrowest terminal that tables and notes are set for."""


def room() -> int:
    """Columns that a table for the terminal may take: `WIDTH`, or those of a narrower terminal (or of COLUMNS)."""
    return max(LEAST, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


def cells(text: str) -> int:
    """Columns that a terminal needs for a text: two for wide letters, none for marks on the letter before.

    >>> cells('raw'), cells('対照'), cells('e\u0301')
    (3, 4, 1)
    """
    marks = ("Mn", "Me", "Cf")
    wide = [1 + (unicodedata.east_asian_width(c) in "WF") for c in text if unicodedata.category(c) not in marks]
    return sum(wide)
