"""A zoo from a config to its report: recorded accuracies are those of the networks on disk; blocks are kept."""

import json

import jax
import numpy as np
import pytest

from sbjax import config as config_lib
from sbjax import trees
from sbjax.claims import recording
from sbjax.data import images, zoo
from sbjax.experiments.zoo import blocks, program
from sbjax.frame.errors import ConfigError
from sbjax.runner import run as runner
from sbjax.runner.sweeps import merge, plan, work

MASKS = {"kind": "w", "masks": {"dense_0/kernel": {"n_fix": 4, "kappa": 0.5}}}


def make_config(**task):
    config = config_lib.shrink(config_lib.base_config("zoo"))
    config.model = {"name": "mlp", "widths": (6,), "norm": "none"}
    config.reference, config.replicas = "standard", 7
    config.task.update(test_examples=50, **task)
    config.arms = {"standard": {}, "w": {"model": {"asymmetry": MASKS}}}
    return config


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo") / "run"
    config = make_config()
    config.task.update(activations=("relu", "tanh"))
    outcome = runner.run(config, folder)
    return folder, config, outcome


def test_recorded_accuracies_are_those_of_the_networks(made):
    data = program.standardised(images.load("digits", train_share=0.1), test_examples=50)
    for arm in ("standard", "w"):
        found = zoo.read(made[0] / "zoo" / arm)
        assert len(found) == 7
        assert set(found.hyperparameters["activation"]) == {"relu", "tanh"}
        for net in range(7):
            logits = np.asarray(found.apply(net, data.test_images))
            logs, labels = np.asarray(jax.nn.log_softmax(logits)), np.asarray(data.test_labels)
            assert found.accuracy[net, -1] == pytest.approx(np.mean(logits.argmax(1) == labels), abs=1e-6)
            assert found.loss[net, -1] == pytest.approx(-logs[np.arange(50), labels].mean(), rel=1e-5)
        short = found.hyperparameters["epochs"] == 1
        assert short.any()
        assert (found.accuracy[short, 0] == found.accuracy[short, 1]).all()


def test_kinds_share_their_hyperparameters_and_networks_their_masks(made):
    standard, w = (zoo.read(made[0] / "zoo" / arm) for arm in ("standard", "w"))
    for name, values in standard.hyperparameters.items():
        np.testing.assert_array_equal(values, w.hyperparameters[name])
    assert standard.masks is None
    mask = w.masks["dense_0"]["kernel"]
    assert (~mask).sum(0).tolist() == [4] * 6
    assert w.trainable_size == standard.size - 24
    kernel = w.params["dense_0"]["kernel"]
    assert not kernel[:, ~mask].any()
    assert kernel[:, mask].all()


def test_the_report_and_its_record(made):
    folder, _, outcome = made
    assert "standard" in outcome.table
    assert "zoo_accuracies.png" in {path.name for path in (folder / "figures").iterdir()}
    rows = recording.record_of(folder, title="x", table="cells")["rows"]
    last = 100 * zoo.read(folder / "zoo" / "w").accuracy[:, -1]
    cells = rows[1]["cells"]
    assert (cells["networks"], cells["diverged"], cells["trained"]) == (7, 0, 65 * 6 + 7 * 10 - 24)
    assert cells["accuracy"]["value"] == pytest.approx(np.median(last), abs=1e-3)
    assert cells["deviation"] == pytest.approx(last.std(), abs=1e-3)
    assert "7 networks, w" in (folder / "zoo" / "w" / "README.md").read_text()


def files(folder):
    return {path.name: path.read_bytes() for path in (folder / "zoo").rglob("*") if path.is_file()}


def test_missing_and_damaged_blocks_are_made_again_with_the_same_bytes(made, monkeypatch, tmp_path):
    """A stop after the second block; then one block is damaged, and one is gone."""
    folder, config, _ = made
    second = tmp_path / "run"
    calls, train = [], blocks.train_block
    monkeypatch.setattr(blocks, "train_block", counted(calls, train, fails_at=4))
    with pytest.raises(RuntimeError, match="power"):
        runner.run(config, second)
    assert len(calls) == 4
    with pytest.raises(FileNotFoundError, match="give one of standard in it"):
        zoo.read(second / "zoo")
    path = second / "zoo" / "standard" / "block-000004-000007.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 4
    path.write_bytes(bytes(content))
    (second / "zoo" / "standard" / "block-000000-000004.safetensors").unlink()
    calls.clear()
    monkeypatch.setattr(blocks, "train_block", counted(calls, train))
    assert runner.run(config, second).status == "done"
    assert len(calls) == 3  # two of the standard networks, and the last of the others
    assert files(second) == files(folder)
    lines = [json.loads((each / "metrics.jsonl").read_text().splitlines()[-1]) for each in (folder, second)]
    assert lines[0] == lines[1]


def counted(calls, train, fails_at=0):
    def run(programs, nets, hyper, stop):
        calls.append(nets)
        if len(calls) == fails_at:
            raise RuntimeError("power failure")
        return train(programs, nets, hyper, stop)

    return run


def test_a_signal_ends_a_block_without_a_trace(made):
    config = made[1]
    prepared = runner.prepare(config_lib.read(config))
    programs = blocks.Programs(prepared.built.arms[0], prepared.plan, jax.random.key(0))
    hyper = {name: np.zeros(2, np.int32) for name in ("activation", "optimizer", "epochs")}
    programs.prepare = lambda groups, pool: None
    assert blocks.train_block(programs, np.arange(2), hyper, lambda: True) is None


@pytest.mark.extended
def test_blocks_in_processes_of_their_own_make_the_zoo_of_one(made, tmp_path):
    """Planned as cells of a block each, worked on one by one, and merged; a zoo with a missing cell is left out."""
    folder, config, _ = made
    with pytest.raises(ConfigError, match="--block must be a multiple of task"):
        plan.plan(config, tmp_path / "wrong", block=3)
    sweep = plan.plan(config, tmp_path / "sweep", block=4).sweep
    assert [cell.label for cell in sweep.cells] == ["standard 0:4", "standard 4:7", "w 0:4", "w 4:7"]
    for cell in sweep.cells[:3]:
        assert work.work(sweep, cell) == "done"
    merged = merge.merge(sweep)
    assert [path.name for path in (merged.folder / "zoo").iterdir()] == ["standard"]
    assert work.work(sweep, sweep.cells[3]) == "done"
    merged = merge.merge(sweep)
    assert files(merged.folder) == files(folder)
    for name in ("metrics.jsonl", "arms.json", "results.csv", "summary.json"):
        assert (merged.folder / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task.learning_rate": (0.1, 0.01)}, "task.learning_rate=.0.1, 0.01. must be two numbers"),
        ({"task.weight_decay": (0.0, 0.1)}, "task.weight_decay=.* least must be > 0"),
        ({"task.activations": ("rely",)}, "'rely', did you mean 'relu'"),
        ({"task.optimizers": ("adam", "adam")}, "must hold each word once"),
        ({"task.batch_size": 1000}, "task.batch_size=1000 must be at most the 129"),
        ({"train_epochs": 2.5}, "train_epochs=2.5 must be a whole number"),
        ({"model.activation": "relu"}, "model.activation has no effect: task.activations says it"),
        ({"model.dropout": 0.1}, "model.dropout has no effect: task.dropout says it"),
        ({"model.name": "sbjax.models.zoo:StridedCNN"}, "task.dropout=.* has none; give .0, 0."),
        ({"model.asymmetry": {"kind": "sigma"}}, "FiGLU has matrices of its own"),
        ({"optimizer.learning_rate": 0.3}, "has no effect with task.kind='zoo'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(changes, said, tmp_path):
    config = make_config()
    config.arms = {"standard": {}}
    config.model.unlock()
    for path, value in changes.items():
        *parents, name = path.split(".")
        section = config
        for parent in parents:
            section = section[parent]
        with section.unlocked():
            section[name] = value
    with pytest.raises(ConfigError, match=said):
        runner.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_zoo_of_other_settings_is_not_mixed_in(made):
    with pytest.raises(ConfigError, match="another configuration"):
        runner.run(make_config(), made[0])


@pytest.mark.extended
def test_batch_statistics_are_kept(tmp_path):
    """The networks on disk have the recorded accuracies with the statistics beside them."""
    config = make_config(dropout=(0.0, 0.0))
    config.model = {"name": "mlp", "widths": (6, 5), "norm": "batch"}
    config.arms, config.replicas = {"standard": {}}, 2
    runner.run(config, tmp_path / "run")
    found = zoo.read(tmp_path / "run" / "zoo" / "standard")
    data = program.standardised(images.load("digits", train_share=0.1), test_examples=50)
    assert len(trees.flatten(found.batch_stats)) == 4
    for net in range(2):
        right = np.asarray(found.apply(net, data.test_images)).argmax(1) == np.asarray(data.test_labels)
        assert found.accuracy[net, -1] == pytest.approx(right.mean(), abs=1e-6)
