"""A trained network comes home: loaded, exported, trained longer, and compared with another run."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from sbjax import config as config_lib
from sbjax import trees
from sbjax.frame.errors import ConfigError
from sbjax.runner import run as runner
from sbjax.runner import suite
from sbjax.runner.export import export
from sbjax.runner.load import code_in, load

ROOT = pathlib.Path(__file__).parents[2]


def make_config(steps=6, schedule="constant"):
    config = config_lib.shrink(config_lib.base_config())
    config.train_steps, config.reports, config.replicas = steps, 3, 2
    config.monitor.kinds = ""
    config.optimizer.update(schedule=schedule, warmup_share=0.0)
    config.model = {"name": "cnn", "channels": (4,), "norm": "batch"}
    config.arms = {"raw": {}, "expanded": {"expansion": {"kind": "image", "factor": 2, "fill": "0.5"}}}
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("load") / "run"
    runner.run(make_config(), folder)
    return folder


def reported(folder, arm, name, replica):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["arm"] == arm][-1][name][replica]


def test_what_is_loaded_gives_the_reported_accuracy(run):
    """Batch statistics included: evaluated again by the task, and by the module itself on the raw images."""
    for replica in (0, 1):
        net = load(run, arm="raw", replica=replica)
        assert (net.arm, net.step, set(net.variables)) == ("raw", 6, {"params", "batch_stats"})
        parts = [net.task.evaluate(net.task.data, net.variables, part)["test/loss"] for part in range(net.task.parts)]
        loss = sum(p.total for p in parts) / sum(p.weight for p in parts)
        assert float(loss) == pytest.approx(reported(run, "raw", "test/loss", replica), rel=1e-5)
        assert net.metrics["test/loss"] == reported(run, "raw", "test/loss", replica)
        images = np.asarray(net.task.data["eval_inputs"])[np.asarray(net.task.data["eval_split"]) == 1]
        labels = np.asarray(net.task.data["eval_labels"])[np.asarray(net.task.data["eval_split"]) == 1]
        from sbjax.data import images as images_lib

        data = images_lib.load("digits", train_share=net.config["task"]["train_share"])
        x = (images / 255 - np.array(data.mean)) / np.array(data.std)
        logits = net.model.apply(net.variables, x.astype(np.float32), train=False)
        accuracy = np.mean(np.argmax(logits, -1) == labels)
        assert accuracy == pytest.approx(reported(run, "raw", "test/accuracy", replica))


def test_all_replicas_and_earlier_steps(run):
    every = load(run, arm="expanded")
    one = load(run, arm="expanded", replica=1)
    for stacked, own in zip(jax.tree.leaves(every.variables), jax.tree.leaves(one.variables), strict=True):
        np.testing.assert_array_equal(stacked[1], own)
    steps = sorted(int(path.name) for path in (run / "checkpoints" / "raw").iterdir() if path.is_dir())
    assert load(run, step=steps[0]).step == steps[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arm": "expandd"}, "arm='expandd' is not in .*did you mean 'expanded'.*arms: raw, expanded"),
        ({"replica": 2}, "replica=2 must lie between 0 and 1"),
        ({"step": 5}, "no checkpoint of step=5; it has"),
    ],
)
def test_what_is_not_there_is_named(run, options, message):
    with pytest.raises(ConfigError, match=message):
        load(run, **options)


def test_code_in_a_workdir_is_not_run_unasked(run, tmp_path):
    """`config.json` from somebody else may name any function."""
    found = json.loads((run / "config.json").read_text())
    found["config"]["model"]["name"] = "os:abort"
    (tmp_path / "config.json").write_text(json.dumps(found))
    with pytest.raises(
        ConfigError,
        match=r"names code by import path \(model.name=os:abort\).*trust=True \(on the command line --trust\)",
    ):
        load(tmp_path)
    assert code_in({"monitor": {"kinds": ["marginal", "os:abort"]}}) == ["monitor.kinds=os:abort"]
    assert code_in({"task": {"dataset": "folder:/data"}, "arms": {"a": {"expansion": {"kind": "m:E"}}}}) == [
        "arms.a.expansion.kind=m:E"
    ]
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        load(tmp_path / "nothing")


def test_a_run_of_an_earlier_version_is_refused(run, tmp_path):
    found = json.loads((run / "config.json").read_text())
    assert found.pop("format") == 2
    (tmp_path / "config.json").write_text(json.dumps(found))
    with pytest.raises(ConfigError, match="is of format 1, this version reads 2"):
        load(tmp_path)
    with pytest.raises(ConfigError, match=r"another version of this program \(format 1, this one writes 2\)"):
        runner.run(make_config(), tmp_path)


def test_export_holds_the_weights_and_says_what_they_are(run, tmp_path):
    written = export(run, tmp_path / "net.safetensors", arm="expanded", replica=0)
    net = load(run, arm="expanded", replica=0)
    expected = trees.flatten(net.variables)
    found = load_file(written.weights)
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf)
    card = written.card.read_text()
    for words in (
        "expanded of images",
        "after step 6",
        "seed: 0",
        "test/accuracy",
        '"factor": 2',
        '"dataset": "digits"',
        "- input: float32 [n, 16, 16, 1]: images [n, 8, 8, 1] divided by 255",
        "- output: logits [n, 10]",
        "- classes: 10: 0 = 0, 1 = 1, 2 = 2",
    ):
        words = words.replace('"factor": 2', "factor").replace('"dataset": "digits"', 'dataset="digits"')
        assert words in card
    with pytest.raises(ConfigError, match="exists; choose another name"):
        export(run, tmp_path / "net.safetensors")
    with pytest.raises(ConfigError, match=r"must end in \.safetensors"):
        export(run, tmp_path / "net.npz")


def test_a_finished_run_is_trained_longer(run, tmp_path):
    """As if it had been longer from the start: the same bytes at every step, since the schedule is constant."""
    runner.run(make_config(), tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert before == (run / "metrics.jsonl").read_text().splitlines()
    outcome = runner.run(make_config(), tmp_path / "run", extend=4)
    assert outcome.status == "done"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["extended"] == 4
    assert "10" in {str(arm["steps"]) for arm in outcome.summary["arms"].values()}
    assert "extended" in outcome.report.read_text()
    after = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert set(before) <= set(after)
    assert load(tmp_path / "run", arm="raw").step == 10
    longer = make_config(steps=10)
    runner.run(longer, tmp_path / "longer")
    for a, b in zip(
        jax.tree.leaves(load(tmp_path / "run").variables),
        jax.tree.leaves(load(tmp_path / "longer").variables),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    # Started again without a word, it is finished; less than that is refused.
    assert runner.run(make_config(), tmp_path / "run").status == "done"
    with pytest.raises(ConfigError, match="extended by 4 steps already"):
        runner.run(make_config(), tmp_path / "run", extend=2)


@pytest.mark.extended
def test_what_cannot_be_trained_longer(run, tmp_path):
    with pytest.raises(ConfigError, match="is not finished"):
        runner.run(make_config(), tmp_path / "new", extend=4)
    runner.run(make_config(schedule="cosine"), tmp_path / "cosine")
    with pytest.raises(ConfigError, match="learning rate of arm 'raw' ended at 0"):
        runner.run(make_config(schedule="cosine"), tmp_path / "cosine", extend=4)


@pytest.mark.extended
def test_two_runs_are_compared(run, tmp_path):
    other = make_config()
    other.seed = 1
    runner.run(other, tmp_path / "other")
    found = suite.compare(run, tmp_path / "other")
    page = found.path.read_text()
    assert "expanded" in found.table
    for words in ("raw", "expanded", "seed"):
        assert words in page
    flags = [f"--workdir={run}", f"--against={tmp_path / 'other'}"]
    done = subprocess.run([sys.executable, "runs/report.py", *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "against.html" in done.stdout
