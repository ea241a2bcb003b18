"""Sections as a self-contained HTML page: no script, no other file, no network."""

import base64
import re
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from sbjax.report import sections as kinds
from sbjax.report.sections import Entry, Figure, Panel, Part, Section, Table
from sbjax.report.svg import COLOURS

# Of the colours of figures, which are told apart with every colour blindness, shades that stand out from the
# background by 3 to 1 at least.
_LIGHT = ("#0072b2", "#d55e00", "#008f68", "#b8578f", "#a87300", "#2f86bd")
_DARK = ("#4fa8e0", "#f08040", "#2dbe94", "#de94be", "#f0b030", "#7cc7f2")


def _variables(shades: Sequence[str]) -> str:
    return " ".join(f"--c{number}: {shade};" for number, shade in enumerate(shades))


CSS = f"""
:root {{ color-scheme: light dark; --text: #1a1a1a; --soft: #555; --back: #fff; --card: #f4f5f7; --line: #d5d8dc;
        --link: #0058a8; {_variables(_LIGHT)} }}
@media (prefers-color-scheme: dark) {{
  :root {{ --text: #e8eaed; --soft: #aab0b8; --back: #15181c; --card: #1f242a; --line: #3a4048; --link: #7db8f5;
          {_variables(_DARK)} }}
}}
* {{ box-sizing: border-box; }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 66rem;
       margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }}
a {{ color: var(--link); }}
h1 {{ font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 1rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.2rem; margin: 2.2rem 0 .6rem; }} h3 {{ font-size: 1rem; margin: 1.2rem 0 .3rem; }}
p {{ margin: .5rem 0; max-width: 46rem; }}
.lead {{ font-size: 1.15rem; line-height: 1.45; background: var(--card); border-left: .3rem solid var(--c0);
        padding: .7rem 1rem; max-width: none; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: .5rem 0; font-size: .9375rem; }}
dt {{ color: var(--soft); }} dd {{ margin: 0; overflow-wrap: anywhere; }}
@media (max-width: 36rem) {{ dl {{ grid-template-columns: 1fr; gap: 0; }} dd {{ margin-bottom: .5rem; }} }}
.scroll {{ overflow-x: auto; }}
@media (min-width: 68rem) {{ .scroll {{ width: fit-content; max-width: calc(50vw + 31rem); }} }}
table {{ border-collapse: separate; border-spacing: 0; font-size: .875rem; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; color: var(--soft); padding-bottom: .3rem; }}
th, td {{ text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line);
         vertical-align: top; }}
thead th {{ vertical-align: bottom; }} tbody th {{ font-weight: 600; }} td {{ white-space: nowrap; }}
td.words, td.number {{ white-space: normal; }} td.words {{ min-width: 5.5rem; }} .n {{ white-space: nowrap; }}
@media (min-width: 48rem) {{ td.words {{ min-width: 11rem; }} }}
th:first-child {{ position: sticky; left: 0; background: var(--back); min-width: 3rem; max-width: 11rem;
                  overflow-wrap: break-word; }}
.verdict th:last-child, .verdict td:last-child {{ position: sticky; right: 0; background: var(--back);
  padding-left: .5rem; padding-right: 0; }}
@media (max-width: 36rem) {{
  table {{ font-size: .8125rem; }} th, td {{ padding-right: .4rem; }} td.words {{ min-width: 4.5rem; }}
}}
figure {{ margin: 1.2rem 0; }} figure img {{ max-width: 100%; height: auto; background: #fff; }}
.panels {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: .8rem; }}
.panels svg {{ display: block; width: 100%; max-width: 30rem; height: auto; overflow: visible;
              stroke-linejoin: round; }}
.panels text {{ fill: currentColor; }}
.legend {{ list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; padding: 0; margin: 0 0 .4rem;
          font-size: .875rem; }}
.legend svg {{ width: 2.2rem; height: .8rem; vertical-align: -.05rem; margin-right: .35rem; }}
figcaption, .note {{ color: var(--soft); font-size: .875rem; max-width: 46rem; }}
pre {{ overflow-x: auto; background: var(--card); padding: .7rem; font-size: .8125rem; }}
details {{ margin: .7rem 0; }} summary {{ cursor: pointer; color: var(--link); }}
:focus-visible {{ outline: 2px solid var(--link); outline-offset: 2px; }}
"""

_DASHES = {"-": "", "--": "5 3", "-.": "5 2 1 2", ":": "1.5 2"}
_MARKS = {
    "o": '<circle cx="16" cy="6" r="2.5" fill="{0}"/>',
    "^": '<path d="M16 2.5L19.5 9H12.5Z" fill="{0}"/>',
    "x": '<path d="M13 3L19 9M13 9L19 3" stroke="{0}"/>',
    "_": '<path d="M12 6H20" stroke="{0}" stroke-width="1.6"/>',
}


def page(title: str, heading: str, sections: Sequence[Section]) -> str:
    """A whole page.

    Args:
        title: of the window.
        heading: at the top.
        sections: below it; the title of the first may be '', which is no heading.
    """
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"{_tag('title', title)}<style>{CSS}</style></head>",
            "<body><main>",
            _tag("h1", heading),
            render(sections),
            "</main></body>",
            "</html>\n",
        ]
    )


def render(sections: Sequence[Section]) -> str:
    """Sections as HTML, every text escaped.

    >>> print(render([Section('Errors', [Table(['arm'], [['a < b']]), kinds.Note('Small.')])]))
    <h2>Errors</h2>
    <div class="scroll" tabindex="0" role="region" aria-label="Errors"><table>
    <thead><tr><th scope="col">arm</th></tr></thead>
    <tbody>
    <tr><th scope="row">a &lt; b</th></tr>
    </tbody></table></div>
    <p class="note">Small.</p>
    """
    lines = []
    for section in sections:
        lines += [_tag("h2", section.title)] if section.title else []
        lines += _parts(section.parts, section.title)
    return "\n".join(lines)


def _parts(parts: Sequence[Part], title: str) -> list[str]:
    return [line for part in parts for line in _part(part, title)]


def _part(part: Part, title: str) -> list[str]:
    """A part, in the section or fold of this title."""
    match part:
        case kinds.Lead(text):
            return [f'<p class="lead">{escape(text)}</p>']
        case kinds.Text(text):
            return [_tag("p", text)]
        case kinds.Facts(rows):
            return ["<dl>", *(f"{_tag('dt', name)}{_tag('dd', text)}" for name, text in rows), "</dl>"]
        case kinds.Note(text):
            return [f'<p class="note">{escape(text)}</p>']
        case kinds.Code(text):
            return [f'<pre tabindex="0" role="region" aria-label="{escape(title or "code")}">{escape(text)}</pre>']
        case kinds.Links(targets):
            found = (f'<a href="{escape(quote(path))}">{escape(text)}</a>' for text, path in targets.items())
            return [f"<p>{', '.join(found)}</p>"]
        case Table():
            return _table(part, title)
        case Figure():
            return [_figure(part)]
        case kinds.Folded(own, inner):
            return [f"<details>{_tag('summary', own)}", *_parts(inner, own), "</details>"]


def _table(table: Table, title: str) -> list[str]:
    """A table that scrolls where it is too wide; its first column, and a verdict in the last, stay in sight."""
    caption = [_tag("caption", table.title)] if table.title else []
    head = "".join(f'<th scope="col">{escape(header)}</th>' for header in table.headers)
    judged = ' class="verdict"' if table.headers and table.headers[-1] in ("verdict", "corrected") else ""
    label = escape(table.title or title or "table")
    return [
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table{judged}>',
        *caption,
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *(f"<tr>{''.join(_cell(cell, place) for place, cell in enumerate(row))}</tr>" for row in table.rows),
        "</tbody></table></div>",
        *(f'<p class="note">{escape(text)}</p>' for text in table.notes),
    ]


def _cell(text: str, place: int) -> str:
    """A cell; sentences may be broken, numbers and names may not, a number with an interval between the two, and an
    interval below a number between its ends."""
    first, *below = map(escape, text.split("\n"))
    if place == 0:
        return f'<th scope="row">{"<br>".join([first, *below])}</th>'
    if below:
        pieces = (" ".join(f'<span class="n">{piece}</span>' for piece in line.split(" ")) for line in below)
        return f'<td class="words">{"<br>".join([first, *pieces])}</td>'
    if interval := re.fullmatch(r"(\S+(?: %)?) (\[.*\])", first):
        return '<td class="number"><span class="n">{}</span> <span class="n">{}</span></td>'.format(*interval.groups())
    inner = first
    words = " ".join(text.split()).count(" ") > 1 and text[:1].isalpha()
    return f'<td class="words">{inner}</td>' if words else f"<td>{inner}</td>"


def _figure(figure: Figure) -> str:
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>"
    if not figure.panels:
        data = base64.b64encode(figure.png).decode()
        picture = f'<img alt="{escape(figure.alt or figure.caption)}" src="data:image/png;base64,{data}">'
        return f"<figure>{picture}{caption}</figure>"
    legend = "".join(f"<li>{_sample(entry)}{escape(entry.label)}</li>" for entry in figure.legend)
    legend = f'<ul class="legend">{legend}</ul>\n' if legend else ""
    panels = "\n".join(map(_panel, figure.panels))
    return f'<figure>{legend}<div class="panels">\n{panels}\n</div>{caption}</figure>'


def _panel(panel: Panel) -> str:
    return panel.svg.replace("<svg ", f'<svg role="img" aria-label="{escape(panel.alt)}" ', 1)


def _sample(entry: Entry) -> str:
    """How a line of the figure looks."""
    known = [colour.lower() for colour in COLOURS[:-1]]
    colour = entry.colour.lower()
    colour = f"var(--c{known.index(colour)})" if colour in known else colour.replace("#000000", "currentColor")
    line = (
        f'<path d="M1 6H31" stroke="{colour}" stroke-width="2" stroke-dasharray="{_DASHES.get(entry.dash, "")}"/>'
        if entry.dash
        else ""
    )
    mark = _MARKS[entry.marker if entry.marker in _MARKS else "o"].format(colour) if entry.marker else ""
    drawn = f'<svg viewBox="0 0 32 12" aria-hidden="true">{line}{mark}</svg>'
    return drawn if line or mark else ""


def _tag(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"
