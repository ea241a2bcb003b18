"""Two runs against each other: planted differences are found, and what cannot be compared is refused."""

import json

import numpy as np
import pytest

from sbjax.report import against as lib
from sbjax.report import statistics
from sbjax.report.results import load_results


def change(workdir, name, function):
    """Rewrite a JSON file of a run."""
    tree = json.loads((workdir / name).read_text())
    (workdir / name).write_text(json.dumps(function(tree)))


@pytest.fixture
def runs(write_run):
    """B is A with `expanded` 0.1 better, in another environment."""
    a, b = write_run("a", effect=0.05), write_run("b", effect=0.15)
    change(b, "config.json", lambda tree: tree | {"environment": tree["environment"] | {"jax": "0.12.0"}})
    change(b, "config.json", lambda tree: tree | {"config": {"task": tree["config"]["task"], "seed": 3}})
    return a, b


def test_arms_are_paired_by_seed_at_the_last_report(runs):
    a, b = map(load_results, runs)
    found = {arm.arm: arm for arm in lib.compare_arms(a, b)}
    assert list(found) == ["raw", "expanded", "nearest"]
    gain = found["expanded"].comparison
    assert (gain.difference, gain.low, gain.high) == pytest.approx((0.1, 0.1, 0.1))
    assert (gain.improved, gain.n, gain.verdict) == (8, 8, "better")
    assert found["raw"].comparison.verdict == "no difference shown"
    assert (found["nearest"].comparison.n, found["nearest"].comparison.left_out) == (7, 1)
    # The other way round all signs change.
    back = {arm.arm: arm.comparison for arm in lib.compare_arms(b, a)}
    assert back["expanded"].difference == pytest.approx(-0.1)
    assert back["expanded"].verdict == "worse"


def test_the_page_and_the_table(runs):
    table, path = lib.write_against(*runs)
    assert path == runs[0] / "against.html"
    page = path.read_text()
    for text in ("B = b against A = a: test/accuracy", "+10.00", "0.12.0", "different seeds, None and 3"):
        assert text in page
    line = next(line for line in table.splitlines() if line.startswith("expanded"))
    assert "+10.00" in line
    assert line.endswith("better")
    assert max(map(len, table.splitlines())) <= 110
    said = " ".join(table.split())
    assert "Settings that differ (A -> B): note, seed absent -> 3" in said
    assert 'Environments (A -> B): jax "0.10.1" -> "0.12.0"' in said
    comparison, settings, environments = lib.compare_runs(*runs)
    assert len(comparison.tables[0].rows) == 3
    assert settings.tables[0].rows == (("note", '"<script>alert(1)</script>"', "absent"), ("seed", "absent", "3"))
    assert environments.tables[0].rows == (("jax", '"0.10.1"', '"0.12.0"'),)
    assert lib.write_against(*runs).table == table


def test_a_run_against_itself_has_no_difference(write_run):
    one = write_run("one")
    comparison, settings, environments = lib.compare_runs(one, one)
    assert {row[-1] for row in comparison.tables[0].rows} == {"no difference shown"}
    assert (settings.tables, environments.tables) == ((), ())


def test_other_numbers_of_replicas_and_steps_are_told(write_run):
    a, b = write_run("a", stop=False), write_run("b", replicas=5, reports=3, stop=False)
    sections = lib.compare_runs(a, b)
    assert "8 replicas in A and 5 in B: only the first 5" in " ".join(sections[0].texts)
    assert "read at different steps" in " ".join(sections[0].texts)
    ours, theirs = load_results(a), load_results(b)
    sides = [r.reports["expanded"][-1].values["test/accuracy"][:5] for r in (ours, theirs)]
    expected = statistics.paired(*sides)
    found = next(arm for arm in lib.compare_arms(ours, theirs) if arm.arm == "expanded")
    assert found.comparison == expected
    assert found.steps == (400, 300)


def test_arms_of_one_run_alone_and_arms_without_a_number(runs):
    a, b = map(load_results, runs)
    less = b._replace(arms=("raw", "nearest"), reports={"raw": b.reports["raw"], "nearest": ()})
    raw, nearest = lib.compare_arms(a, less)
    assert raw.comparison.n == 8
    assert (nearest.comparison, nearest.reason) == (None, "B has no report of test/accuracy")
    gone = [r._replace(values={k: v * np.nan for k, v in r.values.items()}) for r in b.reports["raw"]]
    assert lib.compare_arms(a, less._replace(reports={"raw": gone, "nearest": ()}))[0].reason == (
        "no seed was finished in both"
    )


def test_what_cannot_be_compared(write_run, write_member, tmp_path):
    one, other = write_run("one"), write_member("other")
    with pytest.raises(ValueError, match=r"different primary metrics, test/accuracy \(max\) and test/l2 \(min\)"):
        lib.write_against(one, other)
    assert not (one / "against.html").exists()
    results = load_results(one)
    with pytest.raises(ValueError, match=r"no arm in common: A has raw, expanded, nearest, B has plain"):
        lib.compare_arms(results, results._replace(arms=("plain",)))
    with pytest.raises(FileNotFoundError, match="nothing"):
        lib.compare_runs(one, tmp_path / "nothing")
