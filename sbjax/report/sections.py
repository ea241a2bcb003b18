"""What a report consists of, without a word of how it looks: sections of tables, figures, texts and notes.

An experiment returns `Section` objects; `sbjax.report.markup.render` turns them into a page. All are immutable, so that
the same numbers give equal sections.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence


def _check_texts(kind: str, **texts: object) -> None:
    for field, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{kind}.{field}={text!r} must be a text; format numbers before, see sbjax.report.tables")


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str

    def __post_init__(self):
        _check_texts("Text", text=self.text)


@dataclasses.dataclass(frozen=True)
class Lead:
    """The paragraph that a reader is to see first."""

    text: str

    def __post_init__(self):
        _check_texts("Lead", text=self.text)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What stands beside what: names and their texts."""

    rows: Iterable[tuple[str, str]]

    def __post_init__(self):
        object.__setattr__(self, "rows", tuple((name, text) for name, text in self.rows))
        for name, text in self.rows:
            _check_texts("Facts", name=name, text=text)


@dataclasses.dataclass(frozen=True)
class Note:
    """A paragraph in small print: how numbers were made, and what they do not say."""

    text: str

    def __post_init__(self):
        _check_texts("Note", text=self.text)


@dataclasses.dataclass(frozen=True)
class Code:
    """Text that keeps its blanks and lines, such as a command."""

    text: str

    def __post_init__(self):
        _check_texts("Code", text=self.text)


@dataclasses.dataclass(frozen=True)
class Links:
    """Links to other files, {text: relative path}."""

    targets: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as people read them; a line break in a cell is kept.

    Attributes:
        headers: of the columns.
        rows: as many cells each as there are headers.
        title: above the table; '' = none.
        notes: below it, in small print.

    Raises:
        ValueError: a row of another length, or a cell that is no text.

    >>> Table(['arm', 'error'], [['raw', '0.1']]).rows
    (('raw', '0.1'),)
    """

    headers: Sequence[str]
    rows: Iterable[Sequence[str]]
    title: str = ""
    notes: Sequence[str] = ()

    def __post_init__(self):
        object.__setattr__(self, "headers", tuple(self.headers))
        object.__setattr__(self, "rows", tuple(tuple(row) for row in self.rows))
        object.__setattr__(self, "notes", tuple(self.notes))
        for row in self.rows:
            if len(row) != len(self.headers):
                raise ValueError(f"row {row} has {len(row)} cells for {len(self.headers)} headers {self.headers}")
            for header, cell in zip(self.headers, row, strict=True):
                _check_texts("Table", **{f"rows[{header!r}]": cell})


@dataclasses.dataclass(frozen=True)
class Panel:
    """One panel of a figure.

    Attributes:
        svg: an `<svg>` element, which a page takes in as it is: make it with `sbjax.report.svg.split`.
        alt: what is seen in it, read out in its place.
    """

    svg: str = dataclasses.field(repr=False)
    alt: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of a legend: a name, and how its line is drawn ('' = no line, no mark)."""

    label: str
    colour: str = "#000000"
    dash: str = "-"
    marker: str = ""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture with its caption.

    Attributes:
        name: of the file `figures/<name>.png` in the folder of the run.
        caption: what is drawn: every line, band and mark.
        png: the whole picture.
        alt: read out in place of the whole picture; '' = the caption. Panels have their own.
        panels: of the picture, for a page; () = the page shows the whole picture.
        legend: of all panels.
    """

    name: str
    caption: str
    png: bytes = dataclasses.field(repr=False)
    alt: str = ""
    panels: Sequence[Panel] = ()
    legend: Sequence[Entry] = ()

    def __post_init__(self):
        _check_texts("Figure", name=self.name, caption=self.caption, alt=self.alt)
        object.__setattr__(self, "panels", tuple(self.panels))
        object.__setattr__(self, "legend", tuple(self.legend))


@dataclasses.dataclass(frozen=True)
class Folded:
    """Parts that are shown when the reader opens them."""

    title: str
    parts: Sequence["Part"]

    def __post_init__(self):
        object.__setattr__(self, "parts", tuple(self.parts))


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what stands below it.

    Attributes:
        title: the heading.
        parts: tables, figures, texts, .. in the order of reading.

    >>> Section('Which state', [Text('All replicas point up.')]).parts[0].text
    'All replicas point up.'
    """

    title: str
    parts: Sequence["Part"]

    def __post_init__(self):
        object.__setattr__(self, "parts", tuple(self.parts))
        for part in self.parts:
            if not isinstance(part, PARTS):
                known = ", ".join(kind.__name__ for kind in PARTS)
                raise ValueError(f"section {self.title!r} has a part {part!r}; give one of {known}")

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures among its parts."""
        return tuple(part for part in self.parts if isinstance(part, Figure))

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables among its parts, those in folded ones too."""
        found = []
        for part in self.parts:
            inner = part.parts if isinstance(part, Folded) else (part,)
            found += [one for one in inner if isinstance(one, Table)]
        return tuple(found)

    @property
    def texts(self) -> tuple[str, ...]:
        """What its texts say, without the small print."""
        return tuple(part.text for part in self.parts if isinstance(part, Text | Lead))


def with_note(sections: Iterable[Section], note: str) -> list[Section]:
    """The sections with a note below every table, those in folded parts too; '' = as they are.

    >>> with_note([Section('', [Table(['arm'], [['raw']])])], '7 of 10')[0].tables[0].notes
    ('7 of 10',)
    """

    def noted(part):
        if isinstance(part, Table):
            return dataclasses.replace(part, notes=(*part.notes, note))
        return dataclasses.replace(part, parts=map(noted, part.parts)) if isinstance(part, Folded) else part

    return [dataclasses.replace(one, parts=map(noted, one.parts)) if note else one for one in sections]


Part = Lead | Text | Facts | Note | Code | Links | Table | Figure | Folded
PARTS = (Lead, Text, Facts, Note, Code, Links, Table, Figure, Folded)
