"""Parameters written by orbax, numpy and safetensors come back; what is damaged, or no weight, is named."""

import json
import struct
import zipfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.flax
import safetensors.numpy
from flax import nnx

from sbjax import trees
from sbjax.training.checkpoint import Checkpoints
from sbjax.training.params_buffers import find_buffers
from sbjax.training.params_files import ParamsError, load_params, read_params

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
        ("x" * 300 + ".npz", "x.npz cannot be opened: File name too long; give an orbax folder"),
    ):
        with pytest.raises(ParamsError, match=words):
            load_params(tmp_path / name)


F32 = np.float32
NORM = {"weight": np.ones(4, F32), "bias": np.zeros(4, F32)}
STATISTICS = {"running_mean": np.ones(4, F32), "running_var": np.ones(4, F32), "num_batches_tracked": np.array(3)}


def torch_net():
    """As torchvision names them."""
    flat = {"conv1.weight": np.ones((4, 3, 3, 3), F32), "fc.weight": np.ones((2, 4), F32), "fc.bias": np.ones(2, F32)}
    return flat | {f"bn1.{name}": leaf for name, leaf in (NORM | STATISTICS).items()}


def test_running_statistics_are_left_out_and_said(tmp_path):
    safetensors.numpy.save_file(torch_net(), tmp_path / "a.safetensors")
    found = read_params(tmp_path / "a.safetensors")
    assert set(trees.flatten(found.params)) == {"bn1/bias", "bn1/weight", "conv1/weight", "fc/bias", "fc/weight"}
    assert set(found.left_out) == {f"bn1/{name}" for name in STATISTICS}
    assert set(found.left_out.values()) == {"running statistics"}
    kept = trees.floating(load_params(tmp_path / "a.safetensors", buffers=True))
    assert {"bn1/running_mean", "bn1/running_var"} <= kept.keys()


def sines(length, size):
    """Vaswani et al., arXiv 1706.03762, section 3.5."""
    angles = np.arange(length)[:, None] / 10_000 ** (np.arange(0, size, 2) / size)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, size)


@pytest.mark.parametrize(
    ("name", "leaf", "beside"),
    [
        ("h/0/attn/bias", np.tri(5, dtype=F32)[None, None], {}),
        ("attn/mask", np.where(np.tri(5), 0, -np.inf), {}),
        ("attn/mask", np.where(np.tri(2), 0, -1e4), {}),  # the smallest of the fills in use
        ("attn/mask", 1 - np.tri(5), {}),
        ("layers/0/rotary_emb/inv_freq", np.ones(4), {}),
        ("head/anchors", np.ones((3, 2)), {}),
        ("model_ema/fc/weight", np.ones(2), {}),
        ("bn/mean", np.ones(2), {"bn/var": np.ones(2), "bn/scale": np.ones(2)}),
        ("layer/weight/absmax", np.ones(2), {}),
        ("opt_state/0/mu/w", np.ones(2), {}),
        ("opt/0/mu/w", np.ones(2), {}),
        ("conv/weight_u", np.ones(2), {"conv/weight_orig": np.ones((2, 2))}),
        ("batch_stats/bn/mean", np.ones(2), {}),
        ("lr", np.array(0.1), {}),
        ("betas", np.ones(5), {}),
        ("model/sqrt_one_minus_alphas_cumprod", np.ones(5), {}),
        ("posterior_mean_coef2", np.ones(5), {}),
        ("pos_encoder/pe", sines(7, 8)[None], {}),  # of PyTorch's tutorial
        ("encoder/embed_positions/weight", np.concatenate([sines(7, 8)[:, ::2], sines(7, 8)[:, 1::2]], 1), {}),
        ("blocks/0/attn/relative_coords_table", np.ones((1, 3, 3, 2)), {}),
        ("mapping/w_avg", np.ones(4), {}),
    ],
)
def test_what_is_no_weight(name, leaf, beside):
    assert name in find_buffers({"w": np.ones((2, 2)), **beside, name: leaf})
    assert find_buffers({name: leaf}) == {}  # all that there is


@pytest.mark.parametrize(
    "name", ["attn/bias", "mean", "embedder/weight", "value", "weight_v", "scale", "schema/w", "posterior_mean"]
)
def test_what_is_a_weight(name):
    assert find_buffers({"w": np.ones(3), name: np.arange(9.0).reshape(3, 3)}) == {}


@pytest.mark.parametrize(
    "leaf",
    [
        np.where(np.tri(5), 0, -9999.0),
        np.where(np.tri(5), 0, 1e4),
        np.where(np.tri(5), 1, -1e4),
        np.tri(5, k=-1),
        np.tri(4, 5),
        np.tri(5) * np.arange(1, 6),
        np.array([[1.0]]),
    ],
    ids=["no fill", "wrong sign", "not zero below", "diagonal", "not square", "not constant", "one entry"],
)
def test_what_is_nearly_a_mask_is_a_weight(leaf):
    assert find_buffers({"w": np.ones(3), "attn/kernel": leaf}) == {}


def test_what_is_nearly_a_table_of_positions_is_a_weight():
    for leaf in (sines(7, 8) * 1.1, sines(7, 8) + np.eye(7, 8) * 0.1, np.eye(4), np.full((5, 6), 0.5**0.5)[:, :3]):
        assert find_buffers({"w": np.ones(3), "positions": leaf}) == {}


def test_flax_collections(tmp_path):
    variables = {"params": TREE, "batch_stats": {"mean": np.zeros(3, F32)}}
    np.savez(tmp_path / "a.npz", **trees.flatten(variables))
    found = read_params(tmp_path / "a.npz")
    assert_same(found.params)
    assert found.left_out == {"batch_stats/*": "beside 'params'"}
    assert "batch_stats" in load_params(tmp_path / "a.npz", buffers=True)


class Net(nnx.Module):
    def __init__(self):
        self.a, self.bn = nnx.Linear(4, 3, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, rngs=nnx.Rngs(0))


def test_nnx_state_through_orbax(tmp_path):
    """Named as in memory."""
    state = nnx.state(Net())
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "boxed", state)
        checkpointer.save(tmp_path / "beside", {"model": state, "optimizer": {"mu": np.ones(2, F32)}})
    beside = read_params(tmp_path / "beside")
    assert "model/a/kernel" in trees.flatten(beside.params)
    assert beside.left_out.keys() == {"model/bn/mean", "model/bn/var", "optimizer/mu"}
    found = read_params(tmp_path / "boxed")
    assert trees.flatten(found.params).keys() == trees.floating(state).keys()
    assert found.left_out.keys() == {"bn/mean", "bn/var"}


@pytest.mark.parametrize(
    ("options", "item"),
    [
        (dict(step_format_fixed_length=8), None),
        (dict(step_prefix="ckpt"), None),
        (dict(step_prefix="ckpt", step_format_fixed_length=4), "state"),
        ({}, "state"),
    ],
)
def test_steps_and_items_by_other_names(tmp_path, options, item):
    with ocp.CheckpointManager(tmp_path / "m", options=ocp.CheckpointManagerOptions(**options)) as manager:
        for step, tree in ((9, jax.tree.map(np.zeros_like, TREE)), (20, TREE)):
            saved = ocp.args.StandardSave(tree)
            manager.save(step, args=saved if item is None else ocp.args.Composite(**{item: saved}))
    assert_same(load_params(tmp_path / "m"))


def test_float64_and_foreign_byte_order_stay(tmp_path):
    wide = np.array([1.0, 1 + 1e-12])
    np.savez(tmp_path / "a.npz", w=wide, big=np.arange(3, dtype=">f4"), long=np.ones(2, np.longdouble))
    safetensors.numpy.save_file({"w": wide}, tmp_path / "a.safetensors")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "orbax", {"w": wide})
    for name in ("a.npz", "a.safetensors", "orbax"):
        leaf = trees.floating(load_params(tmp_path / name))["w"]
        assert leaf.dtype == np.float64
        np.testing.assert_array_equal(leaf, wide)
    np.testing.assert_array_equal(trees.floating(load_params(tmp_path / "a.npz"))["big"], [0, 1, 2])


def write_raw(path, entries):
    """A safetensors file by the format's own words: length, header, bytes."""
    header, blob = {}, b""
    for name, (dtype, shape, content) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(blob), len(blob) + len(content)]}
        blob += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2"), ("F8_E8M0", "float8_e8m0fnu"), ("BF16", "bfloat16")],
)
def test_floats_that_numpy_lacks(tmp_path, dtype, kind):
    values = np.array([0.5, 1.0, 2.0, 4.0], getattr(ml_dtypes, kind))
    write_raw(tmp_path / "a.safetensors", {"w": (dtype, [2, 2], values.tobytes())})
    loaded = trees.floating(load_params(tmp_path / "a.safetensors"))["w"]
    np.testing.assert_array_equal(np.asarray(loaded, F32), [[0.5, 1], [2, 4]])


def test_names_that_begin_with_another_are_kept_apart(tmp_path):
    for names in (["layer.weight", "layer.weight.absmaximum"], ["layer.weight.absmaximum", "layer.weight"]):
        arrays = {name: np.full(2, i, F32) for i, name in enumerate([*names, "norm.weight", "/c", "d."])}
        safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors")
        found = trees.flatten(load_params(tmp_path / "a.safetensors"))
        assert found.keys() == {"layer/weight", "layer/weight.absmaximum", "norm/weight", "/c", "d/"}
        for name, leaf in arrays.items():
            kept = found[name.replace(".", "/").replace("weight/abs", "weight.abs")]
            np.testing.assert_array_equal(kept, leaf)


def test_shards_by_their_index(tmp_path):
    for i, (name, leaf) in enumerate(trees.flatten(TREE).items()):
        safetensors.numpy.save_file({name.replace("/", "."): leaf}, tmp_path / f"model-{i}.safetensors")
    places = {name.replace("/", "."): f"model-{i}.safetensors" for i, name in enumerate(trees.flatten(TREE))}
    index = tmp_path / "model.safetensors.index.json"
    with pytest.raises(ParamsError, match="give one of them, or, of shards, their index"):
        load_params(tmp_path)
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert_same(load_params(tmp_path))
    assert_same(load_params(index))
    for broken, words in (
        ({**places, "x": "model-9.safetensors"}, "model-9.safetensors does not exist, and .* names it"),
        ({**places, "x": "model-0.safetensors"}, "has no array 'x'"),
        ({**places, "x": "../a.safetensors"}, "names the shard '../a.safetensors'"),
    ):
        index.write_text(json.dumps({"weight_map": broken}))
        with pytest.raises(ParamsError, match=words):
            load_params(tmp_path)
    for text in ("{", "[]", '{"weight_map": 3}', "{}"):
        index.write_text(text)
        with pytest.raises(ParamsError, match=r"index\.json cannot be read as an index of safetensors"):
            load_params(tmp_path)


def test_one_shard_of_several_is_no_model(tmp_path):
    safetensors.numpy.save_file({"w": np.ones(3, F32)}, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(ParamsError, match="shard 1 of 2, and no index; fetch the others"):
        load_params(tmp_path)
    assert load_params(tmp_path / "model-00001-of-00002.safetensors")["w"].shape == (3,)
    (tmp_path / "model-00001-of-00002.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    assert load_params(tmp_path)["w"].shape == (3,)


def test_home_and_variables_are_expanded(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", **trees.flatten(TREE))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_same(load_params("~/a.npz"))
    assert_same(load_params("$HOME/a.npz"))


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bytes(range(7, 107)), "cannot be read as .npz: it does not begin as one; it is damaged or another kind"),
        (b"PK\x02\x04" + b"0" * 60, "it does not begin as one"),
        ({}, "holds no arrays; save the weights anew"),
        ({"readme.txt": b"no array"}, "holds no arrays"),
        ({"name": np.array(["cnn"])}, "holds only text, as 'name'"),
    ],
)
def test_npz_that_is_none_or_holds_nothing(tmp_path, content, words):
    path = tmp_path / "a.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif "readme.txt" in content:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("readme.txt", content["readme.txt"])
    else:
        np.savez(path, **content)
    with pytest.raises(ParamsError, match=words) as refusal:
        load_params(path)
    assert "pickle" not in str(refusal.value)


def test_text_is_left_out_and_said(tmp_path):
    np.savez(tmp_path / "a.npz", w=np.ones(2), name=np.array("cnn"), labels=np.array([b"a", b"b"]))
    for buffers in (False, True):
        found = read_params(tmp_path / "a.npz", buffers=buffers)
        assert list(found.params) == ["w"]
        assert found.left_out == {"name": "text", "labels": "text"}


def test_a_single_box_is_opened(tmp_path):
    """As an NNX state with one Param is saved; an array that is itself named 'value' keeps its name."""
    np.savez(tmp_path / "a.npz", **{"w/value": np.ones(2)})
    assert list(trees.flatten(load_params(tmp_path / "a.npz"))) == ["w"]
    np.savez(tmp_path / "b.npz", value=np.ones(2))
    assert list(trees.flatten(load_params(tmp_path / "b.npz"))) == ["value"]


def test_whatever_a_damaged_file_raises_is_one_sentence(tmp_path):
    weights = np.random.default_rng(0).normal(size=5000)
    np.savez_compressed(tmp_path / "flipped.npz", w=weights)
    flip(tmp_path / "flipped.npz", 100)
    (tmp_path / "empty.npz").touch()
    (tmp_path / "empty.safetensors").touch()
    np.save(tmp_path / "a.npy", weights)
    (tmp_path / "a.npy").rename(tmp_path / "single.npz")
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as file:
        file.writestr("w.npy", b"\x93NUMPY")
    np.savez(tmp_path / "objects.npz", w=weights, meta=np.array([{}], object))
    np.savez(tmp_path / "half.npz", w=np.ones(2, ml_dtypes.bfloat16))
    safetensors.numpy.save_file({"a.b": weights, "a/b": weights}, tmp_path / "twice.safetensors")
    write_raw(tmp_path / "cut.safetensors", {"w": ("F32", [2], b"\0" * 8)})
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-3])
    (tmp_path / "torch").mkdir()
    for name in ("a.pt", "a.npy", "torch/pytorch_model.bin"):
        (tmp_path / name).touch()
    with ocp.StandardCheckpointer() as checkpointer:
        for name in ("no_data", "no_metadata"):
            checkpointer.save(tmp_path / name, TREE)
    for file in [path for path in (tmp_path / "no_data").rglob("*") if path.is_file() and path.parent.name == "d"]:
        file.write_bytes(b"")
    (tmp_path / "no_metadata" / "_METADATA").write_text("{")
    for name, words in {
        "flipped.npz": "cannot be read as .npz: (error|BadZipFile)",
        "empty.npz": "cannot be read as .npz: EOFError",
        "single.npz": "is a .npy, not a .npz; .*numpy.savez",
        "short.npz": "cannot be read as .npz",
        "objects.npz": r"the array 'meta' holds Python objects .*--where",
        "half.npz": r"the array 'w' has the dtype \|V2, as numpy saves bfloat16",
        "empty.safetensors": "is damaged or no safetensors file",
        "cut.safetensors": "is damaged or no safetensors file",
        "twice.safetensors": "the arrays 'a.b' and 'a/b', which are one name.*rename",
        "a.pt": "has the suffix '.pt'.*torch.load.*save_file",
        "a.npy": "numpy.savez",
        "torch": "holds pytorch_model.bin.*torch.load",
        "no_data": "(cannot be read as an orbax folder|is damaged)",
        "no_metadata": "(cannot be read as an orbax folder|is damaged)",
        "": "holds",
    }.items():
        with pytest.raises(ParamsError, match=words) as refusal:
            load_params(tmp_path / name)
        assert str(tmp_path / name) in str(refusal.value)
        assert "\n" not in str(refusal.value)
    assert list(load_params(tmp_path / "objects.npz", where="w")) == ["w"]
    with pytest.raises(ParamsError, match="is empty"):
        load_params("")


def test_steps_of_several_names_and_items_are_refused_by_name(tmp_path):
    with ocp.StandardCheckpointer() as checkpointer:
        for name in ("m/a_1", "m/b_2", "items/x", "items/y"):
            checkpointer.save(tmp_path / name, TREE)
    with pytest.raises(ParamsError, match=r"steps of several names, a_\*, b_\*; give one"):
        load_params(tmp_path / "m")
    with pytest.raises(ParamsError, match=r"holds the items x, y; give one of them"):
        load_params(tmp_path / "items")
