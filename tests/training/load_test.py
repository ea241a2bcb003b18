"""Networks come back from checkpoints without task and optimiser, and nothing damaged does."""

import logging

import jax
import ml_dtypes
import numpy as np
import pytest

from sbjax import trees
from sbjax.optimizers import Adam
from sbjax.training.checkpoint import Checkpoints
from sbjax.training.checkpoint_files import CheckpointError
from sbjax.training.fit import fit
from sbjax.training.load import load_variables
from sbjax.training.placement import Placement


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        type(x) is np.ndarray and x.dtype == y.dtype and x.tobytes() == y.tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def tree(step):
    """Four replicas, in types that a careless way back would change."""
    return {
        "params": {"dense": {"kernel": np.arange(24.0).reshape(4, 3, 2) + step, "bias": np.ones((4, 2), np.float32)}},
        "frozen": {"mask": np.arange(8).reshape(4, 2) % 3 == 0, "half": np.ones((4, 1), ml_dtypes.bfloat16)},
        "hyper": {"rate": np.arange(4, dtype=np.float32)},
    }


@pytest.fixture
def folder(tmp_path):
    checkpoints = Checkpoints(tmp_path / "arm", keep=3, identity={"arm": "raw"})
    for step in (5, 10, 20):
        variables = tree(step)
        params = {"params": variables.pop("params")}
        checkpoints.save(step, {**params, "variables": variables}, meta={"history": [{"step": step}]})
    checkpoints.close()
    return tmp_path / "arm"


def test_a_training_gives_its_variables(toys, tmp_path):
    """Batch statistics too; of every replica, and the state of the optimiser plays no part."""
    checkpoints = Checkpoints(tmp_path, keep=5)
    fitted = fit(
        toys.classification(toys.Convolution()), Adam().make(0.05), steps=4, replicas=2, reports=2, saves=2,
        key=jax.random.key(1), placement=Placement(devices=1), checkpoints=checkpoints,
    )  # fmt: skip
    checkpoints.close()
    variables, meta = load_variables(tmp_path)
    assert set(variables) == {"params", "batch_stats"}
    assert same(variables, fitted.variables)
    assert (meta["step"], meta["history"], meta["failures"]) == (4, fitted.history, [])
    early, meta = load_variables(tmp_path, step=2, replica=1)
    assert meta["history"] == fitted.history[:2]
    assert jax.tree.map(np.shape, early) == jax.tree.map(lambda leaf: leaf.shape[1:], variables)
    assert not same(early["params"], trees.take(variables["params"], 1))


@pytest.mark.parametrize("step", [None, 20, 10])
@pytest.mark.parametrize("replica", [None, 0, 3])
def test_types_and_replicas(folder, step, replica):
    """float64 without x64, booleans, bfloat16; to the last bit."""
    variables, meta = load_variables(folder, step=step, replica=replica)
    expected = tree(step or 20)
    assert same(
        variables, expected if replica is None else jax.tree.map(lambda leaf: np.asarray(leaf[replica]), expected)
    )
    assert meta == {"format": 2, "identity": {"arm": "raw"}, "step": step or 20, "history": [{"step": step or 20}]}


def flip(step_folder):
    file = max(step_folder.rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    return str(file.relative_to(step_folder))


def test_damage_is_named_passed_over_and_left_where_it_is(folder, caplog):
    name = flip(folder / "20")
    files = sorted(folder.rglob("*"))
    with caplog.at_level(logging.WARNING, "sbjax"):
        assert load_variables(folder)[1]["step"] == 10
    assert f"checkpoint of step 20 in {folder} is not used: its file {name}" in caplog.text
    with pytest.raises(CheckpointError, match=f"20 is damaged: its file {name} .*; give another step: 5, 10$"):
        load_variables(folder, step=20)
    flip(folder / "10")
    flip(folder / "5")
    with pytest.raises(CheckpointError, match=r"5 is damaged: its file .*; there is no other one"):
        load_variables(folder)
    assert sorted(folder.rglob("*")) == files


@pytest.mark.parametrize(
    ("inside", "options", "error", "words"),
    [
        (".", {"step": 7}, CheckpointError, "has no checkpoint of step=7; it has 5, 10, 20$"),
        (".", {"replica": 4}, ValueError, "replica=4 is not in .*arm/20, which holds replicas 0 to 3$"),
        (".", {"replica": -1}, ValueError, "replica=-1 is not in"),
        ("..", {}, CheckpointError, "holds no checkpoint; give one of its folders arm$"),
        ("20", {}, CheckpointError, "arm/20 holds no checkpoint; give <workdir>/checkpoints/<arm>$"),
        ("none", {}, CheckpointError, "arm/none holds no checkpoint"),
    ],
)
def test_refusals(folder, inside, options, error, words):
    with pytest.raises(error, match=words):
        load_variables(folder / inside, **options)


def test_another_format(folder, monkeypatch):
    monkeypatch.setattr("sbjax.training.checkpoint_files.FORMAT", 3)
    with pytest.raises(CheckpointError, match="20 has checkpoint format 2, and this version of sbjax reads format 3"):
        load_variables(folder)
