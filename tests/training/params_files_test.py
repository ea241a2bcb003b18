"""Parameters written by orbax, numpy and safetensors come back; what is damaged is named."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.flax
import safetensors.numpy

from sbjax import trees
from sbjax.training.checkpoint import Checkpoints
from sbjax.training.params_files import ParamsError, load_params

TREE = {"dense": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float32)}}


def assert_same(loaded):
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, loaded), TREE)


def test_npz_and_safetensors(tmp_path):
    np.savez(tmp_path / "a.npz", **trees.flatten(TREE))
    assert_same(load_params(tmp_path / "a.npz"))
    flat = {name.replace("/", "."): leaf for name, leaf in trees.flatten(TREE).items()}  # as PyTorch names them
    safetensors.numpy.save_file(flat, tmp_path / "a.safetensors")
    assert_same(load_params(tmp_path / "a.safetensors"))


def test_bfloat16_safetensors(tmp_path):
    safetensors.flax.save_file({"w": jnp.ones(3, jnp.bfloat16)}, tmp_path / "b.safetensors")
    assert load_params(tmp_path / "b.safetensors")["w"].dtype == jnp.bfloat16


def test_orbax_tree_step_manager_and_variables(tmp_path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "tree", TREE)
        checkpointer.save(tmp_path / "variables", {"params": TREE, "batch_stats": {"mean": np.zeros(3)}})
    assert_same(load_params(tmp_path / "tree"))
    assert_same(load_params(tmp_path / "variables"))
    with ocp.CheckpointManager(tmp_path / "manager") as manager:
        manager.save(3, args=ocp.args.StandardSave(jax.tree.map(np.zeros_like, TREE)))
        manager.save(12, args=ocp.args.StandardSave(TREE))
    assert_same(load_params(tmp_path / "manager"))
    assert np.all(np.asarray(load_params(tmp_path / "manager" / "3")["dense"]["bias"]) == 0)


def test_own_checkpoint_and_a_flipped_bit(tmp_path):
    checkpoints = Checkpoints(tmp_path / "raw")
    checkpoints.save(5, {"params": TREE, "state": {"count": np.int32(1)}}, meta={})
    checkpoints.close()
    assert_same(load_params(tmp_path / "raw"))
    file = max(
        (path for path in (tmp_path / "raw" / "5" / "params").rglob("*") if path.is_file()),
        key=lambda p: p.stat().st_size,
    )
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ParamsError, match=r"is damaged: its file .* was changed or cut off"):
        load_params(tmp_path / "raw")


def test_refusals(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.npz").write_text("x")
    (tmp_path / "a.safetensors").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("none.npz", "does not exist; give an orbax folder, .npz or .safetensors"),
        ("a.txt", "has the suffix '.txt'"),
        ("a.npz", "a.npz cannot be read"),
        ("a.safetensors", "a.safetensors is damaged or no safetensors file"),
        ("empty", "is no orbax checkpoint"),
    ):
        with pytest.raises(ParamsError, match=words):
            load_params(tmp_path / name)
    np.savez(tmp_path / "clash.npz", **{"a": np.ones(1), "a/b": np.ones(1)})
    with pytest.raises(ParamsError, match="runs through another array"):
        load_params(tmp_path / "clash.npz")
