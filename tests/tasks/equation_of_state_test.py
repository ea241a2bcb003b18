"""The equation of state as a task: the loss by an independent route, controls, training, config, refusals."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.interpolate import CubicSpline

from sbjax import config as config_lib
from sbjax import trees
from sbjax.expansion.transform import VectorExpansion
from sbjax.experiments.qcd import report as qcd_section
from sbjax.models import make_quasi_partons
from sbjax.models.quasi_parton import MassNet
from sbjax.optimizers.rescaled import rescaled
from sbjax.physics import lattice, qcd
from sbjax.runner import run as experiment
from sbjax.tasks.equation_of_state import UNKNOWNS, make_equation_of_state_task

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "qcd.py"
PI = VectorExpansion(2, 2)
KEY = jax.random.key(3, impl="rbg")  # compiles in a fraction of threefry's time


def make_task(*, expansion=None, dtype="float64", blocks=1, **options):
    network = make_quasi_partons("quasi_parton", expansion=expansion, x64=True, blocks=blocks, width=8, dtype=dtype)
    return make_equation_of_state_task("hotqcd_2014", network, **{"points": 8, "upper": 0.4, **options})


@pytest.fixture(autouse=True)
def double(x64):
    """All of this file is in double precision unless a dtype is given."""


def start(task):
    return jax.jit(task.init)(KEY)


# Networks


@pytest.mark.parametrize(
    ("expansion", "with_mu", "count"), [(None, False, 15_905), (None, True, 15_921), (PI, False, 15_969)]
)
def test_parameters_of_a_network(expansion, with_mu, count):
    network = make_quasi_partons("quasi_parton", expansion=expansion)
    ones = [jnp.ones(1)] * (1 + with_mu)
    assert trees.size(jax.eval_shape(lambda: network.init(KEY, *ones))["params"]) == 3 * count


def test_three_independent_networks():
    """Each third of the parameters is a network of its own, and by hand it is what the definition says."""
    T = np.linspace(0.1, 0.4, 5)
    network = make_quasi_partons("quasi_parton", expansion=PI, blocks=1, width=8)
    single = MassNet(expansion=PI, blocks=1, width=8)

    @jax.jit
    def together():
        variables = network.init(KEY, T)
        own = [single.apply({"params": trees.take(variables["params"], i)}, T) for i in range(3)]
        return variables["params"], network.apply(variables, T), own

    params, masses, alone = jax.tree.map(np.asarray, together())
    assert masses.shape == (5, 3)
    assert len({float(kernel[0, 0]) for kernel in params["dense_0"]["kernel"]}) == 3
    for i in range(3):
        own = trees.take(params, i)
        np.testing.assert_allclose(alone[i], masses[:, i], rtol=1e-5)

        def dense(name, x, own=own):
            return x @ own[name]["kernel"].astype(np.float64) + own[name]["bias"]

        def sigmoid(x):
            return 1 / (1 + np.exp(-x))

        x = np.stack([np.full(5, np.pi)] * 2 + [T] + [np.full(5, np.pi)] * 2, -1)
        for name in ("dense_0", "dense_1"):
            x = dense(name, x)
            x = x * sigmoid(x)
        x = x + dense("block_0_out", sigmoid(dense("block_0_in", x)))
        x = x * sigmoid(x)
        x = dense("dense_2", x)
        x = x * sigmoid(x)
        np.testing.assert_allclose(3 * sigmoid(dense("dense_3", x)[:, 0]), masses[:, i], rtol=1e-5)


# Loss


def test_the_losses_are_what_they_say():
    """From P on a fine grid by a spline, not by forward differentiation."""
    task, other = (make_task(loss=loss, mass_weight=0.7, relative_error=0.1, nodes=32) for loss in ("chi2", "l1"))
    variables = start(task)
    network = make_quasi_partons("quasi_parton", x64=True, blocks=1, width=8, dtype="float64")
    T, fine = np.linspace(0.155, 0.4, 8), np.linspace(0.1, 0.45, 3001)
    at = np.concatenate([T, fine])
    masses = np.asarray(jax.jit(network.apply)(variables, at))
    pressure = CubicSpline(fine, (jax.jit(qcd.log_partition)(at, masses) * at)[8:])
    s, anomaly = pressure(T, 1), T * pressure(T, 1) - 4 * pressure(T)
    target = lattice.reference("hotqcd_2014", T)
    s_0, anomaly_0 = target.entropy * T**3, target.anomaly * T**4
    ud, strange, gluon = masses[:8].T
    tied = np.where(T > 0.375, np.abs(gluon / ud - 1.5) + np.abs((strange - ud) / 0.09 - 1), 0)
    assert (tied > 0).sum() == 1
    chi2 = [np.mean(((a - b) / (0.1 * b)) ** 2) for a, b in ((s, s_0), (anomaly, anomaly_0))]
    l1 = [np.mean(np.abs(s - s_0)), np.mean(np.abs(anomaly - anomaly_0) / T)]
    batch = task.sample(task.data, KEY, 0)
    found = jax.jit(lambda variables: [one.loss(variables, batch, KEY) for one in (task, other)])(variables)
    for (value, aux), expected in zip(found, (chi2, l1), strict=True):
        np.testing.assert_allclose(aux.scalars["train/loss_entropy"], expected[0], rtol=1e-6)
        np.testing.assert_allclose(aux.scalars["train/loss_anomaly"], expected[1], rtol=1e-6)
        np.testing.assert_allclose(aux.scalars["train/loss_masses"], tied.mean(), rtol=1e-12)
        np.testing.assert_allclose(value, sum(expected) + 0.7 * tied.mean(), rtol=1e-6)


def test_masses_are_tied_above_two_and_a_half_times_150_mev():
    """Of the fifty temperatures five lie above 0.375 GeV, which is one of them."""
    task = make_task(points=50)
    T = np.asarray(task.data["train"]["T"])
    assert T[44] == 0.375
    assert (T > 0.375).sum() == 5


def test_oracle_masses_have_no_loss_and_no_error():
    """The masses that are tied at all temperatures solve the inverse problem."""

    grid = np.linspace(0.149, 0.4, 400)
    masses = lattice.reference_masses("hotqcd_2014", grid)
    pieces = jnp.asarray(CubicSpline(grid, masses).c)  # [power, piece, parton]

    class Oracle:
        dtype, expansion = "float64", None

        def apply(self, variables, T):
            i = jnp.clip(jnp.searchsorted(jnp.asarray(grid), T) - 1, 0, len(grid) - 2)
            powers = (T - jnp.asarray(grid)[i]) ** jnp.arange(3, -1, -1)[:, None]
            return jnp.sum(powers[..., None] * pieces[:, i], 0)

    task = make_equation_of_state_task("hotqcd_2014", Oracle(), points=8, nodes=32)
    nothing, batch = {"params": {}}, task.sample(task.data, KEY, 0)
    (value, _), numbers = jax.jit(lambda: (task.loss(nothing, batch, KEY), task.evaluate(task.data, nothing, 0)))()
    assert value < 1e-6
    assert numbers["test/mae_pressure"].total < 1e-7
    assert numbers["test/worst_pressure"].total < 1e-7
    assert numbers["test/mae_anomaly"].total < 1e-4
    rows = lattice.HOTQCD_ROWS[lattice.HOTQCD_ROWS[:, 0] > 0.154]
    off = np.abs(np.asarray(lattice.hotqcd_2014(rows[:, 0])) / rows[:, 2] - 1).max()
    assert numbers["lattice/worst_pressure"].total == pytest.approx(off, abs=1e-6)
    assert 0.005 < off < 0.01


def test_the_three_sets_of_temperatures_are_apart():
    task = make_task()
    T = {name: np.asarray(task.data[name]["T"]) for name in ("train", "test", "validation")}
    assert [len(part) for part in T.values()] == [8, 7, 7]
    assert min(np.abs(T["test"][:, None] - T["train"]).min(), np.abs(T["validation"][:, None] - T["test"]).min()) > 8e-3
    np.testing.assert_allclose(task.data["test"]["pressure"], lattice.hotqcd_2014(T["test"]), rtol=1e-14)


@pytest.mark.parametrize(
    ("parametrisation", "lower", "points"),
    [
        ("hotqcd_2014", 0.155, [0.155, 0.16, 0.165]),
        ("hotqcd_points", 0.164, [0.165]),
        ("hotqcd_2014", 0.166, []),
        ("wuppertal_budapest_2010", 0.155, []),
    ],
)
def test_points_of_the_lattice_in_the_range(parametrisation, lower, points):
    """Those of HotQCD say nothing about Wuppertal-Budapest; without any there is no number."""
    network = make_quasi_partons("quasi_parton", x64=True, blocks=1, width=8, dtype="float64")
    task = make_equation_of_state_task(parametrisation, network, points=4, lower=lower, upper=0.169)
    np.testing.assert_allclose(task.data["lattice"]["T"], points, rtol=1e-12)
    numbers = jax.eval_shape(task.evaluate, task.data, jax.eval_shape(task.init, KEY), 0)
    assert ("lattice/worst_pressure" in numbers) == bool(points)


# The controls


def train(task, optimizer, steps):
    """Parameters before and after some steps, the whole training as one program."""

    @jax.jit
    def run():
        params = task.init(KEY)["params"]
        batch = task.sample(task.data, KEY, 0)

        def step(_, carry):
            params, state = carry
            gradient = jax.grad(lambda p: task.loss({"params": p}, batch, KEY)[0])(params)
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        return params, jax.lax.fori_loop(0, steps, step, (params, optimizer.init(params)))[0]

    return run()


def test_matched_bias_coincides_with_the_expansion():
    """Adam moves the bias 1 + sum |c| times as far: the expansion is a start and a step size of it."""

    def scales(params):
        ones = jax.tree.map(lambda _: 1.0, params)
        return ones | {"dense_0": ones["dense_0"] | {"bias": 1 + 4 * np.pi}}

    optimizer = optax.adam(1e-4)
    _, expanded = train(make_task(expansion=PI, blocks=0), optimizer, 10)
    started, matched = train(make_task(expansion=PI, blocks=0, fold=True), rescaled(optimizer, scales), 10)
    assert matched["dense_0"]["kernel"].shape == (3, 1, 16)
    kernel, bias = expanded["dense_0"]["kernel"], expanded["dense_0"]["bias"]
    folded = bias + np.pi * (kernel.sum(-2) - kernel[:, 2])
    assert np.abs(folded - started["dense_0"]["bias"]).max() > 1e-2
    np.testing.assert_allclose(matched["dense_0"]["bias"], folded, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(matched["dense_0"]["kernel"][:, 0], kernel[:, 2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(matched["dense_3"]["kernel"], expanded["dense_3"]["kernel"], rtol=1e-5, atol=1e-6)


# Training and what is drawn


@pytest.mark.extended
def test_a_small_network_learns_in_single_precision():
    task = make_task(dtype="float32")
    started, params = train(task, optax.adam(1e-2), 600)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    evaluate = jax.jit(lambda params: task.evaluate(task.data, {"params": params}, 0))
    before, after = evaluate(started), evaluate(params)
    assert before["test/mae_pressure"].total > 0.1
    assert {qcd_section.PRESSURE, qcd_section.ENERGY, qcd_section.CHOSEN_ON} <= set(after)
    assert after["test/mae_pressure"].total < 0.02
    drawn = np.asarray(jax.jit(task.grid.predict)({"params": params}))
    assert drawn.shape == task.grid.reference.shape == (36, 8)
    T, found = task.grid.points[:, 0], dict(zip(UNKNOWNS, drawn.T, strict=True))
    np.testing.assert_allclose(found["eps/T^4"], found["Delta/T^4"] + 3 * found["P/T^4"], rtol=1e-4, atol=1e-4)
    masses = np.stack([found[name] for name in ("m_ud", "m_s", "m_g")], -1)
    np.testing.assert_allclose(jax.jit(qcd.scaled_pressure)(T, masses), found["P/T^4"], rtol=1e-5)
    # s = dP/dT and c_s^2 = dP/d eps, by splines.
    pressure, energy = (CubicSpline(T, found[name] * T**4)(T, 1) for name in ("P/T^4", "eps/T^4"))
    inner = slice(3, -3)
    np.testing.assert_allclose((found["s/T^3"] * T**3)[inner], pressure[inner], rtol=2e-3)
    np.testing.assert_allclose(found["c_s^2"][inner], (pressure / energy)[inner], rtol=2e-2)
    np.testing.assert_allclose(task.grid.reference[:, 0], lattice.hotqcd_2014(T), rtol=1e-12)
    # What is reported is what is drawn: the test temperatures lie on the grid of five steps at 2.5, so between two.
    error = CubicSpline(T, np.abs(found["P/T^4"] - task.grid.reference[:, 0]))(task.data["test"]["T"])
    np.testing.assert_allclose(after["test/mae_pressure"].total, np.mean(error), rtol=0.05)


# Config and refusals


def make_config(**changes):
    config = config_lib.base_config("qcd")
    config.train_steps = 4
    config.arms = {"raw": {}}
    with config.unlocked():
        for path, value in changes.items():
            section, field = path.split("__")
            config[section][field] = value
    return config


def test_a_task_from_a_config():
    config = make_config(task__points=6, model__blocks=2, task__parametrisation="wuppertal_budapest_2013")
    plan = config_lib.read(config)
    task = plan.experiment.task_of(plan, "raw")
    assert (task.primary, task.goal) == ("test/mae_pressure", "min")
    at = lattice.reference("wuppertal_budapest_2013", np.array([0.155]))
    np.testing.assert_allclose(task.data["train"]["pressure"][0], at.pressure[0], rtol=1e-6)
    np.testing.assert_allclose(task.grid.reference[::5, 0], np.asarray(task.data["train"]["pressure"]), rtol=1e-6)
    assert jax.eval_shape(task.init, KEY)["params"]["block_1_in"]["kernel"].shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task__parametrisation": "hotqcd"}, "task.parametrisation='hotqcd' is unknown, did"),
        ({"task__lower": 0.01}, "lower=0.01 and upper=0.4 must be temperatures in GeV"),
        ({"task__upper": 0.9}, "upper=0.9 must be temperatures in GeV"),
        ({"task__loss": "chi"}, "loss='chi' is unknown, did you mean 'chi2'"),
        ({"task__points": 1}, "points=1 must be >= 2"),
        ({"task__nodes": 500}, "task.nodes=500 must be >= 1, <= 128"),
        ({"task__relative_error": 0.0}, "task.relative_error=0.0 must be > 0"),
        ({"task__fold": True}, "task.fold=True: the network has no expansion to fold"),
        ({"expansion__kind": "image"}, r"ImageExpansion does not fit an input of shape \(1,\)"),
        ({"model__name": "field"}, "model.name='field' is a network of the family 'field'"),
        ({"model__block": 3}, "model.block=3 is unknown, did you mean 'blocks'"),
        ({"model__width": 0}, "model.width=0 must be >= 1"),
        ({"model__largest": 0.0}, "model.largest=0.0 must be > 0"),
        ({"model__dtype": "float16"}, "model.dtype='float16' is unknown, did you mean"),
    ],
)  # fmt: skip
def test_refusals(changes, message):
    config = make_config(**changes)
    with pytest.raises(config_lib.ConfigError, match=message):
        experiment.prepare(config_lib.read(config))


@pytest.mark.extended
def test_the_config_runs_to_its_report(tmp_path):
    """All five arms of the smoke run, on the lattice points, and what the report says of them."""
    config = runpy.run_path(str(CONFIG))["get_config"]("hotqcd_points,smoke")
    config.model.update(blocks=1, width=8)
    with jax.enable_x64(False):
        outcome = experiment.run(config, tmp_path)
    assert outcome.status == "done"
    assert list(outcome.summary["arms"]) == ["raw", "expanded", "ones", "matched_bias", "widened"]
    text = outcome.report.read_text()
    for part in ("Fig. 3 in numbers", "Against lattice QCD", "Error of P/T^4, best report: expanded / raw"):
        assert part in text
    names = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert {"error_by_temperature", "equation_of_state", "masses", "sum_rules"} <= names
