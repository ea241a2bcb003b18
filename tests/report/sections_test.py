"""Sections, and the page that they become."""

import dataclasses

import pytest

from sbjax.report import markup
from sbjax.report.sections import Code, Entry, Facts, Figure, Folded, Lead, Links, Note, Panel, Section, Table, Text

EVERY = [
    (Text("a < b"), "<p>a &lt; b</p>"),
    (Lead("a < b"), '<p class="lead">a &lt; b</p>'),
    (Facts([("a", "1"), ("<b>", "2")]), "<dl>\n<dt>a</dt><dd>1</dd>\n<dt>&lt;b&gt;</dt><dd>2</dd>\n</dl>"),
    (Note("small"), '<p class="note">small</p>'),
    (Code("python  x.py"), '<pre tabindex="0" role="region" aria-label="s">python  x.py</pre>'),
    (Links({"a b": "a b/report.html", "c": "c"}), '<p><a href="a%20b/report.html">a b</a>, <a href="c">c</a></p>'),
    (
        Table(["h"], [["<i>"]], title="t", notes=["n"]),
        '<div class="scroll" tabindex="0" role="region" aria-label="t"><table>\n<caption>t</caption>\n'
        '<thead><tr><th scope="col">h</th></tr></thead>\n<tbody>\n<tr><th scope="row">&lt;i&gt;</th></tr>\n'
        '</tbody></table></div>\n<p class="note">n</p>',
    ),
    (
        Table(["arm", "x", "verdict"], [["a", "1\n[0, 2]", "no difference shown"]]),
        '<div class="scroll" tabindex="0" role="region" aria-label="s"><table class="verdict">\n'
        '<thead><tr><th scope="col">arm</th><th scope="col">x</th><th scope="col">verdict</th></tr></thead>\n<tbody>\n'
        '<tr><th scope="row">a</th><td class="words">1<br><span class="n">[0,</span> <span class="n">2]</span></td>'
        '<td class="words">no difference shown</td></tr>\n'
        "</tbody></table></div>",
    ),
    (
        Figure("f", "c", b"", "", [Panel("<svg viewBox='0 0 1 1'></svg>", "a < b")], [Entry("raw", "#0072b2", "--")]),
        '<figure><ul class="legend"><li><svg viewBox="0 0 32 12" aria-hidden="true"><path d="M1 6H31" '
        'stroke="var(--c0)" stroke-width="2" stroke-dasharray="5 3"/></svg>raw</li></ul>\n<div class="panels">\n'
        "<svg role=\"img\" aria-label=\"a &lt; b\" viewBox='0 0 1 1'></svg>\n</div><figcaption>c</figcaption></figure>",
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
        (lambda: Section("s", ["<p>x</p>"]), "section 's' has a part '<p>x</p>'; give one of Lead, Text"),
        (lambda: Section("s", [Section("t", [])]), "section 's' has a part Section"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
