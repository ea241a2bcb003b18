"""What sweeps and kinds of experiments leave, and what a record is made from, damaged in turn: a sentence, or right."""

import contextlib
import json
import pathlib
import runpy
import shutil

import numpy as np
import pytest

from sbjax.claims import recording
from sbjax.claims.records import RecordError
from sbjax.common.files import FileError, write_json
from sbjax.experiments.calibration import measure as calibration_measure
from sbjax.experiments.calibration import report as calibration_report
from sbjax.experiments.exact import linear_nets
from sbjax.experiments.landscape.arm_results import save_arm
from sbjax.experiments.text import report as text_report
from sbjax.frame.errors import ConfigError
from sbjax.report.whole import digests_of_inputs
from sbjax.runner.sweeps import folder, lease, merge, plan, status
from tests.damage_test import DAMAGES, SENTENCES, WARNED

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep with a cell that is done, one that failed, and one that a process of another host has."""
    config = runpy.run_path(str(ROOT / "configs/images.py"))["get_config"]("digits,mlp,smoke")
    config.arms = {arm: config.arms[arm] for arm in ("raw", "expanded")}
    config.replicas = 4
    sweep = plan.plan(config, tmp_path_factory.mktemp("swept") / "sweep", block=2, build_seconds=0).sweep
    done, failed, held = (sweep.folder(cell) for cell in sweep.cells[:3])
    holder = lease.Holder("a1", "elsewhere", "b", 1, 2)
    for where, ending in ((done, "done"), (failed, "failed"), (held, "")):
        where.mkdir(parents=True)
        began = status.begin(where, holder)
        if ending == "done":
            (where / "results.json").write_text("{}")
            status.finish(where, ending, {"results.json": "0" * 64}, 1.0)
        if ending:
            status.end(where, holder, ending, "because", began)
        write_json(where / lease.NAME, holder._asdict())
    return sweep


def test_a_run_that_is_one_cell_is_read(tmp_path):
    """Of a kind that is not trained arm by arm; its cell names no arm."""
    config = runpy.run_path(str(ROOT / "configs/linear_nets.py"))["get_config"]("smoke")
    sweep = plan.plan(config, tmp_path / "sweep").sweep
    assert [cell.uses for cell in sweep.cells] == [(("", ""),)]
    assert folder.load(tmp_path / "sweep") == sweep


KNOWN = {"waiting", "running", "interrupted", "lost", "out of memory", "failed", "gave up", "damaged", "done"}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_sweep_is_told(swept, tmp_path, damage):
    ids = [cell.id for cell in swept.cells]
    for name in ("sweep.json", *(f"cells/{ids[0]}/{x}" for x in (status.DONE, status.ATTEMPTS)),
                 f"cells/{ids[1]}/{status.ATTEMPTS}", f"cells/{ids[2]}/{lease.NAME}"):  # fmt: skip
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(swept.path, copy)
        damage(copy / name)
        try:
            sweep = folder.load(str(copy))
            found = status.states(sweep)
        except SENTENCES:
            assert name == "sweep.json"
            continue
        assert {state.status for state in found.values()} <= KNOWN
        assert status.table(sweep, found).count("\n") == len(ids)
        assert merge._usable(sweep, sweep.cells[0]).status != "done"  # its file is not as it was left
        with contextlib.suppress(ConfigError):
            sweep.plan("")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it["cells"][0].update(replicas=[0]), "does not fit its runs"),
        (lambda it: it["cells"][0].update(replicas=[2, 2]), "does not fit its runs"),
        (lambda it: it["cells"][0].update(uses=[]), "does not fit its runs"),
        (lambda it: it["cells"][0].update(uses=[["", "../../up"]]), "does not fit its runs"),
        (lambda it: it["cells"][0].update(id="../up"), "does not fit its runs"),
        (lambda it: it["cells"].append(it["cells"][0]), "not each of its own"),
        (lambda it: it.update(cells=[]), "its cells are none"),
        (lambda it: it.update(data=[{"experiment": "images"}]), r"data\[0\].source is missing"),
        (lambda it: it["runs"].update({"../../up": it["runs"][""]}), "'../../up' is no name of a run"),
    ],
)
def test_a_plan_that_was_not_written_here_is_refused(swept, tmp_path, change, said):
    """Nothing in it may name a place outside of its folder."""
    content = json.loads((swept.path / "sweep.json").read_text())
    change(content)
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=said):
        folder.load(str(tmp_path))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_table_of_cells_is_told(tmp_path, damage):
    experiment = linear_nets.EXPERIMENT
    result = {"layers": 2, "together": {"count": 1, "of": 2, "low": 9.0, "high": 90.0}, "path": 1e-20}
    arm = linear_nets.result({"path/loss": [0.0]}, result)
    save_arm(tmp_path, "a", arm, "exact")
    right = experiment.cells(tmp_path, ["a", "b"])
    damage(tmp_path / "exact" / "a.json")
    try:
        found = experiment.cells(tmp_path, ["a", "b"])
    except FileError:
        return
    assert found == right or not (tmp_path / "exact" / "a.json").exists() or damage.__name__.startswith("wrong_type")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_calibration_is_told(tmp_path, damage):
    numbers = dict.fromkeys(("accuracy", "loss", "brier", "error", "floor", "floor_high"), 0.5) | {"detection": None}
    numbers |= {"temperature": 1.0, "tempered_loss": 0.5}
    bins = {"counts": [3, 1], "confidence": [0.2, None], "accuracy": [0.5, None]}
    whole = {"bins": 2, "examples": 4, "running": [0, 1], "replicas": [numbers] * 2, "ensemble": numbers}
    calibration_measure.save(tmp_path, "raw", whole | {"reliability": bins})
    right = calibration_report.table(tmp_path, ["raw"])
    damage(tmp_path / "calibration" / "raw.json")
    try:
        found = calibration_report.table(tmp_path, ["raw"])
    except FileError:
        return
    assert found == right or not (tmp_path / "calibration" / "raw.json").exists() or "wrong_type" in damage.__name__


ONES = np.ones((2, 3), bool)


@pytest.mark.parametrize("correct", [ONES[0], ONES.astype(float), np.array([["a", "b"]]), ONES[:0], ONES[None]])
def test_predictions_of_another_form_are_told(tmp_path, correct):
    text_report.save_predictions(tmp_path, "raw", correct)
    with pytest.raises(FileError, match=r"raw\.npz: its array is .* and not bool \[replica, document\]"):
        text_report.load_predictions(tmp_path, ["raw", "other"])


@pytest.mark.sampled(12)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["config.json", "arms.json", "metrics.jsonl", "status.json"])
def test_a_record_of_a_damaged_run_is_told(write_run, caplog, name, damage):
    run = write_run(replicas=5, reports=2)
    write_json(run / "status.json", {"status": "done", "inputs": digests_of_inputs(run)})
    right = recording.record_of(run, title="x")
    damage(run / name)
    caplog.clear()
    try:
        found = recording.record_of(run, title="x")
    except (RecordError, *SENTENCES):
        return
    assert found["rows"] == right["rows"] or WARNED in caplog.text


def test_a_record_imports_no_code_of_a_folder(write_run):
    run = write_run(replicas=5, reports=2)
    content = json.loads((run / "config.json").read_text())
    content["config"]["task"]["kind"] = "os:abort"
    write_json(run / "config.json", content)
    write_json(run / "status.json", {"status": "done"})
    with pytest.raises(ConfigError, match=r"os:abort.*give --trust"):
        recording.record_of(run, title="x", table="cells")
