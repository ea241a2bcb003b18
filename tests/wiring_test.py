"""Every field of a config reaches what it is about, and arms are paired: the same seeds, batches and noise."""

import csv
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax import trees
from sbjax.experiments.pinn.experiment import build_equation
from sbjax.frame.errors import ConfigError
from sbjax.optimizers.section import read_optimizer
from sbjax.runner import run as experiment
from sbjax.training.fit import fit
from sbjax.training.placement import Placement

EQUATIONS_PAGE = pathlib.Path(__file__).parents[1] / "docs" / "how_to" / "equations.md"


def settings(**changes):
    config = config_lib.shrink(config_lib.base_config())
    config.model = {"name": "mlp", "widths": (8,)}
    config.arms = {"raw": {}, "expanded": {"expansion": {"kind": "image", "factor": 2, "fill": "0.5"}}}
    with config.unlocked():
        for path, value in changes.items():
            *sections, field = path.split("__")
            node = config
            for section in sections:
                node = node[section]
            node[field] = value
    return config


def arms(**changes):
    return {arm.name: arm for arm in experiment.prepare(config_lib.read(settings(**changes))).built.arms}


def batch_of(task):
    return task.sample(task.data, jax.random.key(0), jnp.int32(0))


def loss_of(task):
    return float(task.loss(task.init(jax.random.key(1)), batch_of(task), jax.random.key(2))[0])


def rows(workdir):
    return list(csv.DictReader((workdir / "results.csv").read_text().splitlines()))


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("flip", True, "images"),
        ("crop_padding", 2, "images"),
        ("quarter_turns", True, "images"),
        ("train_share", 0.5, "labels"),
        ("image_size", 12, "shape"),
    ],
)
def test_task_fields_reach_the_batches(field, value, what):
    plain, changed = (batch_of(arms(**{f"task__{f}": v})["raw"].task) for f, v in ((field, value), ("flip", False)))
    if what == "shape":
        assert plain["images"].shape != changed["images"].shape
    else:
        assert np.any(np.asarray(plain[what]) != np.asarray(changed[what]))


def test_label_smoothing_and_its_formula():
    """Smoothed by a: (1 - a) CE(label) + a mean over classes of CE."""
    plain, smooth = (arms(task__label_smoothing=a)["raw"].task for a in (0.0, 0.2))
    variables, batch = plain.init(jax.random.key(1)), batch_of(plain)
    everywhere = [
        float(plain.loss(variables, batch | {"labels": jnp.full_like(batch["labels"], c)}, jax.random.key(2))[0])
        for c in range(10)
    ]
    np.testing.assert_allclose(loss_of(smooth), 0.8 * loss_of(plain) + 0.2 * np.mean(everywhere), rtol=1e-5)


def test_order_of_expansion_and_standardisation():
    expanded = {"kind": "image", "factor": 2, "fill": "0.5"}
    before, after = (
        loss_of(arms(arms__expanded__expansion=expanded | {"order": order})["expanded"].task)
        for order in ("before", "after")
    )
    assert before != after


def test_choices_are_made_on_validation():
    for arm in arms().values():
        assert arm.task.selection == "validation/accuracy"
        assert arm.task.primary == "test/accuracy"


def test_probe_size():
    task = arms(monitor__kinds="function", monitor__probe_size=7)["raw"].task
    assert task.outputs(task.data, task.init(jax.random.key(0))).shape == (7, 10)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.01),
        ("momentum", 0.5),
        ("nesterov", False),
        ("weight_decay", 0.1),
        ("clip_norm", 1e-3),
        ("warmup_share", 0.75),
        ("schedule", "constant"),
    ],
)
def test_optimizer_fields_reach_the_updates(field, value):
    def third_update(section):
        choice, problems = read_optimizer(section)
        assert not problems
        optimizer = choice.build(4)
        params = {"kernel": jnp.ones((2, 2))}
        state = optimizer.init(params)
        for scale in (1.0, 3.0, 2.0):
            updates, state = optimizer.update({"kernel": jnp.full((2, 2), scale)}, state, params)
        return np.asarray(updates["kernel"])

    section = config_lib.check(settings())["optimizer"]
    assert np.any(third_update(section) != third_update(section | {field: value}))


@pytest.mark.extended
def test_the_seed_decides_and_arms_share_it(tmp_path):
    """An arm that differs in nothing that counts ends alike, replica by replica; another seed ends elsewhere."""
    results = {}
    same = {"task": {"eval_batch_size": 63}}  # of 64: bounds memory alone
    for seed, arms in ((0, {"raw": {}, "same": same}), (1, {"raw": {}})):
        experiment.run(settings(seed=seed, train_steps=6, arms=arms), tmp_path / str(seed))
        for row in rows(tmp_path / str(seed)):
            results[seed, row["arm"], row["replica"]] = row["train/loss"]
    for replica in ("0", "1"):
        assert results[0, "raw", replica] == results[0, "same", replica]
    for seed in (0, 1):
        assert results[seed, "raw", "0"] != results[seed, "raw", "1"]
    assert results[0, "raw", "0"] != results[1, "raw", "0"]


@pytest.mark.extended
def test_checkpoints_kept_and_precision(tmp_path):
    changes = {"checkpoint__saves": 4, "checkpoint__keep": 1, "checkpoint__keep_best": 0, "reports": 4}
    experiment.run(settings(**changes, arms={"raw": {}}), tmp_path / "one")
    assert [p.name for p in (tmp_path / "one" / "checkpoints" / "raw").iterdir() if p.is_dir()] == ["4"]
    changes |= {"checkpoint__keep": 3, "precision__x64": True, "model__dtype": "float64"}
    experiment.run(settings(**changes, arms={"raw": {}}), tmp_path / "three")
    folder = tmp_path / "three" / "checkpoints" / "raw"
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ["2", "3", "4"]
    import orbax.checkpoint as ocp

    with jax.enable_x64(True):
        params = ocp.StandardCheckpointer().restore(folder / "4" / "params")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float64")}


@pytest.mark.parametrize("matmul", ["default", "highest"])
def test_matmul_precision_holds_while_training(tmp_path, monkeypatch, matmul):
    class TrainingStartsError(Exception):
        pass

    def spy(*args, **kwargs):
        raise TrainingStartsError(jax.config.jax_default_matmul_precision)

    monkeypatch.setattr("sbjax.frame.arm_training.fit_lib.fit", spy)
    with pytest.raises(TrainingStartsError, match=matmul):
        experiment.run(settings(precision__matmul=matmul, arms={"raw": {}}), tmp_path / "run")


@pytest.mark.extended
def test_pmap_from_a_config(tmp_path):
    results = {}
    for compiled in ("jit", "pmap"):
        changes = {"placement__compile": compiled, "optimizer__name": "sgd", "arms": {"raw": {}}}
        outcome = experiment.run(settings(**changes), tmp_path / compiled)
        assert outcome.status == "done"
        results[compiled] = [float(row["test/loss"]) for row in rows(tmp_path / compiled)]
    np.testing.assert_allclose(results["jit"], results["pmap"], rtol=1e-4)


@pytest.mark.extended
def test_programs_are_counted_under_pmap(toys):
    fitted = fit(
        toys.classification(),
        config_lib.read(settings()).arms[0].optimizer.build(6),
        steps=6,
        replicas=2,
        key=jax.random.key(0),
        reports=3,
        placement=Placement(compile="pmap"),
    )
    assert fitted.programs == 1
    assert trees.all_finite(fitted.variables)


def test_a_dead_arm_stops(toys):
    """All replicas fail in the first steps: the rest of the training is not computed, but is reported as None."""
    pulses = []
    from sbjax.training.fit import Hooks

    task = toys.classification()
    poisoned = task._replace(loss=lambda v, b, k: (task.loss(v, b, k)[0] * jnp.nan, task.loss(v, b, k)[1]))
    fitted = fit(
        poisoned,
        config_lib.read(settings()).arms[0].optimizer.build(500),
        steps=500,
        replicas=2,
        key=jax.random.key(0),
        reports=5,
        hooks=Hooks(on_pulse=lambda step, seconds, compiled: pulses.append(step)),
    )
    assert len(fitted.failures) == 2
    assert max(pulses) < 500
    assert [record["step"] for record in fitted.history] == [0, 100, 200, 300, 400, 500]
    assert fitted.history[-1]["test/accuracy"] == [None, None]


def test_lost_summary_is_made_again(tmp_path):
    config = settings(arms={"raw": {}})
    experiment.run(config, tmp_path / "run")
    before = (tmp_path / "run" / "summary.json").read_bytes()
    (tmp_path / "run" / "summary.json").unlink()
    assert experiment.run(config, tmp_path / "run").status == "done"
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"placement__devices": 64}, "placement.devices=64: this process has 2; lower it"),
        ({"train_epochs": float("inf"), "train_steps": 0}, "train_epochs=inf must be a finite number"),
        ({"optimizer__learning_rate": float("inf")}, "optimizer.learning_rate=inf must be a finite number"),
        ({"model": {"name": ["mlp"]}}, r"model.name=\['mlp'\]"),
        ({"model__widths": ("a",)}, "model.widths=.*holds an entry that must be of type int"),
        ({"arms__expanded__expansion__factor": 0}, "arm 'expanded': expansion.factor=0 must be >= 1"),
        (
            {"optimizer": {"name": "gauss_newton"}},
            "optimizer.name='gauss_newton' needs a loss that is a sum of squares",
        ),
    ],
)
def test_refused_before_anything_is_written(tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        experiment.run(settings(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_empty_workdir():
    with pytest.raises(ConfigError, match="--workdir='' is empty"):
        experiment.run(settings(), "")


# Equations of a user's own


def own_equation(tmp_path, monkeypatch, changes=()):
    """The page's example as a file that can be imported."""
    text = next(
        b for b in re.findall(r"```python\n(.*?)```", EQUATIONS_PAGE.read_text(), re.DOTALL) if "make_screened" in b
    )
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    name = f"screened_{len(list(tmp_path.iterdir()))}_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return f"{name}:make_screened", "k=5"


def test_an_equation_from_a_file_of_its_own(tmp_path, monkeypatch):
    equation = build_equation(*own_equation(tmp_path, monkeypatch))
    assert (equation.name, equation.numbers) == ("screened", {"k": 5.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("lower=(0.0,)", "lower=(1.0,)")], r"screened.lower=1.0 of 'x' must lie below its upper=1.0"),
        ([('"upper")], 1.0)', '"upper")], float("nan"))')], "condition 'u_on_x_upper' is nan at"),
        ([("def make_screened", "def make_other")], "has no 'make_screened', did you mean 'make_other'"),
    ],
)
def test_an_equation_that_cannot_be_is_refused(tmp_path, monkeypatch, changes, message):
    with pytest.raises(ConfigError, match=message):
        build_equation(*own_equation(tmp_path, monkeypatch, changes))


def test_equations_and_numbers_that_do_not_exist():
    for fields, message in (
        ({"name": "burger"}, "did you mean 'burgers'"),
        ({"name": "no_such_module:make"}, "there is no module 'no_such_module'"),
        ({"coefficients": "mu=1"}, "burgers.mu is no coefficient of this equation"),
        ({"coefficients": "nu"}, "task.coefficients='nu': 'nu' must be name=number"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_equation(**{"name": "burgers", **fields})
