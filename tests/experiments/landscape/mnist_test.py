"""Runs side by side against Adam by hand in numpy, and an arm from its settings to its figures."""

import math

import jax
import numpy as np
import pytest
import scipy

from sbjax import config as config_lib
from sbjax.experiments.landscape import mnist, mnist_report
from sbjax.experiments.landscape.arm_results import load_arm, save_arm

KEY = jax.random.key(3)
SIZES = (40, 30, 3)
NAMES = ("train/loss", "gradient_squared", "update_squared")


@pytest.fixture(scope="module")
def data():
    """Twelve images of forty pixels, two of which are always 0."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(12, 40))
    x[:, [1, 4]] = 0
    return x, rng.integers(0, 3, 12), np.delete(np.arange(40), [1, 4])


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
    starts, full = (jax.tree.map(np.asarray, mnist.init_runs(KEY, range(2), SIZES, some)) for some in (kept, None))
    found = mnist.train_runs(starts, x[:, kept], y, steps=4, learning_rate=0.1)
    for run in range(2):
        alone = {"w1": full["w1"][:, run], **{name: full[name][run] for name in ("b1", "w2", "b2")}}
        expected = by_hand(alone, x, y, 4, 0.1)
        for name in NAMES:
            np.testing.assert_allclose(found[name][:, run], expected[name], rtol=1e-9, err_msg=name)


def test_initial_weights_are_those_of_glorot(x64):
    params, later = (mnist.init_runs(KEY, range(first, first + 2), SIZES) for first in (0, 1))
    for name, fans in (("w1", 70), ("w2", 33)):
        values = np.asarray(params[name]) / math.sqrt(6 / fans)
        assert 0.95 < np.abs(values).max() <= 1
        assert np.std(values) == pytest.approx(1 / math.sqrt(3), rel=0.1)
    # A run's weights do not depend on which others there are.
    np.testing.assert_array_equal(later["w1"][:, 0], params["w1"][:, 1])
    assert np.abs(params["w1"][:, 0] - params["w1"][:, 1]).max() > 0.1


def plan_of(**task):
    config = config_lib.shrink(config_lib.base_config("landscape", "mnist"))
    config.reference, config.arms, config.replicas = "m3", {"m3": {}}, 3
    config.task.update(width=3, runs=2, share=0.2)
    config.task.update(task)
    return config_lib.read(config)


def test_an_arm_and_its_part_of_the_report(tmp_path):
    plan = plan_of()
    result = mnist.run_arm(plan, plan.arms[0], KEY, lambda text: None, lambda: False)
    save_arm(tmp_path, "m3", result)
    found = load_arm(tmp_path, "m3")
    assert found.summary | {"pixels": 0} == {"width": 3, "runs": 2, "images": 72, "pixels": 0, "inputs": 64}
    assert found.parameters == 64 * 3 + 3 + 3 * 10 + 10
    # Two runs of the three that the experiment has; what is missing is no number.
    assert found.arrays["loss"].shape == (5, 2)
    assert found.metrics["train/loss"] == [*found.arrays["loss"][4].tolist(), None]
    assert sorted(found.history) == [0, 2]
    assert (found.arrays["loss"][4] < found.arrays["loss"][0]).all()
    # Adam's first update has about the learning rate in every entry with a gradient.
    entries = found.summary["pixels"] * 3 + 3 + 3 * 10 + 10
    np.testing.assert_allclose(found.arrays["update_squared"][0], 1e-6 * entries, rtol=0.02)
    results = type("Results", (), {"arms": ("unfinished", "m3")})
    (section,) = mnist_report.report(results, tmp_path)
    (table,) = section.tables
    assert "72 images of the test split" in table.notes[0]
    assert table.rows[0][:3] == ("m3", "3", "2")
    assert table.rows[0][4].startswith(f"{np.median(found.arrays['gradient_squared'][4]):.4g} [")
    for figure in section.figures:
        assert (tmp_path / "figures" / f"{figure.name}.png").read_bytes() == figure.png


def test_a_stop_leaves_nothing(data):
    x, y, _ = data
    starts = {"w1": np.ones((40, 1, 4)), "b1": np.ones((1, 4)), "w2": np.ones((1, 4, 3)), "b2": np.ones((1, 3))}
    assert mnist.train_runs(starts, x, y, steps=4, stop=lambda: True) is None


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"width": 0}, "task.width=0 must be >= 1"),
        ({"share": 0.0}, "task.share=0.0 must be > 0, <= 1"),
        ({"runs": 4}, "task.runs=4 must lie between 0 .* and replicas=3"),
        ({"learning_rate": 0.0}, "task.learning_rate=0.0"),
    ],
)
def test_refusals(task, message):
    with pytest.raises(config_lib.ConfigError, match=message):
        mnist.EXPERIMENT.prepare(plan_of(**task))


def test_an_unknown_dataset_is_named():
    plan = plan_of(dataset="digit")
    with pytest.raises(config_lib.ConfigError, match=r"task.dataset='digit': .*did you mean 'digits'"):
        mnist.run_arm(plan, plan.arms[0], KEY, print, lambda: False)
