"""Published zoos, on files written in their formats; networks against convolutions by hand."""

import gzip
import json
import pickle

import numpy as np
import pytest
import scipy.signal

from sbjax import trees
from sbjax.common.files import FileError
from sbjax.data import zoo_published

LAYERS = {"conv2d": (3, 3, 1, 16), "conv2d_1": (3, 3, 16, 16), "conv2d_2": (3, 3, 16, 16), "dense": (16, 10)}


def small_cnn_zoo(folder):
    """Three networks with checkpoints at steps 0, 1 and 86; one lacks step 1. As TensorFlow orders arrays."""
    folder.mkdir(parents=True)
    lines, start = ["varname,start_idx,end_idx,size,shape"], 0
    for layer, shape in LAYERS.items():
        for what, own in (("bias", shape[-1:]), ("kernel", shape)):
            size = int(np.prod(own))
            said = f"({', '.join(map(str, own))}{',' if len(own) == 1 else ''})"
            lines.append(f'sequential/{layer}/{what}:0,{start},{start + size},{size},"{said}"')
            start += size
    (folder / "layout.csv").write_text("\n".join(lines) + "\n")
    rows = [(net, step) for net in range(3) for step in (0, 1, 86) if (net, step) != (1, 1)]
    weights = np.random.default_rng(0).normal(size=(len(rows), start)).astype(np.float32) / 4
    np.save(folder / "weights.npy", weights)
    names = "config.activation,config.learning_rate,config.optimizer,modeldir,step,test_accuracy,test_loss"
    table = [
        names,
        *(f"{('relu', 'tanh')[n % 2]},{10.0**-n},adam,/m/{n},{s},{s / 100 + n / 1000},{1 + n}" for n, s in rows),
    ]
    with gzip.open(folder / "metrics.csv.gz", "wt") as file:
        file.write("\n".join(table) + "\n")
    return weights


def convolved(x, kernel, bias, stride=1):
    """Without padding, by scipy: x [h, w, c]."""
    found = np.stack([
        sum(scipy.signal.correlate2d(x[:, :, i], kernel[:, :, i, o], "valid") for i in range(x.shape[2]))
        for o in range(kernel.shape[3])
    ], -1)  # fmt: skip
    return found[::stride, ::stride] + bias


def test_the_small_cnn_zoo(tmp_path):
    weights = small_cnn_zoo(tmp_path / "zoo")
    assert weights.shape[1] == 4970
    found = zoo_published.read_small_cnn_zoo(tmp_path / "zoo")
    assert (len(found), found.size, found.about["steps"]) == (3, 4970, [0, 1, 86])
    np.testing.assert_allclose(found.accuracy[:, -1], [0.86, 0.861, 0.862])
    np.testing.assert_allclose(found.accuracy[:, 1], [0.01, np.nan, 0.012])
    assert found.hyperparameters["learning_rate"].tolist() == [1.0, 0.1, 0.01]
    assert len(found.finite()) == 3
    # By hand, of the second network's last checkpoint.
    row, x = weights[4], np.random.default_rng(1).normal(size=(32, 32, 1)).astype(np.float32)
    start, arrays = 0, {}
    for layer, shape in LAYERS.items():
        for what, own in (("bias", shape[-1:]), ("kernel", shape)):
            arrays[layer, what] = row[start : start + int(np.prod(own))].reshape(own)
            start += int(np.prod(own))
    hidden = x
    for layer in ("conv2d", "conv2d_1", "conv2d_2"):
        hidden = np.tanh(convolved(hidden, arrays[layer, "kernel"], arrays[layer, "bias"], stride=2))
    logits = hidden.mean((0, 1)) @ arrays["dense", "kernel"] + arrays["dense", "bias"]
    np.testing.assert_allclose(found.apply(1, x[None])[0], logits, rtol=2e-4, atol=2e-5)
    first = zoo_published.read_small_cnn_zoo(tmp_path / "zoo", step=1, networks=1)
    np.testing.assert_array_equal(first.params["conv_0"]["bias"][0], weights[1, :16])
    assert first.accuracy.shape == (1, 2)


def test_what_is_no_small_cnn_zoo_is_told(tmp_path):
    for number, (name, content, said) in enumerate([
        ("weights.npy", None, "Python objects are not read"),
        ("layout.csv", b"varname,start_idx,end_idx,shape\nsequential/other:0,0,4,\"(4,)\"\n", "names no array"),
        ("layout.csv", b"varname,start_idx,end_idx,shape\n", "has no rows"),
        ("metrics.csv.gz", gzip.compress(b"step,modeldir\n1,a\n"), "8 rows and metrics"),
    ]):  # fmt: skip
        folder = tmp_path / str(number)
        small_cnn_zoo(folder)
        if content is None:
            np.save(folder / name, np.array([{}], object), allow_pickle=True)
        else:
            (folder / name).write_bytes(content)
        with pytest.raises(FileError, match=said):
            zoo_published.read_small_cnn_zoo(folder)
    small_cnn_zoo(tmp_path / "5")
    with pytest.raises(FileError, match="no checkpoint of step 5; give one of 0, 1, 86"):
        zoo_published.read_small_cnn_zoo(tmp_path / "5", step=5)
    (tmp_path / "5" / "metrics.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match="neither metrics"):
        zoo_published.read_small_cnn_zoo(tmp_path / "5")


STATE = {0: (8, 1, 5, 5), 3: (6, 8, 5, 5), 6: (4, 6, 2, 2), 9: (20, 36), 11: (10, 20)}


def model_zoo(folder, networks=2):
    """Networks in Schuerholt's layout, with checkpoints converted to .npz and .safetensors."""
    from safetensors.numpy import save_file

    random, states = np.random.default_rng(0), []
    for net in range(networks):
        own = folder / f"NN_tune_trainable_{net:05d}"
        (own / "checkpoint_000002").mkdir(parents=True)
        state = {}
        for number, shape in STATE.items():
            state[f"module_list.{number}.weight"] = (random.normal(size=shape) / 4).astype(np.float32)
            state[f"module_list.{number}.bias"] = random.normal(size=shape[:1]).astype(np.float32)
        if net % 2:
            np.savez(own / "checkpoint_000002" / "checkpoints.npz", **state)
        else:
            save_file(state, own / "checkpoint_000002" / "checkpoints.safetensors")
        settings = {"model::nlin": ("tanh", "leakyrelu")[net % 2], "optim::lr": 1e-3, "seed": net, "scorer": [1]}
        (own / "params.json").write_text(json.dumps(settings))
        records = [{"training_iteration": i, "test_acc": i / 10 + net / 100, "test_loss": 3 - i} for i in (1, 2)]
        (own / "result.json").write_text("".join(json.dumps(record) + "\n" for record in records))
        states.append(state)
    return states


def test_a_model_zoo(tmp_path):
    states = model_zoo(tmp_path / "zoo")
    found = zoo_published.read_model_zoo(tmp_path / "zoo", epoch=2)
    assert (len(found), found.size, found.input_shape) == (2, 2464, (28, 28, 1))
    np.testing.assert_allclose(found.accuracy, [[0.1, 0.2], [0.11, 0.21]])
    assert found.hyperparameters["activation"].tolist() == ["tanh", "leaky_relu"]
    assert sorted(found.hyperparameters) == ["activation", "optim::lr", "seed"]
    state, x = states[0], np.random.default_rng(1).normal(size=(28, 28, 1)).astype(np.float32)
    hidden = x
    for number in (0, 3, 6):
        kernel = state[f"module_list.{number}.weight"].transpose(2, 3, 1, 0)
        hidden = convolved(hidden, kernel, state[f"module_list.{number}.bias"])
        if number < 6:
            side = hidden.shape[0] // 2
            hidden = hidden.reshape(side, 2, side, 2, -1).max((1, 3))
        hidden = np.tanh(hidden)
    hidden = hidden.transpose(2, 0, 1).reshape(-1)  # as PyTorch flattens
    hidden = np.tanh(state["module_list.9.weight"] @ hidden + state["module_list.9.bias"])
    logits = state["module_list.11.weight"] @ hidden + state["module_list.11.bias"]
    np.testing.assert_allclose(found.apply(0, x[None])[0], logits, rtol=2e-4, atol=2e-5)
    assert len(zoo_published.read_model_zoo(tmp_path / "zoo", epoch=2, networks=1)) == 1
    assert set(trees.flatten(found.params)) == {
        f"{layer}/{what}" for layer in ("conv_0", "conv_1", "conv_2", "dense_0", "head") for what in ("kernel", "bias")
    }


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


def test_pickles_are_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle, "Unpickler", None)
    model_zoo(tmp_path / "zoo", networks=1)
    own = next((tmp_path / "zoo").iterdir()) / "checkpoint_000002"
    (own / "checkpoints.safetensors").unlink()
    (own / "checkpoints").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(FileError, match=r"pickle of PyTorch, which is not read.*weights_only=True"):
        zoo_published.read_model_zoo(tmp_path / "zoo", epoch=2)
    (tmp_path / "dataset.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(FileError, match="pickled data set, which is not read"):
        zoo_published.read_model_zoo(tmp_path / "dataset.pt", epoch=2)
    with pytest.raises(FileNotFoundError, match="checkpoint_000007"):
        zoo_published.read_model_zoo(tmp_path / "zoo", epoch=7)


def test_other_networks_are_told(tmp_path):
    model_zoo(tmp_path / "zoo")
    own = tmp_path / "zoo" / "NN_tune_trainable_00001" / "checkpoint_000002" / "checkpoints.npz"
    with np.load(own) as file:
        arrays = dict(file)
    np.savez(own, **{**arrays, "module_list.11.weight": np.zeros((3, 20)), "module_list.11.bias": np.zeros(3)})
    with pytest.raises(FileError, match="several shapes"):
        zoo_published.read_model_zoo(tmp_path / "zoo", epoch=2)
    np.savez(own, other=np.zeros(3))
    with pytest.raises(FileError, match="not the arrays of a CNN"):
        zoo_published.read_model_zoo(tmp_path / "zoo", epoch=2)
    own.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(FileError, match="convert it anew"):
        zoo_published.read_model_zoo(tmp_path / "zoo", epoch=2)
