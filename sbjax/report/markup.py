"""Pieces of a self-contained HTML page: no script, no other file, no network."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from urllib.parse import quote

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


def page(title: str, body: Sequence[str]) -> str:
    """A whole page around finished pieces of markup."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"{tag('title', title)}<style>{CSS}</style></head>",
            "<body>",
            *body,
            "</body>",
            "</html>\n",
        ]
    )


def tag(name: str, text: str) -> str:
    """Escaped text in an element.

    >>> tag('p', 'a < b')
    '<p>a &lt; b</p>'
    """
    return f"<{name}>{escape(text)}</{name}>"


def note(text: str) -> str:
    """A paragraph in small print."""
    return f'<p class="note">{escape(text)}</p>'


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of escaped cells that scrolls where it is too wide."""
    head = "".join(tag("th", header) for header in headers)
    body = "".join(f"<tr>{''.join(tag('td', cell) for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def figures(images: Mapping[str, bytes], captions: Mapping[str, str]) -> list[str]:
    """A heading and every PNG with its caption, embedded."""
    parts = [tag("h2", "Figures")] if images else []
    for name, image in images.items():
        caption = escape(captions[name])
        data = base64.b64encode(image).decode()
        picture = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
        parts.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    return parts


def links(targets: Mapping[str, str]) -> str:
    """A paragraph of links, {text: relative path}.

    >>> links({'heat': 'heat/report.html'})
    '<p><a href="heat/report.html">heat</a></p>'
    """
    found = (f'<a href="{escape(quote(path))}">{escape(text)}</a>' for text, path in targets.items())
    return f"<p>{', '.join(found)}</p>"
