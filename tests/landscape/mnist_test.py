"""Full-batch networks against numpy, runs side by side against runs alone, and an arm from its config to a report."""

import math

import jax
import numpy as np
import pytest
import scipy

from sbjax import config as config_lib
from sbjax import experiment
from sbjax.landscape import load_arm, mnist
from sbjax.report.results import load_results

KEY = jax.random.key(3)
NAMES = ("train/loss", "gradient_squared", "update_squared")


@pytest.fixture(scope="module")
def data():
    """Twelve images of seven pixels, two of which are always 0."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(12, 7))
    x[:, [1, 4]] = 0
    return x, rng.integers(0, 3, 12), np.array([0, 2, 3, 5, 6])


def by_hand(params, x, y, steps, rate):
    """Backpropagation and Adam of one run in numpy, in double precision; [step] by name."""
    params = {name: np.array(leaf, float) for name, leaf in params.items()}
    first, second = ({name: np.zeros_like(leaf) for name, leaf in params.items()} for _ in range(2))
    rows = []
    for step in range(1, steps + 2):
        z = x @ params["w1"] + params["b1"]
        h = np.logaddexp(z, 0)
        logits = h @ params["w2"] + params["b2"]
        logs = scipy.special.log_softmax(logits, 1)
        delta = (np.exp(logs) - np.eye(logits.shape[1])[y]) / len(x)
        back = delta @ params["w2"].T * scipy.special.expit(z)
        grads = {"w1": x.T @ back, "b1": back.sum(0), "w2": h.T @ delta, "b2": delta.sum(0)}
        total, moved = sum(np.sum(g**2) for g in grads.values()), 0.0
        for name, g in grads.items():
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            move = rate * first[name] / (1 - 0.9**step) / (np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8)
            params[name] = params[name] - move
            moved += np.sum(move**2)
        rows.append((-np.mean(logs[np.arange(len(y)), y]), total, moved))
    return dict(zip(NAMES, np.array(rows).T))


def test_runs_side_by_side_are_adam_by_hand(x64, data):
    """Without the pixels that are 0 everywhere, against one run after another with all of them."""
    x, y, kept = data
    starts = mnist.init_runs(KEY, range(2), (7, 4, 3), kept)
    found = mnist.train_runs(starts, x[:, kept], y, steps=4, learning_rate=0.1)
    for run in range(2):
        full = mnist.init_runs(KEY, range(run, run + 1), (7, 4, 3))
        alone = {"w1": full["w1"][:, 0], **{name: full[name][0] for name in ("b1", "w2", "b2")}}
        expected = by_hand(alone, x, y, 4, 0.1)
        for name in NAMES:
            np.testing.assert_allclose(found[name][:, run], expected[name], rtol=1e-9, err_msg=name)
    # What was handed in is still there.
    assert all(np.isfinite(leaf).all() for leaf in starts.values())


def test_initial_weights_are_those_of_glorot():
    params = mnist.init_runs(KEY, range(3), (300, 200, 10))
    for name, ends in (("w1", math.sqrt(6 / 500)), ("w2", math.sqrt(6 / 210))):
        values = np.asarray(params[name])
        assert 0.99 * ends < np.abs(values).max() <= ends
        assert np.std(values) == pytest.approx(ends / math.sqrt(3), rel=0.02)
    later = mnist.init_runs(KEY, range(2, 3), (300, 200, 10))
    np.testing.assert_array_equal(later["w2"][0], params["w2"][2])


def load(**task):
    config = config_lib.shrink(config_lib.base_config("landscape", "mnist"))
    config.reference, config.arms = "m3", {"m3": {"task": {"width": 3}}, "m5": {"task": {"width": 5, "runs": 1}}}
    config.task.update(share=0.2, **task)
    return config


def test_an_arm_from_its_config_to_a_report(tmp_path):
    outcome = experiment.run(load(), tmp_path)
    assert outcome.status == "done"
    three, five = (load_arm(tmp_path, arm) for arm in ("m3", "m5"))
    assert three.summary | {"pixels": 0} == {"width": 3, "runs": 2, "images": 72, "pixels": 0, "inputs": 64}
    assert three.parameters == 64 * 3 + 3 + 3 * 10 + 10
    # One run of the two that the experiment has; what is missing is no number.
    assert five.arrays["loss"].shape == (5, 1)
    assert five.metrics["train/loss"][1] is None
    assert five.metrics["train/loss"][0] == pytest.approx(five.arrays["loss"][4, 0])
    assert sorted(five.history) == [0, 2]
    assert (three.arrays["loss"][4] < three.arrays["loss"][0]).all()
    # Adam's first update has about the learning rate in every entry with a gradient.
    entries = three.summary["pixels"] * 3 + 3 + 3 * 10 + 10
    np.testing.assert_allclose(three.arrays["update_squared"][0], 1e-6 * entries, rtol=0.02)
    results = load_results(tmp_path)
    assert "72 images of the test split" in "".join(mnist.section(tmp_path, results))
    drawn = mnist.save_figures(tmp_path, results)
    assert drawn.keys() == mnist.CAPTIONS.keys()
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in drawn.values())


def test_a_stop_leaves_nothing(data):
    x, y, kept = data
    starts = mnist.init_runs(KEY, range(1), (7, 4, 3), kept)
    assert mnist.train_runs(starts, x[:, kept].astype(np.float32), y, steps=4, stop=lambda: True) is None


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"width": 0}, "task.width=0 must be >= 1"),
        ({"share": 0.0}, "task.share=0.0 must lie in"),
        ({"runs": 3}, "task.runs=3 must lie between 0 .* and replicas=2"),
        ({"learning_rate": 0.0}, "task.learning_rate=0.0"),
    ],
)
def test_refusals(task, message):
    settings = config_lib.check(load())
    settings["task"] |= task
    with pytest.raises(config_lib.ConfigError, match=message):
        mnist.check(settings)


def test_an_unknown_dataset_is_named(tmp_path):
    settings = config_lib.check(load(dataset="digit"))
    with pytest.raises(config_lib.ConfigError, match=r"task.dataset='digit': .*digits"):
        mnist.run_arm(settings, settings, KEY, print, lambda: False)
