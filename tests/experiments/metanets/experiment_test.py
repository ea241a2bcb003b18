"""Metanetworks from a config to the report and a record; controls; and what is refused before any work."""

import pathlib
import runpy

import jax
import numpy as np
import pytest
import scipy.stats

from sbjax import config as config_lib
from sbjax import trees
from sbjax.claims import recording, records
from sbjax.experiments.metanets import report as report_lib
from sbjax.experiments.metanets.made import make_zoo
from sbjax.frame.errors import ConfigError
from sbjax.report.results import load_results
from sbjax.runner import run as runner

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "metanets.py"


def config(words="smoke", arms=("statistics", "flat")):
    made = runpy.run_path(str(CONFIG))["get_config"](words)
    if arms:
        made.arms = {arm: made.arms[arm] for arm in arms}
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metanets") / "run"
    made = config()
    made.reports, made.train_steps = 4, 8
    return folder, runner.run(made, folder)


def test_report_and_record(run):
    """What is written of predictions gives the numbers of the last report; those that validation chooses are told."""
    folder, outcome = run
    results = load_results(folder)
    found = report_lib.load(folder, results.arms)
    for arm in ("statistics", "flat"):
        truth, last = np.array(found[arm]["truth"]), results.reports[arm][-1].values
        for replica, predicted in enumerate(np.array(found[arm]["predicted"])):
            assert last["test/tau"][replica] == pytest.approx(scipy.stats.kendalltau(truth, predicted)[0], abs=1e-4)
            error = ((truth - predicted) ** 2).mean() / truth.var()
            assert last["test/r2"][replica] == pytest.approx(1 - error, abs=1e-3)
        numbers = report_lib.chosen(results, arm)
        for replica in range(results.replicas):
            best = max(results.reports[arm][1:], key=lambda one: one.values["validation/r2"][replica])
            assert numbers["tau"][replica] == best.values["test/tau"][replica]
    same, other = (report_lib.chosen(results, arm) for arm in ("statistics", "flat"))
    np.testing.assert_allclose(same["permuted"], same["r2"], atol=1e-4)
    assert np.abs(other["permuted"] - other["r2"]).max() > 1e-3
    record = recording.record_of(folder, title="Metanetworks", table="cells")
    records.check(record)
    rows = {row["cells"]["arm"]: row for row in record["rows"]}
    np.testing.assert_allclose(rows["flat"]["seeds"], other["r2"], rtol=1e-6)
    assert rows["flat"]["cells"]["against"]["value"] == pytest.approx(np.median(other["r2"] - same["r2"]), rel=1e-6)
    assert rows["flat"]["cells"]["partner"] == "statistics"
    assert "How well networks are read" in outcome.report.read_text()


def test_made_networks_are_trained_ones():
    """Accuracies are those of the networks as the zoo hands them out; both kinds share their hyper-parameters."""
    from sbjax.data import images

    data = images.load("digits")
    x = ((data.test_images / 255 - data.mean) / data.std).astype(np.float32)
    zoos = {kind: make_zoo(kind, networks=40) for kind in ("standard", "w")}
    for kind, zoo in zoos.items():
        net = int(zoo.accuracy[:, -1].argmax())
        logits = np.asarray(zoo.apply(net, x))
        assert (logits.argmax(-1) == data.test_labels).mean() == pytest.approx(zoo.accuracy[net, -1], abs=2e-3)
        assert zoo.accuracy.max() > 0.5 > zoo.accuracy.min(), kind
    for name, values in zoos["standard"].hyperparameters.items():
        np.testing.assert_array_equal(values, zoos["w"].hyperparameters[name])
    frozen = sum(int((~mask).sum()) for mask in trees.flatten(zoos["w"].masks).values())
    assert frozen == 12 * 4 + 10 * 4


def test_kinds_and_their_controls():
    """As many entries of standard networks are read as of asymmetric ones."""
    made = config("kinds,smoke", arms=None)
    made.arms["fewer_flat"] = {"order": 2, "role": "control of fewer entries", "task": {"as_large_as": "w"},
                               "model": {"name": "flat", "widths": (8,)}}  # fmt: skip
    arms = {arm.name: arm for arm in runner.prepare(config_lib.read(made)).built.arms}
    kept = {name: arm.task.model.reading.kept for name, arm in arms.items()}
    assert kept["standard_flat"].all()
    np.testing.assert_array_equal(kept["fewer_flat"], kept["w_flat"])
    assert arms["w_flat"].parameters == arms["fewer_flat"].parameters < arms["standard_flat"].parameters
    blank = jax.tree.map(np.shape, arms["fewer_flat"].task.data["inputs"])
    assert blank == np.shape(arms["standard_flat"].task.data["inputs"])


def test_full_configs_are_read():
    for words in ("order", "kinds,quick", "kinds,fixed"):
        plan = config_lib.read(config(words, arms=None))
        assert {arm.task.zoo for arm in plan.arms} == {"made"}
        controls = {arm.name for arm in plan.arms if arm.role.startswith("control")}
        assert "hyperparameters" in controls or {"small_flat", "fewer_flat", "w_hyperparameters"} <= controls
        assert ("w_fixed_flat" in controls) == ("fixed" in words)
    graphs = config_lib.read(config("graphs,quick", arms=None))
    assert [arm.name for arm in graphs.arms] == ["statistics", "neural_graph", "attention", "set_graph"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nets": "v"}, "task.nets='v': a zoo that is made on the spot='v' is unknown"),
        ({"zoo": "/tmp/no_such"}, r"task.zoo='/tmp/no_such', task.nets='standard': .*no_such.* has no zoo.json"),
        ({"as_large_as": "standard"}, "task.as_large_as='standard': these networks have no frozen entries"),
        ({"within": {"rate": (0, 1)}}, "task.within: 'rate' is no number of these networks; known: learning_rate"),
        ({"within": {"steps": (9, 1)}}, r"task.within: 'steps'=\(9, 1\) must be two numbers"),
        ({"networks": 7}, "task.train_share=0.5 of 7 networks leaves 4, 1 and 2"),
        ({"batch_size": 99}, "task.batch_size=99 must lie between 1 and the 20 training networks"),
        ({"target": "acuracy"}, "task.target='acuracy' is unknown, did you mean 'accuracy'"),
    ],
)
def test_refusals(change, message):
    made = config(arms=("statistics",))
    made.task.update(change)
    with pytest.raises(ConfigError, match=message):
        runner.prepare(config_lib.read(made))
