import ast
import json
import pathlib
import re
from html.parser import HTMLParser

import pytest

import sbjax.report
from sbjax.report import build_report, markup
from sbjax.report.page import sentence
from sbjax.report.results import load_results
from sbjax.report.sections import Figure, Section, Table, Text
from sbjax.report.statistics import summarise

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects text, tags and references; `open` is what has not been closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.links = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def workdir(write_run):
    return write_run()


def test_report_is_one_file_that_needs_nothing_else(workdir):
    path = build_report(workdir)
    assert path == workdir / "report.html"
    source = path.read_text()
    page = Page(source)
    assert page.open == []
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.links == []
    assert page.tags.count("figure") == 3
    for name in ("accuracy_curves", "paired_dots", "loss_curves"):
        assert (workdir / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    ids = re.findall(r' id="([^"]*)"', source)
    assert len(ids) == len(set(ids)) > 100
    assert {target for pair in re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', source) for target in pair if target} <= {
        *ids
    }
    assert "url(" not in re.sub(r"url\(#", "", source)
    assert "@import" not in source


def test_report_says_what_was_found(workdir):
    text = " ".join(Page(build_report(workdir).read_text()).text)
    summary = json.loads((workdir / "summary.json").read_text())
    for arm in ("raw", "expanded", "nearest"):
        assert arm in text
    for at, entries in summary["comparisons"].items():
        for entry in entries:
            assert sentence(summary, entry, at=at) in text
    for piece in ("0.10.1", "Replica distances", "symmetry more broken", "[0.4, 0.6]", "7 of 8"):
        assert piece in text
    command = "python runs/train.py --config=configs/digits.py:smoke --config.arms.replicas=8 --workdir=WORKDIR"
    assert command in text


def test_everything_is_escaped(workdir):
    source = build_report(workdir).read_text()
    assert "<script>" not in source
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in source
    assert "loss is nan &lt;at step 137&gt;" in source


def test_same_input_same_bytes(write_run):
    one, two = write_run("one"), write_run("two")
    for workdir in (one, two):
        build_report(workdir)
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert {str(path) for path in files} >= {
        "results.csv",
        "summary.json",
        "report.html",
        "figures/paired_dots.png",
    }
    for path in files:
        assert (one / path).read_bytes() == (two / path).read_bytes(), path
    before = (one / "report.html").read_bytes()
    build_report(one)
    assert (one / "report.html").read_bytes() == before


def test_good_and_bad_news_read_the_same(write_run):
    def first(name, effect):
        summary = summarise(load_results(write_run(name, effect=effect, stop=False)))
        return sentence(summary, summary["comparisons"]["equal_steps"][0], at="equal_steps")

    good, bad = first("good", 0.05), first("bad", -0.05)
    start = "expanded minus raw, test/accuracy at equal steps: median "
    assert good.startswith(f"{start}+")
    assert bad.startswith(f"{start}-")
    assert good.endswith("8 of 8 seeds improved, Wilcoxon p = 0.0078: better.")
    assert bad.endswith("0 of 8 seeds improved, Wilcoxon p = 0.0078: worse.")
    assert "points, 95 % interval [+" in good


def test_flops_that_are_not_counted_are_not_compared(write_run):
    """Of line searches, say: `metrics.jsonl` has none, `arms.json` those of a gradient."""
    workdir = write_run()
    lines = [json.loads(line) | {"flops": 0.0} for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = " ".join(Page(build_report(workdir).read_text()).text)
    assert "at equal steps" in text
    assert "test/accuracy at equal FLOPs" not in text
    assert "No reading at equal FLOPs: a step of an optimiser here costs more" in text
    assert "FLOPs of a gradient" in text


def test_a_comparison_without_a_number_is_told_in_words(workdir):
    summary = summarise(load_results(workdir))
    entry = summary["comparisons"]["equal_flops"][0]
    missing = entry | {"comparison": None, "reason": "expanded has no report within the budget of 1 FLOPs"}
    text = sentence(summary, missing, at="equal_flops")
    assert text == (
        "expanded minus raw, test/accuracy at equal FLOPs: not compared, since expanded has no report within "
        "the budget of 1 FLOPs."
    )
    nothing = entry | {"comparison": entry["comparison"] | {"n": 0, "left_out": 8}}
    assert "no seed was finished by both arms. 8 seeds left out" in sentence(summary, nothing, at="equal_flops")
    stopped = summary["comparisons"]["equal_steps"][1]
    assert sentence(summary, stopped, at="equal_steps").endswith(
        "1 seed left out, stopped in one of the two arms or both."
    )


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_few_seeds_are_told(write_run, replicas):
    text = build_report(write_run(replicas=replicas, stop=False)).read_text()
    assert "too few seeds for a verdict" in text
    assert ": better." not in text
    assert "No verdict on expanded against raw" in text


@pytest.mark.extended
def test_one_arm_and_no_config_file(workdir):
    arms = json.loads((workdir / "arms.json").read_text())
    (workdir / "arms.json").write_text(json.dumps(arms | {"arms": ["raw"], "failures": []}))
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    (workdir / "metrics.jsonl").write_text("\n".join(line for line in lines if '"raw"' in line) + "\n")
    (workdir / "config.json").write_text('{"config": {}, "environment": {}, "overrides": []}')
    text = " ".join(Page(build_report(workdir).read_text()).text)
    assert "nothing to compare" in text
    assert "resolved config below" in text
    assert "Replicas that stopped" not in text


def test_sections_of_an_experiment_stand_after_the_figures(workdir):
    calls = []

    def sections(results, folder):
        calls.append((results.arms, folder))
        own = [Table(["h"], [["cell"]]), Figure("own", "An own figure.", b"png"), Text("Said.")]
        return [Section("What is special", own), Section("Nothing", [])]

    text = Page(build_report(workdir, sections=sections).read_text()).text
    assert calls == [(("raw", "expanded", "nearest"), workdir)]
    places = [
        text.index(title)
        for title in ("What was trained", "Figures", "What is special", "Arms in numbers", "How to reproduce")
    ]
    assert places == sorted(places)
    assert {"cell", "An own figure.", "Said."} <= set(text)
    assert "Nothing" not in text


def test_a_verdict_that_is_lost_once_corrected_is_told_everywhere(workdir, monkeypatch):
    """In the cell of the main table, in the column of the full one, and in the sentences of both."""
    monkeypatch.setattr("sbjax.report.corrected.holm", lambda p_values: [0.06 for _ in p_values])
    text = Page(build_report(workdir).read_text()).text
    assert "better (not once corrected)" in text
    assert "corrected" in text
    assert any("corrected for 2 comparisons: no difference shown" in one for one in text)
    assert any("(among 2 comparisons: no difference shown)" in one for one in text)
    assert sum("corrected for the 2 by Holm's procedure" in one for one in text) == 3


def test_what_is_not_whole_is_said_first(workdir):
    status = {"status": "done", "inputs": {"metrics.jsonl": "0" * 64}}
    (workdir / "status.json").write_text(json.dumps(status))
    text = Page(build_report(workdir).read_text()).text
    assert text.index("Not whole") < next(i for i, one in enumerate(text) if one.startswith("expanded is better"))


def test_roles_are_shown(workdir):
    text = Page(build_report(workdir).read_text()).text
    place = len(text) - 1 - text[::-1].index("role")
    assert text[place : place + 4] == ["role", "reference", "treatment", "control of resolution"]


def test_reports_know_no_experiment():
    """No module of the room imports an experiment, or decides by the kind of a run; it may say which it is."""
    for path in pathlib.Path(sbjax.report.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text())
        names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert not [name for name in names if name.startswith(("sbjax.experiments", "sbjax.frame", "sbjax.runner"))], (
            path
        )
        assert not re.search(r'"kind"[^\n]*(==|!=|\bin\b)|(==|!=|\bin\b)[^\n]*"kind"', path.read_text()), path


def test_a_number_and_its_interval_may_stand_on_two_lines():
    table = Table(["arm", "value", "name"], [["raw", "36.1 % [31.9, 40.3]", "a [b] c"]])
    page = markup.render([Section("numbers", [table])])
    assert '<span class="n">36.1 %</span> <span class="n">[31.9, 40.3]</span>' in page
    assert '<td class="words">a [b] c</td>' in page or "<td>a [b] c</td>" in page
