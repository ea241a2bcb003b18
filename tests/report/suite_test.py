"""Several runs in one report, whatever they are about; seconds that they took."""

import csv
import json

import pytest

from sbjax.report import suite as lib
from sbjax.report import tables


def test_every_run_beside_the_others(write_run, tmp_path):
    for name, effect in (("good", 0.05), ("bad", -0.05)):
        write_run(name, effect=effect, stop=False)
    table, path, summary = lib.suite_report(tmp_path, ["good", "bad", "lost"])
    lines = table.splitlines()
    assert max(map(len, lines)) <= tables.WIDTH
    assert [line.split()[-1] for line in lines if line.split()[1] == "expanded"] == ["better", "worse"]
    assert "lost: workdir='lost' is not a directory" in table
    entry = summary["members"]["bad"]["comparisons"]["equal_steps"][0]
    assert (entry["arm"], entry["comparison"]["improved"]) == ("expanded", 0)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    page = path.read_text()
    assert (
        '<p class="lead">test/accuracy against the reference of each run, at equal steps, differences in points: '
        "better: good expanded (+4.96); worse: bad expanded (-5.04); no difference shown: "
    ) in page
    assert "(4 comparisons).</p>" in page
    assert "A verdict takes 5 seeds" in page
    for piece in ('href="good/report.html"', "Runs that could not be read", "1,234"):
        assert piece in page
    assert 'href="lost/report.html"' not in page
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert (list(rows[0])[:3], len(rows)) == (["run", "arm", "replica"], 2 * 3 * 8)
    before = page.encode()
    assert lib.suite_report(tmp_path, ["good", "bad", "lost"]).path.read_bytes() == before


def test_a_suite_has_a_run(tmp_path):
    with pytest.raises(ValueError, match="at least one run"):
        lib.suite_report(tmp_path, [])
    found = lib.suite_report(tmp_path, ["wave"])
    assert "wave: workdir='wave' is not a directory" in found.table
    assert '<p class="lead">Nothing to compare: ' in found.path.read_text()


def test_seconds_are_summed_over_the_parts_of_an_arm(tmp_path):
    lines = [
        {"arm": "raw", "steps": [0, 10], "train_seconds": 2.0, "compile_seconds": 1.0},
        {"arm": "raw", "steps": [10, 30], "train_seconds": 3.0, "save_seconds": 0.5},
        {"arm": "ones", "interpolation_seconds": 4.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"arm": "raw", "st'
    (tmp_path / "timings.jsonl").write_text(text)
    assert lib.load_seconds(tmp_path) == {"raw": lib.Seconds(5.0, 6.5, 30)}
    assert lib.load_seconds(tmp_path / "none") == {}
