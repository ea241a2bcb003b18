"""Arms are built once, and a program is counted once."""

import pathlib
import runpy
import types

import jax
import jax.numpy as jnp
import pytest

from sbjax import config as config_lib
from sbjax.frame import arms as arms_lib
from sbjax.frame import training as training_lib
from sbjax.frame.errors import ConfigError, named_arm, told_as
from sbjax.frame.training import TrainingExperiment
from sbjax.runner import run as runner
from sbjax.runner import suite

ROOT = pathlib.Path(__file__).parents[2]
LAYOUT = ("NHWC", "HWIO", "NHWC")


def test_flops_are_counted_once_a_program(monkeypatch):
    """Five arms, four programs: the matched-bias control differs from raw in its start alone."""
    config = runpy.run_path(str(ROOT / "configs" / "pdes.py"))["get_config"]("poisson,quick,smoke")
    config.model.widths = (4, 4)
    config.arms.widened.model.widths = (6, 4)
    monkeypatch.setattr(arms_lib, "_counted", lambda store={}: store)
    built = runner.prepare(config_lib.read(config)).built.arms
    assert len(built) == 5
    assert len(arms_lib._counted()) <= 4
    by_name = {arm.name: arm.flops_per_step for arm in built}
    assert by_name["expanded"] > by_name["raw"] == by_name["matched_bias"]


def test_what_some_steps_compute_besides_is_counted():
    """New weights by gradients of all terms, and new points from four times as many: in their share of a step."""

    def flops(**changes):
        config = config_lib.shrink(config_lib.base_config("pinn"))
        config.task.update(points=500, **changes)
        plan = config_lib.read({**config.to_dict(), "arms": {"raw": {}}})
        arm = plan.arms[0]
        return arms_lib.step_cost(plan.experiment.make_task(plan, arm, plan.experiment.load_data(arm.task), None)).flops

    plain = flops()
    often, seldom = (flops(balance="gradient_norm", balance_every=n) / plain - 1 for n in (1, 100))
    assert often > 0.9
    assert seldom == pytest.approx(often / 100, rel=1e-3)
    drawn = flops(sampler="adaptive", resample_every=2) / plain - 1
    assert 0.3 < drawn < 2


@pytest.mark.wrong_types  # a stand-in for a task
def test_a_loop_counts_as_often_as_it_runs():
    """As the same steps written out, up to the work of the loop itself; loops in loops too."""
    w, x = jnp.ones((32, 32)), jnp.ones((8, 32))
    step = lambda p, h: jnp.tanh(h @ p)  # noqa: E731

    def task(steps):
        loss = lambda variables, batch, key: (jnp.sum(steps(variables["params"], x)), None)  # noqa: E731
        init = lambda key: {"params": w}  # noqa: E731
        return types.SimpleNamespace(init=init, sample=lambda data, key, step: (), data=(), loss=loss, besides=())

    def loop(n, body):
        return lambda p, h: jax.lax.scan(lambda h, _: (body(p, h), None), h, None, length=n)[0]

    def written(p, h):
        for _ in range(6):
            h = step(p, h)
        return h

    expected = arms_lib.step_cost(task(written)).flops
    for found in (loop(6, step), loop(3, loop(2, step))):
        assert arms_lib.step_cost(task(found)).flops == pytest.approx(expected, rel=0.1)


@pytest.mark.wrong_types  # a stand-in for a task
@pytest.mark.parametrize(
    ("loss", "least", "counted"),
    [
        # Bodies without a FLOP, of which XLA has no entry: numbers that are moved, and that are looked up.
        (lambda p: jax.lax.scan(lambda c, _: (jnp.roll(c, 1), c), p, None, length=3)[0].sum(), 1, True),
        (lambda p: jax.lax.scan(lambda c, row: (row, None), p[0], p)[0].sum(), 1, True),
        (lambda p: p[0, 0], 0, True),
        (lambda p: jax.lax.fori_loop(0, 5, lambda _, c: jnp.sin(c), p).sum(), 5 * 16, True),
        (lambda p: jnp.sum(p * jax.lax.stop_gradient(_halved(p))), 16, False),
        (lambda p: jnp.sum(jax.jit(jax.vmap(lambda row: row * jax.lax.stop_gradient(_halved(row))))(p)), 16, False),
    ],
    ids=["moved", "looked_up", "entry", "fori", "while", "while_inside"],
)
def test_programs_of_which_xla_counts_nothing_or_not_all(loss, least, counted):
    task = types.SimpleNamespace(
        init=lambda key: {"params": jnp.ones((4, 4))}, sample=lambda data, key, step: (), data=(),
        loss=lambda variables, batch, key: (loss(variables["params"]), None), besides=(),
    )  # fmt: skip
    cost = arms_lib.step_cost(task)
    assert cost.flops >= least
    assert cost.counted == counted


def _halved(x):
    return jax.lax.while_loop(lambda c: jnp.sum(c) > 1, lambda c: c / 2, x)


@pytest.mark.wrong_types  # a stand-in for a task
@pytest.mark.parametrize("kind", ["mlp", "convolution"])
def test_products_alone_are_nearly_all_flops(kind, monkeypatch):
    """What is counted where XLA tells nothing, as of accelerators: against XLA's own count for the CPU."""
    x = jnp.ones((16, 12, 12, 8))
    weights = {"mlp": [jnp.ones((64, 64))] * 2, "convolution": [jnp.ones((3, 3, 8, 8)), jnp.ones((3, 3, 8, 8))]}[kind]

    def forward(params, x):
        for w in params:
            if kind == "mlp":
                x = jax.nn.relu(x.reshape(-1, 64) @ w)
            else:
                x = jax.nn.relu(jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=LAYOUT))
        return jnp.sum(x)

    task = types.SimpleNamespace(
        init=lambda key: {"params": weights}, sample=lambda data, key, step: (), data=(),
        loss=lambda variables, batch, key: (forward(variables["params"], x), None), besides=(),
    )  # fmt: skip
    arms_lib._counted().clear()
    expected = arms_lib.step_cost(task).flops
    arms_lib._counted().clear()
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda self: None)
    assert arms_lib.step_cost(task).flops == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("second", "counted"), [("adam", True), ("lbfgs", False), ("gauss_newton", False)])
def test_flops_of_line_searches_are_not_known(second, counted):
    config = runpy.run_path(str(ROOT / "configs" / "pdes.py"))["get_config"]("poisson,quick,smoke")
    config.second_phase.update(name=second, steps=3)
    if second == "adam":
        config.second_phase.learning_rate = 1e-3
    assert config_lib.read(config).one_gradient == counted


@pytest.mark.extended
def test_what_is_prepared_is_what_runs(monkeypatch, tmp_path):
    """A suite builds every member once."""
    config = runpy.run_path(str(ROOT / "configs" / "pdes.py"))["get_config"]("all,smoke")
    config.suite = {name: config.suite[name] for name in ("poisson", "euler_beam")}
    for name in config.suite:
        config.suite[name].arms = {"raw": {}}
    config.model.widths = (4, 4)
    config.second_phase.steps = 0
    built, original = [], TrainingExperiment.build_task

    def counting(self, plan, arm, data, expansion):
        built.append((plan.task.equation, arm.name))
        return original(self, plan, arm, data, expansion)

    monkeypatch.setattr("sbjax.frame.training.TrainingExperiment.build_task", counting)
    suite.run(config, tmp_path / "suite")
    assert built == [("euler_beam", "raw"), ("poisson", "raw")]


def test_errors_of_libraries_name_the_section():
    with pytest.raises(ConfigError, match=r"^model.width=0 must be > 0$"), told_as("model"):
        raise ValueError("width=0 must be > 0")
    with pytest.raises(ConfigError, match=r"^arm 'a': model: no such thing$"), named_arm("a"), told_as("model"):
        raise ValueError("no such thing")
    with pytest.raises(ConfigError, match=r"^seed=1$"), told_as("model"):
        raise ConfigError("seed=1")


@pytest.mark.parametrize(
    ("text", "steps"), [("start, 10%, 70, end", (0, 20, 70, 200)), ("reports", (50, 100, 150, 200)), ("", ())]
)
def test_steps_of_the_monitor(text, steps):
    assert arms_lib.parse_steps(text, steps=200, reports=4) == steps


@pytest.mark.parametrize("word", ["110%", "-1%", "5", "-1"])
def test_steps_outside_of_a_short_training(word):
    """Also where rounding would put a share at its end."""
    with pytest.raises(ConfigError, match="lies outside the training of 4 steps"):
        arms_lib.parse_steps(word, steps=4, reports=2)


def test_precision_holds_inside_alone():
    from sbjax.frame.sections import Precision

    with arms_lib.precision(Precision("highest", True)):
        assert jnp.zeros(1).dtype == jnp.float64
        assert jax.config.jax_default_matmul_precision == "highest"
    assert jnp.zeros(1).dtype == jnp.float32


@pytest.mark.parametrize("kind", ["pinn", "functions", "landscape"])
def test_a_tpu_has_no_double_precision(kind, monkeypatch):
    """Refused by the name of the field, before anything is built."""
    config = config_lib.base_config(kind, "two_layer" if kind == "landscape" else "")
    config.update(train_steps=2, reference="raw", arms={"raw": {}})
    config.precision.x64 = True
    plan = config_lib.read(config)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(type(plan.experiment), "prepare", lambda self, plan: pytest.fail("was built"))
    with pytest.raises(config_lib.ConfigError, match=r"^precision.x64=True: a TPU has no float64.*JAX_PLATFORMS=cpu"):
        runner.prepare(plan)


def test_a_table_of_placements_that_cannot_be_read_is_refused_first(monkeypatch, tmp_path):
    config = config_lib.base_config("images")
    config.update(train_steps=2, arms={"raw": {}})
    plan = config_lib.read(config)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("SBJAX_PLACEMENT_TABLE", str(tmp_path / "no.json"))
    with pytest.raises(ConfigError, match=r"^placement: SBJAX_PLACEMENT_TABLE=.*no.json: No such file"):
        runner.prepare(plan)


def test_measures_of_too_few_replicas_are_not_those_of_an_earlier_step():
    """An arm of which one replica was left had the distances of its start, beside those of the end of the others."""
    history = [{"step": 0, "d": {"value": 1.0}}, {"step": 5, "d": {"value": 2.0}}, {"step": 9, "own": [1.0, None]}]
    assert training_lib._last_measures(history, (0, 5)) == {"d": {"value": 2.0}}
    assert training_lib._last_measures(history, (0, 9)) == {}
    assert training_lib._last_measures(history, ()) == {}
