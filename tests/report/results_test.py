import csv
import json
import os

import numpy as np
import pytest

from sbjax.report import results as lib

FACTS = {
    "arms": ("raw", "expanded"),
    "reference": "raw",
    "primary": "test/accuracy",
    "parameters": {"raw": 10, "expanded": np.int64(20)},
    "flops_per_step": {"raw": 1e6, "expanded": np.float32(4e6)},
    "steps": {"raw": 5, "expanded": 5},
}


def test_load_returns_what_was_written(write_run):
    workdir = write_run()
    results = lib.load_results(workdir)
    assert results.arms == ("raw", "expanded", "nearest")
    assert (results.reference, results.primary, results.goal, results.replicas) == (
        "raw",
        "test/accuracy",
        "max",
        8,
    )
    assert results.parameters == {"raw": 1234, "expanded": 1300, "nearest": 1300}
    assert (results.config["task"]["dataset"], results.environment["jax"]) == ("digits", "0.10.1")
    assert (results.overrides, results.config_file) == (("arms.replicas=8",), "configs/digits.py:smoke")
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    expected = [line for line in lines if line["arm"] == "nearest"]
    for report, line in zip(results.reports["nearest"], expected, strict=True):
        assert (report.step, report.epoch, report.flops) == (line["step"], line["epoch"], line["flops"])
        assert set(report.values) == {"train/loss", "test/loss", "test/accuracy"}
        for name, values in report.values.items():
            np.testing.assert_array_equal(values, np.array(line[name], np.float64))


def test_what_arms_are_for_is_kept_and_filled_in(write_run):
    workdir = write_run()
    results = lib.load_results(workdir)
    assert results.roles == {"raw": "reference", "expanded": "treatment", "nearest": "control of resolution"}
    assert results.labels == {"raw": {}, "expanded": {}, "nearest": {}}
    about = json.loads((workdir / "arms.json").read_text())
    about["about"]["expanded"] = {"order": 3, "labels": {"factor": 2, "fill": "0.5"}}
    (workdir / "arms.json").write_text(json.dumps(about))
    assert lib.load_results(workdir).labels["expanded"] == {"factor": 2, "fill": "0.5"}
    about.pop("about")  # as older runs are
    (workdir / "arms.json").write_text(json.dumps(about))
    assert lib.load_results(workdir).roles["nearest"] == "treatment"
    with pytest.raises(ValueError, match=r"raw\.role='treatment': the reference is 'raw'"):
        lib.save_arms(workdir, **FACTS, about={"raw": {"role": "treatment"}})


def test_table_has_a_row_an_arm_and_replica(write_run):
    workdir = write_run()
    results = lib.load_results(workdir)
    rows = list(csv.DictReader(lib.save_table(workdir, results).read_text().splitlines()))
    assert list(rows[0]) == [
        "arm",
        "replica",
        "status",
        "step",
        "flops",
        "test/accuracy",
        "test/loss",
        "train/loss",
    ]
    assert [(row["arm"], int(row["replica"])) for row in rows] == [(a, r) for a in results.arms for r in range(8)]
    for row in rows:
        value = results.reports[row["arm"]][-1].values["test/accuracy"][int(row["replica"])]
        stopped = (row["arm"], row["replica"]) == ("nearest", "2")
        assert row["status"] == ("diverged" if stopped else "done")
        assert row["test/accuracy"] == ("" if stopped else repr(float(value)))
        assert int(row["step"]) == 400


def test_a_stopped_replica_is_seen_without_a_failure_on_record(write_run):
    results = lib.load_results(write_run())._replace(failures=())
    assert lib.stopped_replicas(results, "nearest") == {2}
    recorded = results._replace(failures=({"arm": "raw", "replica": 5, "step": 1, "what": "nan"},))
    assert lib.stopped_replicas(recorded, "raw") == {5}


def test_same_input_same_bytes(tmp_path):
    def written(folder, numbers):
        return lib.save_arms(tmp_path / folder, **FACTS, metrics={"raw": numbers}).read_bytes()

    one, two = written("a", {"x": 0.1, "y": np.nan}), written("b", {"y": np.nan, "x": 0.1})
    assert one == two
    assert json.loads(one)["metrics"] == {"raw": {"x": 0.1, "y": None}}
    assert json.loads(one)["parameters"] == {"raw": 10, "expanded": 20}


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = lib.save_summary(tmp_path / "new", {"text": "before"})
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk is full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk is full"):
        lib.save_summary(path.parent, {"text": "after"})
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["summary.json"]


def test_a_resumed_run_counts_the_later_line_and_a_cut_line_is_left_out(write_run):
    workdir = write_run()
    path = workdir / "metrics.jsonl"
    again = json.loads(path.read_text().splitlines()[1]) | {"test/accuracy": [0.5] * 8}
    path.write_text(path.read_text() + json.dumps(again) + "\n" + '{"arm": "raw", "st')
    reports = lib.load_results(workdir).reports["raw"]
    assert [report.step for report in reports] == [100, 200, 300, 400]
    np.testing.assert_array_equal(reports[1].values["test/accuracy"], 0.5)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('{"arm": "raw", "st', "line 1 cannot be used .*JSONDecodeError"),
        ('{"arm": "raw", "step": 1}', "line 1 cannot be used .flops is missing"),
        ('{"arm": "raw", "step": 1, "flops": 1, "test/loss": ["a"]}', "line 1 is no report"),
        ('{"arm": "other", "step": 1, "flops": 1}', "arm='other' is not among the arms"),
        ('{"arm": "raw", "step": 1, "flops": 1, "test/loss": [1, 2]}', "replicas, the reports before it 2"),
    ],
)
def test_a_bad_line_is_named(write_run, line, match):
    path = write_run() / "metrics.jsonl"
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(ValueError, match=match):
        lib.load_results(path.parent)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "arms.json"])
def test_a_missing_file_is_named(write_run, name):
    workdir = write_run()
    (workdir / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {name}"):
        lib.load_results(workdir)


def test_missing_workdir_empty_metrics_and_incomplete_arms(write_run, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a directory"):
        lib.load_results(tmp_path / "nowhere")
    workdir = write_run()
    (workdir / "metrics.jsonl").write_text("")
    with pytest.raises(FileNotFoundError, match="holds no report"):
        lib.load_results(workdir)
    (workdir / "arms.json").write_text('{"arms": ["raw"], "reference": "raw"}')
    with pytest.raises(ValueError, match="primary is missing"):
        lib.load_results(workdir)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"arms": ("raw", "raw")}, "none twice"),
        ({"reference": "other"}, "reference='other'"),
        ({"goal": "up"}, "goal='up'"),
        ({"steps": {"other": 1}}, r"steps has entries for \['other'\]"),
        ({"metrics": {"other": {}}}, r"metrics has entries for \['other'\]"),
    ],
)
def test_save_arms_refuses(tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        lib.save_arms(tmp_path, **FACTS | change)
