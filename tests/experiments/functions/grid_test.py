"""All arms in one program: the same numbers as arm by arm, and what a run leaves."""

import json
import math
import pathlib
import runpy
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax import config as config_lib
from sbjax import rng
from sbjax.expansion.transform import VectorExpansion
from sbjax.experiments.functions.grid import ArmNumbers, run_grid
from sbjax.experiments.functions.suite_report import suite_report
from sbjax.frame.errors import ConfigError
from sbjax.models import make_field
from sbjax.optimizers import lbfgs_many as fit_many
from sbjax.runner import run as experiment
from sbjax.tasks import regression

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "functions.py"
POINTS = regression.make_points(regression.make_target("runge"), 12, 20)
MIDDLE, FIRST = VectorExpansion(1, 1, math.pi), VectorExpansion(0, 2, (0.5, 2.0))
SCALE = math.sqrt(1 + 2 * math.pi**2)
ARMS = {
    "raw": ArmNumbers(None, 5),
    "middle": ArmNumbers(MIDDLE, 5),
    "first": ArmNumbers(FIRST, 5),
    "matched": ArmNumbers(MIDDLE, 5, True, SCALE),
    "wide": ArmNumbers(None, 7),
}
KEY = jax.random.key(3)


def one_device():
    """To compile once: each device compiles for itself."""
    return mock.patch.object(fit_many.jax, "local_devices", return_value=jax.devices()[:1])


@pytest.fixture(scope="module")
def grid():
    with jax.enable_x64(True), one_device():
        return run_grid(POINTS, ARMS, replicas=2, key=KEY, widths=(5,), steps=6, records=6)


def alone(arm, replica, steps=6):
    """The arm in its own shapes, through Flax's module and optax in a Python loop; train losses and test error."""
    options = {"widths": (arm.width, 5), "dtype": "float64", "expansion": arm.expansion}
    field = make_field("field", unknowns=1, lower=(-1.0,), upper=(1.0,), x64=True, **options)
    task = regression.make_regression_task(regression.make_target("runge"), field, points=12, fold=arm.fold)
    params = jax.jit(task.init)(rng.replica_stream(KEY, "init", replica))["params"]
    batch = task.sample(task.data, KEY, 0)

    def unscaled(params):
        first = params["dense_0"]
        return {**params, "dense_0": {**first, "bias": arm.bias_scale * first["bias"]}}

    @jax.jit
    def loss(params):
        return task.loss({"params": unscaled(params)}, batch, KEY)[0]

    params["dense_0"] = {**params["dense_0"], "bias": params["dense_0"]["bias"] / arm.bias_scale}
    optimizer = optax.lbfgs(memory_size=10)
    step = jax.jit(
        lambda p, s: optimizer.update(jax.grad(loss)(p), s, p, value=loss(p), grad=jax.grad(loss)(p), value_fn=loss)
    )
    state, losses = optimizer.init(params), [float(loss(params))]
    for _ in range(steps):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
        losses.append(float(loss(params)))
    raw = field.clone(expansion=None) if arm.fold else field
    predicted = raw.apply({"params": unscaled(params)}, jnp.asarray(POINTS.test_x)[:, None])[:, 0]
    return losses, float(np.mean((predicted - POINTS.test_y) ** 2))


def check_alone(grid, name):
    """Padding, folding and scales change nothing but round-off."""
    losses, error = alone(ARMS[name], replica=1)
    np.testing.assert_allclose(grid[name].losses[1], losses, rtol=1e-9)
    assert grid[name].errors[1, -1] == grid[name].numbers["test/mse"][1]
    assert np.unique(grid[name].errors[1]).size == 7  # each of its own iteration
    assert grid[name].numbers["test/mse"][1] == pytest.approx(error, rel=1e-9)


@pytest.mark.extended
def test_an_arm_of_the_grid_is_the_arm_alone(grid, x64):
    check_alone(grid, "matched")


@pytest.mark.extended
@pytest.mark.parametrize("name", ["raw", "middle", "first", "wide"])
def test_further_arms(name, grid, x64):
    check_alone(grid, name)


@pytest.mark.extended
@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["raw", "middle", "first", "wide"])
def test_arms_start_as_in_their_own_shapes(name, grid, x64):
    """Where the data stands among the constants, and the draws of the weights."""
    losses, _ = alone(ARMS[name], replica=1, steps=0)
    assert grid[name].losses[1, 0] == pytest.approx(losses[0], rel=1e-12)


@pytest.mark.extended
def test_the_matched_control_starts_as_the_expansion(grid):
    np.testing.assert_allclose(grid["matched"].losses[:, 0], grid["middle"].losses[:, 0], rtol=1e-12)
    # For a method that knows lengths and angles only, the unit of the bias makes one step alike as well.
    assert np.all(grid["matched"].losses[:, -1] != grid["raw"].losses[:, -1])


def test_parameters_and_counts(grid):
    assert {name: result.parameters for name, result in grid.items()} == {
        "raw": 2 * 5 + 6 * 5 + 6, "middle": 4 * 5 + 6 * 5 + 6, "first": 4 * 5 + 6 * 5 + 6,
        "matched": 2 * 5 + 6 * 5 + 6, "wide": 2 * 7 + 8 * 5 + 6,
    }  # fmt: skip
    for result in grid.values():
        assert result.numbers["iterations/all"].tolist() == [6, 6]
        assert set(result.numbers["reached/loss_1e-06"]) <= {0.0, 1.0}
        assert np.all(result.numbers["iterations/loss_0.001"] <= 6)


def test_stopping_and_refusals(x64):
    assert run_grid(POINTS, ARMS, replicas=2, key=KEY, widths=(5,), steps=6, records=6, stop=lambda: True) is None
    with pytest.raises(ValueError, match=r"pad=\(2, 5\) is smaller"):
        run_grid(POINTS, ARMS, replicas=2, key=KEY, pad=(2, 5))
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"precision\.x64=False: the fits"):
        run_grid(POINTS, ARMS, replicas=2, key=KEY)


def load(words, arms=None):
    config = runpy.run_path(str(CONFIG))["get_config"](words)
    if arms:
        config.arms = {arm: config.arms[arm] for arm in arms}
    return config


def test_the_config():
    plan = config_lib.read(load("runge"))
    arms = grid_arms(plan)
    assert len(arms) == 39
    assert arms["size5_middle_pi"] == ArmNumbers(VectorExpansion(2, 2, math.pi))
    assert arms["size7_first_0_5"] == ArmNumbers(VectorExpansion(0, 6, 0.5))
    assert (arms["matched_bias"].fold, arms["matched_bias"].bias_scale) == (True, math.sqrt(1 + 4 * math.pi**2))
    assert (plan.replicas, plan.train_steps) == (10, 2000)
    assert sorted(load("all").suite) == sorted(regression.TARGETS)


def grid_arms(plan):
    return experiment.prepare(plan).built[1]


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("optimizer", {"name": "adam"}, "optimizer.name='adam' must be 'lbfgs' with task.program='grid'"),
        ("model", {"normalise": True}, "model.normalise=True must be False"),
        ("task", {"function": "sinus"}, "function='sinus' is unknown"),
    ],
)
def test_configs_that_the_program_cannot_do(section, changes, message):
    config = load("sine,smoke", ["raw"])
    config[section].update(changes)
    with pytest.raises(ConfigError, match=message):
        grid_arms(config_lib.read(config))


def outcome_values(workdir, arm):
    """Final errors, read from the file itself."""
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if record["arm"] == arm][-1]["test/mse"]


@pytest.mark.extended
def test_smoke_runs_to_its_report(tmp_path):
    config = load("sine,smoke", ["raw", "size3_middle_pi", "size3_first_pi", "matched_bias"])
    with one_device():
        outcome = experiment.run(config, tmp_path / "run")
    assert outcome.status == "done"
    assert "size3_middle_pi" in outcome.table
    page = outcome.report.read_text()
    assert "Iterations and error relative to the reference" in page
    assert "No reading at equal FLOPs" in page  # line searches
    assert (tmp_path / "run" / "figures" / "expansion_maps.png").exists()
    # As one of a suite.
    table, page, summary = suite_report(tmp_path, ["run", "missing"])
    assert "size3_first_pi" in table
    assert page.stat().st_size > 1000
    assert list(summary["problems"]) == ["missing"]
    values = {arm: np.array(outcome_values(tmp_path / "run", arm)) for arm in ("raw", "matched_bias")}
    ratio = np.exp(np.median(np.log(values["matched_bias"] / values["raw"])))
    assert summary["arms"]["matched_bias"]["error"]["median"] == pytest.approx(ratio, rel=1e-9)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert experiment.run(config, tmp_path / "run").table == outcome.table
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.extended
def test_the_usual_frame_runs_to_its_report(tmp_path):
    """`task.program='frame'`: the same arms one by one, with any optimiser."""
    config = load("sine,smoke", ["raw", "matched_bias"])
    config.task.program = "frame"
    outcome = experiment.run(config, tmp_path / "frame")
    assert outcome.status == "done"
    assert list(outcome.summary["arms"]) == ["raw", "matched_bias"]
    assert (tmp_path / "frame" / "figures" / "solution_maps.png").exists()
    # Both programs draw the same weights, so that the first loss is the grid's.
    config.task.program = "grid"
    other = experiment.run(config, tmp_path / "grid")
    first, *_ = map(json.loads, (tmp_path / "grid" / "metrics.jsonl").read_text().splitlines())
    frame = [json.loads(line) for line in (tmp_path / "frame" / "metrics.jsonl").read_text().splitlines()]
    assert other.status == "done"
    np.testing.assert_allclose(frame[0]["test/mse"], first["test/mse"], rtol=0.2)
