"""Networks that make networks: sampling against a closed form, distances by brute force, from config to record."""

import itertools
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax.claims import recording, records
from sbjax.experiments.generative import report as report_lib
from sbjax.experiments.generative.made import make_checkpoints
from sbjax.experiments.generative.nearest import nearest
from sbjax.frame.errors import ConfigError
from sbjax.metanets import split_vector, vector
from sbjax.report.results import load_results
from sbjax.runner import run as runner
from sbjax.symmetry import permute, random_permutations
from sbjax.tasks import generative as lib

CONFIG = pathlib.Path(__file__).parents[3] / "configs" / "generative.py"


def config(words="smoke", arms=("flat", "permuted")):
    made = runpy.run_path(str(CONFIG))["get_config"](words)
    made.arms = {arm: made.arms[arm] for arm in arms}
    return made


@pytest.fixture(scope="module")
def found():
    return make_checkpoints(runs=12, checkpoints=4, width=4, features=8)


def test_sampling_carries_noise_to_a_gaussian():
    """With the exact denoiser of N(m, v) noise is carried to that distribution, whose flow is affine."""
    mean, deviation = 0.7, 0.3

    def denoise(x, level, prompt):
        a, s = jnp.cos(jnp.pi / 2 * level[:, None]), jnp.sin(jnp.pi / 2 * level[:, None])
        gain = a * deviation**2 / (a**2 * deviation**2 + s**2)
        return mean + gain * (x - a * mean)

    key, prompts = jax.random.key(0), jnp.zeros(200)
    out = lib.make_sampler(denoise, 1000, 3)(key, prompts)
    np.testing.assert_allclose(out, mean + deviation * jax.random.normal(key, (200, 3)), atol=5e-3)


def test_networks_along_their_training(found):
    """Losses are those of the networks by numpy, and fall; parts share no run."""
    from sbjax.data import images

    data = images.load("digits")
    train, test = (x.reshape(len(x), -1).astype(float) for x in (data.train_images, data.test_images))
    axes = np.linalg.svd(train - train.mean(0), full_matrices=False)[2][:8].T
    axes *= np.sign(axes[np.abs(axes).argmax(0), np.arange(8)])
    x = (test - train.mean(0)) @ axes / ((train - train.mean(0)) @ axes).std(0)
    tree = {name.rpartition("params/")[2]: np.asarray(leaf, float)
            for name, leaf in split_vector(found.reading.layout, found.entries[3, -1]).items()}  # fmt: skip
    h = np.maximum(x @ tree["dense_0/kernel"] + tree["dense_0/bias"], 0)
    logits = h @ tree["dense_1/kernel"] + tree["dense_1/bias"]
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    assert -logits[np.arange(len(x)), data.test_labels].mean() == pytest.approx(found.loss[3, -1], rel=1e-4)
    assert (found.loss[:, -1] < found.loss[:, 0]).all()
    made = lib.prepare(found, 0.5)
    assert [len(made.entries[part]) for part in ("train", "validation", "test")] == [24, 12, 12]
    flat = found.entries.reshape(48, -1)
    np.testing.assert_allclose(made.restore(made.entries["test"]), flat[36:], atol=1e-4)
    np.testing.assert_allclose(made.level + made.scale * made.prompts["validation"], np.log(found.loss[6:9]).ravel(),
                               rtol=1e-4)  # fmt: skip


def test_nearest_by_brute_force(found):
    """Over all 24 orders of four units; a network in another order is at distance 0."""
    layout, spec = found.reading.layout, found.reading.spec
    others, nets = (part.reshape(-1, layout.size) for part in (found.entries[:3], found.entries[3:5]))

    def moved(rows, order):
        orders = {name: order for name in spec.sizes}
        return np.asarray(jax.vmap(lambda row: vector(permute(spec, split_vector(layout, row), orders)))(rows))

    every = np.stack([moved(jnp.asarray(others), jnp.array(p)) for p in itertools.permutations(range(4))])
    brute = np.sqrt(((every[:, None] - nets[None, :, None]) ** 2).mean(-1)).min((0, 2))
    np.testing.assert_allclose(nearest(layout, nets, others), brute, rtol=1e-5)
    order = next(iter(random_permutations(jax.random.key(0), spec).values()))
    assert nearest(layout, moved(jnp.asarray(others), order), others).max() < 1e-6


def test_report_and_record(tmp_path):
    """What is sampled for the table gives the number that training reported; baselines are what they say."""
    outcome = runner.run(config(), tmp_path)
    results = load_results(tmp_path)
    measured = report_lib.load(tmp_path, results.arms)
    for arm, own in measured.items():
        for replica, achieved in enumerate(own["achieved"]):
            told = results.reports[arm][-1].values["test/r2"][replica]
            assert report_lib.r_squared(own["prompted"], achieved) == pytest.approx(told, abs=1e-3)
    assert max(own["baselines"]["nearest"]["distance"]) < 1e-6
    record = recording.record_of(tmp_path, title="Networks", table="cells")
    records.check(record)
    assert [row["cells"]["arm"] for row in record["rows"]][:2] == ["flat", "permuted"]
    assert len(record["rows"]) == 2 + len(report_lib.BASELINES)
    assert "Networks that were asked for" in outcome.report.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_share": 0.99}, "task.train_share=0.99 of 12 runs leaves 12, 0 and 0"),
        ({"batch_size": 99}, "task.batch_size=99 must lie between 1 and the 40 training networks"),
        ({"checkpoints": 30}, "task.checkpoints=30 must be <= steps=20"),
        ({"features": 65}, "task.features=65 must be >= 1, <= 64"),
        ({"sampling_steps": 0}, "task.sampling_steps=0 must be >= 1"),
    ],
)
def test_refusals(change, message):
    made = config(arms=("flat",))
    made.task.update(change)
    with pytest.raises(ConfigError, match=message):
        runner.prepare(config_lib.read(made))


def test_networks_are_made_under_double_precision_too():
    """`precision.x64=True` is for what learns from them: they stay in single precision."""
    with jax.enable_x64(True):
        made = make_checkpoints(runs=2, checkpoints=2, width=2, features=2)
    assert made.entries.dtype == made.loss.dtype == np.float32
