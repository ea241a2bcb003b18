"""Graph networks from a config to the report, and what is refused before any work."""

import pathlib
import runpy

import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax.claims import recording, records
from sbjax.experiments.connectivity.report import load_lines
from sbjax.frame.errors import ConfigError
from sbjax.runner import run as runner

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "graphs.py"


def config(words="csbm,smoke", arms=("standard", "w_sigma")):
    made = runpy.run_path(str(CONFIG))["get_config"](words)
    if arms:
        made.arms = {arm: made.arms[arm] for arm in arms}
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs") / "run"
    return folder, runner.run(config(), folder), load_lines(folder, ["standard", "w_sigma"])


@pytest.mark.extended
def test_barriers_matching_and_neurons_are_measured(run):
    _, outcome, found = run
    assert set(found["standard"]) == {"pairs", "rebased", "alignment", "identifiability"}
    assert "rebased" not in found["w_sigma"]  # its constants do not move
    plain, matched = (np.array(found["standard"][kind]["curves"]["test/loss"]) for kind in ("pairs", "rebased"))
    np.testing.assert_allclose(matched[:, [0, -1]], plain[:, [0, -1]], rtol=1e-4)
    assert np.abs(matched[:, 1] - plain[:, 1]).max() > 1e-4
    assert np.abs(found["standard"]["identifiability"]["swap"]).max() < 1e-6
    assert min(found["w_sigma"]["identifiability"]["swap"]) > 0.1
    assert sorted(found["standard"]["alignment"]["permutations"].values()) == [16, 16]
    page = outcome.report.read_text()
    for said in ("Barriers between replicas", "Which neurons can be told apart", "standard_rebased"):
        assert said in page


def test_a_record_of_lines_holds_what_was_measured(run):
    folder, _, found = run
    record = recording.record_of(folder, title="Graphs", table="lines")
    records.check(record)
    by_arm = {row["cells"]["arm"]: row for row in record["rows"]}
    assert list(by_arm) == ["standard", "standard_rebased", "w_sigma"]
    for arm, row in by_arm.items():
        lines = found[arm.removesuffix("_rebased")]["rebased" if arm.endswith("_rebased") else "pairs"]
        curve = np.array(lines["curves"]["test/loss"])
        heights = curve[:, 1] - (curve[:, 0] + curve[:, 2]) / 2
        np.testing.assert_allclose(row["seeds"], heights, rtol=1e-5, atol=1e-7)
        assert row["cells"]["barrier"]["value"] == pytest.approx(heights.mean(), abs=1e-7)
        accuracy = 100 * np.array(lines["curves"]["test/accuracy"])
        drops = (accuracy[:, 0] + accuracy[:, 2]) / 2 - accuracy[:, 1]
        assert row["cells"]["drop"]["value"] == pytest.approx(drops.mean(), abs=1e-4)
    neurons = found["w_sigma"]["identifiability"]
    assert by_arm["w_sigma"]["cells"]["swap"]["value"] == pytest.approx(np.median(neurons["swap"]))
    assert by_arm["w_sigma"]["cells"]["in_place"]["value"] == pytest.approx(100 * np.median(neurons["in_place"]))


@pytest.mark.extended
def test_the_full_configs_are_the_published_network():
    arms = runner.prepare(config_lib.read(config("csbm,quick", arms=None))).built.arms
    parameters = {arm.name: arm.parameters for arm in arms}
    # 10 classes instead of 40: 30 rows of 257 fewer, of which 6 are frozen.
    assert parameters["standard"] == 176_424 - 30 * 257
    assert parameters["w"] == parameters["w_sigma"] == 171_576 - 30 * 251
    assert parameters["standard"] == parameters["sigma"] == parameters["from_w"]
    assert arms[0].steps == 200
    assert config_lib.read(config("csbm", arms=None)).steps(1) == 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task.dataset": "ogbn_arxiv", "task.data_dir": "nowhere"}, r"edge\.csv\.gz is not there: unpack http"),
        ({"task.dataset": "csmb"}, r"^task\.dataset='csmb': 'csmb' is unknown, did you mean 'csbm'"),
        ({"task.homophily": 2.0}, r"task\.homophily=2\.0"),
        ({"model.widhts": (8,)}, "widhts"),
        ({"expansion.kind": "vector"}, "expansion"),
    ],
)
def test_what_cannot_be_is_refused_in_words(change, message):
    made = config()
    if "task.dataset" in change:
        made.task = {"kind": "graphs"}
    with made.unlocked():
        made.update_from_flattened_dict({path: value for path, value in change.items() if "." in path})
    with pytest.raises(ConfigError, match=message):
        runner.prepare(config_lib.read(made))
