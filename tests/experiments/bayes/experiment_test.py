"""Variational networks from a config to the report; the loss against its two terms by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax import rng
from sbjax.bayes.predictive import VariationalPosterior, predict
from sbjax.frame.errors import ConfigError
from sbjax.runner import run as runner

MASKS = {"kind": "w", "masks": {"dense_*/kernel": {"n_fix": 8, "kappa": 0.5}}}


def make_config(**task):
    config = config_lib.shrink(config_lib.base_config("bayes"))
    config.model = {"name": "mlp", "widths": (16, 16), "norm": "layer"}
    config.reference = "standard"
    config.monitor.kinds = ""
    config.optimizer.update(name="adam", learning_rate=0.01, weight_decay=0.0)
    config.calibration.bins = 5
    config.task.update(start="uniform", samples=3, log_variance=-4.0, multiplier=2.0, **task)
    config.arms = {
        "standard": {},
        "w": {"model": {"asymmetry": MASKS}},
        "less_noise": {"task": {"noise_of": MASKS}},
    }
    return config


@pytest.fixture(scope="module")
def built():
    return {arm.name: arm.task for arm in runner.prepare(config_lib.read(make_config())).built.arms}


def test_the_loss_is_that_of_the_labels_and_the_divergence(built):
    task = built["w"]
    key = jax.random.key(0)
    variables = jax.jit(task.init)(key)
    batch = task.sample(task.data, key, 0)
    value, aux = jax.jit(task.loss)(variables, batch, key)
    examples = 2.0 * len(task.data["labels"])
    divergence = task.model.network.kl(variables) / examples
    assert float(aux.scalars["train/kl"]) == pytest.approx(float(divergence), rel=1e-5)
    assert float(value) == pytest.approx(float(aux.scalars["train/nll"] + divergence), rel=1e-5)
    # The same noise, from the key that the step has.
    images = (batch["images"] / 255.0).reshape(len(batch["labels"]), -1)
    assert images.shape[1] == 64
    again, _ = jax.jit(task.loss)(variables, batch, jax.random.key(1))
    assert float(again) != float(value)


@pytest.mark.extended
def test_held_out_numbers_are_of_averaged_probabilities(built):
    task = built["standard"]
    variables = jax.jit(task.init)(jax.random.key(0))
    found = jax.jit(task.log_probabilities)(task.data, variables, jnp.int32(0))
    np.testing.assert_allclose(jnp.exp(found).sum(-1), 1, rtol=1e-5)
    rows = len(found)
    inputs = task.lines.inputs({**task.data, "images": task.data["eval_inputs"]})
    posterior = VariationalPosterior(task.model.network, variables)
    by_hand = predict(posterior, inputs, samples=3, key=jax.random.key(0))
    assert by_hand.shape == (2, 10)
    assert rows > 2
    numbers = jax.jit(task.evaluate)(task.data, variables, jnp.int32(0))
    labels, split = (np.asarray(task.data[name])[:rows] for name in ("eval_labels", "eval_split"))
    losses = -np.asarray(found)[np.arange(rows), labels]
    assert float(numbers["test/loss"].total) == pytest.approx(losses[split == 1].sum(), rel=1e-4)


def test_noise_is_scaled_to_the_share_that_the_other_trains(built):
    network = built["less_noise"].model.network
    assert network.spec.noise_shares == pytest.approx(
        {"dense_0/kernel": 1 - 8 / 64, "dense_1/kernel": 0.5, "dense_2/kernel": 0.5}
    )
    x = jnp.ones((1, 8, 8, 1))
    plain = built["standard"].model.network
    variables = jax.jit(plain.init)(jax.random.key(0), x)
    scaled, full = (net._noises(variables)["dense_1"] for net in (network, plain))
    assert scaled.variance["kernel"] == pytest.approx(0.5 * full.variance["kernel"])
    np.testing.assert_allclose(scaled.factors["kernel"], np.sqrt(0.5) * full.factors["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(scaled.factors["bias"], full.factors["bias"])


def test_arms_share_batches_and_noise(built):
    """Where nothing is frozen the first layer's factors are the same numbers."""
    key = rng.replica_stream(jax.random.key(0), "init", 0)
    a, b = (jax.jit(built[name].init)(key)["params"]["factors"]["dense_0"]["kernel"] for name in ("standard", "w"))
    mask = np.asarray(b) != 0
    assert mask.mean() == pytest.approx(1 - 8 / 64)
    np.testing.assert_array_equal(np.asarray(a)[mask], np.asarray(b)[mask])


@pytest.mark.extended
def test_a_run_ends_with_its_calibration(tmp_path):
    outcome = runner.run(make_config(), tmp_path / "run")
    assert outcome.status == "done"
    assert "calibration error" in outcome.table
    assert "its floor" in outcome.table
    found = json.loads((tmp_path / "run" / "calibration" / "w.json").read_text())
    assert len(found["replicas"]) == 2
    assert found["ensemble"]["floor"] > 0
    assert found["examples"] == sum(found["reliability"]["counts"]) / 2
    page = outcome.report.read_text()
    assert "Calibration" in page
    assert (tmp_path / "run" / "figures" / "reliability.png").exists()
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"train/nll", "train/kl"} < set(metrics[-1])
    last = next(line for line in reversed(metrics) if line["arm"] == "w")
    for replica, numbers in enumerate(found["replicas"]):
        assert numbers["accuracy"] == pytest.approx(last["test/accuracy"][replica], abs=1e-6)
        assert numbers["loss"] == pytest.approx(last["test/loss"][replica], rel=1e-4)


def test_what_makes_no_sense_is_refused():
    smoothed = make_config()
    smoothed.task.label_smoothing = 0.1
    with pytest.raises(ConfigError, match=r"task.label_smoothing=0.1: the loss is a likelihood"):
        config_lib.read(smoothed)
    sigma = make_config()
    sigma.arms["w"] = {"task": {"noise_of": {"kind": "syre"}}}
    with pytest.raises(ConfigError, match=r"noise_of=.* must be of kind 'w'"):
        runner.prepare(config_lib.read(sigma))
    with pytest.raises(ConfigError, match=r"task.rank=-1 must be >= 0"):
        config_lib.read(make_config(rank=-1))
    lines = make_config()
    lines.interpolation.between = "pairs"
    with pytest.raises(ConfigError, match=r"interpolation.between='pairs' has no effect with task.kind='bayes'"):
        config_lib.read(lines)
