"""Sections as a self-contained HTML page: no script, no other file, no network."""

import base64
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from sbjax.report.sections import Code, Figure, Folded, Links, Note, Part, Section, Table, Text

CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 60rem;
       margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #ddd; vertical-align: top;
         white-space: nowrap; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption, .note { color: #555; font-size: .875rem; }
pre { overflow-x: auto; background: #f5f5f5; padding: .7rem; font-size: .8125rem; }
details { margin: .5rem 0; }
"""


def page(title: str, heading: str, sections: Sequence[Section]) -> str:
    """A whole page.

    Args:
        title: of the window.
        heading: at the top.
        sections: below it.
    """
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"{_tag('title', title)}<style>{CSS}</style></head>",
            "<body>",
            _tag("h1", heading),
            render(sections),
            "</body>",
            "</html>\n",
        ]
    )


def render(sections: Sequence[Section]) -> str:
    """Sections as HTML, every text escaped.

    >>> print(render([Section('Errors', [Table(['arm'], [['a < b']]), Note('Small.')])]))
    <h2>Errors</h2>
    <div class="scroll"><table><tr><th>arm</th></tr><tr><td>a &lt; b</td></tr></table></div>
    <p class="note">Small.</p>
    """
    return "\n".join(line for section in sections for line in (_tag("h2", section.title), *_parts(section.parts)))


def _parts(parts: Sequence[Part]) -> list[str]:
    return [line for part in parts for line in _part(part)]


def _part(part: Part) -> list[str]:
    match part:
        case Text(text):
            return [_tag("p", text)]
        case Note(text):
            return [f'<p class="note">{escape(text)}</p>']
        case Code(text):
            return [_tag("pre", text)]
        case Links(targets):
            found = (f'<a href="{escape(quote(path))}">{escape(text)}</a>' for text, path in targets.items())
            return [f"<p>{', '.join(found)}</p>"]
        case Table():
            return _table(part)
        case Figure():
            return [_figure(part)]
        case Folded(title, inner):
            return [f"<details>{_tag('summary', title)}", *_parts(inner), "</details>"]


def _table(table: Table) -> list[str]:
    """A table that scrolls where it is too wide."""
    head = "".join(_tag("th", header) for header in table.headers)
    body = "".join(f"<tr>{''.join(_tag('td', cell) for cell in row)}</tr>" for row in table.rows)
    return [
        *([_tag("h3", table.title)] if table.title else []),
        f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>',
        *(f'<p class="note">{escape(text)}</p>' for text in table.notes),
    ]


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.png).decode()
    picture = f'<img alt="{escape(figure.alt or figure.caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{picture}<figcaption>{escape(figure.caption)}</figcaption></figure>"


def _tag(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"
