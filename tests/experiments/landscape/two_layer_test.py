"""Two-layer students from a config to a report, and what is said of students of known kinds."""

import pathlib
import runpy

import jax
import numpy as np
import pytest

from sbjax.experiments.landscape import two_layer
from sbjax.experiments.landscape import two_layer_report as report
from sbjax.experiments.landscape.arm_results import ArmResult
from sbjax.experiments.landscape.figures import losses_figure
from sbjax.landscape import classification
from sbjax.landscape import teacher_student as ts
from sbjax.landscape.splitting import Inertia
from sbjax.optimizers.polish import Polished
from sbjax.runner import run as experiment

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "landscape.py"
TEACHER = ts.two_layer_teacher()
TASK = two_layer.Fields(width=6, activation="g")


def students():
    """The teacher with a copy and a neuron that is switched off; the same out of order; one that is none of that."""
    w = np.concatenate([TEACHER["w"], TEACHER["w"][:1], [[2.0, 1.0]]])
    a = np.array([0.3, 1, 1, 1, 0.7, 0])[:, None]
    order = np.array([3, 5, 0, 4, 2, 1])
    return {"w": np.stack([w, w[order], w + 0.3]), "a": np.stack([a, a[order], a])}


@pytest.fixture(scope="module")
def summary():
    polished = Polished(students(), np.array([1e-30, 1e-17, 1e-3]), np.array([1e-15, 1e-14, 1e-9]), np.arange(3))
    with jax.enable_x64(True):
        x = ts.grid_inputs(9)
        y = np.asarray(ts.two_layer(TEACHER, x, "g"))
        found = [
            two_layer.classify({k: leaf[seed] for k, leaf in polished.params.items()}, x, y, "g", TEACHER)
            for seed in (0, 1)
        ]
    plateau = found[0]._replace(kind=classification.STABLE_PLATEAU, width=3, loss=1e-3, measured=Inertia(0, 2, 16))
    return two_layer.summarise(TASK, polished, [*found, plateau], TEACHER)


def test_summary(summary):
    assert summary["shares"]["1e-14"]["value"] == pytest.approx(2 / 3)
    assert summary["shares"]["1e-20"]["value"] == pytest.approx(1 / 3)
    assert summary["kinds"][classification.GLOBAL_MINIMA] == 2
    assert sum(summary["kinds"].values()) == 3
    assert summary["induced"] == 1
    assert [(one["seed"], one["width"], one["inertia"]) for one in summary["failures"]] == [(2, 3, (0, 2, 16))]
    expected = {"all": 12, "copies": 10, "0 type, 1": 2, "opposite": 0, "constant": 0, "other": 0}
    assert summary["neurons"] == expected


def test_report_of_known_students(summary):
    arrays = {"path_w": np.stack([students()["w"]] * 2), "path_a": np.stack([students()["a"]] * 2)}
    arrays |= {"teacher_w": TEACHER["w"]}
    found = {"m6": ArmResult({"train/loss": [1e-30, 1e-17, 1e-3]}, summary, arrays)}
    shares, (kinds, failures), (neurons,) = report.students_tables({"m6": summary}, {"g": {6: 0.5}})
    assert shares[0].rows[0][2].startswith("0.667 [")
    assert shares[0].rows[0][-1] == "0.5"
    assert kinds.rows[0][-1] == "1 of 1"
    assert failures.rows == (("m6", "1", "stable plateau", "3", "0.001", "0.001", "0, 2, 16"),)
    assert "0 type, 1" in neurons.headers
    dots = losses_figure(found).axes[0].lines[0]
    np.testing.assert_array_equal(dots.get_ydata(), [1e-30, 1e-17, 1e-3])
    bars = report.kinds_figure(found).axes[0].patches
    np.testing.assert_allclose([bar.get_height() for bar in bars], [2 / 3, 1 / 3])
    assert sum(bar.get_height() for bar in report.neurons_figure(found).axes[0].patches) == pytest.approx(1)
    titles = [panel.get_title() for panel in report.trajectories_figure(found).axes]
    assert titles[:2] == ["width 6, zero loss", "width 6, not solved"]


@pytest.mark.slow
def test_smoke_runs_to_its_report(tmp_path):
    config = runpy.run_path(str(CONFIG))["get_config"]("two_layer,g,smoke")
    config.arms = {"m04": config.arms["m04"]}
    outcome = experiment.run(config, tmp_path / "run")
    assert outcome.status == "done"
    assert "Students at zero loss" in outcome.report.read_text()
    assert {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")} >= set(report.CAPTIONS)
    with np.load(tmp_path / "run" / "landscape" / "m04.npz") as arrays:
        assert arrays["path_w"].shape == (len(arrays["steps"]), 2, 4, 2)
        # The loss that was reported is that of the students that were saved.
        x = ts.grid_inputs(9)
        with jax.enable_x64(True):
            outputs, targets = (ts.two_layer(net, x, "g") for net in ({k: arrays[k][1] for k in ("w", "a")}, TEACHER))
            loss = float(np.mean((outputs - targets) ** 2))
    last = outcome.summary["arms"]["m04"]["last_metrics"]["train/loss"]
    assert last["q1"] <= loss * (1 + 1e-9) or last["q3"] >= loss * (1 - 1e-9)
    assert "m04" in outcome.table
