"""Records from workdirs, and claims run again."""

import copy
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from sbjax.claims import markdown, pages, published, recording, records
from sbjax.claims.records import RecordError
from sbjax.common.files import write_json
from sbjax.report import statistics
from sbjax.report.results import load_results
from sbjax.runner import rerun
from tests import planted

ROOT = pathlib.Path(__file__).parents[2]


def finished(workdir):
    write_json(workdir / "status.json", {"status": "done"})
    return workdir


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished(planted.write_run(tmp_path_factory.mktemp("record")))


def test_a_run_becomes_a_record_with_its_numbers(run):
    record = recording.record_of(run, title="planted", folder_name="again")
    records.check(record)
    rows = {row["cells"]["arm"]: row for row in record["rows"]}
    results = load_results(run)
    raw, expanded = (100 * results.reports[arm][-1].values["test/accuracy"] for arm in ("raw", "expanded"))
    assert rows["expanded"]["cells"]["primary"]["value"] == pytest.approx(np.median(expanded))
    assert rows["expanded"]["cells"]["primary"]["low"] == pytest.approx(np.quantile(expanded, 0.25))
    assert rows["expanded"]["cells"]["against"]["value"] == pytest.approx(np.median(expanded - raw))
    found = statistics.paired(raw, expanded)
    assert rows["expanded"]["cells"]["against"]["low"] == pytest.approx(found.low)
    assert rows["expanded"]["cells"]["improved"] == {"count": 8, "of": 8}
    assert rows["raw"]["seeds"] == pytest.approx(raw)
    assert rows["raw"]["cells"]["parameters"] == 1234
    assert [row.get("mark") for row in record["rows"]] == [None, None, "control"]
    assert rows["nearest"]["seeds"][2] is None  # the replica that stopped
    assert rows["raw"]["cells"]["replica_distance/matched"] == {"value": 0.5, "low": 0.4, "high": 0.6}
    assert record["command"] == (
        "python runs/train.py --config=configs/digits.py:smoke --config.arms.replicas=8 --workdir=/tmp/again"
    )
    assert record["origin"]["how"] == "recorded"


def test_metrics_that_are_not_shown_are_kept(run):
    record = recording.record_of(run, title="planted", show=["*/matched"])
    hidden = [column["key"] for column in record["columns"] if not column.get("shown", True)]
    assert hidden == ["replica_distance/marginal"]
    assert "replica_distance/marginal" in record["rows"][0]["cells"]
    assert "marginal" not in markdown.table(record)
    assert "0.5 [0.4, 0.6]" in markdown.table(record)


def test_errors_are_compared_by_their_ratio(tmp_path):
    record = recording.record_of(finished(planted.write_member(tmp_path, "heat")), title="planted")
    cells = {row["cells"]["arm"]: row["cells"] for row in record["rows"]}
    assert cells["expanded"]["against"] == {
        "value": pytest.approx(0.1),
        "low": pytest.approx(0.1),
        "high": pytest.approx(0.1),
    }
    assert cells["expanded"]["improved"] == {"count": 6, "of": 6}


def test_a_suite_has_a_row_a_run_and_arm(tmp_path):
    for name in ("heat", "wave"):
        finished(planted.write_member(tmp_path, name, equation=name, factors={"raw": 1.0, "expanded": 0.5}))
    write_json(tmp_path / "suite.json", {"members": ["heat", "wave"]})
    record = recording.record_of(tmp_path, title="planted")
    records.check(record)
    assert [(row["cells"]["run"], row["cells"]["arm"]) for row in record["rows"]] == [
        (run, arm) for run in ("heat", "wave") for arm in ("raw", "expanded")
    ]
    share = {"value": 0.45, "low": 0.25, "high": 0.67}
    reading = {
        "arm": "expanded",
        "reference": "raw",
        "runs": 2,
        "runs_improved": 1,
        "share_pairs": share,
        "verdict": "-",
    }
    write_json(tmp_path / "summary.json", {"readings": {"train/loss": [reading]}})
    shares = recording.record_of(tmp_path, title="planted", table="shares")
    assert "| train/loss | expanded | raw | 1 of 2 | 45 [25, 67] | - |" in markdown.table(shares)
    write_json(tmp_path / "wave" / "status.json", {"status": "running"})
    with pytest.raises(RecordError, match="wave: status='running'"):
        recording.record_of(tmp_path, title="planted")


def test_recorded_again_it_keeps_its_words(run, tmp_path):
    with pytest.raises(RecordError, match="--title is missing"):
        recording.record(run, "images/planted", root=tmp_path)
    recording.record(run, "images/planted", root=tmp_path, title="Planted", notes="Read.")
    said = recording.record(run, "images/planted", root=tmp_path, hardware="one core")
    found = records.load(tmp_path / "results" / "images" / "planted.json")
    assert (found["title"], found["notes"], found["hardware"]) == ("Planted", "Read.", "one core")
    assert "3 rows" in said


def claim_of(run, **changes):
    found, claims, _ = pages.load(ROOT)
    claim = copy.deepcopy(published.find(claims, "expansion-digits"))
    return claim | changes, found


def test_a_claim_is_judged_again_by_the_new_numbers(run):
    claim, found = claim_of(run)
    again = rerun.compare(claim, found, workdir=run, command="x")
    assert again.before.word == "no difference shown"
    assert again.after.word == "holds"  # 'expanded' is planted better, 'nearest' is not
    text = rerun.text(again)
    assert "then     expanded - raw: -0.56 [-0.97, +0.14] points" in text
    assert "now      expanded - raw: " in text


@pytest.mark.parametrize(
    ("reading", "value"),
    [
        ({"arm": "raw", "metric": "test/accuracy", "as": "max"}, lambda raw, other: np.max(raw)),
        ({"arm": "raw", "metric": "test/accuracy", "as": "spread"}, lambda raw, other: np.mean(raw)),
        ({"arm": "raw", "metric": "test/accuracy", "as": "share"}, lambda raw, other: 1.0),
        (
            {"arm": "expanded", "against": "raw", "metric": "test/accuracy", "as": "ratio"},
            lambda raw, other: np.exp(np.median(np.log(other / raw))),
        ),
        (
            {"arm": "expanded", "against": "raw", "metric": "test/accuracy", "as": "share"},
            lambda raw, other: np.mean(other < raw),
        ),
        ({"file": "arms.json", "keys": ["parameters", "raw"], "times": 2}, lambda raw, other: 2468),
    ],
)
def test_readings(run, reading, value):
    from sbjax.claims import readings, verdicts

    readings.check(reading)
    results = load_results(run)
    sides = [results.reports[arm][-1].values["test/accuracy"] for arm in ("raw", "expanded")]
    assert verdicts.value(readings.read(run, reading)) == pytest.approx(value(*sides))


def test_readings_of_cells_in_a_file(tmp_path):
    """Estimates without an interval, as two seeds leave them, and counts."""
    from sbjax.claims import readings

    cells = {"gain": {"value": 0.5, "low": None, "high": None}, "full": {"count": 1, "of": 2, "low": 9.5, "high": 90.5}}
    write_json(tmp_path / "one.json", cells | {"none": None})

    def read(name, **more):
        return readings.read(tmp_path, {"file": "one.json", "keys": [name], **more})

    assert read("gain", times=2) == {"value": 1.0, "low": None, "high": None}
    assert read("full") == cells["full"]
    assert read("none", times=2) is None


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        ({"arm": "expandd", "metric": "test/accuracy", "as": "max"}, "did you mean 'expanded'"),
        ({"arm": "raw", "metric": "test/acuracy", "as": "max"}, "did you mean 'test/accuracy'"),
        ({"file": "none.json", "keys": []}, "none.json has no"),
        ({"file": "arms.json", "keys": ["parameters", "none"]}, "has no parameters / none"),
    ],
)
def test_a_workdir_without_the_numbers_is_told(run, reading, said):
    from sbjax.claims import readings

    with pytest.raises(RecordError, match=said):
        readings.read(run, reading)


def test_a_command_that_fails_is_told_with_its_exit_code(run, tmp_path):
    claim, found = claim_of(run, check={"smoke": "python none.py", "ours": [], "controls": []})
    with pytest.raises(RecordError, match=r"ended with exit code \d+: .*none\.py"):
        rerun.run(claim, found, scale="smoke", workdir=tmp_path / "w", root=tmp_path)
    with pytest.raises(RecordError, match="no command at scale 'quick'; give --scale=smoke"):
        rerun.run(claim, found, scale="quick", workdir=tmp_path / "w", root=tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ours": []}, "check must have smoke or quick"),
        ({"smoke": "x", "ours": [{}, {}]}, "none or 1 readings"),
        ({"smoke": "x", "ours": [{"arm": "raw"}]}, "a reading must have arm, as, metric"),
    ],
)
def test_a_wrong_check_is_told(run, change, said):
    with pytest.raises(RecordError, match=said):
        rerun.check(claim_of(run, check=change)[0])


def test_the_script_answers_without_jax(tmp_path):
    """Help, the table of claims and an unknown claim: none of them loads JAX."""
    code = (
        "import runpy, sys\nsys.argv = ['runs/claims.py', *sys.argv[1:]]\n"
        "try:\n    runpy.run_path('runs/claims.py', run_name='__main__')\n"
        "finally:\n    assert 'jax' not in sys.modules\n"
    )
    for words, said in ((["--help"], "--check"), ([], "expansion-ising"), (["--check=none", "--workdir=x"], "unknown")):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert said in done.stdout + done.stderr
        assert "AssertionError" not in done.stderr
        assert "Traceback" not in done.stderr


def test_claims_file_keeps_what_a_record_lost_visible(tmp_path):
    found, claims, _ = pages.load(ROOT)
    name = "ising/quench"
    records.save(tmp_path, name, found[name] | {"rows": found[name]["rows"][:1]})
    claim = published.find(claims, "expansion-ising")
    content = {"schema": 1, "papers": claims.papers, "claims": [claim]}
    (tmp_path / "claims.json").write_text(json.dumps(content))
    assert published.lost(tmp_path) == ["expansion-ising"]
