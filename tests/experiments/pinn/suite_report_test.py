"""A suite of planted effects: shares, seconds and words that are known beforehand."""

import csv
import json
import re

import numpy as np
import pytest

from sbjax.experiments.pinn.suite_page import headline, sentence
from sbjax.experiments.pinn.suite_report import format_suite_table, suite_report
from sbjax.experiments.pinn.suite_statistics import summarise_suite
from sbjax.physics.pdes import EQUATIONS
from sbjax.report import tables
from sbjax.report.suite import load_members

FIFTEEN = tuple(EQUATIONS)[:15]


@pytest.fixture
def write_suite(write_member, tmp_path):
    """Fifteen runs; 'expanded' is ten times better on those up to `good`, ten times worse on the others."""

    def write(folder="suite", *, good=12, names=FIFTEEN, **options):
        for place, name in enumerate(names):
            factor = 0.1 if place < good else 10.0
            factors = {"raw": 1.0, "expanded": factor, "ones": 1.0, "matched_bias": factor, "widened": 0.5}
            write_member(f"{folder}/{name}", **{"equation": name, "factors": factors, **options})
        return tmp_path / folder

    return write


def summarise(folder, names):
    """The summary alone; drawing takes most of the time."""
    return summarise_suite(load_members(folder, names))


def by_pair(summary, metric="test/l2"):
    return {(reading["arm"], reading["reference"]): reading for reading in summary["readings"][metric]}


@pytest.mark.parametrize("metric", ["test/l2", "train/loss"])
def test_both_readings_find_the_planted_share(write_suite, metric):
    summary = summarise(write_suite(), FIFTEEN)
    readings = by_pair(summary, metric)
    assert list(readings) == [
        *((arm, "raw") for arm in ("expanded", "ones", "matched_bias", "widened")),
        ("expanded", "matched_bias"),
        ("expanded", "widened"),
    ]
    found = readings["expanded", "raw"]
    assert (found["runs_improved"], found["runs"], found["pairs_improved"], found["pairs"]) == (12, 15, 72, 90)
    # All seeds of a run agree, so the two readings do.
    assert found["share_runs"] == found["share_pairs"]
    assert found["share_runs"]["value"] == pytest.approx(0.8)
    assert found["verdict"] == "better"
    same = readings["expanded", "matched_bias"]
    assert (same["share_pairs"]["value"], same["pairs_tied"], same["verdict"]) == (0.5, 90, "no difference shown")
    assert readings["widened", "raw"]["share_pairs"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    decades = 1 if metric == "test/l2" else 2
    for place, name in enumerate(FIFTEEN):
        row = summary["members"][name]["comparisons"][metric][0]
        assert row["log_ratio"] == pytest.approx(-decades if place < 12 else decades)
        assert row["low"] == pytest.approx(row["high"])
        assert row["verdict"] == ("better" if place < 12 else "worse")
        assert row["p_value"] == 2 * 0.5**6
        assert row["median"] / row["reference_median"] == pytest.approx(10 ** row["log_ratio"])


@pytest.mark.extended
def test_good_and_bad_news_read_the_same(write_suite):
    texts = []
    for folder, good in (("good", 15), ("bad", 0), ("even", 7)):
        summary = summarise(write_suite(folder, good=good), FIFTEEN)
        texts.append((headline(summary), sentence(summary, "test/l2", by_pair(summary)["expanded", "raw"])))
    assert texts[0][0].startswith("In test/l2, expanded improves on raw (15 of 15 equations, 100 % of the pairs)")
    assert texts[1][0].startswith("In test/l2, expanded does worse than raw (0 of 15 equations, 0 % of the pairs)")
    assert texts[2][0].startswith("In test/l2, expanded shows no difference from raw (7 of 15 equations, 47 %")
    assert "and shows no difference from matched_bias" in texts[0][0]
    start = "expanded against raw, final test/l2: the median over seeds is lower on"
    assert texts[0][1] == (
        f"{start} 15 of 15 equations, 100 %; 90 of 90 pairs of equation and seed are lower, 100 %, "
        "95 % interval [100, 100]: better."
    )
    assert texts[1][1] == (
        f"{start} 0 of 15 equations, 0 %; 0 of 90 pairs of equation and seed are lower, 0 %, "
        "95 % interval [0, 0]: worse."
    )


def test_files_table_and_page(write_suite):
    folder = write_suite()
    table, path, summary = suite_report(folder, FIFTEEN)
    assert path == folder / "report.html"
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert format_suite_table(json.loads((folder / "summary.json").read_text())) == table
    lines = table.splitlines()
    assert max(map(len, lines)) <= tables.WIDTH
    assert [line.split()[0] for line in lines[1:16]] == list(FIFTEEN)
    assert lines[1].endswith("-1.00 [-1.00, -1.00]  6/6       better")
    assert lines[15].endswith("+1.00 [+1.00, +1.00]  0/6       worse")
    assert "test/l2 expanded raw 12/15 80 % [" in re.sub(" +", " ", table)
    assert "most, about 75 %" in table
    page = path.read_text()
    assert re.findall(r'href="([^"#][^"]*)"', page) == [f"{name}/report.html" for name in FIFTEEN]
    assert "<script" not in page
    for piece in ("most, about 75 %", "arXiv 2409.06402", "Wall time", headline(summary), "stationary"):
        assert piece in page
    for name in ("violins_train_loss", "violins_test_l2"):
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(re.findall('<svg role="img"', page)) >= 2
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert list(rows[0])[:6] == ["equation", "arm", "replica", "status", "step", "flops"]
    assert len(rows) == 15 * 5 * 6
    assert [row["equation"] for row in rows[:: 5 * 6]] == list(FIFTEEN)
    last = [float(row["test/l2"]) for row in rows if (row["equation"], row["arm"]) == ("heat", "expanded")]
    assert np.median(last) == summary["members"]["heat"]["arms"]["expanded"]["test/l2"]["median"]


@pytest.mark.extended
def test_same_input_same_bytes(write_suite):
    one, two = (write_suite(name, names=FIFTEEN[:6]) for name in ("one", "two"))
    for folder in (one, two, one):
        suite_report(folder, FIFTEEN[:6])
    for name in ("report.html", "summary.json", "results.csv", "figures/violins_test_l2.png"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


@pytest.mark.extended
def test_seconds_until_an_error_beside_a_classical_solver(write_suite):
    folder = write_suite(names=("heat", "wave"), good=1, seconds=6.0)
    (folder / "classical.json").write_text(json.dumps({"heat": {"1e-2": 0.25, "1e-9": None}}))
    _, path, summary = suite_report(folder, ("heat", "wave"))
    heat = summary["members"]["heat"]
    # Median errors of raw: about 1, 1e-1, 1e-2 and 1e-3 at steps 0, 10, 20 and 30 of six seconds; `expanded` is a
    # decade ahead. Resumed once: two lines of three seconds.
    errors = {arm: heat["arms"][arm]["test/l2"]["median"] for arm in ("raw", "expanded")}
    for error, times in heat["times"].items():
        for arm, median in errors.items():
            steps = [step for step in (10, 20, 30) if median * 10 ** (3 - step / 10) < float(error)]
            assert times[arm] == (steps[0] / 5 if steps else None), (error, arm)
    assert list(heat["times"]) == ["0.1", "0.01", "0.001", "0.0001", "1e-09"]
    assert heat["classical"] == {"0.01": 0.25, "1e-09": None}
    assert heat["arms"]["raw"]["seconds"] == {"train": 6.0, "total": 8.0, "steps": 30}
    assert summary["members"]["wave"]["classical"] is None
    assert '<th scope="col">classical</th>' in path.read_text()
    assert "<td>0.25</td>" in path.read_text()
    (folder / "classical.json").unlink()
    _, path, _ = suite_report(folder, ("heat", "wave"))
    assert '<th scope="col">classical</th>' not in path.read_text()


@pytest.mark.parametrize("content", ["[1]", '{"heat": 3}', '{"heat": {"small": 1}}', "{"])
def test_a_classical_file_that_cannot_be_used_is_named(write_suite, content):
    folder = write_suite(names=("heat",))
    (folder / "classical.json").write_text(content)
    with pytest.raises(ValueError, match=r"classical\.json.*measure again"):
        suite_report(folder, ("heat",))


@pytest.mark.extended
def test_what_went_wrong_is_shown(write_suite, write_member):
    names = FIFTEEN[:7]
    folder = write_suite(names=names, good=7)
    partly = np.array([np.nan, 0.1, 0.1, 0.1, 0.1, 0.1])
    write_member(f"suite/{names[0]}", equation=names[0], factors={"raw": 1.0, "expanded": partly})
    write_member(f"suite/{names[1]}", equation=names[1], factors={"raw": 1.0, "expanded": np.nan})
    write_member(f"suite/{names[2]}", equation=names[2], factors={"raw": 1.0, "ones": 0.1})
    (folder / names[3] / "arms.json").unlink()
    (folder / names[4] / "timings.jsonl").write_text('{"arm": "raw", "st')
    (folder / names[5] / "timings.jsonl").unlink()
    table, path, summary = suite_report(folder, names)
    found = by_pair(summary)["expanded", "raw"]
    assert (found["runs"], found["not_compared"], found["pairs"], found["left_out"]) == (4, 3, 23, 1)
    assert found["share_pairs"]["value"] == 1.0
    assert "too few" in found["verdict"]
    lines = {line.split()[0]: line for line in table.splitlines() if line}
    assert lines[names[0]].split()[-2:] == ["5/5", "better"]
    assert lines[names[1]].endswith("stopped")
    assert lines[names[2]].endswith("missing")
    assert lines[names[3]].endswith("missing")
    page = path.read_text()
    for piece in (
        "1 of 6 stopped",
        "6 of 6 stopped",
        "no such arm",
        "the run has no arm expanded",
        "no seed was finished by both arms",
        "has no arms.json; give the workdir",
        "3 equations not compared",
        "1 pair left out",
    ):
        assert piece in page
    assert str(folder) not in page
    assert f'href="{names[3]}/report.html"' not in page
    assert summary["members"][names[4]]["arms"]["raw"]["seconds"] is None


def test_nothing_that_can_be_read(tmp_path):
    table, path, summary = suite_report(tmp_path, ("heat", "wave"))
    assert "heat: workdir='heat' is not a directory" in table
    assert "nothing to compare" in path.read_text()
    assert summary["readings"] == {}
    with pytest.raises(ValueError, match="at least one run"):
        suite_report(tmp_path, ())


@pytest.mark.parametrize("replicas", [1, 2])
def test_few_seeds_and_one_arm(write_suite, write_member, tmp_path, replicas):
    table, _, summary = suite_report(write_suite(names=FIFTEEN[:3], replicas=replicas), FIFTEEN[:3])
    assert by_pair(summary)["expanded", "raw"]["pairs"] == 3 * replicas
    assert "too few" in table
    write_member("alone/heat", factors={"raw": 1.0}, replicas=replicas)
    table, path, summary = suite_report(tmp_path / "alone", ("heat",))
    assert summary["pairs"] == []
    assert table.splitlines()[1].split()[0] == "heat"
    assert "nothing to compare" in path.read_text()


@pytest.mark.extended
def test_equations_of_a_user_and_long_names_keep_to_the_terminal(write_suite):
    names = [f"an_unusually_long_name_of_an_equation_of_a_user_{i}" for i in range(6)]
    table, _, summary = suite_report(write_suite(names=names, good=6), names)
    assert max(map(len, table.splitlines())) <= tables.WIDTH
    assert [member["panel"] for member in summary["members"].values()] == [*["group 1"] * 5, "group 2"]


def test_all_errors_have_spread_and_paired_tests(write_suite, tmp_path):
    """L1 is twice L2 and the largest error ten times it, in every seed: medians, ratios and p values follow."""
    names = FIFTEEN[:2]
    folder = write_suite(names=names, good=2)
    for name in names:
        path = folder / name / "metrics.jsonl"
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            for metric, factor in (("test/l1", 2.0), ("test/max", 10.0)):
                record[metric] = [factor * x for x in record["test/l2"]]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    _, path, summary = suite_report(folder, names)
    assert list(summary["metrics"]) == ["train/loss", "test/l2", "test/l1", "test/max"]
    assert list(summary["readings"]) == ["train/loss", "test/l2"]
    member = summary["members"][names[0]]
    for metric, factor in (("test/l1", 2.0), ("test/max", 10.0)):
        for statistic in ("q1", "median", "q3"):
            ours, l2 = (member["arms"]["expanded"][m][statistic] for m in (metric, "test/l2"))
            assert ours == pytest.approx(factor * l2)
        row, same = (member["comparisons"][m][0] for m in (metric, "test/l2"))
        assert (row["log_ratio"], row["low"]) == pytest.approx((same["log_ratio"], same["low"]))
        assert (row["improved"], row["p_value"], row["verdict"]) == (6, 2 * 0.5**6, "better")
    page = path.read_text()
    described = member["arms"]["expanded"]["test/max"]
    cell = f"{described['median']:.3g} [{described['q1']:.2g}, {described['q3']:.2g}]"
    whole = re.sub("</?span[^>]*>", "", page)  # which keep numbers in one piece
    for piece in ("Final test/l1, median", "Final test/max by equation", f">{cell}</td>"):
        assert piece in whole
    assert page.count("<details>") == page.count("</details>") == 4
