"""Experiments with closed forms: their configs, one run each to its report and record, and what is refused."""

import pathlib
import runpy

import jax
import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax.claims import recording, records
from sbjax.experiments.exact import duality, duality_training, experiment, involution, involution_images
from sbjax.experiments.landscape.arm_results import load_arm
from sbjax.frame.errors import ConfigError
from sbjax.runner import run as runner

CONFIGS = pathlib.Path(__file__).parents[3] / "configs"


def load(name, words):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](words)


@pytest.mark.parametrize("name", experiment.EXPERIMENTS)
def test_every_experiment_has_a_config(name):
    for words in ("", "smoke"):
        plan = config_lib.read(load(name, words))
        assert plan.experiment.name == "exact"
        assert plan.task.experiment == name
        plan.experiment.prepare(plan)


def test_a_run_becomes_a_report_and_a_record(tmp_path):
    config = load("linear_nets", "smoke")
    config.arms = {"a": {"task": {"layers": 2}}, "b": {"task": {"layers": 3, "width": 1}, "role": "control of depth"}}
    config.reference = "a"
    outcome = runner.run(config, tmp_path / "run")
    page = outcome.report.read_text()
    assert "Components of the weights of linear networks" in page
    assert "met at random" in page
    found = recording.record_of(tmp_path / "run", title="x", table="cells")
    records.check(found)
    assert [row["cells"]["components"] for row in found["rows"]] == [2, 4]
    assert [row.get("mark") for row in found["rows"]] == [None, "control"]
    assert found["rows"][0]["cells"]["path"] < 1e-20
    assert found["columns"][1] == {"key": "layers", "name": "layers", "digits": 7}


def test_where_families_turn_is_a_finished_run(tmp_path):
    config = load("relu_minima", "")
    config.arms, config.reference = {"turning": {"task": {"part": "turning", "k": 8}}}, "turning"
    outcome = runner.run(config, tmp_path / "run")
    cells = load_arm(tmp_path / "run", "turning", "exact").summary["cells"]
    assert outcome.status == "done"
    assert 5 < cells["turns_A"] < 6 < cells["turns_I"] < 7
    assert cells["turns_II"] is None


def test_sampled_dimensions_are_lower_bounds_of_the_exact_one(tmp_path):
    """All arms see the same networks; the more points, the smaller the deficit, and no smaller than the exact one."""
    config = load("hidden_symmetries", "smoke")
    shape = {"width": 3, "depth": 2}
    looks = {"few": ("points", 2), "more": ("points", 16), "lines": ("lines", 8)}
    config.arms = {name: {"task": {**shape, "look": look, "budget": n}} for name, (look, n) in looks.items()}
    config.arms = {**config.arms.to_dict(), "line": {"task": shape}}
    config.reference, config.replicas = "line", 6
    runner.run(config, tmp_path / "run")
    found = {name: load_arm(tmp_path / "run", name, "exact") for name in config.arms}
    deficits = {name: one.metrics["dimension/deficit"] for name, one in found.items()}
    exact = deficits["line"]
    assert all(a >= b >= c for a, b, c in zip(deficits["few"], deficits["more"], exact, strict=True))
    assert deficits["lines"] == exact  # on the line every line meets all regions
    cells = found["line"].summary["cells"]
    assert cells["full"]["of"] == 6
    assert cells["kept"] > 1e-9 > cells["dropped"]


def test_epochs_are_chosen_on_validation_images_and_every_seed_counts(monkeypatch):
    """Where the published script takes the best epoch of the test set, and reads the first run for all."""
    validation = np.array([[0.1, 0.9, 0.3], [0.5, 0.2, 0.3]])  # [epoch, seed]
    test = np.array([[0.3, 0.4, 0.6], [0.2, 0.8, 0.9]])
    found = duality_training.Trained(validation, test, np.ones(3), np.ones(3))
    monkeypatch.setattr(duality_training, "train", lambda *args, **options: found)
    config = load("duality", "hot,smoke")
    config.replicas = 3
    plan = config_lib.read(config)
    left = duality.run_arm(plan, plan.arms[0], jax.random.key(0), str, lambda: False)
    assert left.metrics["test/accuracy"] == [0.2, 0.4, 0.6]
    assert left.metrics["validation/accuracy"] == [0.5, 0.9, 0.3]
    assert left.summary["cells"]["accuracy"] == pytest.approx({"value": 40.0, "low": 30.0, "high": 50.0})


@pytest.mark.sampled(1)
@pytest.mark.parametrize("part", ["correlators", "hot", "cold"])
def test_duality_runs(part, tmp_path):
    config = load("duality", f"{part},smoke")
    runner.run(config, tmp_path / "run")
    for arm in config.arms:
        found = load_arm(tmp_path / "run", arm, "exact")
        if part == "correlators":
            assert max(found.metrics["two_point/score"]) < 6
            assert (found.summary["cells"]["turned"] > 1e-3) == bool(found.summary["cells"]["mean"])
        else:
            pairs = zip(found.metrics["test/best"], found.metrics["test/accuracy"], strict=True)
            assert all(best >= chosen >= 0 for best, chosen in pairs)


@pytest.mark.extended
def test_what_is_built_in_is_exact_in_the_plane(tmp_path):
    """By the projector and by tied layers f(T x) = -f(x) to round-off after training; not so without."""
    config = load("involution", "smoke")
    config.arms = {method: {"task": {"method": method, "sign": -1}} for method in ("plain", "projector", "tied")}
    runner.run(config, tmp_path / "run")
    found = {arm: load_arm(tmp_path / "run", arm, "exact").metrics["test/violation"] for arm in config.arms}
    assert max(found["projector"]) < 1e-13
    assert max(found["tied"]) < 1e-13
    assert min(found["plain"]) > 1e-3


@pytest.mark.sampled(1)
@pytest.mark.parametrize("method", involution.METHODS[::-1])
def test_flipped_digits(method):
    """The projector is symmetric to the last bit, tied kernels to round-off; all have one number of parameters."""
    found = involution_images.run(
        jax.random.split(jax.random.key(0), 2),
        method=method,
        images=40,
        channels=4,
        steps=3,
        rate=3e-3,
        penalty=1.0,
        stop=lambda: False,
    )
    assert found.parameters == 3 * 3 * 4 + 4 + 3 * 3 * 4 * 8 + 8 + 8 * 10 + 10
    bound = {"projector": 0.0, "tied": 1e-6}.get(method, 1.0)
    assert np.all(found.violations <= bound)
    assert np.all(found.violations > 1e-4) or method in ("projector", "tied")


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("linear_nets", {"experiment": "linear_net"}, "did you mean 'linear_nets'"),
        ("linear_nets", {"layers": 1}, "task.layers=1 must be >= 2"),
        ("relu_minima", {"part": "search", "k": 26}, "task.k=26 must be <= 25"),
        ("lattice_collision", {"tau": 0.5}, "task.tau=0.5 must be > 0.5"),
        ("lattice_collision", {"method": "averagd"}, "did you mean 'averaged'"),
        ("relu_minima", {"part": "searches"}, "did you mean 'search'"),
        ("linear_nets", {"skip": True, "layers": 2}, "task.skip=True needs task.layers=3"),
        ("hidden_symmetries", {"inputs": 2}, "task.inputs=2 must be 1 with task.look='line'"),
        ("hidden_symmetries", {"networks": 3}, "between 0 .as many. and replicas=2"),
        ("duality", {"shifted": 4, "mean": 1.0}, "task.shifted=4 must be <= task.outputs=3"),
        (
            "duality",
            {"part": "training", "dataset": "digits", "shifted": 11},
            "task.shifted=11 must be <= 10, the classes",
        ),
        ("duality", {"part": "training", "dataset": "digitz"}, "task.dataset='digitz'"),
        ("hidden_symmetries", {"bias": 1e300}, r"task.bias=1e\+300 must be > 0, <= 1e\+06"),
        ("attention", {"part": "barriers", "learning_rate": 1e30}, r"task.learning_rate=1e\+30 must be > 0, <= 1"),
        ("attention", {"part": "planted", "size": 3, "positions": "rope"}, "task.size=3 of a head must be even"),
        ("attention", {"part": "barriers", "points": 4}, "task.points=4 must be odd"),
        ("attention", {"part": "flows", "norm": "layer"}, "task.norm='layer' has no effect with task.part='flows'"),
    ],
)
def test_refusals(name, task, message):
    config = load(name, "smoke").to_dict()
    config["arms"], config["reference"] = {"one": {}}, "one"
    config["task"] = {**config["task"], **task}
    if task.get("part") == "training":
        del config["task"]["networks"], config["task"]["rotations"]
    with pytest.raises(ConfigError, match=message):
        runner.prepare(config_lib.read(config))


def test_arms_of_an_involution_are_compared_with_those_of_their_target():
    def arm(method, error, **cells):
        return experiment.result({"test/error": [error] * 5}, {"method": method, **cells})

    found = involution.compare({
        "plain": arm("plain", 1.0, sign=1), "odd": arm("plain", 4.0, sign=-1), "copies": arm("augmented", 0.5, sign=1),
        "tied": arm("tied", 0.25, sign=1), "odd_tied": arm("tied", 0.4, sign=-1),
    })  # fmt: skip
    values = {name: {column: cell["value"] for column, cell in one.items()} for name, one in found.items()}
    assert values == {
        "plain": {"over_copies": 2.0},
        "odd_tied": {"gain": 0.1},
        "copies": {"gain": 0.5},
        "tied": {"gain": 0.25, "over_copies": 0.5},
    }
