"""Sections, and the page that they become."""

import dataclasses

import pytest

from sbjax.report import markup
from sbjax.report.sections import Code, Figure, Folded, Links, Note, Section, Table, Text

EVERY = [
    (Text("a < b"), "<p>a &lt; b</p>"),
    (Note("small"), '<p class="note">small</p>'),
    (Code("python  x.py"), "<pre>python  x.py</pre>"),
    (Links({"a b": "a b/report.html", "c": "c"}), '<p><a href="a%20b/report.html">a b</a>, <a href="c">c</a></p>'),
    (
        Table(["h"], [["<i>"]], title="t", notes=["n"]),
        '<h3>t</h3>\n<div class="scroll"><table><tr><th>h</th></tr><tr><td>&lt;i&gt;</td></tr></table></div>\n'
        '<p class="note">n</p>',
    ),
    (
        Figure("f", "what & why", b"png"),
        '<figure><img alt="what &amp; why" src="data:image/png;base64,cG5n"><figcaption>what &amp; why</figcaption>'
        "</figure>",
    ),
    (
        Figure("f", "c", b"", "said"),
        '<figure><img alt="said" src="data:image/png;base64,"><figcaption>c</figcaption></figure>',
    ),
    (Folded("more", [Text("x")]), "<details><summary>more</summary>\n<p>x</p>\n</details>"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "html"), EVERY)
def test_every_part_as_markup(part, html):
    assert markup.render([Section("s", [part])]) == f"<h2>s</h2>\n{html}"


def test_equal_numbers_are_equal_sections_and_nothing_changes():
    one, two = (Section("s", [Table(["a"], iter([["1"]])), Text("x")]) for _ in range(2))
    assert one == two
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.title = "t"


def test_what_a_section_holds():
    table, inner, picture = Table(["a"], []), Table(["b"], []), Figure("f", "c", b"")
    section = Section("s", [table, Text("x"), Folded("more", [inner]), picture, Note("n")])
    assert (section.tables, section.figures, section.texts) == ((table, inner), (picture,), ("x",))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Table(["a", "b"], [["1"]]), r"row \('1',\) has 1 cells for 2 headers"),
        (lambda: Table(["a"], [[0.5]]), r"Table.rows\['a'\]=0.5 must be a text; format numbers before"),
        (lambda: Text(3), "Text.text=3 must be a text"),
        (lambda: Section("s", ["<p>x</p>"]), "section 's' has a part '<p>x</p>'; give one of Text, Note"),
        (lambda: Section("s", [Section("t", [])]), "section 's' has a part Section"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
