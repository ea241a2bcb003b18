"""Text classification from config to report: folds together, documents, and what cannot be."""

import json
import pathlib
import runpy

import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax.data import texts
from sbjax.experiments.text import report
from sbjax.frame.errors import ConfigError
from sbjax.models import make_text_model
from sbjax.runner import run as run_lib
from sbjax.runner import suite
from sbjax.tasks.texts import make_text_task

ROOT = pathlib.Path(__file__).parents[3]
TOY = f"{ROOT / 'tests' / 'toy_texts.py'}:load"


def load(words, **changes):
    config = runpy.run_path(str(ROOT / "configs" / "text.py"))["get_config"](words)
    config.task.dataset = TOY
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.sampled(2)
@pytest.mark.parametrize("model", ["bag", "textcnn", "lstm", "transformer"])
def test_every_arm_is_built(model):
    assert set(load(f"{model},smoke").arms) < set(load(model).arms)
    plan = config_lib.read(load(model))
    arms = {arm.name: arm for arm in plan.experiment.prepare(plan).arms}
    assert next(iter(arms)) == "raw"
    assert arms["widened"].parameters > 1.5 * arms["raw"].parameters
    extra = arms["features"].parameters - arms["raw"].parameters
    assert arms["features_zero"].parameters - arms["raw"].parameters == extra > 0
    assert ("tokens_learned" in arms) == (model != "bag") == ("matched_bias" not in arms)
    if model == "textcnn":
        assert arms["tokens"].parameters == arms["raw"].parameters == arms["dilated"].parameters
        assert arms["tokens"].flops_per_step > 1.5 * arms["raw"].flops_per_step


@pytest.mark.extended
def test_folds_of_a_bag_are_pooled(tmp_path):
    config = load("bag,folds,smoke", replicas=5, train_steps=40, **{"task.train_share": 1.0, "model.width": 64})
    config.arms = {arm: config.arms[arm] for arm in ("raw", "ends", "matched_bias", "shuffled")}
    outcome = suite.run(config, tmp_path / "folds")
    pooled = json.loads((tmp_path / "folds" / "summary.json").read_text())["pooled"]
    right = [np.load(tmp_path / "folds" / f"fold{i}" / "predictions" / "raw.npz")["correct"] for i in range(5)]
    assert sum(part.shape[1] for part in right) == 600
    whole = np.concatenate(right, axis=1).mean(1)
    np.testing.assert_allclose(pooled["accuracy"]["raw"], whole)
    assert min(whole) > 0.9  # the words say the label
    assert max(pooled["accuracy"]["shuffled"]) < 0.7
    # By Adam too, constants of a bag are a bias of its head.
    np.testing.assert_allclose(pooled["accuracy"]["ends"], pooled["accuracy"]["matched_bias"], atol=2e-3)
    assert "All folds together" in outcome.report.read_text()
    assert "Paired over 600 documents" in outcome.report.read_text()
    last = json.loads((tmp_path / "folds" / "fold0" / "metrics.jsonl").read_text().splitlines()[-1])
    named = np.load(tmp_path / "folds" / "fold0" / "predictions" / f"{last['arm']}.npz")["correct"].mean(1)
    np.testing.assert_allclose(named, last["test/accuracy"], atol=1e-6)
    words = json.loads((tmp_path / "folds" / "fold0" / "vocabulary.json").read_text())
    assert words["words"][:2] == ["<padding>", "<unknown>"]


def test_a_probe_of_a_sorted_set_holds_every_class():
    data = texts.load(TOY)
    order = np.argsort(data.validation_labels, kind="stable")
    data = data._replace(
        validation_labels=data.validation_labels[order], validation_tokens=data.validation_tokens[order]
    )
    model = make_text_model("bag", classes=2, vocabulary=len(data.vocabulary), width=4)
    for size in (2, 4, 10**6):
        task = make_text_task(data, model, batch_size=8, eval_batch_size=50, probe_size=size)
        rows = [int(np.flatnonzero((data.validation_tokens == text).all(1))[0]) for text in task.data["probe"]]
        counts = np.bincount(data.validation_labels[rows], minlength=2)
        assert counts.sum() == min(size, len(order))
        assert abs(counts[0] / counts.sum() - (data.validation_labels == 0).mean()) < 0.3
        assert counts.min() > 0


def test_differences_over_documents_against_brute_force():
    rng = np.random.default_rng(1)
    a, b = rng.random((3, 200)) < 0.7, rng.random((3, 200)) < 0.8
    found = report.over_documents(a, b)
    assert found.value == pytest.approx(b.mean() - a.mean())
    width = 2 * 1.96 * (b.mean(0) - a.mean(0)).std() / np.sqrt(200)
    assert found.high - found.low == pytest.approx(width, rel=0.15)
    assert found.low < found.value < found.high


def test_replicas_that_stopped_count_in_no_document(tmp_path):
    """A network that diverged early classifies by chance, which is no news of the arm."""
    right = np.ones((3, 8), bool)
    wrong = np.array([right[0], right[1], ~right[2]])
    report.save_predictions(tmp_path, "raw", right, [0])
    report.save_predictions(tmp_path, "expanded", wrong, [2])
    report.save_predictions(tmp_path, "lost", ~right, [0, 1, 2])
    found = report.load_predictions(tmp_path, ["raw", "expanded", "lost"])
    assert report.over_documents(found["raw"], found["expanded"]) == (0.0, 0.0, 0.0)
    assert np.isnan(report.over_documents(found["raw"], found["lost"])).all()
    [section] = report._section("raw", found)
    table, note = section.parts
    assert [list(row[1:]) for row in table.rows] == [["100.00", "-"], ["100.00", "+0.00 [+0.00, +0.00]"], ["-", "-"]]
    assert "those that stopped in either arm" in note.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task.batch_size": 10_000}, "task.batch_size=10000 must lie between 1 and the"),
        ({"task.dataset": "rotten_tomatos"}, "task.dataset='rotten_tomatos'"),
        ({"model.heads": 5}, "heads=5 must divide the width"),
        ({"task.test_fold": 5}, "task.test_fold=5"),
        ({"model.name": "textcn"}, "did you mean 'textcnn'"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(changes, said, tmp_path):
    config = load("transformer,smoke")
    config.arms = {"raw": {}}
    with config.unlocked():
        for path, value in changes.items():
            section, field = path.split(".")
            config[section][field] = value
    with pytest.raises(ConfigError, match=said):
        run_lib.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_expansion_of_images_is_refused(tmp_path):
    config = load("bag,smoke")
    config.arms = {"raw": {}, "no": {"expansion": {"kind": "image", "factor": 2}}}
    with pytest.raises(ConfigError, match="texts take 'sequence' and 'vector'"):
        run_lib.run(config, tmp_path / "run")


def test_constants_that_are_no_bias_are_refused(tmp_path):
    config = load("textcnn,smoke")
    config.arms = {"raw": {}, "no": {"task": {"fold": True}, "expansion": {"kind": "vector"}}}
    with pytest.raises(ConfigError, match="fold=True: constants are a bias of the head"):
        run_lib.run(config, tmp_path / "run")
