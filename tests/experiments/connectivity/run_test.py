"""Lines between the networks of a run, from a config to the report; numbers again by hand."""

import json

import jax
import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax import rng, trees
from sbjax.experiments.connectivity import report
from sbjax.experiments.connectivity import run as lines
from sbjax.frame.errors import ConfigError
from sbjax.report.results import load_results
from sbjax.runner import run as runner
from sbjax.training.params_files import load_params

MASKS = {"dense_0/kernel": {"n_fix": 4, "kappa": 1.0}, "dense_1/kernel": {"n_fix": 2, "kappa": 0.5}}


def make_config():
    config = config_lib.shrink(config_lib.base_config())
    config.model = {"name": "mlp", "widths": (8,), "norm": "layer"}
    config.reference = "standard"
    config.replicas = 3
    config.monitor.kinds = ""
    config.optimizer.update(name="adamw", learning_rate=0.1)
    config.population.update(learning_rate=1.0, label_smoothing=0.2)
    config.interpolation.update(
        between="pairs,start", rebase=True, points=5, pairs=2, published={"standard": (0.1, 0.2)}
    )
    config.arms = {"standard": {}, "w": {"model": {"asymmetry": {"kind": "w", "masks": MASKS}}}}
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lines") / "run"
    outcome = runner.run(make_config(), folder)
    built = {arm.name: arm for arm in runner.prepare(config_lib.read(make_config())).built.arms}
    found = report.load_lines(folder, ["standard", "w"])
    params = {name: load_params(folder / "checkpoints" / name) for name in ("standard", "w")}
    return folder, outcome, built, found, params


@pytest.mark.extended
def test_barriers_are_those_of_the_trained_networks(run):
    """Weights halfway, evaluated by the task directly."""
    _, _, built, found, params = run
    for name in ("standard", "w"):
        task = built[name].task
        start = task.init(rng.replica_stream(jax.random.key(0), "init", 0))
        a, b = (trees.take(params[name], r) for r in (0, 1))
        middle = {**start, "params": jax.tree.map(lambda x, y: (x + y) / 2, a, b)}
        middle.pop("hyper")
        parts = [task.evaluate(task.data, middle, part)["test/loss"] for part in range(task.parts)]
        loss = sum(p.total for p in parts) / sum(p.weight for p in parts)
        curve = found[name]["pairs"]["curves"]["test/loss"][0]
        np.testing.assert_allclose(curve[2], loss, rtol=1e-5)
        height = found[name]["pairs"]["heights"]["test/loss"]["midpoint_over_mean_of_ends"][0]
        np.testing.assert_allclose(height, curve[2] - (curve[0] + curve[-1]) / 2, atol=1e-6)
        assert found[name]["pairs"]["pairs"] == [[0, 1], [0, 2]]


@pytest.mark.extended
def test_matching_leaves_the_ends_as_they_are_and_brings_them_closer(run):
    _, _, _, found, _ = run
    assert "rebased" not in found["w"]  # a permutation of its weights alone is another function
    plain, rebased = (found["standard"][kind]["curves"]["test/loss"] for kind in ("pairs", "rebased"))
    np.testing.assert_allclose(np.array(rebased)[:, [0, -1]], np.array(plain)[:, [0, -1]], rtol=1e-4)
    assert np.abs(np.array(rebased)[:, 2] - np.array(plain)[:, 2]).max() > 1e-3
    for arm in ("standard", "w"):
        alignment = found[arm]["alignment"]
        d0, d3 = np.array(alignment["d0"]), np.array(alignment["d3"])
        assert (d3 <= d0 + 1e-9).all()
        # The constants of an asymmetric network are large and in the same places: no other order is closer.
        assert (d3 < d0 - 1e-6).any() == (arm == "standard")
        assert list(alignment["permutations"].values()) == [8]
        for orders in alignment["cosines"].values():
            assert orders["optimal"] > orders["random_0"]


@pytest.mark.extended
def test_lines_from_the_start(run):
    """The first point is the loss of the initial network with the replica's own label smoothing."""
    _, _, built, found, _ = run
    task, line = built["standard"].task, found["standard"]["start"]
    start = task.init(rng.replica_stream(jax.random.key(0), "init", 1))
    smoothing = float(start["hyper"]["label_smoothing"])
    logits = task.lines.apply({"params": start["params"]}, task.lines.inputs({"images": task.data["images"][:64]}))
    assert logits.shape == (2, 10)
    parts = [task.lines.evaluate(task.data, start, part)["train/loss"] for part in range(task.lines.parts)]
    plain = [
        task.lines.evaluate(task.data, {"params": start["params"]}, part)["train/loss"]
        for part in range(task.lines.parts)
    ]
    loss = sum(p.total for p in parts) / sum(p.weight for p in parts)
    np.testing.assert_allclose(line["curves"]["train/loss"][1][0], loss, rtol=1e-5)
    assert 0 < smoothing < 0.2
    assert abs(float(sum(p.total for p in plain) / sum(p.weight for p in plain)) - float(loss)) > 1e-4
    losses = np.array(line["curves"]["train/loss"])
    np.testing.assert_allclose(line["monotonicity"]["delta"], np.diff(losses).max(1), atol=1e-6)


@pytest.mark.extended
def test_report_and_table(run):
    folder, outcome, _, _, _ = run
    page = (folder / "report.html").read_text()
    for text in ("Barriers between replicas", "standard_rebased", "0.1 +- 0.2", "From start to end"):
        assert text in page
    assert "standard_rebased" in outcome.table
    assert "monotonic" in outcome.table
    drawn = [figure.name for section in report.report(load_results(folder), folder) for figure in section.figures]
    assert sorted(drawn) == sorted(report.CAPTIONS)
    for name in drawn:
        assert (folder / "figures" / f"{name}.png").exists()
    assert runner.run(make_config(), folder).table == outcome.table


@pytest.mark.extended
def test_frozen_entries_do_not_count_as_trained(run):
    _, _, built, _, _ = run
    frozen = 8 * 4 + 10 * 2
    assert built["standard"].parameters - built["w"].parameters == frozen


@pytest.mark.extended
def test_arms_share_the_drawn_hyperparameters(run):
    _, _, built, _, _ = run
    key = rng.replica_stream(jax.random.key(0), "init", 2)
    first, second = (built[name].task.init(key)["hyper"] for name in ("standard", "w"))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(a == b), first, second))
    assert 0.1 <= float(first["learning_rate"]) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": {"between": "pears"}}, r"interpolation.between='pears' is unknown, did you mean 'pairs'"),
        ({"interpolation": {"points": 4}}, r"interpolation.points=4 must be odd"),
        ({"interpolation": {"between": "", "points": 7}}, r"interpolation.points=7 has no effect"),
        ({"replicas": 1}, r"interpolation.between='pairs' needs replicas >= 2"),
        ({"population": {"learning_rate": -1.0}}, r"population.learning_rate=-1.0 must be >= 0"),
        ({"optimizer": {"name": "sgd"}}, r"optimizer.name='sgd' does not read drawn"),
        ({"model": {"asymmetry": {"kind": "v"}}}, r"model.asymmetry.kind='v' is unknown"),
        ({"model": {"asymmetry": {"preset": "mlp_mnits"}}}, r"asymmetry.preset='mlp_mnits' is unknown, did you mean"),
        ({"model": {"asymmetry": {"kindd": "w"}}}, r"model.asymmetry.kindd=.w. is unknown, did you mean 'kind'"),
        (
            {"model": {"asymmetry": {"kind": "w", "masks": {"dense_0/kernel": {"nfix": 4}}}}},
            r"asymmetry.masks\['dense_0/kernel'\].nfix=4 is unknown, did you mean 'n_fix'",
        ),
        (
            {"model": {"asymmetry": {"kind": "syre", "kappa_factor": 0.0}}},
            r"model.asymmetry.kappa_factor=0.0 has no effect .*.syre.",
        ),
        (
            {"model": {"asymmetry": {"preset": "mlp_mnist", "sigma0": 1.0}}},
            r"model.asymmetry.sigma0=1.0 has no effect with asymmetry.kind=.w.",
        ),
        (
            {"model": {"asymmetry": {"preset": "mlp_mnist", "kappa_factor": "0"}}},
            r"model.asymmetry.kappa_factor=.0. must be of type float",
        ),
        (
            {"model": {"asymmetry": {"kind": "sigma", "start_only": True}}},
            r"model.asymmetry.start_only=True has no effect .*.sigma.",
        ),
        (
            {"model": {"asymmetry": {"kind": "w", "masks": {"dense_0/kernel": {"n_fix": 64}}}}},
            r"arm 'standard': .*dense_0/kernel: n_fix=64 freezes all 64 entries .* allow_all_frozen=True",
        ),
    ],
)
def test_impossible_settings_are_refused(change, message):
    config = make_config()
    for name, value in change.items():
        if isinstance(value, dict):
            with config.unlocked():
                config[name].update(value)
        else:
            config[name] = value
    with pytest.raises(ConfigError, match=message):
        runner.prepare(config_lib.read(config))


def test_pairs_are_disjoint_first():
    assert lines.choose_pairs([0, 2, 3, 5, 7], 3) == [(0, 2), (3, 5), (0, 3)]
    assert json.dumps(lines.choose_pairs([4], 3)) == "[]"


@pytest.mark.parametrize(
    ("published", "said"),
    [({"raw": (float("nan"), 1.0)}, "is not"), ({"raw/networks": float("inf")}, "is not"), ({"raw": 5}, "raw=5")],
)
def test_published_numbers_that_no_table_could_show_are_refused(published, said):
    config = config_lib.shrink(config_lib.base_config()).to_dict() | {"arms": {"raw": {}}}
    config["interpolation"] = {"between": "pairs", "published": published}
    with pytest.raises(ConfigError, match=rf"^interpolation.published: .*{said}.*give \(mean, standard deviation\)"):
        config_lib.read(config)
